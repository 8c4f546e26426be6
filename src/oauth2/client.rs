//! [`Client`]: a program as the authorization server knows it.

use std::{fmt, sync::Arc};

use ::oauth2::{
    EmptyExtraTokenFields, EndpointNotSet, EndpointSet, RequestTokenError, StandardRevocableToken,
    StandardTokenIntrospectionResponse,
    basic::{BasicErrorResponse, BasicTokenType},
    url::form_urlencoded,
};
use http::StatusCode;
use secrecy::{ExposeSecret, zeroize::Zeroizing};

use super::{
    authentication::Authentication,
    endpoint::Endpoint,
    error::{Error, ErrorKind},
    refusal::{Refusal, RefusalKind},
    response::TokenResponse,
    transport::{Bounds, Roundtrip, Transport},
};

/// The oauth2 crate's client: it makes the requests and reads the responses.
pub(super) type Messages<Revocation> = ::oauth2::Client<
    BasicErrorResponse,
    TokenResponse,
    StandardTokenIntrospectionResponse<EmptyExtraTokenFields, BasicTokenType>,
    StandardRevocableToken,
    BasicErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    Revocation,
    EndpointSet,
>;

/// Why a request failed, as the oauth2 crate has it.
pub(super) type RequestError = RequestTokenError<Error, BasicErrorResponse>;

/// The error code of a refresh token that is dead (RFC 6749, section 5.2).
const INVALID_GRANT: &str = "invalid_grant";

/// The error codes that are about the client and not about the refresh token (RFC 6749, section
/// 5.2).
const CLIENT_REFUSED_CODES: [&str; 4] =
    ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"];

/// A client of an authorization server (RFC 6749, section 1.1). Made by [`Client::builder`].
/// Cheap to clone.
///
/// The [module](super) has an example.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) transport: Box<dyn Transport>,
}

pub(super) type ClassifyRefusal = dyn Fn(&Refusal<'_>) -> Option<RefusalKind> + Send + Sync;

pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) messages: Messages<EndpointNotSet>,
    pub(super) authentication: Authentication,
    /// Space-separated, as it is sent.
    pub(super) scope: Option<String>,
    pub(super) params: Vec<(String, String)>,
    pub(super) also_rejected: Vec<String>,
    pub(super) classify_refusal: Option<Box<ClassifyRefusal>>,
    pub(super) bounds: Bounds,
}

impl Client {
    /// One request to this endpoint and its response, not sent yet.
    pub(super) fn roundtrip<'a>(&'a self, endpoint: &'a Endpoint) -> Roundtrip<'a> {
        let Settings { authentication, bounds, .. } = &self.0.settings;
        Roundtrip::new(&*self.0.transport, endpoint, authentication, *bounds)
    }

    /// Why the request failed, for the user. Neither `token`, which was sent, nor a secret of
    /// the client's is in it, even if the server's description quotes them.
    pub(super) fn error(
        &self,
        roundtrip: Roundtrip<'_>,
        error: RequestError,
        token: &str,
    ) -> Error {
        if let RequestTokenError::Request(error) = error {
            return roundtrip.with_head(error);
        }
        let refused = roundtrip.refused();
        let settings = &self.0.settings;
        let code = refused.code(|code| settings.knows(code));
        let kind = match roundtrip.status() {
            Some(status) => settings.kind_of(&Refusal { status, code, body: &refused.body }),
            None => ErrorKind::Refused,
        };
        let basic = roundtrip.basic_credentials();
        let assertion = roundtrip.assertion();
        let sent = [&basic, &assertion].into_iter().flatten().map(|it| it.expose_secret());
        let secrets = settings.secrets().chain([token]).chain(sent);
        let secrets: Zeroizing<Vec<_>> = secrets.flat_map(encodings).collect::<Vec<_>>().into();
        let description = refused.description(code);
        roundtrip.error(kind).with_error_fields(code, description, &secrets)
    }
}

impl Settings {
    /// What is sent and must not be shown: the client's secret, and every other parameter that
    /// may be an assertion or a password. A value under 8 bytes is taken for neither.
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let may_be_secret = |(name, value): &&(String, String)| {
            name != "resource" && name != "audience" && value.len() >= 8
        };
        let params = self.params.iter().filter(may_be_secret).map(|(_, value)| &**value);
        self.authentication.secret.iter().map(|secret| secret.expose_secret()).chain(params)
    }

    /// What tokens are minted for: all resources and audiences that are asked for.
    pub(super) fn minted_for(&self) -> String {
        let mut targets = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.params {
            if name == "resource" || name == "audience" {
                targets.append_pair(name, value);
            }
        }
        targets.finish()
    }

    /// What a response says that grants nothing. With a 5xx or a 429 no code says anything: a
    /// server in trouble may send any.
    fn kind_of(&self, refusal: &Refusal<'_>) -> ErrorKind {
        match self.classify_refusal.as_ref().and_then(|classify| classify(refusal)) {
            Some(RefusalKind::Rejected) => return ErrorKind::Rejected,
            Some(RefusalKind::ClientRefused) => return ErrorKind::ClientRefused,
            Some(RefusalKind::Transient) => return ErrorKind::Refused,
            None => {}
        }
        let status = refusal.status;
        let in_trouble = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        match refusal.code {
            _ if in_trouble => ErrorKind::Refused,
            None if status.is_success() => ErrorKind::Malformed,
            Some(code) if self.is_rejection(code) => ErrorKind::Rejected,
            Some(code) if CLIENT_REFUSED_CODES.contains(&code) => ErrorKind::ClientRefused,
            _ => ErrorKind::Refused,
        }
    }

    fn is_rejection(&self, code: &str) -> bool {
        code == INVALID_GRANT || self.also_rejected.iter().any(|it| it == code)
    }

    fn knows(&self, code: &str) -> bool {
        self.is_rejection(code) || CLIENT_REFUSED_CODES.contains(&code)
    }
}

/// The ways in which a server may quote a secret: as it is, and form-encoded, with `%2F` or
/// with `%2f`.
fn encodings(secret: &str) -> [String; 3] {
    let upper: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut lower = upper.clone();
    for (at, _) in upper.match_indices('%') {
        lower[at + 1..at + 3].make_ascii_lowercase();
    }
    [secret.to_owned(), upper, lower]
}

impl Settings {
    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("token_endpoint", &format_args!("{}", self.endpoint))
            .field("client_id", &self.messages.client_id().as_str())
            .field("scope", &self.scope)
            .field("timeout", &self.bounds.time)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.settings.describe(f, "Client")
    }
}
