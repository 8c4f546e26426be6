//! [`ClientAssertion`]: a client that authenticates by a JWT (RFC 7523, section 2.2).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use rustls::{
    SignatureScheme,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::SigningKey,
};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde_json::json;
use sha2::Sha256;

use crate::{
    error::{BoxError, ConfigError},
    tls,
};

/// How long an assertion is good: long enough for a request and for clocks that differ.
const LIFE: Duration = Duration::from_secs(60);

/// A client that authenticates by a signed JWT, and sends no secret (RFC 7523, section 2.2):
/// `private_key_jwt` or `client_secret_jwt` (OpenID Connect Core, section 9). For
/// [`ClientBuilder::client_assertion`](super::ClientBuilder::client_assertion).
///
/// Each request has an assertion of its own, good for a minute: `iss` and `sub` are the client's
/// id, `aud` is the token endpoint's URL or what [`audience`](Self::audience) says, `jti` is
/// random.
///
/// ```
/// use tower_refresh::oauth2::{Client, ClientAssertion};
///
/// # fn example(key_pem: Vec<u8>) -> Result<(), tower_refresh::ConfigError> {
/// let assertion = ClientAssertion::private_key_jwt(key_pem)?.key_id("2026-11");
/// let builder = Client::builder("https://auth.example.com/token", "my-client")?
///     .client_assertion(assertion);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientAssertion {
    key: Key,
    key_id: Option<String>,
    audience: Option<String>,
}

#[derive(Clone)]
enum Key {
    Secret(SecretString),
    Private { key: Arc<dyn SigningKey>, scheme: SignatureScheme },
}

/// What a JWS calls its algorithms (RFC 7518, section 3.1; RFC 8037), in the order in which they
/// are tried.
const ALGORITHMS: [(SignatureScheme, &str); 5] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, "ES256"),
    (SignatureScheme::ECDSA_NISTP384_SHA384, "ES384"),
    (SignatureScheme::ED25519, "EdDSA"),
    (SignatureScheme::RSA_PKCS1_SHA256, "RS256"),
    (PS256, "PS256"),
];

const PS256: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

const NOT_A_KEY: &str = "the client's key cannot be used: it has to be one private key, PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted, and RSA, P-256, P-384 or Ed25519";

