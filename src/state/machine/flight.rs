//! The way of one flight. [`Machine::advance`] takes what came of the last step and says what
//! the next one is; the driver does the steps.
//!
//! ```text
//! Lease --> Load --> Intend --> Redeem --> Save --> published, landed
//!   |         |                   |         |
//!   |         |                   |         +-- conflict: read; ours after all? else discard
//!   |         |                   |         +-- failed: pause, the same save again
//!   |         |                   |         +-- the lease was lost: take it anew, the same save
//!   |         |                   +-- rejected: read once more; adopt what is newer; if an earlier
//!   |         |                       redeem may be under way, yield the lease and try once more
//!   |         +-- newer and not run out: adopt it, redeem nothing
//!   +-- newer, while another process has the lease: the same
//! ```
//!
//! [`intent`](super::intent) has the part from the record to the redeem,
//! [`saving`](super::saving) the part after it, [`landing`](super::landing) the end.

use super::{
    Machine,
    messages::{Moment, Outcome, Step},
    parts::{Flight, Origin, Stage, Standing},
};
use crate::{
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
    tokens::{Generation, Tokens},
};

/// The flight, taken out of the machine while its next step is decided. Each decision ends
/// in [`go`](Self::go), which puts the flight back, or in a landing, which does not.
pub(super) struct Course<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) flight: Box<Flight>,
    pub(super) at: Moment<'a>,
}

const MINTED_FOR_ANOTHER: &str = "the store holds tokens that were minted for another resource \
    or audience; give each resource or audience a name of its own in the store, or sign in again";

/// The store is empty, and the token that is in use works.
pub(super) fn lost_record() -> RefreshFailure {
    const WORDS: &str = "the store has lost the refresh token; the access token is used to its \
        end, after which a sign-in is needed";
    Outcome::failed(WORDS).into_failure(FailureKind::Store).with_code("record_lost")
}

impl Machine {
    /// Goes on with the flight after a step.
    pub(crate) fn advance(&mut self, outcome: Outcome, at: Moment<'_>) -> Step {
        match self.flight.take() {
            Some(flight) => Course { machine: self, flight, at }.follow(outcome),
            // The driver never comes here: only `aborted` takes the flight away from it.
            None => Step::Land { open_redeem: None },
        }
    }

    /// The flight's task is gone with its runtime, or there was none. Minted tokens are kept for
    /// the next flight to save, or given up if they were superseded. Its waiters are told of this
    /// failure.
    pub(crate) fn aborted(&mut self, failure: RefreshFailure) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let superseded = self.is_superseded(&flight);
        match flight.stage {
            Stage::Saving(minted) | Stage::Verifying(minted) if !superseded => {
                self.troubles_mut().unsaved = Some(Box::new(minted.inherited()));
            }
            Stage::Saving(minted) | Stage::Verifying(minted) => self.troubles_mut().give_up(minted),
            _ => {}
        }
        self.tell_waiters(failure);
    }

    /// Whether the flight waits for a lease in which nothing of ours is to be saved, and need
    /// not, because no new flight is wanted.
    pub(crate) fn gives_up_lease(&self) -> bool {
        let leasing = |flight: &Flight| matches!(flight.stage, Stage::Leasing);
        self.draining && !self.has_left_unsaved() && self.flight.as_deref().is_some_and(leasing)
    }

    /// Why the server rejected the refresh token of this stored generation, if it did.
    pub(super) fn rejection_of(&self, generation: Generation) -> Option<RefreshFailure> {
        let (rejected, why) = self.troubles.as_ref()?.rejected.as_ref()?;
        (*rejected == generation).then(|| why.clone())
    }

    /// Minted tokens that are in this machine's hands only, for the model to count.
    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<&Tokens> {
        let flying = self.flight.as_ref().and_then(|flight| flight.minted());
        let unsaved = self.troubles.as_ref().and_then(|troubles| troubles.unsaved.as_deref());
        let minted = flying.into_iter().chain(unsaved);
        minted.filter_map(|minted| minted.record.tokens.as_ref()).collect()
    }
}

