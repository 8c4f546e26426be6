//! Every point at which somebody can go away: callers, runtimes, and user code that
//! panics. Afterwards nobody hangs, and later callers work.

#[path = "../support/mod.rs"]
mod support;

mod callers;
mod panics;
mod runtimes;

use tower_refresh::{RefreshState, RefreshStateBuilder};

use support::{Auth, tokens};

fn builder(auth: &Auth) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).tokens(tokens(1))
}
