//! What becomes of tokens that were minted: they are saved, however often that has to
//! be tried, and only then published; or they are discarded because somebody else was
//! first. They are just dropped where nobody is left to discard them: their runtime is
//! gone, and a sign-in or sign-out comes before another flight.

use tokio::time::Instant;

use super::{
    Machine,
    flight::{Outcome, Stage, Step},
    policy::WhileUnsaved,
};
use crate::{
    error::{FailureKind, RefreshFailure},
    store::Record,
    tokens::{Credential, Generation, Time, Tokens},
};

/// Tokens on their way into the store.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    expected: Generation,
    record: Record,
    credential: Credential,
    /// The user's initial tokens, not a refresh's.
    seed: bool,
    /// The refresh token is the one that was spent: the server does not rotate.
    kept_refresh_token: bool,
    failed: u32,
    /// Requests use it already ([`WhileUnsaved::Serve`]).
    served: bool,
    /// The flight that minted it is gone.
    left_over: bool,
    /// The lease was lost before it could be saved, and is taken anew.
    outlived: bool,
}

impl Minted {
    /// They are the user's initial tokens.
    pub(super) fn seed(self) -> Self {
        Self { seed: true, ..self }
    }

    pub(super) fn with_kept_refresh_token(self) -> Self {
        Self { kept_refresh_token: true, ..self }
    }

    /// The flight is gone; another one will save them.
    pub(super) fn left_over(self) -> Self {
        Self { failed: 0, left_over: true, ..self }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failed > 0
    }

    #[cfg(test)]
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.record.tokens.as_ref()
    }
}

impl Machine {
    /// Tokens as the next generation, to be saved over the stored one `expected`.
    pub(super) fn mint(
        &self,
        expected: Generation,
        tokens: Tokens,
        expires: Option<Instant>,
        begun: Time,
        jitter: f64,
    ) -> Minted {
        let generation = self.credential.generation().max(self.stored).max(expected).next();
        let early = expires.map(|at| self.policy.early(begun.now, at, jitter));
        let credential = Credential::new(generation, &tokens, expires, early);
        let record = Record::new(generation, tokens.absolute(begun));
        Minted {
            expected,
            record,
            credential,
            seed: false,
            kept_refresh_token: false,
            failed: 0,
            served: false,
            left_over: false,
            outlived: false,
        }
    }

    /// Saves, or saves again; even what was superseded by now. The store's
    /// compare-and-swap is the fence there, and the record must not be left with a
    /// token that is spent.
    pub(super) fn save(&mut self, minted: Minted) -> Step {
        let step = match self.has_lease() {
            true => Step::Save { expected: minted.expected, record: minted.record.clone() },
            // It was taken over; what is newer than ours may be there.
            false => Step::Lease(minted.expected),
        };
        self.enter(Stage::Saving(minted), step)
    }

    /// Somebody else has had the lease since. It is taken anew, once without a pause.
    pub(super) fn lease_lost(&mut self, mut minted: Minted, jitter: f64) -> Step {
        if let Some(flight) = &mut self.flight {
            flight.lost_lease();
        }
        if std::mem::replace(&mut minted.outlived, true) {
            return self.save_failed(minted, Outcome::LeaseLost, jitter);
        }
        self.save(minted)
    }

    pub(super) fn saved(&mut self, minted: Minted, time: Time, jitter: f64) -> Step {
        self.stored = self.stored.max(minted.record.generation);
        if self.is_superseded() {
            return self.discard(minted);
        }
        self.seed = None;
        let expired = minted.credential.expires().is_some_and(|at| at <= time.now);
        if minted.seed && expired {
            // Known to the store now, and of no use but to be redeemed.
            return self.loaded(minted.record, time, jitter);
        }
        if minted.served && minted.left_over {
            // Its token was in use already: whoever started this flight waits for
            // the one after it.
            return self.enter(Stage::Loading, Step::Load);
        }
        if !minted.served {
            self.serve(&minted);
        }
        self.recovered();
        self.land()
    }

    fn serve(&mut self, minted: &Minted) {
        self.publish(minted.credential.clone());
        self.fresh = !minted.seed;
        if !minted.seed {
            self.counts.refreshes += 1;
        }
    }

    pub(super) fn save_failed(
        &mut self,
        mut minted: Minted,
        outcome: Outcome,
        jitter: f64,
    ) -> Step {
        minted.failed = minted.failed.saturating_add(1);
        if minted.failed == 1 && !self.is_superseded() {
            let mut failure = RefreshFailure::new(FailureKind::Unsaved);
            if let Outcome::Failed(error) = outcome {
                failure = failure.with_source(error);
            }
            if self.policy.while_unsaved == WhileUnsaved::Serve && !minted.served {
                self.serve(&minted);
                minted.served = true;
                if let Some(flight) = &mut self.flight {
                    flight.base = self.credential.generation();
                }
            }
            self.note(failure);
        }
        let wait = self.policy.backoff(minted.failed, jitter);
        let generation = self.credential.generation();
        self.enter(Stage::Saving(minted), Step::Pause { wait, generation })
    }

    /// The save met a conflict, and this is what the store holds.
    pub(super) fn verified(
        &mut self,
        mut minted: Minted,
        record: Record,
        time: Time,
        jitter: f64,
    ) -> Step {
        if record.is_same(&minted.record) {
            // An earlier try had worked, though it was reported as failed.
            return self.saved(minted, time, jitter);
        }
        if record.generation <= minted.expected {
            // The store went back (it lost data): ours is the newer.
            minted.expected = record.generation;
            return self.save_failed(minted, Outcome::Conflict, jitter);
        }
        if !self.is_superseded() {
            self.publish_record(&record, time, jitter);
            self.recovered();
        }
        if record.has_tokens_of(&minted.record) {
            // A server with a grace period gave others the same: they are in use.
            return self.land();
        }
        self.discard(minted)
    }

    fn discard(&mut self, minted: Minted) -> Step {
        let Some(mut tokens) = minted.record.tokens.filter(|_| !minted.seed) else {
            return self.land();
        };
        if minted.kept_refresh_token {
            // Whoever came first may be using it.
            tokens = tokens.without_refresh_token();
        }
        self.enter(Stage::Discarding, Step::Discard(tokens))
    }
}
