//! When to look ahead without a request: what
//! [`keep_fresh`](crate::RefreshState::keep_fresh) asks.

use super::{
    Machine,
    parts::{Moment, Standing, Upkeep},
};

impl Machine {
    /// Begins the flight that a request would begin now, and says when to look again.
    pub(crate) fn upkeep(&mut self, at: Moment<'_>) -> Upkeep {
        if self.draining {
            return Upkeep::Over;
        }
        if self.flight.is_none() {
            self.admit(at);
        }
        let due = match self.standing {
            Standing::SignedIn => self.credential.early(),
            // It is being read, or will be when the failure is over.
            Standing::Unread => Some(at.now()),
            Standing::SignedOut => None,
        };
        let allowed = match self.blocked_by() {
            Some(failure) => failure.retry_at(),
            None => Some(at.now()),
        };
        match (due, allowed) {
            (Some(due), Some(allowed)) if self.flight.is_none() => Upkeep::Until(due.max(allowed)),
            _ => Upkeep::News,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::state::failure::{FailureKind, RefreshFailure};

    #[test]
    fn it_looks_again_when_the_cool_down_is_over() {
        let rules = Rules::default();
        let over = rules.at(60).now();
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
        assert!(early < rules.at(LIFE).now());
        assert_eq!(machine.upkeep(rules.at(LIFE)), Upkeep::News);
        assert!(machine.effects().begin.is_some());
    }
}
