//! The way of one flight: lease, read, redeem, save, publish. Pure like the rest of
//! the machine: [`Machine::advance`] takes what came of the last step and says what
//! the next one is. The shell (the driver) does the steps;
//! [`saving`](super::saving) has the part after the redeem.
//!
//! ```text
//! Lease --> Load --> Redeem --> Save --> published, landed
//!   |         |         |         |
//!   |         |         |         +-- conflict: read; ours after all? else discard
//!   |         |         |         +-- failed: pause, the same save again
//!   |         |         |         +-- the lease was lost: take it anew, the same save
//!   |         |         +-- rejected: read once more; adopt what is newer
//!   |         +-- newer and not run out: adopt it, redeem nothing
//!   +-- newer, while others have the lease: the same
//! ```

use std::time::Duration;

use super::{Machine, Standing, saving::Minted};
use crate::{
    error::{BoxError, FailureKind, OpenCause, RefreshError, RefreshFailure},
    state::status::Trigger,
    store::{OpenRedeem, Record},
    tokens::{Generation, Time, Tokens},
};

/// What the shell does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Wait for the lease, or for a record that is newer than that.
    Lease(Generation),
    Load,
    /// Spend the refresh token in these tokens, which are of that generation, if the
    /// lease is still held.
    Redeem(Generation, Option<Tokens>),
    Save {
        expected: Generation,
        record: Record,
    },
    /// Wait, but no longer than the credential stays at this generation.
    Pause {
        wait: Duration,
        generation: Generation,
    },
    /// Hand tokens that nobody will use to the user's hook.
    Discard(Tokens),
    /// Give the lease back; the flight is over.
    Land,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What an earlier holder has left open is told.
    Leased(Option<OpenRedeem>),
    /// There is no lease yet, but a record that is newer.
    Newer(Record),
    Loaded(Record),
    Redeemed(Tokens),
    Refused(RefreshError),
    /// The refresher panicked.
    Panicked,
    Saved,
    Conflict,
    /// Somebody else has the lease by now: nothing was saved.
    LeaseLost,
    /// The store failed, or the lease was lost before the redeem.
    Failed(BoxError),
    /// A pause or a discard is over.
    Done,
}

impl Step {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lease(_) => "lease",
            Self::Load => "load",
            Self::Redeem(..) => "redeem",
            Self::Save { .. } => "save",
            Self::Pause { .. } => "pause",
            Self::Discard(_) => "discard",
            Self::Land => "land",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(super) trigger: Trigger,
    /// The generation that this flight is to replace.
    pub(super) base: Generation,
    /// Requests wait for it. An early flight that nobody was refused for does not
    /// make them wait.
    pub(super) blocking: bool,
    /// It was superseded, and somebody waits for a refresh of what is new.
    pub(super) again: bool,
    /// Adopt what is newer in the store, but redeem nothing.
    look_only: bool,
    /// It has the lease.
    pub(super) leased: bool,
    /// What an earlier holder of the lease has left open.
    pub(super) found: Option<OpenRedeem>,
    stage: Stage,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Leasing,
    Loading,
    Redeeming {
        from: Generation,
        spent: Option<Tokens>,
        begun: Time,
    },
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

impl Flight {
    pub(super) fn new(trigger: Trigger, base: Generation, look_only: bool) -> Self {
        Self {
            trigger,
            base,
            blocking: trigger != Trigger::Early,
            again: false,
            look_only,
            leased: false,
            found: None,
            stage: Stage::Leasing,
        }
    }

    pub(crate) fn trigger(&self) -> Trigger {
        self.trigger
    }

    pub(super) fn lost_lease(&mut self) {
        self.leased = false;
        self.found = None;
    }

    /// Nobody waits for a save that keeps failing.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(&self.stage, Stage::Saving(minted) | Stage::Verifying(minted) if minted.is_failing())
    }
}

