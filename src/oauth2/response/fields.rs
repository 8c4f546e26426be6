//! The fields of a response's body ([`Fields`]).

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields as the server wrote them, each a JSON text, so that one that cannot be read does not
/// keep the others from being read.
#[derive(Default)]
pub(super) struct Fields(pub(super) BTreeMap<String, String>);

impl Fields {
    /// The field's value, if it can be read.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        value(self.0.get(name)?)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a token is in this field.
    pub(super) fn has_token(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::String(token)) => !token.trim().is_empty(),
            Some(Value::Number(_)) => true,
            _ => false,
        }
    }
}

/// The value of a JSON text. Control characters in a string, which JSON wants escaped, are
/// taken as they are.
pub(super) fn value(raw: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(raw) {
        return Some(value);
    }
    let is_text_with_controls =
        raw.starts_with('"') && raw.contains(|c: char| c.is_ascii_control());
    is_text_with_controls.then(|| serde_json::from_str(&escape_controls(raw)).ok())?
}

fn escape_controls(raw: &str) -> String {
    let mut escaped = String::with_capacity(raw.len() + 8);
    for c in raw.chars() {
        match c {
            c if c.is_ascii_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}
