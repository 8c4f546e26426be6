//! The HTTP side: [`RefreshLayer`], its service, and what they do with a request.
//!
//! [`RefreshLayer`] is the layer, [`Refresh`] its service; the rest is what can be set on the one
//! and found in the requests and responses of the other.
//!
#![doc = include_str!("order.md")]

// The order of things, from a service's `call` to the response, is drawn at the top of
// `future.rs`, and is in that file alone.
//
// | file | what is in it |
// |---|---|
// | `mod.rs`, `config.rs` | [`RefreshLayer`]: every knob; what is set, and what it means |
// | `service.rs` | [`Refresh`]: the tower service, and its clones |
// | `future.rs` | [`ResponseFuture`]: the order of things |
// | `exchange.rs` | what is known of a request, and what follows from its response |
// | `cached.rs` | the token as a service keeps it between requests |
// | `sharing.rs` | what a service shares with its futures and clones |
// | `source.rs`, `origin.rs` | which credential a request uses; where its token may go |
// | `attach.rs` | how the token goes on a request |
// | `route.rs` | which requests are of the same route |
// | `head.rs` | the copy of a request's head for its replay |
// | `classify.rs` | what a response says of the token |
// | `refusals.rs` | the words that some servers have for it |
// | `www_authenticate.rs` | the header that a refusal explains itself in |
// | `error_on_refusal.rs` | an error instead of the server's refusal |
// | `map_body.rs` | clients with a body type of their own |
// | `drain.rs` | reading a refused response to its end |
//
// Imports point one way: `mod` -> `service` -> `future` -> `exchange` -> the rest. The layer
// uses [`RefreshState`], request bodies ([`body`]) and gRPC's protocol. Of the
// crate only the middleware for reqwest uses the layer.

mod attach;
mod cached;
mod classify;
mod config;
mod drain;
mod error_on_refusal;
mod exchange;
mod future;
mod head;
mod map_body;
mod origin;
mod refusals;
mod route;
mod service;
mod sharing;
mod source;
mod www_authenticate;

use std::{fmt, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION, request::Parts};
use tower_layer::Layer;

#[cfg(feature = "in-body")]
pub(crate) use self::classify::judge_call;
#[cfg(fuzzing)]
pub(crate) use self::www_authenticate::fuzz::www_authenticate as fuzz_www_authenticate;
pub(crate) use self::{attach::Attach, config::Config};
pub use self::{
    attach::Attempt,
    classify::{Classify, ResponseHead, Verdict, classify},
    error_on_refusal::{ErrorOnRefusal, ErrorOnRefusalFuture, ErrorOnRefusalLayer, Refused},
    future::ResponseFuture,
    map_body::{MapBody, MapBodyLayer, OwnBodyLayer},
    refusals::Refusals,
    service::Refresh,
    source::{CredentialSource, FromExtensions},
};
use self::{map_body::whole, source::Source};
use crate::{
    body::{Budget, CloneBody, ReplayBody, Tee, TryCloneBody},
    credential::Credential,
    error::ConfigError,
    origin::Origin,
    state::RefreshState,
};

/// A tower layer that attaches a credential's token to requests and, when the token is
/// refused, has it refreshed once and sends each refused request again.
///
/// The layer is its own builder. Its clones, and the services it makes, share one
/// [budget](Self::replay_budget) for kept bodies.
///
/// `K` says how bodies are kept. It need not be named, unless
/// [`clone_bodies`](Self::clone_bodies) has made it a
/// [`CloneBody`].
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
    keep: K,
}

impl RefreshLayer {
    /// A layer with one credential for every request.
    pub fn new(state: Arc<RefreshState>) -> Self {
        Self { config: Config::new(Source::One(state)), keep: Tee }
    }

    /// A layer that looks for each request's own credential. A request without one passes as
    /// it is.
    pub fn per_request(source: impl CredentialSource) -> Self {
        let source = Source::PerRequest(Arc::new(source));
        Self { config: Config::new(source), keep: Tee }
    }
}

