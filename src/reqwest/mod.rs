//! The layer for reqwest: [`ReqwestLayer`] over a client or any other service that takes its requests,
//! and `RefreshMiddleware` for [`reqwest_middleware`]'s.
//!
//! Nothing is decided here. Each request gets a [`Refresh`](crate::layer::Refresh) of its own.
//!
//! | file | what goes around the layer, which does not know reqwest's types |
//! |---|---|
//! | `service.rs` | the layer and its service |
//! | `middleware.rs`, `attempts.rs` | the middleware, and how it sends an attempt |
//! | `template.rs` | of a request: what has no place in an `http::Request`, or does not come back from one |
//! | `response.rs` | of a response: all of it. The layer borrows the head. It is put together again if its body was looked into |
//! | `looks.rs` | the layers that look into responses |
//! | `origin.rs` | where a response comes from |
//! | `body.rs` | how reqwest's bodies are kept |

#[cfg(feature = "reqwest-middleware")]
mod attempts;
mod body;
mod looks;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod origin;
mod response;
mod service;
mod template;

#[cfg(feature = "reqwest-middleware")]
pub use self::middleware::RefreshMiddleware;
pub use self::service::{ReqwestLayer, ReqwestRefresh, ReqwestRefreshFuture};
