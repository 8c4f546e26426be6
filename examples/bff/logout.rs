//! Who has signed a logout token: the provider, by its keys. With the crate `jsonwebtoken`.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use serde_json::Value;
use tower_refresh::BoxError;

/// Checks the signature, and returns the claims. What they have to say is checked by
/// [`Sessions::back_channel_logout`](tower_refresh::session::Sessions::back_channel_logout).
pub(crate) fn verify(keys: &JwkSet, token: &str) -> Result<Vec<u8>, BoxError> {
    let id = decode_header(token)?.kid.ok_or("the token names no key")?;
    let key = keys.find(&id).ok_or("the provider has no such key")?;
    let mut validation = Validation::new(algorithm(key)?);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims: Value = decode(token, &DecodingKey::from_jwk(key)?, &validation)?.claims;
    Ok(serde_json::to_vec(&claims)?)
}

/// The key says by which algorithm it signs. Never the token: it could say that there is no signature
/// (`none`), or that what everybody knows, the public key, is a secret (`HS256`).
fn algorithm(key: &Jwk) -> Result<Algorithm, BoxError> {
    match &key.algorithm {
        AlgorithmParameters::OctetKeyPair(_) => Ok(Algorithm::EdDSA),
        AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P256 => {
            Ok(Algorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => Ok(Algorithm::RS256),
        _ => Err("a key of another kind".into()),
    }
}
