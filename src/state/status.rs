//! What an operator may want to know: [`Status`], [`Health`], [`Counts`].

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure},
    tokens::Generation,
};

/// A credential's health, in a word. If something stands in the way of its next refresh, that is the
/// word, even while the current token works ([`Status::expires_in`] says for how long).
///
/// [`RefreshState::subscribe_health`](crate::RefreshState::subscribe_health) has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The store was not read yet. The first use reads it.
    Unread,
    /// There is a token that works, as far as is known. A refresh ahead of its end may be under way
    /// ([`Status::in_flight`]).
    Fresh,
    /// The token has run out. The next request has it refreshed.
    Expired,
    /// A refresh is under way, and requests wait for it.
    Refreshing,
    /// The last refresh failed. The next request after [`Status::retry_in`] tries again.
    CoolingDown,
    /// As [`CoolingDown`](Self::CoolingDown), because the server refused brand-new tokens again and
    /// again.
    Braked,
    /// As [`CoolingDown`](Self::CoolingDown), because the server refused the client, and not the
    /// refresh token.
    ClientRefused,
    /// New tokens could not be saved yet. The save is tried again; if the process ends before it
    /// works, the session is lost.
    Unsaved,
    /// The session has ended: the server refused the refresh token. Only a sign-in helps.
    Rejected,
    /// There is no token, and only a sign-in helps.
    SignedOut,
}

impl Health {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Fresh => "fresh",
            Self::Expired => "expired",
            Self::Refreshing => "refreshing",
            Self::CoolingDown => "cooling_down",
            Self::Braked => "braked",
            Self::ClientRefused => "client_refused",
            Self::Unsaved => "unsaved",
            Self::Rejected => "rejected",
            Self::SignedOut => "signed_out",
        }
    }

    /// Whether the session has ended, so that only a sign-in helps:
    /// [`Rejected`](Self::Rejected) and [`SignedOut`](Self::SignedOut).
    #[must_use]
    pub const fn needs_sign_in(self) -> bool {
        matches!(self, Self::Rejected | Self::SignedOut)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often things happened since the state was built.
///
/// [`Status::counts`] has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Refreshes whose tokens were minted and published.
    pub refreshes: u64,
    /// Requests sent a second time.
    pub replays: u64,
    /// Callers that joined a flight which another caller had started.
    pub joined: u64,
    /// One for each kind that there was.
    pub(super) failures: Vec<PastFailure>,
}

impl Counts {
    /// How many flights failed in this way. ([`FailureKind::Deadline`] counts waiters instead.)
    #[must_use]
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.last(kind).map_or(0, |past| past.count)
    }

    /// The failures of this kind; `None` if there were none.
    #[must_use]
    pub fn last(&self, kind: FailureKind) -> Option<&PastFailure> {
        self.failures.iter().find(|past| past.kind == kind)
    }

    /// Every kind of failure that there was, in the order of their first time.
    pub fn all_failures(&self) -> impl Iterator<Item = &PastFailure> {
        self.failures.iter()
    }
}

/// The failures of one kind, since the state was built.
///
/// [`Counts::last`] and [`Counts::all_failures`] have them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PastFailure {
    /// Their kind.
    pub kind: FailureKind,
    /// How many there were, counted as [`Counts::failures`] counts.
    pub count: u64,
    /// When that was for the last time, by the wall clock.
    pub last_at: SystemTime,
    /// The credential's generation at that time.
    pub generation: Generation,
}

/// One look at a [`RefreshState`](crate::RefreshState).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{FailureKind, RefreshError, RefreshState, Tokens, state::Health};
///
/// let state = RefreshState::builder(async |_spent: Tokens| {
///     Err(RefreshError::transient("connection refused"))
/// })
/// .tokens(Tokens::new("first").with_refresh_token("r1"))
/// .build();
/// let _ = state.refresh().await;
///
/// let status = state.status();
/// assert!(status.signed_in);
/// assert_eq!(status.health, Health::CoolingDown);
/// assert!(status.retry_in.is_some());
/// assert_eq!(status.counts.failures(FailureKind::Transient), 1);
/// # });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The credential's name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Its health, in a word.
    pub health: Health,
    /// The current generation.
    pub generation: Generation,
    /// Whether there are tokens: an access token, which may have run out, or a refresh token
    /// alone, which is redeemed before the first request.
    pub signed_in: bool,
    /// For how long the access token is still good, if that is known. Zero once it has run out.
    pub expires_in: Option<Duration>,
    /// The flight under way, by what it was started for.
    pub in_flight: Option<Trigger>,
    /// The last failure, even if a refresh has worked since. [`counts`](Self::counts) has the last of
    /// each kind.
    pub last_failure: Option<RefreshFailure>,
    /// How long refreshing still pauses after a failure. `None` if it does not pause.
    pub retry_in: Option<Duration>,
    /// How many tokens live on at the server although no request will use them: those that
    /// [`drain`](crate::RefreshState::drain) would return now
    /// ([`Drained::unrevoked`](super::Drained::unrevoked)), and those that a hook is revoking.
    pub unrevoked: usize,
    /// How often things happened.
    pub counts: Counts,
}
