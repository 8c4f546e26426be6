//! Reads the fields out of a response's body: of a JSON object, of what was meant as one, or of a form.

use std::collections::BTreeMap;

use ::oauth2::url::form_urlencoded;
use serde::de::IgnoredAny;
use serde_json::{Value, value::RawValue};

use super::{
    fields::{Fields, value},
    near_json::{self, Object},
};

/// What a body says, and how well it says it.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) fields: Fields,
    /// What is odd about it.
    pub(super) odd: Option<&'static str>,
    /// Whether its end was seen.
    pub(super) is_whole: bool,
}

const FORM: &str = "it is form-encoded";
const NEAR_JSON: &str = "it is almost JSON";
const SEARCHED: &str = "it is not JSON, so the client searched it for the tokens";

/// What is searched for in a text that is not JSON.
const SEARCHED_FOR: [&str; 5] =
    ["access_token", "refresh_token", "expires_in", "token_type", "scope"];

/// Reads a body in spite of a byte order mark, bytes that are not UTF-8, and anything after its
/// end. `is_cut`: there may have been more of it.
pub(super) fn parse(body: &[u8], is_cut: bool) -> Parsed {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let Object { mut fields, unread, open, rest } = match json(text) {
        // Where in it the tokens are would be a guess, if they are not at its top.
        Some((fields, rest)) if !names_a_token(rest) => {
            return Parsed { fields, odd: None, is_whole: true };
        }
        Some((fields, rest)) => Object { fields, rest: Some(rest), ..near_json::object(text) },
        None if is_json(text) => return Parsed::default(),
        None => near_json::object(text),
    };
    // A form has no end of its own: the last token in it may be a part of one.
    if let Some(fields) = form(text).filter(|_| !is_cut) {
        return Parsed { fields, odd: Some(FORM), is_whole: true };
    }
    let is_whole = rest.is_some_and(|rest| !names_a_token(rest));
    let has_both = fields.has_token("access_token") && fields.has_token("refresh_token");
    // An error may quote tokens, and a page may have any.
    if (is_whole && has_both) || has_error(&fields, text) || is_page(text) {
        return Parsed { fields, odd: Some(NEAR_JSON), is_whole };
    }
    let mut odd = NEAR_JSON;
    for name in SEARCHED_FOR {
        if let Some(raw) = near_json::find(unread, open, name).filter(|_| !fields.has(name)) {
            fields.0.insert(name.to_owned(), raw.to_owned());
            odd = SEARCHED;
        }
    }
    Parsed { fields, odd: Some(odd), is_whole }
}

/// The fields of the JSON object that the text begins with, and what comes after it.
fn json(text: &str) -> Option<(Fields, &str)> {
    let deserializer = serde_json::Deserializer::from_str(text);
    let mut objects = deserializer.into_iter::<BTreeMap<String, Box<RawValue>>>();
    let fields = objects.next()?.ok()?;
    let fields = fields.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect();
    Some((Fields(fields), &text[objects.byte_offset()..]))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether it is an error. Some servers send an empty one with what they grant.
fn has_error(fields: &Fields, text: &str) -> bool {
    let is_empty = |raw: &str| value(raw).is_some_and(|it| it.is_null() || it == "");
    const NAME: &str = "\"error\"";
    match fields.0.get("error") {
        Some(raw) => !is_empty(raw),
        None => text
            .match_indices(NAME)
            .any(|(at, _)| !near_json::value_at(text, at + NAME.len()).is_some_and(is_empty)),
    }
}

/// Whether a token comes after what was taken for the end of the object.
fn names_a_token(rest: &str) -> bool {
    rest.contains("\"access_token\"") || rest.contains("\"refresh_token\"")
}

/// The fields of a form, if it is one that a token endpoint may send.
fn form(text: &str) -> Option<Fields> {
    let text = text.trim_end();
    if text.contains(|c: char| c.is_whitespace() || matches!(c, '{' | '<' | '"')) {
        return None;
    }
    let fields: BTreeMap<_, _> = form_urlencoded::parse(text.as_bytes())
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()).to_string()))
        .collect();
    let is_answer = fields.contains_key("access_token") || fields.contains_key("error");
    is_answer.then_some(Fields(fields))
}

fn is_page(text: &str) -> bool {
    let start: String = text.chars().take(500).collect();
    let start = start.to_ascii_lowercase();
    start.contains("<html") || start.contains("<!doctype")
}