impl Course<'_> {
    fn follow(mut self, outcome: Outcome) -> Step {
        let stage = std::mem::replace(&mut self.flight.stage, Stage::Loading);
        match (stage, outcome) {
            (Stage::Leasing, Outcome::Leased(found)) => {
                self.flight.took_lease(found);
                match self.machine.take_unsaved() {
                    Some(minted) => self.save(*minted),
                    None => self.go(Stage::Loading, Step::Load),
                }
            }
            (Stage::Leasing, Outcome::Newer(record)) => match self.machine.take_unsaved() {
                Some(minted) => self.verified(*minted, record),
                None => self.loaded(record),
            },
            (Stage::Loading, Outcome::Loaded(record)) => self.loaded(record),
            (Stage::Intending { from, tokens }, Outcome::Intended) => {
                self.redeem(from, Some(tokens))
            }
            (Stage::Redeeming(redeem), outcome) => self.redeem_ended(redeem, outcome),
            (Stage::Rechecking { from, .. }, Outcome::Loaded(record))
                if record.generation > from =>
            {
                self.loaded(record)
            }
            (Stage::Rechecking { from, failure }, Outcome::Loaded(_)) => {
                self.rejected(from, failure)
            }
            (Stage::Yielding { from }, Outcome::Done) => self.go(Stage::Leasing, Step::Lease(from)),
            (Stage::Saving(minted) | Stage::Verifying(minted), outcome) => {
                self.save_ended(minted, outcome)
            }
            (Stage::Discarding, _) => self.finish_or_relaunch(),
            // Nothing of ours is at stake, and the process does not wait for another one to end.
            (Stage::Leasing, Outcome::Done) => {
                self.machine.tell_waiters(RefreshFailure::new(FailureKind::Shutdown));
                self.finish_or_relaunch()
            }
            (Stage::Rechecking { from, .. }, outcome) => {
                self.doubts_rejection(from);
                self.fail(outcome.into_failure(FailureKind::Store), None)
            }
            // The store failed. The driver makes no other pair; should one come, the flight
            // ends rather than leaving its waiters asleep.
            (_, outcome) => self.fail(outcome.into_failure(FailureKind::Store), None),
        }
    }

    /// The flight goes on with this step.
    pub(super) fn go(mut self, stage: Stage, step: Step) -> Step {
        self.flight.stage = stage;
        self.machine.flight = Some(self.flight);
        step
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.machine.is_superseded(&self.flight)
    }

    /// Why this record is not for this refresher, if it is not.
    pub(super) fn for_another(&self, record: &Record) -> Option<RefreshFailure> {
        let accepts = |tokens: &Tokens| self.at.policy.accepts(tokens);
        (!record.tokens.as_ref().is_none_or(accepts)).then(|| {
            let failure = Outcome::failed(MINTED_FOR_ANOTHER).into_failure(FailureKind::Store);
            failure.with_code("minted_for_another")
        })
    }

    /// The record is another process's offer to a store that was emptied, and what this machine has
    /// works as well.
    pub(super) fn keeps_own(&self, record: &Record) -> bool {
        Origin::Offer.has_marked(record)
            && self.machine.standing == Standing::SignedIn
            && !self.flight.wanted.refused
            && !self.machine.credential.has_run_out(self.at.time)
    }

    /// It says that no user is signed in, or has a token that has not run out.
    pub(super) fn is_usable(&self, record: &Record) -> bool {
        record.tokens.as_ref().is_none_or(|tokens| !tokens.has_run_out(self.at.time))
    }

    /// The store was read, under the lease or while another process had it.
    pub(super) fn loaded(mut self, record: Record) -> Step {
        if self.is_superseded() {
            return self.finish_or_relaunch();
        }
        if let Some(failure) = self.for_another(&record) {
            return self.fail(failure, None);
        }
        let machine = &*self.machine;
        let unread = machine.standing == Standing::Unread;
        let newer = unread || record.generation > machine.stored;
        let offered = Origin::Offer.has_marked(&record);
        if unread && (offered || record == Record::default()) {
            if let Some(seed) = machine.seed.clone() {
                return self.save_seed(*seed, record.generation);
            }
        }
        if offered && machine.standing == Standing::SignedOut {
            // It was not a sign-in that put it there.
            self.machine.tell_waiters(RefreshFailure::signed_out());
            return self.finish_or_relaunch();
        }
        if newer && record != Record::default() {
            if self.keeps_own(&record) {
                // The store has lost its record; what this machine has is as good.
                return self.fail(lost_record(), None);
            }
            if self.is_usable(&record) {
                return self.adopt(&record);
            }
        }
        if let Some(why) = machine.rejection_of(record.generation) {
            return self.reject(why);
        }
        self.flight.record_is_new |= newer && !unread;
        // A recheck redeems only what a sign-in has written since, which it may have read
        // before without being able to redeem it.
        let old = !newer && (record.tokens.is_none() || record.generation < machine.stored);
        if old && self.flight.adopt_only {
            self.machine.tell_waiters(RefreshFailure::signed_out());
            return self.finish_or_relaunch();
        }
        if record.tokens.is_none() && self.at.policy.needs_tokens {
            return self.store_is_empty(&record);
        }
        if !self.flight.leased {
            // It was read while another process had the lease, or before the lease was asked for,
            // and has run out already. What is newer under the lease was written since.
            self.flight.found_run_out = true;
            self.flight.then_refresh = false;
            return self.go(Stage::Leasing, Step::Lease(record.generation));
        }
        self.prepare_redeem(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, testing::*};
    use super::*;
    use crate::refresher::RefreshError;

    #[test]
    fn a_flight_leases_loads_notes_its_intent_and_redeems() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let load = machine.advance(Outcome::Leased(None), rules.at(0));
        assert!(matches!(load, Step::Load));
        let intend = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        assert!(matches!(intend, Step::Intend(from) if from == stored().generation));
        let redeem = machine.advance(Outcome::Intended, rules.at(0));
        assert!(matches!(redeem, Step::Redeem(request) if request.tokens == stored().tokens));
    }

    #[test]
    fn what_another_process_has_refreshed_is_adopted() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let landed = machine.advance(Outcome::Newer(record(2)), rules.at(0));
        assert!(matches!(landed, Step::Land { open_redeem: None }));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
        assert_eq!(machine.refreshes(), 0);
    }

    #[test]
    fn a_runtime_that_goes_away_in_mid_save_leaves_the_pair_to_the_next_flight() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        machine.aborted(shut_down());
        assert!(machine.effects().wake, "the waiters hear of it");
        begin(&mut machine, &rules);
        let save = machine.advance(Outcome::Leased(None), rules.at(0));
        assert!(matches!(save, Step::Save { record, .. } if record.tokens == record_of(2)));
    }

    #[test]
    fn a_store_that_cannot_be_read_costs_a_pause_and_no_token() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let landed = machine.advance(Outcome::failed("away"), rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
        assert!(machine.credential().is_present());
        let pause = rules.policy.cool_down.as_secs();
        assert!(matches!(machine.refresh(rules.at(0)), Admission::Refuse(_)));
        assert!(matches!(machine.refresh(rules.at(pause)), Admission::Wait(_)));
    }

    /// Invariant 6: "re-read the store, adopt if it moved". The refresh token is dead and a server has
    /// refused the access token; another process has put one that works into the store, which had
    /// lost its record. It is not passed over: ours is not as good.
    #[test]
    fn what_another_process_has_offered_is_adopted_when_our_own_token_is_refused() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        let _ = machine.advance(no, rules.at(0));
        let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        let refused = machine.credential().generation();
        assert!(matches!(
            machine.challenge(refused, false, None, rules.at(10)),
            Admission::Wait(_)
        ));
        let _ = machine.effects();
        let theirs = record(9).tokens.unwrap().without_refresh_token();
        let theirs = Record::new(generation(9000), Origin::Offer.mark(theirs));
        let _ = machine.advance(Outcome::Leased(None), rules.at(10));
        let _ = machine.advance(Outcome::Loaded(theirs), rules.at(10));
        assert_eq!(machine.credential().access_token(), Some("access-9"));
    }
}
