//! What a caller has found in the store without a flight: [`RefreshState::look`](
//! crate::RefreshState::look).

use super::{
    Machine,
    landing::EMPTY_STORE,
    messages::Moment,
    parts::{Flight, Origin, Stage, Standing},
};
use crate::{state::failure::RefreshFailure, store::Record, tokens::Generation};

impl Machine {
    /// The store's generation when it was last read or written here.
    pub(crate) fn stored(&self) -> Generation {
        self.stored
    }

    /// The store held this record when this machine knew it at `known`. What another process has
    /// written counts from now on: new tokens, and the end of the session.
    ///
    /// Left to the next flight is what needs one: tokens that have run out, that were minted for
    /// another resource, or that only stand in for what the store has lost.
    pub(crate) fn looked(&mut self, known: Generation, record: &Record, at: Moment<'_>) {
        // A flight that has not begun to read may wait for long: for its turn, or for its lease.
        let leasing = |flight: &Flight| matches!(flight.stage, Stage::Leasing);
        let is_read = self.flight.as_deref().is_some_and(|flight| !leasing(flight));
        let has_left_unsaved = self.has_left_unsaved();
        // Something has happened since, or is about to: it knows better.
        if self.stored != known || is_read || self.signing_out || has_left_unsaved {
            return;
        }
        let is_known = self.standing != Standing::Unread;
        if *record == Record::default() {
            if is_known && at.policy.absent_ends && self.credential.is_present() {
                self.publish_absent(self.credential.generation().next());
                self.reset_history();
                self.needs_no_relaunch();
                self.tell_waiters(RefreshFailure::signed_out().with_code(EMPTY_STORE));
            }
            return;
        }
        if is_known && record.generation <= self.stored {
            return;
        }
        match &record.tokens {
            None => {
                self.publish_record(record, at);
                self.reset_history();
                self.needs_no_relaunch();
                self.tell_waiters(RefreshFailure::signed_out());
            }
            Some(tokens) => {
                let is_in_place_of_lost = Origin::Offer.has_marked(record);
                if is_in_place_of_lost || !at.policy.accepts(tokens) || tokens.has_run_out(at.time)
                {
                    return;
                }
                self.publish_record(record, at);
                self.reset_history();
                self.needs_no_relaunch();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, Machine, Outcome, Step, testing::*};
    use super::*;
    use crate::state::failure::FailureKind;

    #[test]
    fn another_processs_tokens_and_sign_out_count_at_once() {
        let (mut machine, rules) = signed_in();
        machine.looked(machine.stored(), &record(7), rules.at(0));
        assert_eq!(machine.credential().access_token(), Some("access-7"));
        let out = Record::new(generation(8), None);
        machine.looked(machine.stored(), &out, rules.at(0));
        assert!(!machine.credential().is_present());
        assert_eq!(machine.last_failure().map(|it| it.kind()), Some(FailureKind::SignedOut));
    }

    #[test]
    fn what_is_older_than_what_is_known_changes_nothing() {
        let (mut machine, rules) = signed_in();
        let known = machine.stored();
        machine.looked(known, &record(7), rules.at(0));
        // Both were read before.
        machine.looked(known, &Record::new(generation(8), None), rules.at(0));
        machine.looked(machine.stored(), &record(6), rules.at(0));
        assert_eq!(machine.credential().access_token(), Some("access-7"));
    }

    /// It waits for its turn, or for a lease that another process has.
    #[test]
    fn a_flight_that_has_not_begun_to_read_hides_no_sign_out() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        machine.looked(machine.stored(), &Record::new(generation(8), None), rules.at(0));
        assert!(!machine.credential().is_present());
        // And redeems nothing.
        let _ = machine.advance(Outcome::Leased(None), rules.at(0));
        let next = machine.advance(Outcome::Loaded(record(1)), rules.at(0));
        assert!(matches!(next, Step::Land { .. }), "{next:?}");
    }

    #[test]
    fn a_flight_under_way_finds_out_itself() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let before = machine.credential().generation();
        machine.looked(machine.stored(), &Record::new(generation(8), None), rules.at(0));
        assert_eq!(machine.credential().generation(), before);
    }

    /// They may be what is in the store: a save that was not heard of, of a flight that is gone.
    #[test]
    fn minted_tokens_that_were_not_saved_for_certain_are_left_to_the_next_flight() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let minted = record(2).tokens.unwrap();
        let save = machine.advance(Outcome::Redeemed(minted), rules.at(0));
        let Step::Save { record: saved, .. } = save else { panic!("{save:?}") };
        let _ = machine.advance(Outcome::failed("no answer"), rules.at(0));
        machine.aborted(shut_down());
        let _ = machine.effects();
        machine.looked(machine.stored(), &saved, rules.at(0));
        assert!(machine.effects().discard.is_none(), "it would revoke the session's own");
    }

    #[test]
    fn an_empty_store_ends_a_session_only_where_the_record_is_the_session() {
        for ends in [false, true] {
            let (mut machine, mut rules) = signed_in();
            rules.policy.absent_ends = ends;
            machine.looked(machine.stored(), &Record::default(), rules.at(0));
            assert_eq!(machine.credential().is_present(), !ends);
        }
    }

    #[test]
    fn a_first_look_is_a_first_reading() {
        let (mut machine, rules) = (Machine::unread(true, None), Rules::default());
        machine.looked(machine.stored(), &Record::default(), rules.at(0));
        assert!(matches!(machine.admit(rules.at(0)), Admission::Wait(_)), "a flight reads it");
        let mut machine = Machine::unread(true, None);
        machine.looked(machine.stored(), &record(3), rules.at(0));
        assert!(matches!(machine.admit(rules.at(0)), Admission::Proceed));
        assert_eq!(machine.credential().access_token(), Some("access-3"));
    }
}
