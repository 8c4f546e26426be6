//! [`JsonPointer`]: APIs that have a place of their own for an error's word.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::{
    json::{Documents, Start},
    rule::{ContentTypes, Head, Judge, Reader, Rule, Said},
};
use crate::{error::ConfigError, layer::Verdict};

/// A JSON document with one of some values at one place is a [challenge](Verdict::Challenge): for
/// APIs that have a place of their own for an error's word, such as Slack, which says
/// `{"ok":false,"error":"token_expired"}` in a 200.
///
/// The place is a JSON pointer (RFC 6901). A value is a text, or a number in digits
/// (`"errcode": 42001`). It looks at `application/json` and at types that end in
/// `+json`.
///
/// ```
/// use tower_refresh::in_body::{InBodyLayer, JsonPointer};
///
/// let slack = JsonPointer::new("/error", ["token_expired", "invalid_auth"])?;
/// let layer = InBodyLayer::new().rule(slack);
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JsonPointer {
    pointer: String,
    values: Vec<String>,
    content_types: ContentTypes,
}

impl JsonPointer {
    /// Looks at this place for one of these values.
    ///
    /// # Errors
    ///
    /// If the text is no JSON pointer: it is neither empty nor begins with a slash, or has a `~`
    /// that is followed by neither 0 nor 1.
    pub fn new<V: Into<String>>(
        pointer: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, ConfigError> {
        let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !(pointer.is_empty() || pointer.starts_with('/')) || !escapes {
            let reason = "a JSON pointer is empty or begins with a slash, and has `~0` for `~` \
                          (RFC 6901): `/error/code`";
            return Err(ConfigError::new(reason));
        }
        Ok(Self {
            pointer: pointer.to_owned(),
            values: values.into_iter().map(Into::into).collect(),
            content_types: ContentTypes::new(["application/json"]),
        })
    }

    /// Looks also at this content type, such as `text/plain`.
    pub fn also_content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Self {
        self.content_types.push(content_type);
        self
    }

    fn looks_at(&self, content_type: &str) -> bool {
        let suffix = content_type.len().checked_sub(5).and_then(|at| content_type.get(at..));
        suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
            || self.content_types.has(content_type)
    }

    fn finds(&self, document: &[u8]) -> bool {
        let Ok(document) = serde_json::from_slice::<Value>(document) else { return false };
        match document.pointer(&self.pointer) {
            Some(Value::String(text)) => self.values.contains(text),
            Some(Value::Number(number)) => self.values.contains(&number.to_string()),
            _ => false,
        }
    }
}

impl From<JsonPointer> for Rule {
    fn from(rule: JsonPointer) -> Self {
        Self::new("JsonPointer", Arc::new(rule))
    }
}

impl Judge for Arc<JsonPointer> {
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        let looks = self.looks_at(head.content_type()) && !head.is_too_long();
        looks.then(|| {
            let documents = Documents::default();
            Box::new(PointerReader { rule: Arc::clone(self), documents }) as Box<dyn Reader>
        })
    }
}

struct PointerReader {
    rule: Arc<JsonPointer>,
    documents: Documents,
}

impl Reader for PointerReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::More;
        self.documents.feed(bytes, |document| {
            let found = self.rule.finds(document);
            said = if found { Said::Found(Verdict::Challenge) } else { Said::Nothing };
            false
        });
        if *self.documents.start() == Start::NotOne { Said::Nothing } else { said }
    }
}
