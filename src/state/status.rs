//! What an operator may want to know: [`Status`], [`Counts`], [`Trigger`].

use std::{fmt, time::SystemTime};

use tokio::time::Instant;

use crate::{
    error::{FailureKind, RefreshFailure},
    tokens::Generation,
};

/// What a flight was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// The first use of a credential whose store was not read yet.
    FirstUse,
    /// A token that is about to run out; requests go on with it meanwhile.
    Early,
    /// A token that has run out.
    Expired,
    /// A server refused the token.
    Challenge,
    /// [`RefreshState::refresh`](crate::RefreshState::refresh).
    Requested,
}

impl Trigger {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::FirstUse => "first use",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::Challenge => "challenge",
            Self::Requested => "requested",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often things happened since the state was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Refreshes whose tokens were minted and published.
    pub refreshes: u64,
    /// Requests sent a second time.
    pub replays: u64,
    /// Callers that joined a flight somebody else had started.
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

    pub(super) fn with_replays(&self, replays: u64) -> Self {
        Self { replays, ..self.clone() }
    }

    pub(super) fn failed(&mut self, kind: FailureKind) {
        match self.failures.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, count)) => *count += 1,
            None => self.failures.push((kind, 1)),
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
    /// When the access token runs out, if that is known.
    pub expires_at: Option<SystemTime>,
    /// The flight under way, by what it was started for.
    pub in_flight: Option<Trigger>,
    /// The last failure, also after it was overcome.
    pub last_failure: Option<RefreshFailure>,
    /// While refreshing pauses after a failure: when the next try is allowed.
    pub retry_at: Option<Instant>,
    /// How often things happened.
    pub counts: Counts,
}
