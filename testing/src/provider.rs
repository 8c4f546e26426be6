//! What an OpenID Connect provider signs.

use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// Of every provider's key.
const KEY_ID: &str = "1";

/// An OpenID Connect provider with a key of its own (ES256).
pub struct Provider(KeyPair);

impl Default for Provider {
    fn default() -> Self {
        Self::new()
    }
}

impl Provider {
    /// A new one.
    pub fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    /// What its signatures are checked by, as it is published (RFC 7517).
    pub fn keys(&self) -> Value {
        // One byte that says so, and both coordinates (SEC 1, section 2.3.3).
        let (x, y) = self.0.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|it| BASE64_URL_SAFE_NO_PAD.encode(it));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": KEY_ID, "x": x, "y": y }] })
    }

    /// A JWT of these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(Algorithm::ES256, &EncodingKey::from_ec_der(&self.0.serialize_der()), claims)
    }

    /// One that only looks like its own.
    pub fn sign_as(&self, algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(algorithm) };
        encode(&header, claims, key).unwrap()
    }
}

/// The claims of a good logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4), but for who
/// is meant.
pub fn logout(issuer: &str, audience: &str, id: &str) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": issuer,
        "aud": audience,
        "iat": now,
        "exp": now + 120,
        "jti": id,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    })
}
