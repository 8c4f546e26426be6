//! [`ClientBuilder`]: what is set before there is a [`Client`].

use std::{fmt, sync::Arc, time::Duration};

use ::oauth2::{AuthType, ClientId, ClientSecret, EndpointNotSet, TokenUrl, url::Url};
use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tower_service::Service;

#[cfg(feature = "oauth2-client")]
use super::certificates::Certificates;
#[cfg(feature = "oauth2-jwt")]
use super::{assertion::ClientAssertion, authentication::Assertion};
use super::{
    authentication::{Authentication, basic},
    client::{Client, Inner, Messages, Settings},
    endpoint::{Endpoint, Schemes},
    refusal::{Refusal, RefusalKind},
    transport::{Bounds, TowerTransport},
};
use crate::error::{BoxError, ConfigError};

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
        ClientBuilder::new(token_endpoint, client_id.into(), Schemes::HttpsOrLoopback)
    }

    /// The same for an endpoint that may be `http` anywhere, as inside a compose network or a
    /// service mesh that encrypts by itself. Every program on the way can read the refresh token
    /// and the client's secret.
    ///
    /// # Errors
    ///
    /// The endpoint is neither an `http` nor an `https` URL, or has a fragment or user
    /// information.
    pub fn builder_allowing_http(
        token_endpoint: &str,
        client_id: impl Into<String>,
    ) -> Result<ClientBuilder, ConfigError> {
        ClientBuilder::new(token_endpoint, client_id.into(), Schemes::HttpsOrHttp)
    }
}

/// Configures a [`Client`]; begins at [`Client::builder`] and ends with
/// [`over`](Self::over), or with `build` where the feature `oauth2-client` is on.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::oauth2::Client;
///
/// let client = Client::builder("http://localhost:8080/token", "my-client")?
///     .client_secret_basic("hush")
///     .scope("orders:read")
///     .timeout(Duration::from_secs(60))
///     .build()?;
/// # let _ = client;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[must_use]
pub struct ClientBuilder {
    settings: Settings,
    #[cfg(feature = "oauth2-client")]
    pub(super) certificates: Certificates,
}

impl ClientBuilder {
    pub(super) fn new(
        token_endpoint: &str,
        client_id: String,
        schemes: Schemes,
    ) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::parse(token_endpoint, schemes)?;
        let url = TokenUrl::new(endpoint.as_https());
        let url = url.map_err(|_| ConfigError::new("an endpoint is not a URL"))?;
        let messages = messages(url, ClientId::new(client_id));
        Ok(Self {
            settings: Settings {
                endpoint,
                messages,
                authentication: Authentication::default(),
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

    /// Authenticates by HTTP Basic: `client_secret_basic` (RFC 6749, section 2.3.1).
    pub fn client_secret_basic(self, secret: impl Into<String>) -> Self {
        self.authenticate(AuthType::BasicAuth, secret.into(), None)
    }

    /// Authenticates by HTTP Basic (RFC 7617) without form-encoding the client's id and secret,
    /// which RFC 6749, section 2.3.1 asks for. It is for servers that do not decode them, such
    /// as node-oauth2-server, Doorkeeper and glewlwyd. It makes a difference only where the id or
    /// the secret has other characters than letters, digits and `*-._`.
    ///
    /// # Errors
    ///
    /// There is a colon in the client's id, which ends there for the server.
    pub fn client_secret_basic_unencoded(
        self,
        secret: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let secret = secret.into();
        let header = basic(self.settings.messages.client_id(), &secret)?;
        Ok(self.authenticate(AuthType::BasicAuth, secret, Some(header)))
    }

    /// Authenticates in the request's body: `client_secret_post` (RFC 6749,
    /// section 2.3.1).
    pub fn client_secret_post(self, secret: impl Into<String>) -> Self {
        self.authenticate(AuthType::RequestBody, secret.into(), None)
    }

    fn authenticate(mut self, how: AuthType, secret: String, header: Option<HeaderValue>) -> Self {
        let authentication = &mut self.settings.authentication;
        authentication.secret = Some(secret.as_str().into());
        authentication.header = header;
        #[cfg(feature = "oauth2-jwt")]
        {
            authentication.assertion = None;
        }
        let messages = self.settings.messages;
        self.settings.messages =
            messages.set_auth_type(how).set_client_secret(ClientSecret::new(secret));
        self
    }

    /// Authenticates by a JWT, with a new one for each request: `private_key_jwt` or
    /// `client_secret_jwt` (RFC 7523, section 2.2).
    #[cfg(feature = "oauth2-jwt")]
    pub fn client_assertion(mut self, assertion: ClientAssertion) -> Self {
        let Settings { messages, endpoint, authentication, .. } = &mut self.settings;
        let client_id = messages.client_id().to_string();
        authentication.secret = assertion.secret().cloned();
        authentication.header = None;
        authentication.assertion = Some(Assertion {
            signer: assertion,
            client_id,
            token_endpoint: endpoint.uri.to_string(),
        });
        // Without a secret that was set before.
        let (url, id) = (messages.token_uri().clone(), messages.client_id().clone());
        *messages = self::messages(url, id);
        self
    }

    /// Puts `client_id` into the request's body besides the header of HTTP Basic, for servers
    /// that refuse a client without it, such as that of the MCP SDK for TypeScript
    /// (`Missing client_id`). It is there anyway with every other way to authenticate.
    pub fn client_id_in_body(mut self) -> Self {
        let id = self.settings.messages.client_id().to_string();
        self.settings.authentication.client_id = Some(id);
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
            return Err(ConfigError::new("a parameter has a name that the client sets itself"));
        }
        self.settings.params.push((name, value.into()));
        Ok(self)
    }

    /// Takes this error code for final, too, such as GitHub's `bad_refresh_token`: the refresh is
    /// [rejected](crate::RefreshError::rejected). Called again, it adds another code.
    ///
    /// The code may stand in `error` (RFC 6749, section 5.2), or where other servers have it: in
    /// `code`, `errorCode`, `errcode` or `error_code`, inside `error` as `code`, `type`, `error`
    /// or `status`, or in the first of `errors`. A number is a code, too.
    pub fn also_rejected(mut self, code: impl Into<String>) -> Self {
        self.settings.also_rejected.push(code.into());
        self
    }

    /// A rule that says what a response without tokens means, for servers that have no error code for
    /// it. The client asks the rule first, whatever the status is. If the rule answers `None`, the
    /// error code decides as usual. Called again, it replaces the rule before.
    ///
    /// `Rejected` ends the credential until the next sign-in. So a rule should match exactly what the
    /// server answers to a dead refresh token, and nothing that a proxy or a server in trouble may
    /// answer, too.
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
    /// Default: 30 s. A response that comes later is lost, and a rotated refresh token with it, so
    /// choose a long time rather than a short one.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.bounds.time = limit;
        self
    }

    /// How many bytes a response's body may have, compressed or not. Default: 1 MiB. The client reads no
    /// more of a longer body, which counts only if both tokens were in what it has read.
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
    /// With reqwest, which goes through the environment's proxies (`HTTPS_PROXY` and the like) as
    /// the ready-made client does not:
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

/// The messages of a client that does not authenticate.
fn messages(token_endpoint: TokenUrl, id: ClientId) -> Messages<EndpointNotSet> {
    let messages = ::oauth2::Client::new(id).set_token_uri(token_endpoint);
    messages.set_auth_type(AuthType::RequestBody)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.describe(f, "ClientBuilder")
    }
}
