//! Keeps a service's credential alive.
//!
//! A [tower] layer that attaches an access token to requests. When the server refuses the token,
//! or the token has run out, the layer refreshes it **once**, however many requests found out at
//! the same time, and sends each of them again with the new one. It does not lose a rotated refresh
//! token that has reached the process, and does not spend one again that was replaced
//! ([`guarantees`](guide::guarantees), [`limits`](guide::limits)).
//!
//! - A [`RefreshState`] is one credential: its tokens, its generation, the refresh under way.
//!   It works without HTTP, too. A [`Renewal`] makes any number of states that are renewed alike:
//!   one for each user or session of a server.
//! - A [`RefreshLayer`] puts a state in front of any tower service (hyper-util's client, a tonic
//!   channel, an axum router) and of reqwest.
//! - A [`Refresher`] redeems the refresh token: an OAuth 2.0 grant (feature `oauth2`), or an async
//!   closure. A [`TokenStore`](store::TokenStore) keeps the tokens; memory is the default.
//! - The [`guide`] has pages: [how to begin with your stack](guide::stacks), and
//!   [questions](guide::questions) such as "why did my call fail?".
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `file` | `FileStore`, `FileStores`: tokens in files, shared by processes |
//! | `in-body` | `in_body`: refusals inside a 200, in GraphQL, tRPC, Connect, gRPC-Web and JSON |
//! | `metrics` | counters and histograms, for the `metrics` crate |
//! | `oauth2` | OAuth 2.0 grants and revocation, over a tower HTTP service of yours |
//! | `oauth2-client` | a ready-made HTTP client for them, and `oauth2` |
//! | `oauth2-jwt` | clients that authenticate by a JWT (RFC 7523), and `oauth2` |
//! | `postgres` | `PostgresStores`: tokens in PostgreSQL, shared by replicas |
//! | `reqwest` | `ReqwestLayer`, the layer over reqwest's client and services like it |
//! | `reqwest-middleware` | `RefreshMiddleware`, the layer among reqwest's middlewares; and `reqwest` |
//! | `redis` | `RedisStores`: tokens in Redis, shared by replicas |
//! | `redis-tls`, `redis-cluster` | `rediss://`; Redis clusters; and `redis` |
//! | `ring` | ring does the cryptography of TLS unless the process has installed another provider |
//! | `seal` | `seal::Keyring`: sealed text, bound to a name; `file`, `postgres` and `redis` bring it |
//! | `session` | `session::Sessions`: browser sessions, with one cookie and the tokens on the server |
//! | `session-proxy`, `axum` | a reverse proxy behind them; axum's extractors; and `session` |
//! | `serde` | [`Status`](state::Status) and its parts are `Serialize`, and their words `Deserialize`; durations are in seconds |
//! | `tonic` | `tonic_channel`: a `Channel` of tonic 0.14 over the layer, for libraries that take nothing else |
//! | `test-util` | `store::conformance`: the tests that every store has to pass |
//! | `full` | all of these |
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
//! - **One refresh a generation.** The layer knows which generation a refused request carried. If
//!   there is a newer one, it replays the request at once and refreshes nothing.
//! - **A refresh outlives its callers.** It runs in a task of its own. Dropping a request,
//!   even the first, neither stops it nor loses its result.
//! - **Save, then publish.** New tokens are stored before a request gets them. If the save fails,
//!   the save is tried again, never the redeem.
//! - **Sign-in and sign-out win** over a refresh under way.
//! - **A body is replayed byte for byte or not at all.** If not, the caller gets the original
//!   response. The memory for kept bodies is bounded, for one request and for all.
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
//! # Errors
//!
//! | type | made by | read by |
//! |---|---|---|
//! | [`RefreshError`] | a [`Refresher`] | this crate: is it final, or worth another try? |
//! | [`StoreError`](store::StoreError), [`SaveError`](store::SaveError) | a [`TokenStore`](store::TokenStore) | this crate |
//! | [`RefreshFailure`] | this crate | you: from [`RefreshState`], or in a response's extensions |
//! | [`ConfigError`] | this crate's builders | you |
//!
//! The page [`questions`](guide::questions) lists every error, and says what to do about it.
//!
//! None of these shows a secret. The text of a refresher's or a store's own error could hold one (a
//! URL, a piece of a record), so `Display` and `Debug` name the kind only. The error itself is the
//! [`source`](std::error::Error::source).
//!
//! [tower]: https://docs.rs/tower

// Each item says which feature it needs, on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
mod credential;
mod error;
mod extra;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
pub mod guide;
#[cfg(feature = "in-body")]
pub mod in_body;
pub mod layer;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
#[cfg(feature = "oauth2")]
pub mod oauth2;
mod origin;
mod peek;
pub mod refresher;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "seal")]
pub mod seal;
#[cfg(feature = "serde")]
mod serialize;
#[cfg(feature = "session")]
pub mod session;
pub mod state;
pub mod store;
mod sync;
mod time;
#[cfg(any(feature = "oauth2-client", feature = "oauth2-jwt", feature = "redis-tls"))]
mod tls;
mod tokens;
#[cfg(feature = "tonic")]
mod tonic;

pub use crate::{
    credential::Credential,
    error::{BoxError, ConfigError},
    layer::{FromExtensions, RefreshLayer},
    refresher::{BoxFuture, RefreshError, Refresher, refresher_fn},
    state::{FailureKind, RefreshFailure, RefreshState, Renewal},
    tokens::{Generation, Tokens},
};

#[cfg(feature = "reqwest-middleware")]
pub use crate::reqwest::RefreshMiddleware;
#[cfg(feature = "reqwest")]
pub use crate::reqwest::{ReqwestLayer, ReqwestRefresh, ReqwestRefreshFuture};
#[cfg(feature = "tonic")]
pub use crate::tonic::tonic_channel;
