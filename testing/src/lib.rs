//! What the tests, examples and benchmarks of `tower-refresh` share. It is not published.
//!
//! | module | what is in it | feature |
//! |---|---|---|
//! | (here) | states and tokens in one word each | |
//! | `gate` | [`Gate`]: holds tasks at one point | |
//! | `auth` | [`Auth`]: an authorization server in process, which does what it is told next | |
//! | `store` | [`Store`]: a token store that can be held, broken and set back | |
//! | [`script_body`] | a request body that follows a script | |
//! | `secrets` | [`clean()`]: what is shown tells no secret | |
//! | `api` | [`Api`]: a strict API in process; [`mock()`]: one that answers by hand | `api` |
//! | `logs` | [`Logs`]: what is logged while a test runs; [`listen()`]: with a subscriber of its own | `logs` |
//! | `meter` | [`Meter`]: what is counted while a test runs | `meter` |
//! | `browser_driver` | [`BrowserDriver`]: chromedriver, which ends with its tests, and so do its browsers | `browser` |
//! | [`loopback`] | [`Loopback`]: an authorization server and an API on sockets | `loopback` |
//! | `nats` | [`NatsServer`]: a NATS server that ends with its test | `nats` |
//! | `postgres` | [`PostgresServer`]: a PostgreSQL server that ends with its test | `postgres` |
//! | `provider` | [`Provider`]: what an OpenID Connect provider signs, and the keys to check it by | `provider` |
//! | `redis` | [`RedisServer`]: a Redis server that ends with its test | `redis` |
//! | [`sessions`] | an application with browser sessions, in process | `sessions` |
//! | [`echo`] | a gRPC service, generated from `echo.proto` | `grpc` |

#![allow(missing_debug_implementations, reason = "no test prints them")]

#[cfg(feature = "api")]
mod api;
mod auth;
#[cfg(feature = "browser")]
mod browser_driver;
// Made from echo.proto by
//
//     tonic_prost_build::configure()
//         .bytes(".")
//         .compile_fds(protox::compile(["echo.proto"], ["."])?)?
//
// with tonic-prost-build 0.14 and protox 0.9, so that protoc is not needed to build this.
#[cfg(feature = "grpc")]
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod echo;
mod gate;
#[cfg(feature = "logs")]
mod logs;
#[cfg(feature = "loopback")]
pub mod loopback;
#[cfg(feature = "meter")]
mod meter;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "provider")]
mod provider;
#[cfg(feature = "redis")]
mod redis;
pub mod script_body;
mod secrets;
#[cfg(any(feature = "nats", feature = "postgres", feature = "redis"))]
mod server_process;
#[cfg(feature = "sessions")]
pub mod sessions;
mod store;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshState, Tokens, state::RefreshStateBuilder,
};

#[cfg(feature = "api")]
pub use self::api::{
    Api, Body, Mock, MockHandle, Request, Response, answer, get, mock, next, post, token_of,
};
#[cfg(feature = "browser")]
pub use self::browser_driver::BrowserDriver;
#[cfg(feature = "logs")]
pub use self::logs::{Logs, listen};
#[cfg(feature = "loopback")]
pub use self::loopback::Loopback;
#[cfg(feature = "meter")]
pub use self::meter::Meter;
#[cfg(feature = "nats")]
pub use self::nats::NatsServer;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresServer;
#[cfg(feature = "provider")]
pub use self::provider::{Provider, logout};
#[cfg(feature = "redis")]
pub use self::redis::RedisServer;
pub use self::{
    auth::{Auth, Play},
    gate::Gate,
    secrets::{clean, clean_debug, clean_error},
    store::{Fault, Op, Store},
};

/// A state in the making that is signed in with `tokens(1)`.
pub fn builder(auth: &Auth) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).tokens(tokens(1))
}

/// A state in the making that keeps its tokens in this store.
pub fn stored(auth: &Auth, store: &Store) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).store(store.clone())
}

/// A state that has read its store.
pub async fn opened(auth: &Auth, store: &Store) -> Arc<RefreshState> {
    let state = stored(auth, store).build();
    state.token().await.unwrap();
    state
}

/// So many seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `access-<n>` and `refresh-<n>`.
pub fn tokens(number: u64) -> Tokens {
    Tokens::new(format!("access-{number}")).with_refresh_token(format!("refresh-{number}"))
}

/// The same, with an access token that lives for so many seconds.
pub fn living(number: u64, seconds: u64) -> Tokens {
    tokens(number).with_expires_in(secs(seconds))
}

/// Returns when every task has gone as far as it can: paused time only goes on when all
/// are idle.
pub async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

/// The kind of a failure.
#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T, RefreshFailure>) -> FailureKind {
    result.expect_err("a failure").kind()
}
