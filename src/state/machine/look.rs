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
    /// An end counts whatever is under way, as a sign-out of this process does: it is nothing that a
    /// flight of ours could have written. Left to the next flight is what needs one: tokens that have
    /// run out, that were minted for another resource, or that only stand in for what the store has
    /// lost.
    pub(crate) fn looked(&mut self, known: Generation, record: &Record, at: Moment<'_>) {
        if self.signing_out {
            return;
        }
        let is_newer = self.standing == Standing::Unread || record.generation > self.stored;
        match &record.tokens {
            None => self.looked_at_none(known, record, is_newer, at),
            Some(tokens) => {
                let goes_on = |flight: &Flight| {
                    !matches!(flight.stage, Stage::Leasing | Stage::Discarding)
                        && !self.is_superseded(flight)
                };
                let is_read = self.flight.as_deref().is_some_and(goes_on);
                // Something has happened since, or is about to: it knows better.
                let is_old = self.stored != known || !is_newer || is_read;
                let needs_flight = Origin::Offer.has_marked(record)
                    || !at.policy.accepts(tokens)
                    || tokens.has_run_out(at.time);
                if is_old || needs_flight || self.has_left_unsaved() {
                    return;
                }
                self.publish_record(record, at);
                // Not more: it may be a refresh, of the same session and the same server.
                self.recovered();
                self.seed = None;
                self.needs_no_relaunch();
            }
        }
    }

    fn looked_at_none(
        &mut self,
        known: Generation,
        record: &Record,
        is_newer: bool,
        at: Moment<'_>,
    ) {
        let is_absent = *record == Record::default();
        let is_lower = record.generation < self.stored && self.stored == known;
        let mut failure = RefreshFailure::signed_out();
        if is_newer && !is_absent {
            self.publish_record(record, at);
        } else if is_lower && at.policy.absent_ends && self.credential.is_present() {
            self.publish_absent(self.credential.generation().next());
            failure = failure.with_code(EMPTY_STORE);
        } else {
            return;
        }
        self.reset_history();
        self.needs_no_relaunch();
        self.tell_waiters(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, Before, Machine, Outcome, Step, testing::*};
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
        machine.looked(known, &record(8), rules.at(0));
        machine.looked(machine.stored(), &record(6), rules.at(0));
        machine.looked(machine.stored(), &Record::new(generation(6), None), rules.at(0));
        assert_eq!(machine.credential().access_token(), Some("access-7"));
    }

    /// Two looks at once: the later one has read the sign-out.
    #[test]
    fn a_sign_out_counts_though_another_look_came_between() {
        let (mut machine, rules) = signed_in();
        let known = machine.stored();
        machine.looked(known, &record(7), rules.at(0));
        machine.looked(known, &Record::new(generation(8), None), rules.at(0));
        assert!(!machine.credential().is_present());
    }

    /// What it mints is discarded, as after a sign-out here.
    #[test]
    fn a_flight_under_way_hides_no_sign_out() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let out = Record::new(generation(8), None);
        machine.looked(machine.stored(), &out, rules.at(0));
        assert!(!machine.credential().is_present());
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let _ = machine.advance(Outcome::Conflict, rules.at(0));
        assert!(matches!(machine.advance(Outcome::Loaded(out), rules.at(0)), Step::Discard(_)));
    }

    /// A server that refuses every token is not asked twice as often by two processes.
    #[test]
    fn another_processs_refresh_ends_no_doubt() {
        let (mut machine, rules) = signed_in();
        let route = std::num::NonZeroU32::new(1);
        let first = machine.credential().generation();
        let challenge = |machine: &mut Machine, generation| {
            machine.challenge(generation, true, route, rules.at(0))
        };
        assert!(matches!(challenge(&mut machine, first), Admission::Wait(_)));
        land(&mut machine, 2, rules.at(0));
        let second = machine.credential().generation();
        let before = Before { accepted: false, helped: false };
        machine.refused_again(second, before, route, rules.at(0));
        assert!(matches!(challenge(&mut machine.clone(), second), Admission::Refuse(_)));
        let theirs = record(machine.stored().get() + 1);
        machine.looked(machine.stored(), &theirs, rules.at(0));
        let third = machine.credential().generation();
        assert!(third > second);
        assert!(matches!(challenge(&mut machine, third), Admission::Refuse(_)));
    }

    /// Its number came from a clock that is behind.
    #[test]
    fn a_sign_out_with_a_lower_number_ends_a_session_that_was_gone() {
        let (mut machine, mut rules) = signed_in();
        rules.policy.absent_ends = true;
        machine.signed_in(&record(9), 0, rules.at(0));
        machine.looked(machine.stored(), &Record::new(generation(5), None), rules.at(0));
        assert!(!machine.credential().is_present());
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
