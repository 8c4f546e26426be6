//! Reading an answer (RFC 6749, section 5) as leniently as can be: a rotated refresh
//! token in an answer that is thrown away is lost.

use std::{collections::BTreeMap, fmt};

use ::oauth2::{
    ExtraTokenFields, HttpResponse, StandardTokenResponse, TokenResponse as _,
    basic::BasicTokenType,
};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::tokens::Tokens;

/// A token endpoint's good answer.
pub(super) type TokenResponse = StandardTokenResponse<ExtraFields, BasicTokenType>;

/// What else an answer holds.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct ExtraFields(BTreeMap<String, String>);

impl ExtraTokenFields for ExtraFields {}

// The oauth2 crate wants it; nobody prints it.
impl fmt::Debug for ExtraFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An answer's fields as the server wrote them. One that cannot be read harms no other.
type RawFields = BTreeMap<String, Box<RawValue>>;

/// The answer as the oauth2 crate takes it: with status 200 if it is a good one, and
/// without the slips that servers are known for.
pub(super) fn normalize(response: Response<Bytes>) -> HttpResponse {
    let mut good = response.status().is_success();
    let body = response.into_body();
    let body = match parse(&body) {
        Some(fields) => {
            let answer = lenient_fields(&fields);
            // Some say what is wrong with a 200.
            good &= !fields.contains_key("error") || answer.contains_key("access_token");
            let answer = if good { answer } else { error_fields(&fields) };
            Value::Object(answer).to_string().into_bytes()
        }
        None => body.into(),
    };
    let mut response = Response::new(body);
    if !good {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

/// In spite of a byte order mark, bytes that are not UTF-8, and what follows the end.
fn parse(body: &[u8]) -> Option<RawFields> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    RawFields::deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
}

/// `expires_in` in quotes or with a fraction, `scope` as a list, a token that is a number,
/// an empty `refresh_token`, no `token_type`.
fn lenient_fields(fields: &RawFields) -> Map<String, Value> {
    let mut answer = Map::new();
    for (name, raw) in fields {
        let value = serde_json::from_str(raw.get()).ok();
        let value = match (name.as_str(), value) {
            (_, Some(Value::Null)) => None,
            ("expires_in", value) => value.and_then(seconds).map(Value::from),
            ("scope", value) => value.and_then(scope).map(Value::from),
            // To keep the old one instead would be to spend it twice.
            ("access_token" | "refresh_token", Some(Value::Number(_))) => Some(raw.get().into()),
            ("access_token" | "refresh_token" | "token_type", value) => {
                value.filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
            }
            (_, Some(text @ Value::String(_))) => Some(text),
            // To the last digit.
            _ => Some(raw.get().into()),
        };
        if let Some(value) = value {
            answer.insert(name.clone(), value);
        }
    }
    answer.entry("token_type").or_insert_with(|| "bearer".into());
    answer
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

/// What an error says (RFC 6749, section 5.2). A description that is no text must not
/// hide that the refresh token is dead.
fn error_fields(fields: &RawFields) -> Map<String, Value> {
    let text = |name: &str| serde_json::from_str(fields.get(name)?.get()).ok();
    let names = ["error", "error_description", "error_uri"].into_iter();
    names.filter_map(|name| Some((name.to_owned(), Value::String(text(name)?)))).collect()
}

/// The tokens in an answer to a request for the scope `asked`.
pub(super) fn tokens(answer: &TokenResponse, asked: Option<&str>) -> Tokens {
    let mut tokens = Tokens::new(answer.access_token().secret());
    if let Some(refresh_token) = answer.refresh_token() {
        tokens = tokens.with_refresh_token(refresh_token.secret());
    }
    if let Some(life) = answer.expires_in() {
        tokens = tokens.with_expires_in(life);
    }
    let granted = answer
        .scopes()
        .map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    // Left out if it is what was asked for (section 5.1).
    if let Some(scope) = granted.or_else(|| asked.map(str::to_owned)) {
        tokens = tokens.with_extra("scope", scope);
    }
    tokens = tokens.with_extra("token_type", answer.token_type().as_ref());
    for (name, value) in &answer.extra_fields().0 {
        tokens = tokens.with_extra(name, value);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read(body: &str) -> Option<Tokens> {
        let response = normalize(Response::new(Bytes::copy_from_slice(body.as_bytes())));
        let good = response.status() == StatusCode::OK;
        let answer = serde_json::from_slice(response.body()).ok().filter(|_| good)?;
        Some(tokens(&answer, None))
    }

    fn life(expires_in: &str) -> Option<Duration> {
        let now = SystemTime::now();
        let body = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
        let left = read(&body).unwrap().expires_at()?.duration_since(now).unwrap();
        Some(Duration::from_secs(left.as_secs()))
    }

    #[test]
    fn slips_are_forgiven() {
        assert_eq!(life("3600"), Some(Duration::from_secs(3600)));
        assert_eq!(life("3600.7"), Some(Duration::from_secs(3600)));
        assert_eq!(life("\"3600\""), Some(Duration::from_secs(3600)));
        for odd in ["null", "-1", "\"soon\"", "[]", "1e300", "\"NaN\""] {
            assert_eq!(life(odd), None, "{odd}");
        }
        let tokens = read(
            r#"{"access_token":"a","refresh_token":"","token_type":"BEARER","scope":["x","y"]}"#,
        );
        let tokens = tokens.unwrap();
        assert_eq!(tokens.refresh_token(), None);
        assert_eq!(tokens.extra("scope"), Some("x y"));
        assert_eq!(tokens.extra("token_type"), Some("bearer"));
    }

    #[test]
    fn other_fields_are_kept() {
        let tokens = read(
            r#"{"access_token":"a","token_type":"DPoP","id_token":"i","n":1,"o":{"p":[true]},"z":null,"b":12345678901234567890123}"#,
        );
        let tokens = tokens.unwrap();
        let extras: Vec<_> = tokens.extras().collect();
        assert_eq!(
            extras,
            [
                ("b", "12345678901234567890123"),
                ("id_token", "i"),
                ("n", "1"),
                ("o", r#"{"p":[true]}"#),
                ("token_type", "dpop")
            ]
        );
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":true}"#,
            r#"{"error":"bad_refresh_token"}"#,
            r#"{"error":"bad_refresh_token","access_token":null}"#,
            r#"{"access_token":"a""#,
        ] {
            assert!(read(body).is_none(), "{body}");
        }
    }
}
