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

mod cookie;
mod id;
mod identity;

pub use self::{
    cookie::SessionCookie,
    id::{NoSessionId, SessionId, SessionName},
    identity::Identity,
};
