//! Keeps a service's credential alive.
//!
//! A [tower] layer that attaches an access token to requests. When the token is refused, or
//! has run out, it is refreshed **once**, however many requests found out at the same time,
//! and each of them is sent again with the new one. A rotated refresh token that has reached
//! the process is never lost, and one that it has replaced is never spent again.
//!
//! - [`RefreshState`] is one credential: its tokens, its generation, the refresh under way.
//!   It works without HTTP, too.
//! - [`RefreshLayer`] puts it in front of any tower service: hyper-util's client, a tonic
//!   channel, an axum router; and of reqwest.
//! - A [`Refresher`] redeems: an OAuth 2.0 grant (`oauth2`), or an async closure. A
//!   [`TokenStore`](store::TokenStore) keeps the tokens; memory is the default.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `file` | `FileStore`: tokens in files, shared by processes |
//! | `oauth2` | OAuth 2.0 grants and revocation, over a tower HTTP service of yours |
//! | `oauth2-client` | a ready-made HTTP client for them, and `oauth2` |
//! | `reqwest-middleware` | `RefreshMiddleware`, the layer for reqwest |
//! | `redis` | `RedisStores`: tokens in Redis, shared by replicas |
//! | `redis-tls`, `redis-cluster` | `rediss://`; Redis clusters; and `redis` |
//! | `test-util` | `store::conformance`: the tests that every store has to pass |
//! | `full` | all of them |
//!
//! # Example
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::{RefreshError, RefreshLayer, RefreshState, Tokens};
//!
//! # async fn redeem(_: &str) -> Result<Tokens, std::io::Error> { Ok(Tokens::new("")) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let state = RefreshState::builder(async |spent: Tokens| {
//!     let refresh_token = spent.refresh_token().unwrap_or_default();
//!     redeem(refresh_token).await.map_err(RefreshError::transient)
//! })
//! .tokens(Tokens::new("access").with_refresh_token("refresh"))
//! .build();
//!
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(state))
//!     .service(Client::builder(TokioExecutor::new()).build_http());
//!
//! let request = Request::post("http://api.example.com/").body(Full::<Bytes>::from("hello"))?;
//! let response = client.oneshot(request).await?;
//! # Ok(()) }
//! ```
//!
//! # Rules
//!
//! - **One refresh a generation.** A 401 names the generation its request carried; if a newer
//!   one is there, the request is replayed at once and nothing is refreshed.
//! - **A refresh outlives its callers.** It runs in a task of its own. Dropping a request,
//!   even the first, neither stops it nor loses its result.
//! - **Save, then publish.** New tokens are stored before anyone gets them. If the save fails,
//!   the save is tried again, never the redeem.
//! - **Sign-in and sign-out win** over a refresh under way.
//! - **A body is replayed byte for byte or not at all**, and then the caller gets the original
//!   response. What is kept for it is bounded, for one request and for all.
//! - **Nothing hidden.** If there is no fresh token, the caller gets the server's own answer,
//!   with a [`RefreshFailure`] or a [`NotReplayable`](body::NotReplayable) in its extensions.
//!
//! # Caveats
//!
//! - The refresher must not send its own request through the layer it serves: it would wait
//!   for itself.
//! - The request body's type becomes [`ReplayBody<B>`](body::ReplayBody). A client with a
//!   fixed body type takes one line to map it; see [`body`].
//! - `B` must be `Unpin`. Wrap a body that is not in `Box::pin`.
//!
//! # Map of the files
//!
//! | file | what is in it |
//! |---|---|
//! | `layer.rs`, `config.rs` | [`RefreshLayer`]: every knob; what its services share |
//! | `service.rs` | [`Refresh`]: what happens synchronously, in `call` |
//! | `future.rs` | [`ResponseFuture`]: the order of things |
//! | `exchange.rs` | what is kept of a request, and what follows from a response |
//! | `source.rs`, `attach.rs`, `origin.rs` | which credential; how and where its token is attached |
//! | `classify.rs`, `challenge.rs` | what a response means for the token; `WWW-Authenticate` |
//! | `grpc/` | gRPC's deadlines; [`GrpcStatusLayer`](grpc::GrpcStatusLayer) |
//! | `head.rs`, `body/` | what is kept of a request for its replay |
//! | `drain.rs` | reading a refused response to its end |
//! | `state/` | [`RefreshState`]; `machine.rs` and `flight.rs` hold the decisions |
//! | `refresher.rs`, `store/` | who redeems, and where the tokens live |
//! | `store/redis/` | tokens in Redis; one Lua script a step (feature `redis`) |
//! | `oauth2/` | OAuth 2.0 grants and revocation (feature `oauth2`) |
//! | `reqwest.rs` | `RefreshMiddleware`: the layer for reqwest (feature `reqwest-middleware`) |
//! | `tokens.rs`, `error.rs` | [`Tokens`], [`Generation`], [`Credential`]; what can go wrong |
//!
//! [tower]: https://docs.rs/tower

pub mod body;
mod error;
pub mod grpc;
mod layer;
#[cfg(feature = "oauth2")]
pub mod oauth2;
mod refresher;
#[cfg(feature = "reqwest-middleware")]
mod reqwest;
#[cfg(any(feature = "file", feature = "redis"))]
mod seal;
mod state;
pub mod store;
mod tokens;

pub use crate::{
    error::{
        BoxError, ConfigError, FailureKind, RefreshError, RefreshFailure, SaveError, StoreError,
    },
    layer::{
        Attempt, Classify, CredentialSource, FromExtensions, Refresh, RefreshLayer, ResponseFuture,
        ResponseHead, Verdict, classify,
    },
    refresher::{BoxFuture, FromNothing, RefreshRequest, Refresher, from_nothing},
    state::{
        Counts, KeepFresh, RefreshState, RefreshStateBuilder, Renewal, RenewalBuilder, Status,
        Trigger, WhileUnsaved,
    },
    tokens::{Credential, Generation, Tokens},
};

#[cfg(feature = "reqwest-middleware")]
pub use crate::reqwest::RefreshMiddleware;

// Its examples use every feature.
#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
struct Readme;
