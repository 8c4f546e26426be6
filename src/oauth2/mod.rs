//! OAuth 2.0: the refresh-token grant (RFC 6749, section 6) and the client-credentials
//! grant (section 4.4) as [refreshers](crate::Refresher), and revocation (RFC 7009).
//!
//! A [`Client`] is a program as the authorization server knows it: the token endpoint, the
//! client's id and how it authenticates. It sends the [oauth2] crate's messages over any
//! tower HTTP service ([`ClientBuilder::over`]). With the feature `oauth2-client` there is a
//! ready-made service (`ClientBuilder::build`). With the feature `oauth2-jwt` clients authenticate by
//! a JWT (`ClientBuilder::client_assertion`).
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
//! - An endpoint is `https`; `http` is for loopback only (RFC 6749, section 3.2), unless the
//!   client begins with [`Client::builder_allowing_http`].
//! - A response without `refresh_token` keeps the old refresh token. A response with one means
//!   that the old one is dead (section 6).
//! - Without `expires_in` the access token is used until a server refuses it. No expiry is guessed.
//! - Every other field of the response is kept as an [extra](crate::Tokens::extra): strings as
//!   they are, anything else as JSON. `scope` is the granted scope. If a response has none, that is the
//!   scope that was asked for (section 5.1) or, if none was, the one that was granted before.
//! - `invalid_grant` (section 5.2) is [rejected](crate::RefreshError::rejected), and so is what
//!   [`also_rejected`](ClientBuilder::also_rejected) names and
//!   [`classify_refusal`](ClientBuilder::classify_refusal) says. `invalid_client`, `unauthorized_client`,
//!   `unsupported_grant_type` and `invalid_scope` say nothing of the refresh token: the
//!   [client is refused](crate::RefreshError::client_refused), and the same is tried again after
//!   five minutes ([`client_cool_down`](crate::state::RenewalBuilder::client_cool_down)). Everything
//!   else is [transient](crate::RefreshError::transient): other error codes, any 5xx and 429,
//!   a body without an access token, a connection that fails, a response that does not come in
//!   time. `Retry-After` counts, in seconds or as a date, the first that can be read.
//! - A good response counts whatever its form is, because the rotated refresh token is in it. It may
//!   be form-encoded, compressed (gzip, deflate) although that was not asked for, or only almost
//!   JSON. Even if other fields are damaged, or its end is missing, it counts if both tokens can be
//!   read without guessing. A WARN says what was odd, without secrets.
//! - An [`Error`] names the endpoint, the status, and the server's error code and description.
//!   No secret is in it.
//!
//! - A request that the server has not begun to process is sent once more, at once: after HTTP/2's
//!   REFUSED_STREAM, after a GOAWAY without error below the stream (RFC 9113, section 8.7), and if the
//!   connection was gone before. This takes the feature `oauth2-client`, and works for its client and
//!   for others that are built on hyper.
//!
//! # Caveats
//!
//! - The server may have rotated the refresh token although its response was lost (a timeout, a reset,
//!   a body that breaks off). The client cannot tell, and sends the same refresh token again after the
//!   cool-down.
//! - A rejection is final until [`set`](crate::RefreshState::set).
//! - After a change of the client's secret build a new [`Client`] and a new state.
//! - An access token is attached as `Bearer`, whatever its `token_type` (which is an extra).
//!   [`attach_with`](crate::RefreshLayer::attach_with) attaches it otherwise.
//! - The oauth2 crate and rustls keep secrets out of `Debug`, but do not wipe their copies from
//!   memory.
//!
//! # Servers
//!
#![doc = include_str!("servers.md")]
//!
//! [oauth2]: https://docs.rs/oauth2
//!
#![doc = include_str!("first_tokens.md")]

#[cfg(feature = "oauth2-jwt")]
mod assertion;
mod authentication;
mod builder;
#[cfg(feature = "oauth2-client")]
mod certificates;
mod client;
mod convert;
mod endpoint;
mod error;
mod grant;
#[cfg(feature = "oauth2-client")]
mod https;
mod refusal;
mod response;
mod retry_after;
mod revoke;
mod transport;
mod unspent;

#[cfg(feature = "oauth2-jwt")]
pub use self::assertion::ClientAssertion;
pub use self::{
    builder::ClientBuilder,
    client::Client,
    error::{Error, ErrorKind},
    grant::{ClientCredentialsGrant, RefreshTokenGrant},
    refusal::{Refusal, RefusalKind},
    revoke::Revoker,
};