impl<K> RefreshLayer<K> {
    /// Sends the bare token in this header. (In `Authorization` it keeps its scheme, `Bearer`. For
    /// another scheme use [`attach_with`](Self::attach_with).) A request that brings this header, or
    /// an `Authorization`, is left alone. Default: `Authorization: Bearer <token>` (RFC 6750, section
    /// 2.1).
    pub fn attach_header(mut self, name: HeaderName) -> Self {
        self.config.attach = match name {
            AUTHORIZATION => Attach::BEARER,
            name => Attach::Header { name, prefix: "" },
        };
        self
    }

    /// Puts the token on the request by a closure over the request's head, which is called
    /// once for every attempt. A request that brings an `Authorization` is left alone all the
    /// same. If the closure panics, the panic goes to the request's caller and harms no other
    /// request.
    pub fn attach_with(
        mut self,
        attach: impl Fn(&mut Parts, &Credential) + Send + Sync + 'static,
    ) -> Self {
        self.config.attach = Attach::With(Arc::new(attach));
        self
    }

    /// Sends tokens to this origin only. Called again, it adds another origin. A request to any other
    /// origin passes as it is, and its 401 starts no refresh. So does a request whose URI names no
    /// origin, unless [`allow_relative`](Self::allow_relative) says otherwise; the first such request
    /// of a layer is logged as a WARN.
    ///
    /// Default: tokens go wherever the request goes, with one exception. If a layer above follows a
    /// redirect to another origin, with a clone of the service that it has called, the token stays
    /// behind. (Through a `Buffer` between the two, this layer does not see the redirect.)
    ///
    /// # Errors
    ///
    /// If the text is not a scheme and an authority, such as
    /// `https://api.example.com` or `http://localhost:8080`.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        self.config.origins.allowed.push(Origin::parse("an allowed origin", origin)?);
        Ok(self)
    }

    /// Sends tokens also with requests whose URI names no origin (`/orders`). For clients that
    /// add the origin below the layer, where no other can be meant: tonic's `Channel`, kube's
    /// client. It changes nothing without [`allow_origin`](Self::allow_origin): then every request gets its token.
    pub fn allow_relative(mut self) -> Self {
        self.config.origins.relative = true;
        self
    }

    /// Judges responses by this classifier. Default: [`classify`](classify()).
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.config.wants_uri = classify.reads_uri();
        self.config.classify = Some(Arc::new(classify));
        self
    }

    /// Says whose responses count, by a predicate over the request's head as the caller has made it.
    /// The layer asks it once a request, before the first attempt. If it says `false`, the request
    /// carries the token all the same, and its response goes to the caller as it is: a refusal starts
    /// no refresh and is no sign against the token. For routes that refuse for reasons of their own: a
    /// login, a proxy to foreign servers, a route with an API key. Default: every request.
    pub fn refresh_if(mut self, heeds: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.config.heeds = Some(Arc::new(heeds));
        self
    }

    /// Says which requests may be sent twice, by a predicate over the request's head as the caller has
    /// made it. The layer asks it once a request, before the first attempt. The 401 of a request that
    /// may not be replayed starts the refresh all the same, and has a
    /// [`NotReplayable::Forbidden`](crate::body::NotReplayable::Forbidden) in its extensions. Default:
    /// every request, because a refused request was not carried out (RFC 9110, section 15.5.2).
    pub fn replay_if(mut self, may: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.config.may_replay = Some(Arc::new(may));
        self
    }

    /// How many bytes of one request's body are kept at most. A request with a longer body is
    /// sent, and not replayed. Default: 1 MiB.
    pub fn replay_cap(mut self, bytes: usize) -> Self {
        self.config.cap = bytes;
        self
    }

    /// How many bytes all requests of this layer may keep at one time, bookkeeping included: a number,
    /// or a [`Budget`] that several layers share. A request whose body does not fit is sent, and not
    /// replayed. Default: 64 MiB for this layer alone.
    pub fn replay_budget(mut self, budget: impl Into<Budget>) -> Self {
        self.config.budget = budget.into();
        self
    }

    /// Whether first attempts, too, carry an [`Attempt`] in their extensions, as replays do. It
    /// costs three small allocations a request. Default: false.
    pub fn mark_attempts(mut self, first_too: bool) -> Self {
        self.config.marks_first = first_too;
        self
    }

    /// Keeps bodies by cloning them before they are sent, instead of teeing what they yield.
    /// For bodies whose clones are cheap and whole, such as `Full<Bytes>`.
    pub fn clone_bodies(self) -> RefreshLayer<CloneBody> {
        RefreshLayer { config: self.config, keep: CloneBody }
    }

    /// Keeps bodies by a closure that clones those that can be cloned, and leaves the body's type
    /// to the service below as it is: `B`, where otherwise it is a
    /// [`ReplayBody<B>`](crate::body::ReplayBody). For clients with a body type of their own that
    /// has such a method, such as `try_clone`. A request whose body cannot be cloned is sent, and
    /// not replayed. To be called last.
    ///
    /// What is charged to the [budget](Self::replay_budget) is the size that the body says it has
    /// at least.
    ///
    /// # Panics
    ///
    /// The service below panics if it is taken out ([`Refresh::into_inner`]) and called with a body that
    /// is not whole; [`ReplayBody::plain`](crate::body::ReplayBody::plain) makes one that is.
    ///
    /// ```
    /// use http_body_util::Full;
    /// use bytes::Bytes;
    /// use tower::{Service, ServiceBuilder};
    /// use tower_refresh::{RefreshLayer, RefreshState};
    ///
    /// # fn client<S>(state: std::sync::Arc<RefreshState>, client: S) -> impl Service<http::Request<Full<Bytes>>>
    /// # where
    /// #     S: Service<http::Request<Full<Bytes>>, Response = http::Response<Full<Bytes>>> + Clone,
    /// # {
    /// // `client` takes a `Request<Full<Bytes>>`, and so does what comes of it.
    /// RefreshLayer::new(state).try_clone_bodies(|body: &Full<Bytes>| Some(body.clone())).layer(client)
    /// # }
    /// # use tower::Layer;
    /// ```
    pub fn try_clone_bodies<B, F>(self, clone: F) -> OwnBodyLayer<B, F>
    where
        F: Fn(&B) -> Option<B> + Clone,
    {
        let layer = RefreshLayer { config: self.config, keep: TryCloneBody(clone) };
        MapBodyLayer { layer, map: whole }
    }

    /// Gives the service below the body type that it takes, made of a
    /// [`ReplayBody<B>`](crate::body::ReplayBody) by this function: for clients with a body type
    /// of their own, such as tonic's. Callers send that type, too. To be called last.
    ///
    #[cfg_attr(not(doctest), doc = include_str!("../body/tonic.md"))]
    pub fn map_body<B, F>(self, map: F) -> MapBodyLayer<F, K>
    where
        F: Fn(ReplayBody<B>) -> B + Clone,
    {
        MapBodyLayer { layer: self, map }
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn into_config(self) -> Config {
        self.config
    }
}

impl<S: Clone, K: Clone> Layer<S> for RefreshLayer<K> {
    type Service = Refresh<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Refresh::new(inner, Arc::new(self.config.clone()), self.keep.clone())
    }
}

impl<K: Clone> Clone for RefreshLayer<K> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), keep: self.keep.clone() }
    }
}

impl<K> fmt::Debug for RefreshLayer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        f.debug_struct("RefreshLayer")
            .field("origins", &config.origins.allowed)
            .field("replay_cap", &config.cap)
            .field("replay_budget", &config.budget)
            .field("mark_attempts", &config.marks_first)
            .finish_non_exhaustive()
    }
}
