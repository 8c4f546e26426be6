//! Browser sessions (feature `session`): the browser has one cookie, and the server has the tokens. Or
//! the browser has the tokens, encrypted in its cookies, and the server only remembers a little
//! ([`Sessions::sealed`]).
//!
//! For a web application, or the backend for a frontend (BFF; RFC 10017). If the access token runs out
//! while several tabs send many requests to several replicas, all of these have **one** refresh, and
//! the user stays signed in.
//!
//! [`Sessions`] are the sessions of an application. The [`SessionLayer`] finds each request's session, a
//! [`SessionSlot`] signs in, and a [`Session`] is one that lives. Outbound, a
//! [`RefreshLayer`](crate::RefreshLayer) finds the session's credential by
//! [`FromExtensions`](crate::FromExtensions). The page [`sessions`](crate::guide::sessions) has a whole
//! program.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use http::{Request, Response, header::{COOKIE, SET_COOKIE}};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_refresh::{Renewal, Tokens, store::MemoryStores};
//! use tower_refresh::session::{Identity, SessionSlot, Sessions};
//!
//! // How tokens are refreshed: by `oauth2::Client::refresh_token_grant`, say.
//! let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("second")));
//! let sessions = Sessions::builder(renewal, MemoryStores::new()).build()?;
//!
//! let app = sessions.layer().layer(service_fn(async |request: Request<String>| {
//!     // With the feature `axum` handlers take `SessionSlot`, `Session` and `Option<Session>`.
//!     let slot = request.extensions().get::<SessionSlot>().cloned().ok_or("no layer")?;
//!     if request.uri().path() == "/callback" {
//!         // The code was redeemed, and the ID token checked.
//!         let tokens = Tokens::new("first").with_refresh_token("r1");
//!         slot.sign_in(tokens, Identity::new("https://id.example.com", "alice")).await?;
//!         return Ok(slot.land("/")?);
//!     }
//!     let name = slot.session().map(|session| session.identity().subject().to_owned());
//!     Ok::<_, tower_refresh::BoxError>(Response::new(name.unwrap_or("nobody".to_owned())))
//! }));
//!
//! let response = app.clone().oneshot(Request::get("/callback").body(String::new())?).await?;
//! let cookie = response.headers()[SET_COOKIE].to_str()?.split(';').next().unwrap().to_owned();
//! assert!(cookie.starts_with("__Host-Http-sid="));
//!
//! let request = Request::get("/").header(COOKIE, cookie).body(String::new())?;
//! let page = app.oneshot(request).await?;
//! assert_eq!(page.headers()["cache-control"], "private, no-store");
//! # Ok::<_, tower_refresh::BoxError>(()) }).unwrap();
//! ```
//!
//! Beside a session layer of another crate, as tower-sessions, this one is the outer one: then the
//! other crate gets no cookie of ours, and has saved its data by the time that this layer answers in
//! the place of a handler whose token could not be refreshed. Sign in first, and give the other
//! crate's session its new id (`cycle_id`) once that has succeeded.
//!
#![doc = include_str!("promises.md")]

// | file | what is in it |
// |---|---|
// | `sessions.rs`, `builder.rs` | [`Sessions`]; every knob |
// | `shared.rs`, `begin.rs`, `end.rs` | how a session is found, begins, and ends |
// | `layer.rs`, `rules.rs`, `service.rs`, `request.rs`, `future.rs`, `body.rs` | the tower layer, and the order of things in it |
// | `visitor.rs`, `csrf.rs` | what a browser's request says of itself |
// | `answer.rs` | the layer's own answers, and the headers of others' |
// | `slot.rs`, `place.rs`, `session.rs`, `error.rs`, `extract.rs` | what a handler gets |
// | `proxy/` | a reverse proxy behind the layer |
// | `entry.rs`, `registry.rs` | the sessions that this process has loaded |
// | `record.rs`, `index.rs` | what a store holds of a session, and of a user's sessions |
// | `logout/` | the provider's back-channel logout |
// | `sealed/`, `sealed_builder.rs`, `sealed_visits.rs` | the other mode: tokens in the cookies |
// | `cookie.rs`, `id.rs`, `identity.rs`, `ended.rs`, `status.rs` | what they are made of |
// | `refresher.rs` | whose a refreshed ID token has to be |

mod answer;
mod begin;
mod body;
mod builder;
mod cookie;
mod csrf;
mod end;
mod ended;
mod entry;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod id;
mod identity;
mod index;
mod layer;
mod logout;
mod place;
#[cfg(feature = "session-proxy")]
mod proxy;
mod record;
mod refresher;
mod registry;
mod request;
mod rules;
mod sealed;
mod sealed_builder;
mod sealed_visits;
mod service;
#[allow(clippy::module_inception, reason = "it is the session")]
mod session;
mod sessions;
mod shared;
mod slot;
mod status;
mod visitor;

#[cfg(feature = "axum")]
pub use self::extract::NoSession;
#[cfg(feature = "session-proxy")]
pub use self::proxy::{Proxy, ProxyFuture, ProxyLayer};
pub use self::{
    body::SessionBody,
    builder::SessionsBuilder,
    cookie::SessionCookie,
    ended::Ended,
    error::SignInError,
    future::SessionFuture,
    id::{NoSessionId, SessionId, SessionName},
    identity::Identity,
    index::IndexKey,
    layer::SessionLayer,
    logout::{BackChannelLogout, LogoutError},
    sealed_builder::SealedBuilder,
    service::SessionService,
    session::Session,
    sessions::Sessions,
    slot::{SessionSlot, is_local_path},
    status::SessionsStatus,
    visitor::is_prefetch,
};
