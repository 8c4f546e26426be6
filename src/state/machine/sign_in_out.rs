//! A sign-in or sign-out of this process.

use super::{
    Machine,
    messages::Moment,
    parts::{Minted, Standing},
};
use crate::{
    store::Record,
    tokens::{Generation, Tokens},
};

impl Machine {
    /// New tokens stand in the store as `record` (sign-in). They win over a flight under
    /// way, unless another process has written since, or a sign-out came after the first
    /// `sign_outs`: the store's deletion follows then.
    pub(crate) fn signed_in(&mut self, record: &Record, sign_outs: u32, at: Moment<'_>) {
        if sign_outs != self.sign_outs
            || record.generation < self.stored
            || record.generation <= self.credential.generation()
        {
            return;
        }
        if record.generation > self.stored {
            self.publish_record(record, at);
            let same = self.take_unsaved_of(record);
            self.reset_history();
            if same.is_some() {
                self.troubles_mut().unsaved = same;
            }
            self.needs_no_relaunch();
            return;
        }
        // The flight has read this record already, to redeem it. The flight goes on, and
        // what is known of the record stays known; but no request uses older tokens
        // meanwhile.
        let current = self.credential.generation();
        self.publish_record(record, at);
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.base == current) {
            flight.base = self.credential.generation();
        }
    }

    /// What was minted from the refresh token that this record holds. It is of the same session,
    /// and the next flight saves it.
    fn take_unsaved_of(&mut self, record: &Record) -> Option<Box<Minted>> {
        self.troubles.as_mut()?.unsaved.take_if(|minted| minted.has_spent(record))
    }

    /// How many sign-outs a sign-in that begins now comes after.
    pub(crate) fn sign_outs(&self) -> u32 {
        self.sign_outs
    }

    /// Whether there is anything to sign out of, as far as is known.
    pub(crate) fn may_hold_tokens(&self) -> bool {
        self.standing != Standing::SignedOut
    }

    /// The tokens to begin with, which no store has held yet.
    pub(crate) fn take_seed(&mut self) -> Option<Tokens> {
        self.seed.take().map(|seed| seed.0)
    }

    /// Sign-out, before the store has heard of it: no request gets a token from
    /// now on. Returns how many there were, this one counted.
    pub(crate) fn sign_out(&mut self) -> u32 {
        self.publish_absent(self.credential.generation().next());
        self.reset_history();
        self.signing_out = true;
        self.sign_outs = self.sign_outs.wrapping_add(1);
        self.needs_no_relaunch();
        self.sign_outs
    }

    /// The waiters who wanted another flight have just heard that there is no need.
    pub(super) fn needs_no_relaunch(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.relaunch = None;
        }
    }

    /// The store has deleted its tokens and is at `generation` now: the sign-out of that
    /// number. Another one may have begun since.
    pub(crate) fn deleted(&mut self, generation: Generation, sign_out: u32) {
        if sign_out == self.sign_outs {
            self.signing_out = false;
        }
        if generation > self.stored {
            self.stored = generation;
            let current = self.credential.generation();
            let least = if self.credential.is_present() { current.next() } else { current };
            self.publish_absent(least.max(generation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Machine,
        messages::{Outcome, Step},
        testing::*,
    };
    use crate::store::Record;

    #[test]
    fn a_sign_out_takes_effect_before_the_store_knows() {
        let (mut machine, _) = signed_in();
        machine.sign_out();
        let effects = machine.effects();
        assert!(effects.wake && effects.publish.is_some_and(|now| !now.is_present()));
    }

    #[test]
    fn a_sign_in_ends_a_sign_out() {
        let (mut machine, rules) = signed_in();
        let number = machine.sign_out();
        machine.deleted(generation(2), number);
        machine.signed_in(&record(3), machine.sign_outs(), rules.at(0));
        assert_eq!(machine.credential().access_token(), Some("access-3"));
    }

    #[test]
    fn a_sign_in_that_was_begun_before_a_sign_out_loses() {
        let (mut machine, rules) = signed_in();
        let before = machine.sign_outs();
        machine.sign_out();
        machine.signed_in(&record(3), before, rules.at(0));
        assert!(!machine.credential().is_present());
    }

    /// Whose runtime has gone away, or that has come too late for it.
    #[test]
    fn a_pair_that_is_given_up_is_discarded() {
        for (superseded_first, signs_in) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let (mut machine, rules) = signed_in();
            redeeming(&mut machine, &rules);
            let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
            let _ = machine.effects();
            let supersede = |machine: &mut Machine| match signs_in {
                true => machine.signed_in(&record(5), 0, rules.at(0)),
                false => {
                    machine.sign_out();
                }
            };
            match superseded_first {
                true => {
                    supersede(&mut machine);
                    assert!(machine.effects().discard.is_none(), "the flight goes on");
                    machine.aborted(shut_down());
                }
                false => {
                    machine.aborted(shut_down());
                    assert!(machine.effects().discard.is_none(), "the next flight saves it");
                    supersede(&mut machine);
                }
            }
            let given_up = machine.effects().discard.map(|tokens| *tokens);
            assert_eq!(given_up, record_of(2), "{superseded_first} {signs_in}");
            assert!(machine.effects().discard.is_none(), "it is told once");
            assert!(machine.held().is_empty());
        }
    }

    /// It was minted from the token that the user has signed in with again.
    #[test]
    fn a_pair_of_the_session_that_is_signed_in_again_is_saved_yet() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        machine.aborted(shut_down());
        let again = Record::new(generation(5), record_of(1));
        machine.signed_in(&again, 0, rules.at(0));
        assert!(machine.effects().discard.is_none());
        begin(&mut machine, &rules);
        let save = machine.advance(Outcome::Leased(None), rules.at(0));
        assert!(matches!(save, Step::Save { .. }), "{save:?}");
        let _ = machine.advance(Outcome::Conflict, rules.at(0));
        let save = machine.advance(Outcome::Loaded(again), rules.at(0));
        let Step::Save { expected, record } = save else { panic!("{save:?}") };
        assert_eq!((expected, record.tokens), (generation(5), record_of(2)));
        let _ = machine.advance(Outcome::Saved, rules.at(0));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
    }

    #[test]
    fn what_a_flight_brings_after_a_sign_out_is_discarded() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        machine.sign_out();
        let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        assert!(matches!(save, Step::Save { .. }), "the store must not keep a spent token");
        let discard = machine.advance(Outcome::Saved, rules.at(0));
        assert!(matches!(discard, Step::Discard(unused) if Some(&unused) == record_of(2).as_ref()));
        assert!(!machine.credential().is_present());
    }
}
