//! [`Client`]: a program as the authorization server knows it.

use std::{fmt, sync::Arc, time::Duration};

use ::oauth2::{
    AuthType, ClientId, ClientSecret, EmptyExtraTokenFields, EndpointNotSet, EndpointSet,
    RequestTokenError, StandardRevocableToken, StandardTokenIntrospectionResponse, TokenUrl,
    basic::{BasicErrorResponse, BasicTokenType},
    url::{Url, form_urlencoded},
};
use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode};
use http_body::Body;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tower_service::Service;

#[cfg(feature = "oauth2-client")]
use super::certificates::Certificates;
use super::{
    endpoint::Endpoint,
    error::{Error, ErrorKind},
    refusal::{Refusal, RefusalKind},
    response::TokenResponse,
    transport::{Bounds, Roundtrip, TowerTransport, Transport},
};
use crate::error::{BoxError, ConfigError};

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

/// The parameters that this module sets, and [`ClientBuilder::param`] must not.
const RESERVED_PARAMS: [&str; 7] = [
    "grant_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "scope",
    "token",
    "token_type_hint",
];

/// A client of an authorization server (RFC 6749, section 1.1). Made by [`Client::builder`].
/// Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) transport: Box<dyn Transport>,
}

/// Configures a [`Client`]; begins at [`Client::builder`] and ends with
/// [`over`](Self::over), or with `build` where the feature `oauth2-client` is on.
#[must_use]
pub struct ClientBuilder {
    settings: Settings,
    #[cfg(feature = "oauth2-client")]
    pub(super) certificates: Certificates,
}

type ClassifyRefusal = dyn Fn(&Refusal<'_>) -> Option<RefusalKind> + Send + Sync;

pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) messages: Messages<EndpointNotSet>,
    secret: Option<SecretString>,
    /// Space-separated, as it is sent.
    pub(super) scope: Option<String>,
    pub(super) params: Vec<(String, String)>,
    also_rejected: Vec<String>,
    classify_refusal: Option<Box<ClassifyRefusal>>,
    bounds: Bounds,
}

impl Client {
    /// Begins with the token endpoint (RFC 6749, section 3.2) and the client's id. The client
    /// is a public one, which does not authenticate, unless a method of the builder says how.
    ///
    /// # Errors
    ///
    /// The endpoint is not an `https` URL (on loopback: `http` or `https`), or has a fragment
    /// or user information.
    pub fn builder(
        token_endpoint: &str,
        client_id: impl Into<String>,
    ) -> Result<ClientBuilder, ConfigError> {
        let endpoint = Endpoint::parse(token_endpoint)?;
        let url = TokenUrl::new(endpoint.as_https());
        let url = url.map_err(|_| ConfigError::new("an endpoint is not a URL"))?;
        let messages = ::oauth2::Client::new(ClientId::new(client_id.into()))
            .set_token_uri(url)
            .set_auth_type(AuthType::RequestBody);
        Ok(ClientBuilder {
            settings: Settings {
                endpoint,
                messages,
                secret: None,
                scope: None,
                params: Vec::new(),
                also_rejected: Vec::new(),
                classify_refusal: None,
                bounds: Bounds { time: Duration::from_secs(30), bytes: 1 << 20 },
            },
            #[cfg(feature = "oauth2-client")]
            certificates: Certificates::default(),
        })
    }

    /// One request to this endpoint and its response, not sent yet.
    pub(super) fn roundtrip<'a>(&'a self, endpoint: &'a Endpoint) -> Roundtrip<'a> {
        Roundtrip::new(&*self.0.transport, endpoint, self.0.settings.bounds)
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
        let basic = basic.as_ref().map(|basic| basic.expose_secret());
        let secrets = settings.secrets().chain([token]).chain(basic);
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
        self.secret.iter().map(|secret| secret.expose_secret()).chain(params)
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

impl ClientBuilder {
    /// Authenticates by HTTP Basic: `client_secret_basic` (RFC 6749, section 2.3.1).
    pub fn client_secret_basic(self, secret: impl Into<String>) -> Self {
        self.authenticate(AuthType::BasicAuth, secret.into())
    }

    /// Authenticates in the request's body: `client_secret_post` (RFC 6749,
    /// section 2.3.1).
    pub fn client_secret_post(self, secret: impl Into<String>) -> Self {
        self.authenticate(AuthType::RequestBody, secret.into())
    }

    fn authenticate(mut self, how: AuthType, secret: String) -> Self {
        self.settings.secret = Some(secret.as_str().into());
        let messages = self.settings.messages;
        self.settings.messages =
            messages.set_auth_type(how).set_client_secret(ClientSecret::new(secret));
        self
    }

    /// The scope to ask for, separated by spaces (RFC 6749, section 3.3). Default: none is
    /// sent. The server then grants its default scope, and for a refresh the one it granted
    /// before.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.settings.scope = Some(scope.into());
        self
    }

    /// The URI of an API that the token is for: `resource` (RFC 8707, section 2). Called
    /// again, it adds another.
    ///
    /// # Errors
    ///
    /// The URI is not absolute, or has a fragment.
    pub fn resource(mut self, uri: impl Into<String>) -> Result<Self, ConfigError> {
        let uri = uri.into();
        let parsed = Url::parse(&uri);
        let parsed = parsed.map_err(|_| ConfigError::new("a resource is not an absolute URI"))?;
        if parsed.fragment().is_some() {
            return Err(ConfigError::new("a resource has a fragment"));
        }
        self.settings.params.push(("resource".into(), uri));
        Ok(self)
    }

    /// The name of an API that the token is for: `audience` (as in RFC 8693, section 2.1).
    /// Called again, it adds another.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.settings.params.push(("audience".into(), audience.into()));
        self
    }

