//! What a logout token has to say ([`check`]).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};

use super::LogoutError;
use crate::session::index::IndexKey;

/// How far two servers' clocks are apart at most.
const SKEW: u64 = 120;

/// For how long a logout token may be under way that does not say until when it counts.
const MAX_AGE: u64 = 600;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What a logout token has to say (section 2.4).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: f64,
    exp: Option<f64>,
    jti: String,
    events: Map<String, Value>,
    sub: Option<String>,
    sid: Option<String>,
    /// Whatever it is.
    #[serde(default, rename = "nonce", deserialize_with = "is_there")]
    has_nonce: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// `null`, too, is there.
fn is_there<'de, D: Deserializer<'de>>(claim: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(claim).map(|_| true)
}

/// One that is good.
pub(super) struct Logout {
    pub(super) jti: String,
    pub(super) key: IndexKey,
    /// Until when the same token could come again.
    pub(super) until: SystemTime,
}

/// The rules of section 2.6, but for the signature.
pub(super) fn check(
    claims: &[u8],
    issuer: &str,
    audience: &str,
    now: u64,
) -> Result<Logout, LogoutError> {
    let no = LogoutError::Token;
    let claims: Claims =
        serde_json::from_slice(claims).map_err(|_| no("a claim is missing or of another kind"))?;
    let is_for_us = match &claims.aud {
        Audience::One(one) => one == audience,
        Audience::Many(many) => many.iter().any(|one| one == audience),
    };
    if claims.iss != issuer {
        return Err(no("it is another issuer's"));
    }
    if !is_for_us {
        return Err(no("it is for another audience"));
    }
    if !claims.events.get(EVENT).is_some_and(Value::is_object) {
        return Err(no("it is no logout event"));
    }
    if claims.has_nonce {
        return Err(no("it has a nonce, as an ID token has"));
    }
    // A number that is no moment becomes the first or the last one.
    let (issued, end) = (claims.iat as u64, claims.exp.map(|end| end as u64));
    let end = end.unwrap_or(issued.saturating_add(MAX_AGE));
    if issued > now + SKEW {
        return Err(no("it is of the future"));
    }
    if end.saturating_add(SKEW) < now {
        return Err(no("it has run out"));
    }
    let key = match (claims.sid, claims.sub) {
        (Some(sid), _) => IndexKey::Sid { issuer: claims.iss, sid },
        (None, Some(subject)) => IndexKey::Sub { issuer: claims.iss, subject },
        (None, None) => return Err(no("it says neither whose session nor which")),
    };
    // One that says that it counts for ever is remembered for ten years.
    let left = end.saturating_add(SKEW).saturating_sub(now).clamp(1, 10 * 365 * 24 * 3600);
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(now + left);
    Ok(Logout { jti: claims.jti, key, until })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn good() -> Value {
        json!({
            "iss": "https://id", "aud": "app", "iat": NOW, "exp": NOW + 120, "jti": "j1",
            "events": { EVENT: {} }, "sub": "alice", "sid": "s1",
        })
    }

    fn checked(claims: &Value) -> Result<IndexKey, String> {
        let logout = check(claims.to_string().as_bytes(), "https://id", "app", NOW);
        logout.map(|logout| logout.key).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_one_says_which_session_or_whose() {
        let (issuer, sid) = ("https://id".to_owned(), "s1".to_owned());
        assert_eq!(checked(&good()), Ok(IndexKey::Sid { issuer: issuer.clone(), sid }));
        let mut by_user = good();
        by_user.as_object_mut().unwrap().remove("sid");
        let subject = "alice".to_owned();
        assert_eq!(checked(&by_user), Ok(IndexKey::Sub { issuer, subject }));
        for (name, value) in [
            ("aud", json!(["other", "app"])),
            ("iat", json!(NOW + SKEW)),
            ("exp", json!(NOW - SKEW)),
            ("exp", json!(1e300)),
            ("iat", json!(NOW as f64 - 0.5)),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert!(checked(&claims).is_ok(), "{claims}");
        }
    }

    #[test]
    fn any_other_is_refused() {
        for (name, value) in [
            ("iss", json!("https://other")),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("iat", json!(NOW + SKEW + 1)),
            ("iat", json!("now")),
            ("exp", json!(NOW - SKEW - 1)),
            ("events", json!({})),
            ("events", json!({ EVENT: true })),
            ("events", json!([EVENT])),
            ("nonce", json!("n")),
            ("nonce", json!("")),
            ("nonce", json!(null)),
            ("jti", json!(1)),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert!(checked(&claims).is_err(), "{claims}");
        }
        for name in ["iss", "aud", "iat", "jti", "events"] {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(name);
            assert!(checked(&claims).is_err(), "without {name}");
        }
        let mut of_nobody = good();
        of_nobody.as_object_mut().unwrap().retain(|name, _| name != "sub" && name != "sid");
        assert!(checked(&of_nobody).is_err());
        let mut old = good();
        old.as_object_mut().unwrap().remove("exp");
        old["iat"] = json!(NOW - MAX_AGE - SKEW - 1);
        assert!(checked(&old).is_err());
    }
}
