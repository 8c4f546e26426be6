//! [`GraphQl`]: errors of GraphQL, which come in a 200 or in any other status.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::{
    events::Events,
    json::{Documents, Outcome, Start},
    rule::{ContentTypes, Head, Judge, Reader, Rule, Said},
};

/// Errors of GraphQL (the specification of October 2021, section 7.1): one whose
/// `extensions.code` is `UNAUTHENTICATED`, or what else is named here, is a refusal.
///
/// If nothing was carried out it is a [challenge](crate::layer::Verdict::Challenge): there is no
/// `data`, or all that was asked for is `null` because it was refused. Otherwise (there is other
/// data beside the refusal, another error, or what was refused lies below a field that was carried
/// out) it is [`RefreshOnly`](crate::layer::Verdict::RefreshOnly). Of several answers in an array
/// all have to be refused.
///
/// If `data` is `null` as a whole, earlier fields of a mutation may still have been carried out before
/// the field that was refused. If your server refuses field by field, leave mutations of several
/// fields out by [`replay_if`](crate::RefreshLayer::replay_if).
///
/// It looks at `application/json`, `application/graphql-response+json` and the first event of a
/// `text/event-stream`, which is a subscription's.
///
/// ```
/// use tower_refresh::in_body::{GraphQl, InBodyLayer};
///
/// let layer = InBodyLayer::new().rule(GraphQl::new().also_message("Signature has expired"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GraphQl {
    codes: Vec<String>,
    messages: Vec<String>,
    content_types: ContentTypes,
}

impl GraphQl {
    /// Knows the code `UNAUTHENTICATED`.
    pub fn new() -> Self {
        Self {
            codes: vec!["UNAUTHENTICATED".to_owned()],
            messages: Vec::new(),
            content_types: ContentTypes::new([
                "application/json",
                "application/graphql-response+json",
            ]),
        }
    }

    /// Errors with this `extensions.code` are refusals, too.
    pub fn also_code(mut self, code: impl Into<String>) -> Self {
        self.codes.push(code.into());
        self
    }

    /// Errors with this `message` are refusals, too: the whole text, as the server has it. For
    /// servers that send no code.
    pub fn also_message(mut self, message: impl Into<String>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// Looks also at this content type.
    pub fn also_content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Self {
        self.content_types.push(content_type);
        self
    }

    fn verdict(&self, document: &[u8]) -> Said {
        // Nearly all answers: not worth parsing.
        if !document.windows(8).any(|window| window == b"\"errors\"") {
            return Said::Nothing;
        }
        let outcome = match serde_json::from_slice(document) {
            Ok(Value::Array(answers)) => {
                Outcome::of_all(answers.iter().map(|answer| self.outcome(answer)))
            }
            Ok(answer) => Some(self.outcome(&answer)),
            Err(_) => None,
        };
        outcome.map_or(Said::Nothing, Outcome::said)
    }

    fn outcome(&self, answer: &Value) -> Outcome {
        let Some(Value::Array(errors)) = answer.get("errors") else { return Outcome::Done };
        if !errors.iter().any(|error| self.is_refusal(error)) {
            return Outcome::Done;
        }
        // The field of the query itself that an error belongs to. An error without a path is of
        // the whole, and one with a longer path of something that a field has come to.
        let root = |error: &Value| match error.get("path") {
            None | Some(Value::Null) => Some(None),
            Some(Value::Array(path)) if path.is_empty() => Some(None),
            Some(Value::Array(path)) if path.len() == 1 => {
                Some(path[0].as_str().map(str::to_owned))
            }
            _ => None,
        };
        let mut fields = Vec::new();
        for error in errors {
            match root(error).filter(|_| self.is_refusal(error)) {
                Some(field) => fields.extend(field),
                None => return Outcome::InPart,
            }
        }
        let all_refused = match answer.get("data") {
            None | Some(Value::Null) => true,
            Some(Value::Object(data)) => {
                data.iter().all(|(name, value)| value.is_null() && fields.contains(name))
            }
            Some(_) => false,
        };
        if all_refused { Outcome::Refused } else { Outcome::InPart }
    }

    fn is_refusal(&self, error: &Value) -> bool {
        let text = |pointer| error.pointer(pointer).and_then(Value::as_str);
        let has = |known: &[String], text: Option<&str>| {
            text.is_some_and(|text| known.iter().any(|known| known == text))
        };
        has(&self.codes, text("/extensions/code")) || has(&self.messages, text("/message"))
    }
}

impl Default for GraphQl {
    fn default() -> Self {
        Self::new()
    }
}

impl From<GraphQl> for Rule {
    fn from(rule: GraphQl) -> Self {
        Self::new("GraphQl", Arc::new(rule))
    }
}

impl Judge for Arc<GraphQl> {
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        let rule = Arc::clone(self);
        if head.is_event_stream() {
            return Some(Box::new(EventReader { rule, events: Events::default() }));
        }
        let looks = self.content_types.has(head.content_type()) && !head.is_too_long();
        looks.then(|| {
            Box::new(AnswerReader { rule, documents: Documents::default() }) as Box<dyn Reader>
        })
    }
}

struct AnswerReader {
    rule: Arc<GraphQl>,
    documents: Documents,
}

impl Reader for AnswerReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::More;
        self.documents.feed(bytes, |document| {
            said = self.rule.verdict(document);
            false
        });
        // How it begins comes first: so the verdict is the same if all has come in one piece.
        match self.documents.start() {
            Start::Key { key, .. } if !is_key(key) => Said::Nothing,
            Start::Other | Start::NotOne => Said::Nothing,
            _ => said,
        }
    }
}

/// Whether an answer of GraphQL begins so.
fn is_key(key: &[u8]) -> bool {
    matches!(key, b"errors" | b"data" | b"extensions")
}

struct EventReader {
    rule: Arc<GraphQl>,
    events: Events,
}

impl Reader for EventReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::More;
        self.events.feed(bytes, |event| {
            said = self.rule.verdict(&event.data);
            false
        });
        said
    }
}
