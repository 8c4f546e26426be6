//! Challenges of a credential that cannot be redeemed: a sign-in of another process may have
//! written to the store, so it is read again, at a growing distance.

use super::{
    Machine,
    parts::{Admission, Moment, Standing},
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
        match (&self.flight, self.cooling(at)) {
            (Some(flight), _) if self.is_superseded(flight) => return None,
            (Some(flight), _) if flight.is_stuck() => {
                return Some(Admission::Refuse(RefreshFailure::new(FailureKind::Unsaved)));
            }
            (Some(_), _) => {}
            (None, _) if self.draining => return None,
            // The tokens of another process's sign-in were found, and their redeem failed.
            (None, Some(failure)) => return Some(Admission::Refuse(failure)),
            (None, None) if self.recheck_is_early(at) => return None,
            (None, None) => {
                self.rechecked(at);
                self.begin_flight(Trigger::Challenge);
                if !hold {
                    self.leave_gate_open();
                }
            }
        }
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
    use super::super::{parts::Outcome, testing::*};
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
}