impl ClientAssertion {
    /// `private_key_jwt`: signs with the client's private key. The algorithm is the key's:
    /// `RS256` for RSA, `ES256` for P-256, `ES384` for P-384, `EdDSA` for Ed25519.
    ///
    /// The key is PEM and not encrypted: PKCS #8, PKCS #1 or SEC 1. The text is wiped from
    /// memory; the crypto provider's own copy of the key is not. The cryptography is that of the
    /// process's default provider of rustls, or of ring if there is none and the feature `ring`
    /// is on.
    ///
    /// # Errors
    ///
    /// There is no crypto provider; there is no key in the PEM, or it is none that can be used.
    /// The key is not in the error.
    pub fn private_key_jwt(key_pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let pem = Zeroizing::new(key_pem.into());
        let provider = tls::provider()?;
        // The PEM reader's error quotes the text, and is no source.
        let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| ConfigError::new(NOT_A_KEY))?;
        let key = provider.key_provider.load_private_key(der);
        let key = key.map_err(|_| ConfigError::new(NOT_A_KEY))?;
        let fits = |(scheme, _): &&(SignatureScheme, _)| key.choose_scheme(&[*scheme]).is_some();
        let &(scheme, _) = ALGORITHMS.iter().find(fits).ok_or(ConfigError::new(NOT_A_KEY))?;
        Ok(Self::new(Key::Private { key, scheme }))
    }

    /// `client_secret_jwt`: signs with the client's secret (HS256).
    pub fn client_secret_jwt(secret: impl Into<String>) -> Self {
        Self::new(Key::Secret(secret.into().into()))
    }

    fn new(key: Key) -> Self {
        Self { key, key_id: None, audience: None }
    }

    /// Which of the client's keys this is, for the server: `kid` (RFC 7515, section 4.1.4).
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Who the assertion is for: `aud`. Default: the token endpoint's URL (RFC 7523, section 3).
    /// Some servers want their issuer's name there.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Signs with RSASSA-PSS (`PS256`) rather than PKCS #1 (`RS256`).
    ///
    /// # Errors
    ///
    /// The key is not an RSA key.
    pub fn rsa_pss(mut self) -> Result<Self, ConfigError> {
        match &mut self.key {
            Key::Private { key, scheme } if key.choose_scheme(&[PS256]).is_some() => {
                *scheme = PS256;
                Ok(self)
            }
            _ => Err(ConfigError::new("the client's key is not an RSA key: it cannot sign PS256")),
        }
    }

    pub(super) fn secret(&self) -> Option<&SecretString> {
        match &self.key {
            Key::Secret(secret) => Some(secret),
            Key::Private { .. } => None,
        }
    }

    /// A new assertion (RFC 7515, section 3.1).
    pub(super) fn sign(
        &self,
        client_id: &str,
        token_endpoint: &str,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, BoxError> {
        let algorithm = match &self.key {
            Key::Secret(_) => "HS256",
            Key::Private { scheme, .. } => {
                let name = ALGORITHMS.iter().find(|(known, _)| known == scheme);
                name.map(|(_, name)| *name).unwrap_or_default()
            }
        };
        let mut header = json!({ "alg": algorithm, "typ": "JWT" });
        if let Some(key_id) = &self.key_id {
            header["kid"] = key_id.as_str().into();
        }
        let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": self.audience.as_deref().unwrap_or(token_endpoint),
            "jti": format!("{:032x}", fastrand::u128(..)),
            "iat": issued.as_secs(),
            "exp": (issued + LIFE).as_secs(),
        });
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let (header, claims) = (header.to_string(), claims.to_string());
        let mut token =
            Zeroizing::new(format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes())));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&encode(&signature));
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, BoxError> {
        let (key, scheme) = match &self.key {
            Key::Secret(secret) => {
                let mut hmac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())?;
                hmac.update(message);
                return Ok(hmac.finalize().into_bytes().to_vec());
            }
            Key::Private { key, scheme } => (key, *scheme),
        };
        let signer = key.choose_scheme(&[scheme]).ok_or(NOT_A_KEY)?;
        let signature = signer.sign(message)?;
        let length = match scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => 32,
            SignatureScheme::ECDSA_NISTP384_SHA384 => 48,
            _ => return Ok(signature),
        };
        Ok(fixed(&signature, length).ok_or("the crypto provider's signature cannot be read")?)
    }
}

/// A JWS has the two numbers of an ECDSA signature one after the other, each of full length
/// (RFC 7518, section 3.4); TLS has them in DER (RFC 8422, section 5.4).
fn fixed(der: &[u8], length: usize) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    let (SEQUENCE, numbers, []) = element(der)? else { return None };
    let (first, second, rest) = {
        let (first, rest) = integer(numbers, length)?;
        let (second, rest) = integer(rest, length)?;
        (first, second, rest)
    };
    rest.is_empty().then(|| [first, second].concat())
}

/// The number that DER begins with, in so many bytes, and what comes after it.
fn integer(der: &[u8], length: usize) -> Option<(Vec<u8>, &[u8])> {
    const INTEGER: u8 = 2;
    let (INTEGER, number, rest) = element(der)? else { return None };
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let missing = length.checked_sub(number.len())?;
    Some(([&vec![0; missing], number].concat(), rest))
}

/// A tag, its content, and what comes after it. Only lengths up to 127 are needed here.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (content, rest) = rest.split_at_checked(usize::from(length).min(0x80))?;
    (length < 0x80).then_some((tag, content, rest))
}

impl fmt::Debug for ClientAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAssertion")
            .field("key_id", &self.key_id)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::fixed;

    #[test]
    fn an_ecdsa_signature_has_both_numbers_at_full_length() {
        // A leading zero keeps a number from being negative, and small numbers are short.
        let der = [0x30, 9, 2, 4, 0, 0x81, 2, 3, 2, 1, 7];
        assert_eq!(fixed(&der, 4).unwrap(), [0, 0x81, 2, 3, 0, 0, 0, 7]);
        for bad in [
            &der[..8],
            &[0x30, 0x81, 9],
            &[0x31, 3, 2, 1, 7],
            &[0x30, 3, 2, 1, 7],
            &[0x30, 3, 3, 1, 7],
            &[],
        ] {
            assert_eq!(fixed(bad, 4), None, "{bad:?}");
        }
        assert_eq!(fixed(&der, 2), None, "too long");
    }
}
