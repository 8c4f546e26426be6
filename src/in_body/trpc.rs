//! [`Trpc`]: errors of tRPC 11, alone, in batches, in streamed batches and in subscriptions.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::{
    events::{Event, Events},
    json::{Documents, Outcome, Start},
    rule::{ContentTypes, Head, Judge, Reader, Rule, Said},
};
use crate::layer::Verdict;

/// Errors of tRPC 11: one whose `data.code` is `UNAUTHORIZED`, or what else is named here, is a
/// refusal, with a transformer such as superjson or without one.
///
/// - A call, and a batch that was refused as a whole, are [challenges](Verdict::Challenge). (The
///   server says 401 as well, except behind a proxy or a hook that changes it.)
/// - A batch of which only a part was refused (the server says 207) is
///   [`RefreshOnly`](Verdict::RefreshOnly).
/// - A streamed batch (`httpBatchStreamLink`), which is a 200 whatever is in it, is judged when
///   each call of it has been answered. If some have been refused when the
///   [hold](super::InBodyLayer::hold) is over, the others may be under way: `RefreshOnly`. Once
///   a call was carried out the stream waits no longer, and the rule looks only at what came with
///   that call.
/// - A subscription (`text/event-stream`) is a challenge if a refusal is its first event.
///
/// ```
/// use tower_refresh::in_body::{InBodyLayer, Trpc};
///
/// let layer = InBodyLayer::new().rule(Trpc::new().also_code("TOKEN_EXPIRED"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Trpc {
    codes: Vec<String>,
    content_types: ContentTypes,
}

impl Trpc {
    /// Knows the code `UNAUTHORIZED`.
    pub fn new() -> Self {
        Self {
            codes: vec!["UNAUTHORIZED".to_owned()],
            content_types: ContentTypes::new(["application/json", "application/jsonl"]),
        }
    }

    /// Errors with this `data.code` are refusals, too.
    pub fn also_code(mut self, code: impl Into<String>) -> Self {
        self.codes.push(code.into());
        self
    }

    /// Whether an error is a refusal.
    fn refuses(&self, error: &Value) -> bool {
        let code = untransformed(error).pointer("/data/code").and_then(Value::as_str);
        code.is_some_and(|code| self.codes.iter().any(|known| known == code))
    }

    fn outcome(&self, answer: &Value) -> Outcome {
        match answer.get("error") {
            Some(error) if self.refuses(error) => Outcome::Refused,
            _ => Outcome::Done,
        }
    }
}

impl Default for Trpc {
    fn default() -> Self {
        Self::new()
    }
}

/// What a transformer has made of a value: `{"json": ..., "meta": ...}`.
fn untransformed(value: &Value) -> &Value {
    value.get("json").unwrap_or(value)
}

impl From<Trpc> for Rule {
    fn from(rule: Trpc) -> Self {
        Self::new("Trpc", Arc::new(rule))
    }
}

impl Judge for Arc<Trpc> {
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        let rule = Arc::clone(self);
        if head.is_event_stream() {
            return Some(Box::new(EventReader { rule, events: Events::default() }));
        }
        let looks = self.content_types.has(head.content_type()) && !head.is_too_long();
        looks.then(|| {
            let answers =
                Answers { rule, in_part: head.status == StatusCode::MULTI_STATUS, lines: None };
            Box::new(AnswerReader { answers, documents: Documents::default() }) as Box<dyn Reader>
        })
    }
}

struct AnswerReader {
    answers: Answers,
    documents: Documents,
}

struct Answers {
    rule: Arc<Trpc>,
    /// Whether the status says that the calls of a batch have fared differently.
    in_part: bool,
    lines: Option<Lines>,
}

/// A streamed batch. Its first line names a number for each call, and a line with that number
/// follows: `{"0":[[0],[null,0,0]]}`, `[0,0,[[{"error":...}]]]`.
struct Lines {
    pending: Vec<u64>,
    /// Of the calls that were answered.
    outcome: Option<Outcome>,
}

