//! Browser sessions: the browser holds one cookie, the server the tokens (feature `session`).
//!
//! What stands so far is what they are made of: the [cookie](SessionCookie), the [id](SessionId) in
//! it, and [who](Identity) is signed in. A server that keeps its sessions by hand takes the id's
//! [name](SessionId::name) for the name of a store, with a family of
//! [states](crate::Renewal::state), and [looks](crate::RefreshState::look) for each request.
//!
//! ```
//! use tower_refresh::session::{SessionCookie, SessionId};
//!
//! # fn main() -> Result<(), tower_refresh::BoxError> {
//! let cookie = SessionCookie::host("sid")?;
//!
//! // At sign-in: the browser gets the id, and the store its name.
//! let id = SessionId::random()?;
//! let set_cookie = cookie.set(&id);
//! let name = id.name();
//!
//! // At the next request.
//! let mut headers = http::HeaderMap::new();
//! headers.insert("cookie", format!("theme=dark; {}={}", cookie.name(), id.expose()).parse()?);
//! let found: Vec<_> = cookie.ids(&headers).map(|id| id.name()).collect();
//! assert_eq!(found, [name]);
//! // What is sent on does not have it.
//! cookie.strip(&mut headers);
//! assert_eq!(headers["cookie"], "theme=dark");
//! # let _ = set_cookie;
//! # Ok(()) }
//! ```

// | file | what is in it |
// |---|---|
// | `sessions.rs` | [`Sessions`]: how a session begins, is found, and ends |
// | `layer.rs`, `service.rs`, `body.rs` | the tower layer, and the order of things in it |
// | `visitor.rs`, `csrf.rs` | what a browser's request says of itself |
// | `answer.rs` | the layer's own answers, and the headers of others' |
// | `slot.rs`, `session.rs`, `extract.rs` | what a handler gets |
// | `proxy.rs` | a reverse proxy behind the layer |
// | `entry.rs`, `registry.rs` | the sessions that this process has loaded |
// | `record.rs`, `index.rs` | what a store holds of a session, and of a user's sessions |
// | `logout.rs` | the provider's back-channel logout |
// | `cookie.rs`, `id.rs`, `identity.rs`, `ended.rs`, `status.rs` | what they are made of |
// | `refresher.rs` | whose a refreshed ID token has to be |

mod answer;
mod body;
mod cookie;
mod csrf;
mod ended;
mod entry;
#[cfg(feature = "axum")]
mod extract;
mod id;
mod identity;
mod index;
mod layer;
mod logout;
#[cfg(feature = "session-proxy")]
mod proxy;
mod record;
mod refresher;
mod registry;
mod service;
#[allow(clippy::module_inception, reason = "it is the session")]
mod session;
mod sessions;
mod slot;
mod status;
mod visitor;

#[cfg(feature = "axum")]
pub use self::extract::NoSession;
#[cfg(feature = "session-proxy")]
pub use self::proxy::{Proxy, ProxyFuture, ProxyLayer};
pub use self::{
    body::SessionBody,
    cookie::SessionCookie,
    ended::Ended,
    id::{NoSessionId, SessionId, SessionName},
    identity::Identity,
    index::IndexKey,
    layer::SessionLayer,
    logout::{BackChannelLogout, LogoutError},
    service::{SessionFuture, SessionService},
    session::Session,
    sessions::{Sessions, SessionsBuilder, SignInError},
    slot::SessionSlot,
    status::SessionsStatus,
};
