//! When to look ahead without a request: what
//! [`keep_fresh`](crate::RefreshState::keep_fresh) asks.

use std::time::Duration;

use super::{
    Machine,
    messages::{Moment, Upkeep},
    parts::Standing,
};
use crate::{state::failure::RefreshFailure, time::Due};

impl Machine {
    /// Begins the flight that a request would begin now, and says when to look again.
    pub(crate) fn upkeep(&mut self, at: Moment<'_>) -> Upkeep {
        if self.draining {
            return Upkeep::Over;
        }
        let begins = self.flight.is_none();
        if self.is_unredeemable() {
            self.recheck(false, at);
        } else if begins {
            self.admit(at);
        }
        if let Some(flight) = &mut self.flight {
            flight.in_background |= begins;
            return Upkeep::News;
        }
        if self.is_unredeemable() {
            // Only a sign-in of another process can help.
            let cooling = self.cooling(at).and_then(|failure| failure.due());
            let allowed = self.troubles.as_ref().and_then(|troubles| troubles.recheck_at);
            return match cooling.into_iter().chain(allowed).reduce(Due::max) {
                Some(due) if self.may_recheck() => Upkeep::Until(due),
                _ => Upkeep::News,
            };
        }
        let now = at.after(Duration::ZERO);
        let (due, end) = match self.standing {
            Standing::SignedIn => (self.credential.early(), self.credential.end()),
            // It will be read when the failure is over.
            Standing::Unread => (Some(now), None),
            Standing::SignedOut => (None, None),
        };
        let cools = self.blocked_by().map_or(Some(now), RefreshFailure::due);
        // The brake does not hold for a token that has run out.
        let brake = self.brake().map(|over| end.map_or(over, |end| over.min(end)));
        let allowed = cools.map(|over| over.max(brake.unwrap_or(over)));
        match (due, allowed) {
            (Some(due), Some(allowed)) => Upkeep::Until(due.max(allowed)),
            _ => Upkeep::News,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::state::failure::FailureKind;

    #[test]
    fn it_looks_again_when_the_cool_down_is_over() {
        let rules = Rules::default();
        let over = rules.at(60).after(Duration::ZERO);
        let mut machine = Machine::unread(true, None);
        let failure = RefreshFailure::new(FailureKind::Store).with_retry_at(over);
        machine.troubles_mut().blocked_by = Some(failure);
        assert_eq!(machine.upkeep(rules.at(0)), Upkeep::Until(over));
        assert_eq!(machine.upkeep(rules.at(60)), Upkeep::News, "a flight is under way");
    }

    #[test]
    fn it_begins_the_early_flight_of_an_idle_credential() {
        let (mut machine, rules) = signed_in();
        let Upkeep::Until(early) = machine.upkeep(rules.at(0)) else { panic!("nothing is due") };
        assert!(early.now < rules.at(LIFE).now());
        assert_eq!(machine.upkeep(rules.at(LIFE)), Upkeep::News);
        assert!(machine.effects().begin.is_some());
    }
}
