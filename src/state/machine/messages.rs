//! What the shell tells the machine and is told: plain data.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::Policy;
use crate::{
    credential::Credential,
    error::{BoxError, SharedError},
    refresher::{RefreshError, RefreshRequest, Trigger},
    state::failure::{FailureKind, RefreshFailure},
    store::{OpenRedeem, Record},
    time::{Due, Time},
    tokens::{Generation, Tokens},
};

/// What every verb is given: the rules, the time by both clocks, and a random number from 0
/// to 1. The machine has neither a clock nor chance of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) time: Time,
    pub(crate) jitter: f64,
    /// Whether new tokens have a way to where they are kept.
    pub(crate) may_redeem: bool,
}

impl Moment<'_> {
    pub(super) fn now(&self) -> Instant {
        self.time.now
    }

    /// So much later.
    pub(super) fn after(&self, wait: Duration) -> Due {
        self.time.after(wait)
    }

    pub(super) fn has_come(&self, due: Due) -> bool {
        due.has_come(self.time)
    }

    /// These tokens as requests see them, which were asked for at `begun`.
    pub(super) fn credential(
        &self,
        generation: Generation,
        tokens: &Tokens,
        end: Option<Due>,
        begun: Time,
    ) -> Credential {
        let life = end.map_or(Duration::ZERO, |end| end.left(begun));
        let early = self.policy.early_window(life, self.jitter);
        Credential::new(generation, tokens, end, early)
    }
}

/// What a request is told.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// Use the current credential, which may have no token.
    Proceed,
    /// Wait until [`Machine::resolve`](super::Machine::resolve) has an answer.
    Wait(Ticket),
    /// There will be no fresh token for this request.
    Refuse(RefreshFailure),
}

/// What a waiter has seen already: news is anything beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) generation: Generation,
    pub(crate) failures: u32,
    /// The flight had not begun to redeem yet when the waiter came.
    pub(crate) before_redeem: bool,
}

/// When `keep_fresh` looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// At this moment, which is to come; sooner if there is news.
    Until(Due),
    /// When there is news: a flight has landed, or a sign-in has come.
    News,
    /// Never: no flight will begin any more.
    Over,
}

/// What a call of the machine makes the shell do. The driver and the model carry it out in
/// the order of the fields.
#[derive(Debug)]
#[must_use = "waiters sleep and flights stand still if effects are not carried out"]
pub(crate) struct Effects {
    /// Whether requests have to ask [`admit`](super::Machine::admit) although their token
    /// has not run out.
    pub(crate) gate: Gate,
    /// The credential has changed to this.
    pub(crate) publish: Option<Credential>,
    /// There is news for waiters: wake all of them.
    pub(crate) wake: bool,
    /// A failure of which the user hears: that among the news, or one that no waiter is told.
    pub(crate) failed: Option<RefreshFailure>,
    /// Tokens were minted that no request will ever use: as with [`Step::Discard`].
    pub(crate) discard: Option<Box<Tokens>>,
    /// A flight has begun: drive it.
    pub(crate) begin: Option<Departure>,
}

/// Whether requests pass with the token that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The current token was refused and is being replaced, or nothing was read yet.
    Closed,
}

/// A flight that begins: its first step, and what the log says of it.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) step: Step,
    pub(crate) trigger: Trigger,
    /// No request waits for it, as far as is known.
    pub(crate) in_background: bool,
    /// What waiters had seen when it began.
    pub(crate) ticket: Ticket,
}

/// What the driver does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Wait for the lease, or for a record that is newer than that.
    Lease(Generation),
    Load,
    /// Note in the lease that the refresh token of that generation is about to be spent.
    Intend(Generation),
    /// Call the refresher, if the lease is still held.
    Redeem(RefreshRequest),
    Save {
        expected: Generation,
        record: Record,
    },
    /// Wait, but no longer than the credential stays at this generation.
    Pause {
        wait: Duration,
        generation: Generation,
    },
    /// Give the lease back, with what the next holder has to know, and then wait as in a pause.
    Yield {
        open_redeem: Option<OpenRedeem>,
        wait: Duration,
        generation: Generation,
    },
    /// Hand tokens that no request will ever use to the user's hook.
    Discard(Tokens),
    /// Give the lease back, and leave in it what the next holder has to know. The flight is
    /// over.
    Land {
        open_redeem: Option<OpenRedeem>,
    },
}

impl Step {
    /// The step's name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lease(_) => "lease",
            Self::Load => "load",
            Self::Intend(_) => "intend",
            Self::Redeem(_) => "redeem",
            Self::Save { .. } => "save",
            Self::Pause { .. } => "pause",
            Self::Yield { .. } => "yield",
            Self::Discard(_) => "discard",
            Self::Land { .. } => "land",
        }
    }
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The lease is held. An earlier holder has left this open.
    Leased(Option<OpenRedeem>),
    /// There is no lease yet, but a record that is newer.
    Newer(Record),
    Loaded(Record),
    /// The intent is noted where a crash does not reach it.
    Intended,
    Redeemed(Tokens),
    Refused(RefreshError),
    /// The refresher panicked.
    Panicked,
    Saved,
    Conflict,
    /// Another process has the lease by now: nothing was saved.
    LeaseLost,
    /// The store failed, or the lease was lost before the redeem.
    Failed(SharedError),
    /// A pause, a yield or a discard is over.
    Done,
}

impl Outcome {
    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(SharedError::new(error.into()))
    }

    /// A failure of this kind, with the error of the store if that is the cause.
    pub(super) fn into_failure(self, kind: FailureKind) -> RefreshFailure {
        match self {
            Self::Failed(error) => RefreshFailure::new(kind).with_source(error),
            _ => RefreshFailure::new(kind),
        }
    }

    /// The user's error in it.
    pub(crate) fn error(&self) -> Option<SharedError> {
        match self {
            Self::Refused(error) => Some(SharedError::clone(&error.source)),
            Self::Failed(error) => Some(SharedError::clone(error)),
            _ => None,
        }
    }
}

/// What a flight has done for the credential, when it lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// It has changed nothing.
    Nothing,
    /// It has read the store for the first time, and there were tokens, or the user's own to
    /// begin with.
    Read,
    /// It has taken over what another process has written.
    Adopted,
    /// It has redeemed, and its tokens are in use.
    Renewed,
    /// A sign-in or a sign-out came before.
    Superseded,
}

impl Landing {
    /// The word for it in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing_newer",
            Self::Read => "read",
            Self::Adopted => "adopted",
            Self::Renewed => "renewed",
            Self::Superseded => "superseded",
        }
    }
}
