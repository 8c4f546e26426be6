//! x
mod attach;
pub mod body;
mod classify;
mod drain;
mod error;
mod future;
mod head;
mod layer;
mod origin;
mod refresher;
mod service;
mod source;
mod state;
pub mod store;
mod tokens;

pub use crate::{
    attach::Attempt,
    classify::{Classify, Verdict, classify},
    error::{
        BoxError, ConfigError, FailureKind, RefreshError, RefreshFailure, SaveError, StoreError,
    },
    future::ResponseFuture,
    layer::RefreshLayer,
    refresher::{BoxFuture, FromNothing, Refresher, from_nothing},
    service::Refresh,
    source::{CredentialSource, FromExtensions},
    state::{Counts, RefreshState, RefreshStateBuilder, Status, Trigger, WhileUnsaved},
    tokens::{Credential, Generation, Tokens},
};
