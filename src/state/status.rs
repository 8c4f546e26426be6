//! What an operator may want to know: [`Status`], [`Counts`].

use std::time::Duration;

use super::machine::Machine;
use crate::{
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure},
    tokens::Generation,
};

/// How often things happened since the state was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Refreshes whose tokens were minted and published.
    pub refreshes: u64,
    /// Requests sent a second time.
    pub replays: u64,
    /// Callers that joined a flight which another caller had started.
    pub joined: u64,
    failures: Vec<(FailureKind, u64)>,
}

impl Counts {
    /// How often waiters were told of a failure of this kind: once a flight, not
    /// once a waiter ([`FailureKind::Deadline`]: once a waiter).
    #[must_use]
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures.iter().find(|(of, _)| *of == kind).map_or(0, |(_, count)| *count)
    }

    pub(super) fn of(machine: &Machine, replays: u64) -> Self {
        Self {
            refreshes: machine.refreshes(),
            replays,
            joined: machine.joined(),
            failures: machine.failures_by_kind().to_vec(),
        }
    }
}

/// One look at a [`RefreshState`](crate::RefreshState).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The current generation.
    pub generation: Generation,
    /// Whether there is an access token.
    pub signed_in: bool,
    /// For how long the access token is good yet, if that is known. Zero once it has run out.
    pub expires_in: Option<Duration>,
    /// The flight under way, by what it was started for.
    pub in_flight: Option<Trigger>,
    /// The last failure, also after it was overcome.
    pub last_failure: Option<RefreshFailure>,
    /// While refreshing pauses after a failure: for how long yet.
    pub retry_in: Option<Duration>,
    /// How often things happened.
    pub counts: Counts,
}
