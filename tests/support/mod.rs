//! What the tests have in common: a strict authorization server, a store and a
//! service that can be stopped, broken and asked what happened to them.

#![allow(dead_code, unused_imports)] // each test binary uses its part

mod api;
mod auth;
mod gate;
mod store;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tower_refresh::{FailureKind, RefreshFailure, RefreshState, RefreshStateBuilder, Tokens};

pub(crate) use self::{
    api::{
        Api, Body, Mock, MockHandle, Request, Response, answer, get, mock, next, post, token_of,
    },
    auth::{Auth, Play},
    gate::Gate,
    store::{Fault, Op, Store},
};

/// A state in the making that is signed in with `tokens(1)`.
pub(crate) fn builder(auth: &Auth) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).tokens(tokens(1))
}

/// One that keeps its tokens in this store.
pub(crate) fn stored(auth: &Auth, store: &Store) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).store(store.clone())
}

/// A state that has read its store.
pub(crate) async fn opened(auth: &Auth, store: &Store) -> Arc<RefreshState> {
    let state = stored(auth, store).build();
    state.token().await.unwrap();
    state
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `access-<n>` and `refresh-<n>`.
pub(crate) fn tokens(number: u64) -> Tokens {
    Tokens::new(format!("access-{number}")).with_refresh_token(format!("refresh-{number}"))
}

/// Returns when every task has gone as far as it can. Paused time only goes on
/// when all are idle.
pub(crate) async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, RefreshFailure>) -> FailureKind {
    result.expect_err("a failure").kind()
}
