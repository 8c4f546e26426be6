//! Reading a response (RFC 6749, section 5) as leniently as can be, because a rotated refresh
//! token in a response that is thrown away is lost.

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

/// A response's fields as the server wrote them, so that one that cannot be read does not keep
/// the others from being read.
type RawFields = BTreeMap<String, Box<RawValue>>;

/// The response as the oauth2 crate takes it: 200 with the fields of section 5.1, or 400 with
/// those of section 5.2, and without the slips that servers are known for. A body that is not
/// JSON stays as it is.
pub(super) fn normalize(response: Response<Bytes>) -> HttpResponse {
    let mut is_success = response.status().is_success();
    let body = response.into_body();
    let body = match parse(&body) {
        Some(raw) => {
            let fields = lenient_fields(&raw);
            // Some servers send an error with a 200.
            is_success &= !raw.contains_key("error") || fields.contains_key("access_token");
            let fields = if is_success { fields } else { error_fields(&raw) };
            Value::Object(fields).to_string().into_bytes()
        }
        None => body.into(),
    };
    let mut response = Response::new(body);
    if !is_success {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

/// Reads a JSON object in spite of a byte order mark, bytes that are not UTF-8, and anything
/// after its end.
fn parse(body: &[u8]) -> Option<RawFields> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    RawFields::deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
}

/// The fields of a successful response (RFC 6749, section 5.1), for servers that send
/// `expires_in` in quotes or with a fraction, `scope` as a list, a number as a token, an empty
/// `refresh_token`, or no `token_type`.
fn lenient_fields(raw_fields: &RawFields) -> Map<String, Value> {
    let mut lenient = Map::new();
    for (name, raw) in raw_fields {
        let value = serde_json::from_str(raw.get()).ok();
        let value = match (name.as_str(), value) {
            (_, Some(Value::Null)) => None,
            ("expires_in", value) => value.and_then(seconds).map(Value::from),
            ("scope", value) => value.and_then(scope).map(Value::from),
            // A refresh token that is not taken over leaves the old one, which is spent.
            ("access_token" | "refresh_token", Some(Value::Number(_))) => Some(raw.get().into()),
            ("access_token" | "refresh_token" | "token_type", value) => {
                value.filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
            }
            (_, Some(text @ Value::String(_))) => Some(text),
            // As the server wrote it: parsed, a long number would lose digits.
            _ => Some(raw.get().into()),
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

/// The fields of an error response (RFC 6749, section 5.2). One that is not a text is left out,
/// so that it does not hide that the refresh token is dead.
fn error_fields(raw_fields: &RawFields) -> Map<String, Value> {
    let text = |name: &str| serde_json::from_str(raw_fields.get(name)?.get()).ok();
    let names = ["error", "error_description", "error_uri"].into_iter();
    names.filter_map(|name| Some((name.to_owned(), Value::String(text(name)?)))).collect()
}

/// The tokens in the response to a request for the scope `asked`.
pub(super) fn tokens(response: &TokenResponse, asked: Option<&str>) -> Tokens {
    let mut tokens = Tokens::new(response.access_token().secret());
    if let Some(refresh_token) = response.refresh_token() {
        tokens = tokens.with_refresh_token(refresh_token.secret());
    }
    if let Some(life) = response.expires_in() {
        tokens = tokens.with_expires_in(life);
    }
    let granted = response
        .scopes()
        .map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    // A server may leave it out if it is what was asked for (section 5.1).
    if let Some(scope) = granted.or_else(|| asked.map(str::to_owned)) {
        tokens = tokens.with_extra("scope", scope);
    }
    tokens = tokens.with_extra("token_type", response.token_type().as_ref());
    for (name, value) in &response.extra_fields().0 {
        tokens = tokens.with_extra(name, value);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn tokens_in(body: &str) -> Option<Tokens> {
        let response = normalize(Response::new(Bytes::copy_from_slice(body.as_bytes())));
        let good = response.status() == StatusCode::OK;
        let response = serde_json::from_slice(response.body()).ok().filter(|_| good)?;
        Some(tokens(&response, None))
    }

    fn life(expires_in: &str) -> Option<Duration> {
        let now = SystemTime::now();
        let body = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
        let left = tokens_in(&body).unwrap().expires_at()?.duration_since(now).unwrap();
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
        let tokens = tokens_in(
            r#"{"access_token":"a","refresh_token":"","token_type":"BEARER","scope":["x","y"]}"#,
        );
        let tokens = tokens.unwrap();
        assert_eq!(tokens.refresh_token(), None);
        assert_eq!(tokens.extra("scope"), Some("x y"));
        assert_eq!(tokens.extra("token_type"), Some("bearer"));
    }

    #[test]
    fn other_fields_are_kept() {
        let tokens = tokens_in(
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
    fn what_is_no_token_response_is_none() {
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
            assert!(tokens_in(body).is_none(), "{body}");
        }
    }
}
