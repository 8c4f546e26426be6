//! What the authorization server signs: JWTs (RFC 7519), with a key of its own.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use openidconnect::{
    JsonWebKeyId, PrivateSigningKey,
    core::{CoreEdDsaPrivateSigningKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm},
};
use serde_json::{Value, json};
use tower_refresh::BoxError;

const KEY_ID: &str = "1";

pub(crate) struct Signer(CoreEdDsaPrivateSigningKey);

impl Signer {
    /// With a new Ed25519 key, in the form that `openidconnect` reads: the 16 bytes that say so (RFC 8410,
    /// section 7), and 32 random ones.
    pub(crate) fn new() -> Result<Self, BoxError> {
        let mut key = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
                     ________________________________";
        getrandom::fill(&mut key[16..])?;
        let body = BASE64_STANDARD.encode(key);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let id = Some(JsonWebKeyId::new(KEY_ID.into()));
        Ok(Self(CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, id)?))
    }

    /// What its signatures are checked by (RFC 7517).
    pub(crate) fn keys(&self) -> CoreJsonWebKeySet {
        CoreJsonWebKeySet::new(vec![self.0.as_verification_key()])
    }

    /// A token of this kind that says this.
    pub(crate) fn sign(&self, kind: &str, claims: &Value) -> Option<String> {
        let part = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let head = json!({ "alg": "EdDSA", "typ": kind, "kid": KEY_ID });
        let signed = format!("{}.{}", part(&head), part(claims));
        let signature = self.0.sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes());
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.ok()?)))
    }
}
