//! Challenges of a credential that cannot be redeemed: a sign-in of another process may have
//! written to the store, so it is read again, at a growing distance.

use super::{
    Machine,
    messages::{Admission, Moment},
    parts::{Standing, Wanted},
};
use crate::refresher::Trigger;
use crate::state::failure::{FailureKind, RefreshFailure};

impl Machine {
    /// There is nothing to redeem: only the store can help.
    pub(super) fn is_unredeemable(&self) -> bool {
        let rejected = |failure: &RefreshFailure| failure.kind() == FailureKind::Rejected;
        self.standing == Standing::SignedOut || self.blocked_by().is_some_and(rejected)
    }

    /// Reads a shared store once more, not too often. `None`: that is of no use now.
    /// `hold`: requests wait for that, because the token that they have is refused.
    pub(super) fn recheck(&mut self, hold: bool, at: Moment<'_>) -> Option<Admission> {
        if !self.may_recheck() {
            return None;
        }
        if self.flight.as_ref().is_some_and(|flight| self.is_superseded(flight)) {
            return None;
        }
        if let Some(flight) = &mut self.flight {
            if flight.is_stuck() {
                return Some(Admission::Refuse(RefreshFailure::new(FailureKind::Unsaved)));
            }
            if hold {
                flight.wanted.by_held(true);
            }
            return Some(Admission::Wait(self.ticket()));
        }
        if self.draining {
            return None;
        }
        // The tokens of another process's sign-in were found, and their redeem failed.
        if let Some(failure) = self.cooling(at) {
            return Some(Admission::Refuse(failure));
        }
        if self.recheck_is_early(at) {
            return None;
        }
        self.rechecked(at);
        let wanted = if hold { Wanted::held(true) } else { Wanted::default() };
        self.begin_flight(Trigger::Challenge, wanted);
        Some(Admission::Wait(self.ticket()))
    }

    /// Other processes may write to the store, and it does not still hold what a sign-out here
    /// is to delete.
    pub(super) fn may_recheck(&self) -> bool {
        self.shared && !self.signing_out
    }

    fn recheck_is_early(&self, at: Moment<'_>) -> bool {
        let allowed = self.troubles.as_ref().and_then(|troubles| troubles.recheck_at);
        allowed.is_some_and(|allowed| !at.has_come(allowed))
    }

    /// The pauses between rechecks grow like those between tries.
    pub(super) fn rechecked(&mut self, at: Moment<'_>) {
        let troubles = self.troubles_mut();
        troubles.rechecks = troubles.rechecks.saturating_add(1);
        let pause = at.policy.backoff(troubles.rechecks, 1.0);
        troubles.recheck_at = Some(at.after(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gate, messages::Outcome, testing::*};
    use super::*;
    use crate::refresher::RefreshError;

    #[test]
    fn after_a_rejection_the_store_is_read_again_but_not_at_once() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        let _ = machine.advance(no, rules.at(0));
        let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        let generation = machine.credential().generation();

        let refused = machine.challenge(generation, true, None, rules.at(0));
        assert!(matches!(refused, Admission::Refuse(why) if why.kind() == FailureKind::Rejected));
        let later = rules.policy.cool_down.as_secs();
        let reads = machine.challenge(generation, true, None, rules.at(later));
        assert!(matches!(reads, Admission::Wait(_)));
    }

    #[test]
    fn a_store_of_this_process_alone_is_not_read_again() {
        let (mut machine, rules) = signed_in();
        machine.shared = false;
        machine.sign_out();
        let generation = machine.credential().generation();
        let answer = machine.challenge(generation, true, None, rules.at(LIFE));
        assert!(matches!(answer, Admission::Refuse(why) if why.kind() == FailureKind::SignedOut));
    }

    /// The refresh token is dead, and `keep_fresh` looks for a sign-in elsewhere without holding
    /// requests. A server refuses the token now, for certain: from now on requests are held.
    #[test]
    fn a_fact_that_joins_a_look_into_the_store_closes_the_gate() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        let _ = machine.advance(no, rules.at(0));
        let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        let _ = machine.upkeep(rules.at(10));
        assert!(machine.in_flight().is_some());
        let refused = machine.credential().generation();
        assert!(matches!(
            machine.challenge(refused, false, None, rules.at(10)),
            Admission::Wait(_)
        ));
        assert_eq!(machine.effects().gate, Gate::Closed);
    }
}