impl Machine {
    /// Goes on with the flight after a step. `jitter` is a random number from 0 to 1.
    pub(crate) fn advance(&mut self, outcome: Outcome, time: Time, jitter: f64) -> Step {
        let Some(flight) = &mut self.flight else {
            return Step::Land;
        };
        let stage = std::mem::replace(&mut flight.stage, Stage::Loading);
        match (stage, outcome) {
            (Stage::Leasing, Outcome::Leased(found)) => {
                self.leased(found);
                match self.unsaved.take() {
                    Some(minted) => self.save(minted),
                    None => Step::Load,
                }
            }
            (Stage::Leasing, Outcome::Newer(record)) => match self.unsaved.take() {
                Some(minted) => self.verified(minted, record, time, jitter),
                None => self.loaded(record, time, jitter),
            },
            (Stage::Loading, Outcome::Loaded(record)) => self.loaded(record, time, jitter),
            (Stage::Redeeming { from, spent, begun }, Outcome::Redeemed(tokens)) => {
                self.redeemed(tokens, from, spent, begun, time, jitter)
            }
            (Stage::Redeeming { from, .. }, Outcome::Refused(error)) if error.rejected => {
                let failure = RefreshFailure::new(FailureKind::Rejected)
                    .with_source(error.source)
                    .with_interrupted(self.interruption(from));
                self.dead = Some((from, failure.clone()));
                // The store is read once more now; not again right away.
                self.looked(time.now);
                self.enter(Stage::Rechecking { from, failure }, Step::Load)
            }
            (Stage::Redeeming { .. }, Outcome::Refused(error)) => {
                let failure = RefreshFailure::new(FailureKind::Transient).with_source(error.source);
                self.fail(failure, error.retry_after, time, jitter)
            }
            (Stage::Redeeming { .. }, Outcome::Panicked) => {
                self.fail(RefreshFailure::new(FailureKind::Panicked), None, time, jitter)
            }
            (Stage::Rechecking { from, failure }, Outcome::Loaded(record)) => {
                if record.generation > from {
                    self.loaded(record, time, jitter)
                } else {
                    self.reject(failure)
                }
            }
            (Stage::Saving(minted), Outcome::Leased(found)) => {
                self.leased(found);
                self.save(minted)
            }
            (Stage::Saving(minted), Outcome::Newer(record)) => {
                self.verified(minted, record, time, jitter)
            }
            (Stage::Saving(minted), Outcome::LeaseLost) => self.lease_lost(minted, jitter),
            (Stage::Saving(minted), Outcome::Saved) => self.saved(minted, time, jitter),
            (Stage::Saving(minted), Outcome::Done) => self.save(minted),
            (Stage::Saving(minted), Outcome::Conflict) => {
                self.enter(Stage::Verifying(minted), Step::Load)
            }
            (Stage::Verifying(minted), Outcome::Loaded(record)) => {
                self.verified(minted, record, time, jitter)
            }
            (Stage::Saving(minted) | Stage::Verifying(minted), outcome) => {
                self.save_failed(minted, outcome, jitter)
            }
            (Stage::Discarding, _) => self.land(),
            (_, Outcome::Failed(error)) => {
                let failure = RefreshFailure::new(FailureKind::Store).with_source(error);
                self.fail(failure, None, time, jitter)
            }
            // No other pair is ever made by the shell; the flight ends rather than
            // leaving anyone waiting.
            _ => self.fail(RefreshFailure::new(FailureKind::Store), None, time, jitter),
        }
    }

    /// The flight's task is gone with its runtime. Minted tokens are kept for the
    /// next flight to save.
    pub(crate) fn aborted(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let superseded = self.superseded(&flight);
        match flight.stage {
            Stage::Saving(minted) | Stage::Verifying(minted) if !superseded => {
                self.unsaved = Some(minted.left_over());
            }
            _ => {}
        }
        self.note(RefreshFailure::new(FailureKind::Shutdown));
    }

