//! Reading a response (RFC 6749, section 5) as leniently as can be, because a rotated refresh
//! token in a response that is thrown away is lost.

mod decode;
mod fields;
mod near_json;
mod parse;
mod refused;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use ::oauth2::{ExtraTokenFields, HttpResponse, StandardTokenResponse, basic::BasicTokenType};
use bytes::Bytes;
use http::{Response, StatusCode, response::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) use self::refused::Refused;
use self::{
    decode::decode,
    fields::{Fields, value},
    parse::{Parsed, parse},
};
use crate::tokens::Tokens;

/// A token endpoint's successful response (RFC 6749, section 5.1).
pub(super) type TokenResponse = StandardTokenResponse<ExtraFields, BasicTokenType>;

/// The fields that RFC 6749 does not know.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct ExtraFields(BTreeMap<String, String>);

impl ExtraTokenFields for ExtraFields {}

// The oauth2 crate asks for it. The values may be secrets.
impl fmt::Debug for ExtraFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A response, read.
pub(super) struct Reading {
    /// As the oauth2 crate takes it: 200 with the fields of section 5.1, without the slips that
    /// servers are known for, or 400.
    pub(super) response: HttpResponse,
    /// What it says if it grants nothing.
    pub(super) refused: Refused,
    /// Whether nothing that matters can be missing: it has its end, or both tokens.
    pub(super) is_usable: bool,
    /// What is odd about it. No secret is in it.
    pub(super) oddities: Vec<&'static str>,
}

const COMPRESSED: &str = "it is compressed, although that was not asked for";

/// Reads the body of a response with this head, and decompresses it to `max` bytes at most.
/// `is_cut`: there may have been more of it.
pub(super) fn read(head: &Parts, body: Bytes, is_cut: bool, max: usize) -> Reading {
    let decoded = decode(body, &head.headers, max);
    let Parsed { fields: raw, odd, is_whole } = parse(&decoded.body, is_cut || decoded.is_cut);
    let has_both = raw.has_token("access_token") && raw.has_token("refresh_token");
    let mut is_success = head.status.is_success();
    let is_usable = is_whole || has_both || (!is_success && raw.has("error"));
    let fields = if is_usable { lenient_fields(&raw) } else { Map::new() };
    // Some servers send an error with a 200.
    is_success &= !raw.has("error") || fields.contains_key("access_token");
    let mut response = Response::new(Value::Object(fields).to_string().into_bytes());
    if !is_success {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    let mut oddities = Vec::new();
    if is_usable && !raw.0.is_empty() {
        oddities.extend(decoded.was_compressed.then_some(COMPRESSED).into_iter().chain(odd));
    }
    let readable = if is_usable { raw } else { Fields::default() };
    let refused = Refused::new(&readable, decoded.body);
    Reading { response, refused, is_usable, oddities }
}

/// The fields of a successful response (RFC 6749, section 5.1), for servers that send
/// `expires_in` in quotes or with a fraction, `scope` as a list, a number as a token, an empty
/// `refresh_token`, or no `token_type`.
fn lenient_fields(raw_fields: &Fields) -> Map<String, Value> {
    let mut lenient = Map::new();
    for (name, raw) in &raw_fields.0 {
        let value = match (name.as_str(), value(raw)) {
            (_, Some(Value::Null)) => None,
            ("expires_in", value) => value.and_then(seconds).map(Value::from),
            ("scope", value) => value.and_then(scope).map(Value::from),
            // A refresh token that is not taken over leaves the old one, which is spent.
            ("access_token" | "refresh_token", Some(Value::Number(_))) => Some(raw.as_str().into()),
            ("access_token" | "refresh_token" | "token_type", value) => {
                value.filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
            }
            (_, Some(text @ Value::String(_))) => Some(text),
            // As the server wrote it: parsed, a long number would lose digits.
            _ => Some(raw.as_str().into()),
        };
        if let Some(value) = value {
            lenient.insert(name.clone(), value);
        }
    }
    lenient.entry("token_type").or_insert_with(|| "bearer".into());
    lenient
}

fn seconds(value: Value) -> Option<u64> {
    let seconds: f64 = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (0.0..1e15).contains(&seconds).then_some(seconds as u64)
}

fn scope(value: Value) -> Option<String> {
    match value {
        Value::String(scope) => Some(scope),
        Value::Array(scopes) => {
            Some(scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}

/// The tokens in the response to a request for the scope `asked`.
pub(super) fn tokens(response: &TokenResponse, asked: Option<&str>) -> Tokens {
    let tokens = Tokens::from(response);
    match asked {
        // A server may leave it out if it is what was asked for (section 5.1).
        Some(asked) if tokens.extra("scope").is_none() => tokens.with_extra("scope", asked),
        _ => tokens,
    }
}
