//! [`RefreshLayer`]: configuration, and the tower `Layer`.

mod attach;
mod cached;
mod classify;
mod config;
mod drain;
mod exchange;
mod future;
mod head;
mod origin;
mod service;
mod sharing;
mod source;
mod www_authenticate;

use std::{fmt, marker::PhantomData, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION, request::Parts};
use tower_layer::Layer;

pub(crate) use self::{attach::Attach, config::Config};
pub use self::{
    attach::Attempt,
    classify::{Classify, ResponseHead, Verdict, classify},
    future::ResponseFuture,
    service::Refresh,
    source::{CredentialSource, FromExtensions},
};
use self::{origin::Origin, source::Source};
use crate::{
    body::{Budget, Tee},
    credential::Credential,
    error::ConfigError,
    state::RefreshState,
};

/// Attaches a credential's token to requests and, when it is refused, has it
/// refreshed once and sends each request again.
///
/// The layer is its own builder. Its clones, and the services it makes, share one
/// budget for kept bodies.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::{Full, Empty};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::ReplayBody};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("new")))
///     .tokens(Tokens::new("old"))
///     .build();
///
/// let client = ServiceBuilder::new()
///     .layer(RefreshLayer::new(state))
///     .service(service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
///         let mut response = Response::new(Empty::<Bytes>::new());
///         if request.headers()["authorization"] != "Bearer new" {
///             *response.status_mut() = StatusCode::UNAUTHORIZED;
///         }
///         Ok::<_, std::convert::Infallible>(response)
///     }));
///
/// let response = client.oneshot(Request::post("/").body(Full::from("hello"))?).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub struct RefreshLayer<K = Tee> {
    config: Config,
    keep: PhantomData<fn() -> K>,
}

impl RefreshLayer {
    /// One credential for every request.
    pub fn new(state: Arc<RefreshState>) -> Self {
        Self { config: Config::new(Source::One(state)), keep: PhantomData }
    }

    /// Each request's own credential.
    pub fn per_request(source: impl CredentialSource) -> Self {
        let source = Source::PerRequest(Arc::new(source));
        Self { config: Config::new(source), keep: PhantomData }
    }
}

impl<K> RefreshLayer<K> {
    /// Sends the bare token in this header (`Authorization` keeps its scheme; another
    /// scheme takes [`attach_with`](Self::attach_with)). Default: `Authorization: Bearer <token>`
    /// (RFC 6750, section 2.1).
    pub fn attach_header(mut self, name: HeaderName) -> Self {
        self.config.attach = match name {
            AUTHORIZATION => Attach::BEARER,
            name => Attach::Header { name, prefix: "" },
        };
        self
    }

    /// Puts the token on the request by a closure over its head, once for every
    /// attempt. Requests that bring an `Authorization` are left alone all the same.
    /// If it panics, the panic goes to the request's caller and harms no other.
    pub fn attach_with(
        mut self,
        attach: impl Fn(&mut Parts, &Credential) + Send + Sync + 'static,
    ) -> Self {
        self.config.attach = Attach::With(Arc::new(attach));
        self
    }

    /// Sends tokens to this origin only, or to several when called again. Requests
    /// to others, and those whose URI names none, pass as they are, and their 401
    /// means nothing. Default: tokens go wherever the request goes.
    ///
    /// # Errors
    ///
    /// If the text is not a scheme and an authority, such as
    /// `https://api.example.com` or `http://localhost:8080`.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        self.config.origins.push(Origin::parse(origin)?);
        Ok(self)
    }

    /// Judges responses. Default: [`classify`](classify()).
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.config.classify = Some(Arc::new(classify));
        self
    }

    /// Which requests may be sent a second time, by their head. The 401 of one that
    /// may not still starts the refresh. Default: all, since a request that was
    /// refused was not carried out (RFC 9110, section 15.5.2).
    pub fn replay_if(mut self, may: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.config.may_replay = Some(Arc::new(may));
        self
    }

    /// How many bytes of one request's body are kept at most. A longer body is sent,
    /// and not replayed. Default: 1 MiB.
    pub fn replay_cap(mut self, bytes: usize) -> Self {
        self.config.cap = bytes;
        self
    }

    /// How many bytes all requests of this layer may keep at one time, bookkeeping
    /// included. A body that would pass it is sent, and not replayed. Default: 64 MiB.
    pub fn replay_budget(mut self, budget: impl Into<Budget>) -> Self {
        self.config.budget = budget.into();
        self
    }

    /// Whether requests carry an [`Attempt`] in their extensions.
    /// Turned off, it saves three small allocations a request. Default: true.
    pub fn mark_attempts(mut self, mark: bool) -> Self {
        self.config.mark_attempts = mark;
        self
    }

    /// Keeps bodies by cloning them instead of teeing what they yield. For bodies
    /// whose clones are cheap and whole, such as `Full<Bytes>`.
    pub fn clone_bodies(self) -> RefreshLayer<crate::body::CloneBody> {
        RefreshLayer { config: self.config, keep: PhantomData }
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn into_config(self) -> Config {
        self.config
    }
}

impl<S: Clone, K> Layer<S> for RefreshLayer<K> {
    type Service = Refresh<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Refresh::new(inner, Arc::new(self.config.clone()))
    }
}

impl<K> Clone for RefreshLayer<K> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), keep: PhantomData }
    }
}

impl<K> fmt::Debug for RefreshLayer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        f.debug_struct("RefreshLayer")
            .field("origins", &config.origins)
            .field("replay_cap", &config.cap)
            .field("replay_budget", &config.budget)
            .field("mark_attempts", &config.mark_attempts)
            .finish_non_exhaustive()
    }
}