    /// Minted tokens that are in this machine's hands only, for the model to count.
    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<&Tokens> {
        let flying = self.flight.as_ref().and_then(|flight| match &flight.stage {
            Stage::Saving(minted) | Stage::Verifying(minted) => Some(minted),
            _ => None,
        });
        let minted = flying.into_iter().chain(&self.unsaved);
        minted.filter_map(Minted::tokens).collect()
    }

    pub(super) fn enter(&mut self, stage: Stage, step: Step) -> Step {
        if let Some(flight) = &mut self.flight {
            flight.stage = stage;
        }
        step
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| self.superseded(flight))
    }

    pub(super) fn leased(&mut self, found: Option<OpenRedeem>) {
        if let Some(flight) = &mut self.flight {
            flight.leased = true;
            flight.found = found;
        }
    }

    /// How an earlier redeem of this generation's refresh token was interrupted.
    fn interruption(&self, from: Generation) -> Option<OpenCause> {
        let found = self.flight.as_ref()?.found?;
        (found.generation == from).then_some(found.cause)
    }

    pub(super) fn has_lease(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.leased)
    }

    /// The store was read, under the lease or while others had it.
    pub(super) fn loaded(&mut self, record: Record, time: Time, jitter: f64) -> Step {
        if self.is_superseded() {
            return self.land();
        }
        let unread = self.standing == Standing::Unread;
        let newer = unread || record.generation > self.stored;
        if unread && record == Record::default() {
            if let Some(seed) = self.seed.clone() {
                let expires = seed.deadline(time);
                let minted = self.mint(Generation::ZERO, seed, expires, time, jitter);
                return self.save(minted.seed());
            }
        } else if newer {
            let usable = |tokens: &Tokens| tokens.deadline(time).is_none_or(|at| at > time.now);
            if record.tokens.as_ref().is_none_or(usable) {
                return self.adopt(&record, time, jitter);
            }
        }
        let dead = self.dead.as_ref().filter(|(dead, _)| *dead == record.generation);
        if let Some((_, why)) = dead.cloned() {
            return self.reject(why);
        }
        // Unless it was found by an earlier look, and could not be redeemed yet.
        let gone = !newer && (record.tokens.is_none() || record.generation < self.stored);
        if gone && self.flight.as_ref().is_some_and(|flight| flight.look_only) {
            self.note(RefreshFailure::signed_out());
            return self.land();
        }
        if record.tokens.is_none() && self.policy.needs_tokens {
            return self.bereft();
        }
        if !self.has_lease() {
            // It was seen while others had the lease, and has run out already.
            return self.enter(Stage::Leasing, Step::Lease(record.generation));
        }
        // From here on this record counts as known: a sign-in that has written it and
        // is about to say so does not supersede the redeem of its own token.
        self.stored = self.stored.max(record.generation);
        let spent = record.tokens;
        let from = record.generation;
        let step = Step::Redeem(from, spent.clone());
        self.enter(Stage::Redeeming { from, spent, begun: time }, step)
    }

    fn redeemed(
        &mut self,
        tokens: Tokens,
        from: Generation,
        spent: Option<Tokens>,
        begun: Time,
        time: Time,
        jitter: f64,
    ) -> Step {
        let mut tokens = match &spent {
            Some(spent) => tokens.or_keep(spent),
            None => tokens,
        };
        let spent = spent.as_ref().and_then(Tokens::refresh_token);
        let rotated = spent.is_none() || spent != tokens.refresh_token();
        // A token that has run out the moment it was made tells of clocks that
        // disagree, not of its life: better to learn its end from a challenge.
        let expires = tokens.deadline(begun).filter(|at| *at > time.now);
        if expires.is_none() {
            tokens.expiry = None;
        }
        let minted = self.mint(from, tokens, expires, begun, jitter);
        self.save(if rotated { minted } else { minted.with_kept_refresh_token() })
    }
}