impl Reader for AnswerReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        let Self { answers, documents } = self;
        let mut said = None;
        documents.feed(bytes, |document| {
            let document = serde_json::from_slice(document).unwrap_or_default();
            let this = answers.document(&document);
            said = Some(this);
            matches!(this, Said::More | Said::Glance)
        });
        match (said, documents.start()) {
            (_, Start::NotOne | Start::Other) => Said::Nothing,
            // The same if all has come in one piece.
            (_, Start::Key { key, in_array }) if !answers.may_begin(key, *in_array) => {
                Said::Nothing
            }
            _ => said.unwrap_or_else(|| answers.so_far()),
        }
    }

    fn end(&mut self) -> Option<Verdict> {
        match self.answers.lines.as_ref()?.outcome? {
            Outcome::Refused | Outcome::InPart => Some(Verdict::RefreshOnly),
            Outcome::Done => None,
        }
    }
}

impl Answers {
    /// Whether answers that may be refused begin with this key.
    fn may_begin(&self, key: &[u8], in_array: bool) -> bool {
        match key {
            b"error" => true,
            b"result" => in_array,
            key => !in_array && (key == b"json" || key.iter().all(u8::is_ascii_digit)),
        }
    }

    fn document(&mut self, document: &Value) -> Said {
        if self.lines.is_some() {
            return self.line(untransformed(document));
        }
        let outcome = match document {
            Value::Array(answers) => {
                Outcome::of_all(answers.iter().map(|answer| self.rule.outcome(answer)))
            }
            answer if answer.get("error").is_some() => Some(self.rule.outcome(answer)),
            first => {
                self.lines = Lines::begin(untransformed(first));
                return if self.lines.is_some() { Said::More } else { Said::Nothing };
            }
        };
        match outcome {
            Some(Outcome::Refused) if self.in_part => Outcome::InPart.said(),
            outcome => outcome.map_or(Said::Nothing, Outcome::said),
        }
    }

    fn line(&mut self, line: &Value) -> Said {
        let Some(lines) = &mut self.lines else { return Said::Nothing };
        let number = line.get(0).and_then(Value::as_u64);
        if let Some(at) = lines.pending.iter().position(|pending| Some(*pending) == number) {
            lines.pending.swap_remove(at);
            let outcome =
                line.pointer("/2/0/0").map_or(Outcome::Done, |answer| self.rule.outcome(answer));
            lines.outcome = Outcome::of_all(lines.outcome.into_iter().chain([outcome]));
        }
        self.so_far()
    }

    /// What the calls say that were answered by now.
    fn so_far(&self) -> Said {
        let Some(lines) = &self.lines else { return Said::More };
        match lines.outcome {
            Some(outcome) if outcome == Outcome::InPart || lines.pending.is_empty() => {
                outcome.said()
            }
            Some(Outcome::Done) => Said::Glance,
            _ => Said::More,
        }
    }
}

impl Lines {
    /// By the first line of a streamed batch. `None` if this is none.
    fn begin(first: &Value) -> Option<Self> {
        let calls = first.as_object().filter(|calls| !calls.is_empty())?;
        let number = |call: &Value| call.pointer("/1/2").and_then(Value::as_u64);
        let pending = calls.values().map(number).collect::<Option<_>>()?;
        Some(Self { pending, outcome: None })
    }
}

struct EventReader {
    rule: Arc<Trpc>,
    events: Events,
}

impl Reader for EventReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        let Self { rule, events } = self;
        let mut said = Said::More;
        events.feed(bytes, |Event { name, data }| {
            let error = match &*name {
                // They say nothing of what was asked for.
                b"connected" | b"ping" => return true,
                b"serialized-error" => serde_json::from_slice(&data).unwrap_or_default(),
                _ => Value::Null,
            };
            let refused = rule.refuses(&error);
            said = if refused { Said::Found(Verdict::Challenge) } else { Said::Nothing };
            false
        });
        said
    }
}
