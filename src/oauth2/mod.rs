//! OAuth 2.0: the refresh-token grant (RFC 6749, section 6) and the client-credentials
//! grant (section 4.4) as [refreshers](crate::Refresher), and revocation (RFC 7009).
//!
//! A [`Client`] is this program as the authorization server knows it: the token
//! endpoint, the client's id and how it authenticates. It sends its messages, which
//! are the [oauth2] crate's, over any tower HTTP service; with the feature
//! `oauth2-client` there is a ready-made one (`ClientBuilder::build`).
//!
//! ```
//! use tower_refresh::{RefreshState, Tokens, oauth2};
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # fn example<S>(http: S) -> Result<(), tower_refresh::ConfigError>
//! # where
//! #     S: tower::Service<http::Request<Full<Bytes>>, Response = http::Response<Full<Bytes>>>,
//! #     S: Clone + Send + 'static,
//! #     S::Future: Send,
//! #     S::Error: Into<tower_refresh::BoxError>,
//! # {
//!
//! let client = oauth2::Client::builder("https://auth.example.com/token", "my-client")?
//!     .client_secret_basic("hush")
//!     .over(http);
//! let revoker = client.revoker("https://auth.example.com/revoke")?;
//!
//! let state = RefreshState::builder(client.refresh_token_grant())
//!     .tokens(Tokens::new("access").with_refresh_token("refresh"))
//!     .on_discard(revoker.hook())
//!     .on_sign_out(revoker.hook())
//!     .build();
//! # Ok(()) }
//! ```
//!
//! # Rules
//!
//! - A token endpoint is `https`; `http` is for loopback only (RFC 6749, section 3.2).
//! - An answer without `refresh_token` keeps the old one; an answer with one means that
//!   the old one is dead (section 6).
//! - Without `expires_in` the token is used until it is refused. Nothing is guessed.
//! - Every other field is kept as an [extra](crate::Tokens::extra): strings as they are,
//!   anything else as JSON. `scope` tells what was granted in the end; where an answer
//!   leaves it out, it is what was asked for (section 5.1), or was granted before.
//! - `invalid_grant`, `invalid_client`, `unauthorized_client`, `unsupported_grant_type` and
//!   `invalid_scope` (section 5.2) are [rejected](crate::RefreshError::rejected). All else is
//!   [transient](crate::RefreshError::transient): other errors, any 5xx and 429, what is
//!   not JSON, what does not come, comes too late or is too long. `Retry-After` counts, in
//!   seconds or as a date.
//! - An [`Error`] names the endpoint, the status and the server's own words, and no
//!   secret.
//!
//! # Caveats
//!
//! - If the server has rotated and its answer is lost (a timeout, a reset, a body cut
//!   off), nobody can know; the same refresh token is brought again after the cool-down.
//! - A rejection is final until [`set`](crate::RefreshState::set), `invalid_client` too: a
//!   client whose secret has changed takes a new [`Client`] and a new state.
//! - An access token is attached as `Bearer` whatever its `token_type`, which is an extra;
//!   for others there is [`attach_with`](crate::RefreshLayer::attach_with).
//! - The oauth2 crate keeps secrets from `Debug`, but does not wipe their memory.
//!
//! [oauth2]: https://docs.rs/oauth2

#[cfg(feature = "oauth2-client")]
mod certificates;
mod client;
mod endpoint;
mod error;
mod grant;
#[cfg(feature = "oauth2-client")]
mod https;
mod response;
mod revoke;
mod transport;

pub use self::{
    client::{Client, ClientBuilder},
    error::{Error, ErrorKind},
    grant::{ClientCredentialsGrant, RefreshTokenGrant},
    revoke::Revoker,
};
