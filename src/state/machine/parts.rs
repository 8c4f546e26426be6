//! The machine's words: plain data that its verbs pass to each other and to the shell.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{doubts::Doubts, policy::Policy};
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
    /// The failure among the news: the user hears of it, too.
    pub(crate) failed: Option<RefreshFailure>,
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
    /// A pause or a discard is over.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The store was not read yet.
    Unread,
    /// There is a token.
    SignedIn,
    /// There is none until a sign-in.
    SignedOut,
}

/// Where the current token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Minting {
    /// From the store, or from a sign-in.
    Elsewhere,
    /// From a flight of this machine, and it was refused since.
    Here,
    /// From a flight of this machine.
    BrandNew,
}

/// One run of lease, load, redeem, save and publish.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) trigger: Trigger,
    /// The generation that this flight is to replace.
    pub(super) base: Generation,
    /// Requests are held until it has landed: the token that they have does not work. Not so
    /// while it does, or while that is in doubt.
    pub(super) closes_gate: bool,
    /// A server has refused the token, and not only in doubt.
    pub(super) refused: bool,
    /// It was superseded, and a caller waits for a refresh of what came between.
    pub(super) relaunch: bool,
    /// That was refused, too.
    pub(super) relaunch_refused: bool,
    /// That is only in doubt.
    pub(super) relaunch_doubts: bool,
    /// It reads the store for the first time, and a caller wants what is found to be refreshed.
    pub(super) then_refresh: bool,
    /// It may adopt what is newer in the store, and redeems nothing.
    pub(super) adopt_only: bool,
    /// It has the lease.
    pub(super) leased: bool,
    /// The redeem that an earlier holder of the lease left open.
    pub(super) found: Option<OpenRedeem>,
    /// What the next holder of the lease is to find if this flight lands now.
    pub(super) open_redeem: Option<OpenRedeem>,
    /// What it has done so far.
    pub(super) landing: Landing,
    /// The shell drives it.
    pub(super) begun: bool,
    pub(super) stage: Stage,
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

/// What a flight waits for.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Leasing,
    Loading,
    /// The intent to spend what stood in the store as `from`.
    Intending {
        from: Generation,
        tokens: Tokens,
    },
    Redeeming(Redeem),
    /// The server rejected what stood in the store as `from`: read it once more.
    Rechecking {
        from: Generation,
        failure: RefreshFailure,
    },
    Saving(Minted),
    /// The save met a conflict: read what is there.
    Verifying(Minted),
    Discarding,
}

/// A call of the refresher.
#[derive(Clone, Debug)]
pub(super) struct Redeem {
    /// The generation that the tokens stood in the store as.
    pub(super) from: Generation,
    pub(super) tokens: Option<Tokens>,
    pub(super) begun: Time,
}

impl Redeem {
    pub(super) fn refresh_token(&self) -> Option<&str> {
        self.tokens.as_ref().and_then(Tokens::refresh_token)
    }
}

/// Tokens on their way into the store.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    pub(super) expected: Generation,
    pub(super) record: Record,
    pub(super) credential: Credential,
    pub(super) origin: Origin,
    pub(super) failed_saves: u32,
    /// Requests use it already ([`WhileUnsaved::Serve`](super::WhileUnsaved::Serve)).
    pub(super) served: bool,
    /// The flight that minted it is gone, and another one saves it.
    pub(super) inherited: bool,
    /// The lease was lost before the save, and was taken once more without a pause.
    pub(super) lease_retaken: bool,
}

/// Where tokens that are to be saved come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The user gave them to begin with.
    Seed,
    /// They were in use, and the store has lost them.
    Offer,
    /// A refresh. Without rotation the refresh token is the one that was redeemed.
    Refresh { rotated: bool },
}

impl Flight {
    pub(super) fn new(trigger: Trigger, base: Generation, adopt_only: bool) -> Self {
        Self {
            trigger,
            base,
            closes_gate: trigger != Trigger::Early,
            refused: false,
            relaunch: false,
            relaunch_refused: false,
            relaunch_doubts: false,
            then_refresh: false,
            adopt_only,
            leased: false,
            found: None,
            open_redeem: None,
            landing: Landing::Nothing,
            begun: false,
            stage: Stage::Leasing,
        }
    }

    /// The lease is held, and its earlier holder left this open.
    pub(super) fn took_lease(&mut self, found: Option<OpenRedeem>) {
        self.leased = true;
        self.found = found;
        self.open_redeem = found;
    }

    /// It is held no longer: another process may have it, or a save has given it back.
    pub(super) fn lost_lease(&mut self) {
        self.leased = false;
        self.found = None;
        self.open_redeem = None;
    }

    pub(super) fn is_before_redeem(&self) -> bool {
        matches!(self.stage, Stage::Leasing | Stage::Loading | Stage::Intending { .. })
    }

    /// Its save keeps failing: requests do not wait for that.
    pub(super) fn is_stuck(&self) -> bool {
        self.minted().is_some_and(|minted| minted.failed_saves > 0)
    }

    pub(super) fn minted(&self) -> Option<&Minted> {
        match &self.stage {
            Stage::Saving(minted) | Stage::Verifying(minted) => Some(minted),
            _ => None,
        }
    }
}

/// What went wrong lately. Most credentials have none of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    /// Why no new flight starts, until its `retry_at` or (without one) for good.
    pub(super) blocked_by: Option<RefreshFailure>,
    /// The stored generation whose refresh token the server has rejected, and why. It
    /// outlasts a store that cannot be read for a while.
    pub(super) rejected: Option<(Generation, RefreshFailure)>,
    /// Transient failures in a row.
    pub(super) transient_failures: u32,
    /// How often a challenge had the store read again while only a sign-in elsewhere could
    /// help, and when it may be read again.
    pub(super) rechecks: u32,
    pub(super) recheck_at: Option<Due>,
    /// Minted by a flight whose runtime went away before the save.
    pub(super) unsaved: Option<Box<Minted>>,
    /// When brand-new tokens were refused.
    pub(super) strikes: VecDeque<Instant>,
    /// Refusals that may not be about the token.
    pub(super) doubts: Option<Box<Doubts>>,
    /// The last failure that waiters were told.
    pub(super) last_failure: Option<RefreshFailure>,
}

impl Troubles {
    /// A flight came to a good end.
    pub(super) fn recover(&mut self) {
        self.blocked_by = None;
        self.rejected = None;
        self.transient_failures = 0;
        self.rechecks = 0;
        self.recheck_at = None;
    }
}
