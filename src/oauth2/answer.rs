//! Reading an answer (RFC 6749, section 5) as leniently as can be: a rotated refresh
//! token in an answer that is thrown away is lost.

use std::{collections::BTreeMap, fmt};

use ::oauth2::{
    ExtraTokenFields, HttpResponse, StandardTokenResponse, TokenResponse, basic::BasicTokenType,
};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tokens::Tokens;

/// A token endpoint's good answer.
pub(super) type Answer = StandardTokenResponse<Extra, BasicTokenType>;

/// What else an answer holds.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Extra(BTreeMap<String, Value>);

impl ExtraTokenFields for Extra {}

// The oauth2 crate wants it; nobody prints it.
impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The answer as the oauth2 crate takes it: with status 200 if it is a good one, and
/// without the slips that servers are known for.
pub(super) fn tidy(response: Response<Bytes>) -> HttpResponse {
    let mut good = response.status().is_success();
    let mut body = response.into_body().to_vec();
    if let Ok(mut answer) = serde_json::from_slice::<Map<String, Value>>(&body) {
        // Some say what is wrong with a 200.
        good &= !answer.contains_key("error") || answer.contains_key("access_token");
        if good {
            correct(&mut answer);
            body = Value::Object(answer).to_string().into_bytes();
        }
    }
    let mut response = Response::new(body);
    if !good {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

/// `expires_in` in quotes or with a fraction, `scope` as a list, an empty
/// `refresh_token`, no `token_type`.
fn correct(answer: &mut Map<String, Value>) {
    let whole = |seconds: &f64| (0.0..1e15).contains(seconds);
    let seconds = match answer.remove("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    if let Some(seconds) = seconds.filter(whole) {
        answer.insert("expires_in".into(), (seconds as u64).into());
    }
    let scope = match answer.remove("scope") {
        Some(Value::String(scope)) => Some(scope),
        Some(Value::Array(scopes)) => {
            Some(scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    if let Some(scope) = scope {
        answer.insert("scope".into(), scope.into());
    }
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    for name in ["access_token", "refresh_token"] {
        if !answer.get(name).is_some_and(is_text) {
            answer.remove(name);
        }
    }
    if !answer.get("token_type").is_some_and(is_text) {
        answer.insert("token_type".into(), "bearer".into());
    }
}

/// The tokens in an answer to a request for the scope `asked`.
pub(super) fn tokens(answer: &Answer, asked: Option<&str>) -> Tokens {
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
        tokens = match value {
            Value::Null => tokens,
            Value::String(text) => tokens.with_extra(name, text),
            other => tokens.with_extra(name, other.to_string()),
        };
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read(body: &str) -> Option<Tokens> {
        let response = tidy(Response::new(Bytes::copy_from_slice(body.as_bytes())));
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
            r#"{"access_token":"a","token_type":"DPoP","id_token":"i","n":1,"o":{"p":[true]},"z":null}"#,
        );
        let tokens = tokens.unwrap();
        let extras: Vec<_> = tokens.extras().collect();
        assert_eq!(
            extras,
            [("id_token", "i"), ("n", "1"), ("o", r#"{"p":[true]}"#), ("token_type", "dpop")]
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
            r#"{"access_token":7}"#,
            r#"{"error":"bad_refresh_token"}"#,
            r#"{"access_token":"a""#,
        ] {
            assert!(read(body).is_none(), "{body}");
        }
    }
}