    /// Another parameter of the token request (RFC 6749, section 8.2). Called again, it adds
    /// another.
    ///
    /// # Errors
    ///
    /// The name is one of those that are set otherwise: `grant_type`, `refresh_token`,
    /// `client_id`, `client_secret`, `scope`, `token`, `token_type_hint`.
    pub fn param(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let name = name.into();
        if RESERVED_PARAMS.contains(&&*name) {
            return Err(ConfigError::new("a parameter is one that is set otherwise"));
        }
        self.settings.params.push((name, value.into()));
        Ok(self)
    }

    /// Takes another error code for final, such as GitHub's `bad_refresh_token`: the refresh
    /// is [rejected](crate::RefreshError::rejected). Called again, it adds another.
    ///
    /// The code may stand in `error` (RFC 6749, section 5.2), or where other servers have it: in
    /// `code`, `errorCode`, `errcode` or `error_code`, inside `error` as `code`, `type`, `error`
    /// or `status`, or in the first of `errors`. A number is a code, too.
    pub fn also_rejected(mut self, code: impl Into<String>) -> Self {
        self.settings.also_rejected.push(code.into());
        self
    }

    /// Says what a response means that grants nothing, for servers that have no code for it.
    /// The rule is asked first, of any status; where it has no answer, the code decides as
    /// usual. Called again, it replaces the one before.
    ///
    /// A refusal that is taken for rejected ends the credential until the next sign-in. So a
    /// rule should name exactly what the server answers to a dead refresh token, and nothing
    /// that a proxy, or a server in trouble, may answer too.
    ///
    /// ```
    /// use tower_refresh::oauth2::{Client, RefusalKind};
    ///
    /// # fn example() -> Result<(), tower_refresh::ConfigError> {
    /// // glewlwyd answers every error with an empty 400.
    /// let builder = Client::builder("https://auth.example.com/token", "my-client")?
    ///     .classify_refusal(|refusal| {
    ///         let is_bare = refusal.status() == 400 && refusal.body().is_empty();
    ///         is_bare.then_some(RefusalKind::Rejected)
    ///     });
    /// # Ok(()) }
    /// ```
    pub fn classify_refusal(
        mut self,
        rule: impl Fn(&Refusal<'_>) -> Option<RefusalKind> + Send + Sync + 'static,
    ) -> Self {
        self.settings.classify_refusal = Some(Box::new(rule));
        self
    }

    /// How long a request may take, from being sent to the last byte of the response.
    /// Default: 30 s. A response that comes later is lost, and a rotated refresh token with
    /// it, so rather too long than too short.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.bounds.time = limit;
        self
    }

    /// How many bytes a response's body may have, compressed or not. Default: 1 MiB. Of a
    /// longer one no more is read: it counts only if all that matters was in what came.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.settings.bounds.bytes = bytes;
        self
    }

    /// Sends over this tower HTTP service, whose request body can be made of [`Bytes`]. Each
    /// request goes to a clone of it, which is polled ready first.
    ///
    /// The service should not follow redirects: secrets would go where the server says. It must
    /// not be one that attaches this credential's token, or a refresh would wait for itself.
    ///
    /// With reqwest:
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let http = tower::service_fn(move |request: http::Request<reqwest::Body>| {
    ///     let http = http.clone();
    ///     async move { http.execute(request.try_into()?).await.map(http::Response::from) }
    /// });
    /// let client = tower_refresh::oauth2::Client::builder("https://auth.example.com/token", "me")?
    ///     .over(http);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn over<S, B, ResBody>(self, service: S) -> Client
    where
        S: Service<Request<B>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        ResBody: Body + Send + 'static,
        ResBody::Data: Buf + Send,
        ResBody::Error: Into<BoxError>,
    {
        Client(Arc::new(Inner {
            settings: self.settings,
            transport: Box::new(TowerTransport::new(service)),
        }))
    }

    #[cfg(feature = "oauth2-client")]
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoint
    }
}

impl Settings {
    fn describe(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
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

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.describe(f, "ClientBuilder")
    }
}
