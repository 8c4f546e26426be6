//! What a response that grants nothing says of the cause: RFC 6749, section 5.2, and the other
//! places where servers put a code.

use bytes::Bytes;
use serde_json::Value;

use super::fields::Fields;

/// A response that grants nothing.
#[derive(Default)]
pub(in crate::oauth2) struct Refused {
    /// Every code in it, that of RFC 6749 first.
    pub(in crate::oauth2) codes: Vec<String>,
    /// Its texts for people, in the order in which they are shown.
    texts: Vec<String>,
    /// The body, decompressed.
    pub(in crate::oauth2) body: Bytes,
}

/// Where servers put a code, as JSON pointers (RFC 6901).
const CODES: [&str; 13] = [
    "/error",
    "/error/code",
    "/error/type",
    "/error/error",
    "/error/status",
    "/code",
    "/errorCode",
    "/errcode",
    "/error_code",
    "/errors/0/code",
    "/errors/0/extensions/code",
    "/errors/0/type",
    "/errors/0",
];

/// Where servers put a text.
const TEXTS: [&str; 7] = [
    "/error_description",
    "/error/message",
    "/error/description",
    "/message",
    "/errors/0/message",
    "/detail",
    "/error",
];

impl Refused {
    pub(super) fn new(fields: &Fields, body: Bytes) -> Self {
        let all = |pointers: &[&str]| {
            pointers.iter().filter_map(|pointer| text_at(fields, pointer)).collect()
        };
        Self { codes: all(&CODES), texts: all(&TEXTS), body }
    }

    /// The code to tell the user: the first that is known, else the first that looks like a
    /// code, else a number, else whatever stands there.
    pub(in crate::oauth2) fn code(&self, is_known: impl Fn(&str) -> bool) -> Option<&str> {
        let mut codes = self.codes.iter().map(String::as_str);
        codes
            .clone()
            .find(|code| is_known(code))
            .or_else(|| codes.clone().find(|code| is_word(code) && !is_number(code)))
            .or_else(|| codes.clone().find(|code| is_number(code)))
            .or_else(|| codes.next())
    }

    /// The text beside this code.
    pub(in crate::oauth2) fn description(&self, code: Option<&str>) -> Option<&str> {
        self.texts.iter().map(String::as_str).find(|text| Some(*text) != code)
    }
}

fn is_word(code: &str) -> bool {
    !code.contains(char::is_whitespace)
}

fn is_number(code: &str) -> bool {
    code.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text or a number at this place. An empty text and a zero say that there is no error.
fn text_at(fields: &Fields, pointer: &str) -> Option<String> {
    let (name, rest) = match pointer[1..].find('/') {
        Some(end) => pointer[1..].split_at(end),
        None => (&pointer[1..], ""),
    };
    let value = fields.get(name)?;
    let text = match value.pointer(rest)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty() && text != "0")
}
