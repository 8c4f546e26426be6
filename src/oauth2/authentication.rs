//! How a client authenticates (RFC 6749, section 2.3), where the oauth2 crate has no word for it.

#[cfg(feature = "oauth2-jwt")]
use std::time::SystemTime;

use ::oauth2::{ClientId, HttpRequest, url::form_urlencoded};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header::AUTHORIZATION};
use secrecy::{SecretString, zeroize::Zeroizing};

#[cfg(feature = "oauth2-jwt")]
use super::assertion::ClientAssertion;
use crate::error::{BoxError, ConfigError};

/// What is added to each request that the oauth2 crate makes.
#[derive(Default)]
pub(super) struct Authentication {
    /// For errors, which must not show it.
    pub(super) secret: Option<SecretString>,
    /// `Authorization`, in the place of the oauth2 crate's.
    pub(super) header: Option<HeaderValue>,
    /// The client's id, if it has to be in the body beside that header.
    pub(super) client_id: Option<String>,
    #[cfg(feature = "oauth2-jwt")]
    pub(super) assertion: Option<Assertion>,
}

/// What signs, and what it says of whom.
#[cfg(feature = "oauth2-jwt")]
pub(super) struct Assertion {
    pub(super) signer: ClientAssertion,
    pub(super) client_id: String,
    pub(super) token_endpoint: String,
}

/// What is sent and must not be shown in an error.
pub(super) type Sent = Option<Zeroizing<String>>;

impl Authentication {
    /// Adds it to a request that is about to be sent, and returns an assertion that is in it.
    pub(super) fn add_to(&self, request: &mut HttpRequest) -> Result<Sent, BoxError> {
        if let Some(header) = &self.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let is_in_header = request.headers().contains_key(AUTHORIZATION);
        if let Some(id) = self.client_id.as_ref().filter(|_| is_in_header) {
            add_field(request.body_mut(), "client_id", id);
        }
        self.add_assertion(request.body_mut())
    }

    #[cfg(feature = "oauth2-jwt")]
    fn add_assertion(&self, form: &mut Vec<u8>) -> Result<Sent, BoxError> {
        let Some(Assertion { signer, client_id, token_endpoint }) = &self.assertion else {
            return Ok(None);
        };
        let signed = signer.sign(client_id, token_endpoint, SystemTime::now())?;
        // RFC 7523, section 2.2.
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        add_field(form, "client_assertion_type", kind);
        add_field(form, "client_assertion", &signed);
        Ok(Some(signed))
    }

    #[cfg(not(feature = "oauth2-jwt"))]
    fn add_assertion(&self, _: &mut Vec<u8>) -> Result<Sent, BoxError> {
        Ok(None)
    }
}

fn add_field(form: &mut Vec<u8>, name: &str, value: &str) {
    let field = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    form.push(b'&');
    form.extend(field.as_bytes());
}

/// The header of HTTP Basic (RFC 7617, section 2).
pub(super) fn basic(id: &ClientId, secret: &str) -> Result<HeaderValue, ConfigError> {
    if id.contains(':') {
        return Err(ConfigError::new(
            "there is a colon in the client's id: HTTP Basic needs it encoded",
        ));
    }
    let pair = Zeroizing::new(format!("{}:{secret}", id.as_str()));
    let header = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(&*pair)));
    let mut header = header.map_err(|_| ConfigError::new("the client's secret is too long"))?;
    header.set_sensitive(true);
    Ok(header)
}
