//! What requests and callers are told: proceed, wait for a flight, or be refused.

use tokio::time::Instant;

use super::{
    Machine,
    parts::{Admission, Gate, Moment, Standing, Ticket},
    policy::after,
};
use crate::{
    credential::Credential,
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure, present},
    tokens::Generation,
};

impl Machine {
    /// Before a request is sent. With [`Admission::Refuse`] it is sent all the same, with
    /// what there is.
    pub(crate) fn admit(&mut self, at: Moment<'_>) -> Admission {
        let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= at.now());
        match self.standing {
            Standing::SignedOut => Admission::Proceed,
            Standing::Unread => self.await_flight(Trigger::FirstUse, at),
            Standing::SignedIn if is_due(self.credential.expires()) || self.is_closed() => {
                self.await_flight(Trigger::Expired, at)
            }
            Standing::SignedIn => {
                let early = is_due(self.credential.early());
                if early && self.flight.is_none() && self.blocked(at).is_none() {
                    self.begin_flight(Trigger::Early);
                }
                Admission::Proceed
            }
        }
    }

    /// The server refused the token of `generation`. `accepted` says whether the
    /// current generation was ever accepted.
    pub(crate) fn challenge(
        &mut self,
        generation: Generation,
        accepted: bool,
        at: Moment<'_>,
    ) -> Admission {
        if self.standing == Standing::SignedOut {
            let recheck = self.recheck(at);
            return recheck.unwrap_or_else(|| Admission::Refuse(RefreshFailure::signed_out()));
        }
        if generation < self.credential.generation() {
            return self.admit(at);
        }
        self.strike(accepted, at);
        if self.is_unredeemable() {
            if let Some(answer) = self.recheck(at) {
                return answer;
            }
        }
        self.await_flight(Trigger::Challenge, at)
    }

    /// A caller asks for a refresh. A rejected or signed-out credential is not redeemed,
    /// but the store may have a newer one.
    pub(crate) fn refresh(&mut self, at: Moment<'_>) -> Admission {
        if self.signing_out {
            return Admission::Refuse(RefreshFailure::signed_out());
        }
        let may_begin = self.flight.is_none() && !self.draining && self.cooling(at).is_none();
        if may_begin && self.is_unredeemable() {
            self.begin_flight(Trigger::Requested);
            return Admission::Wait(self.ticket());
        }
        self.await_flight(Trigger::Requested, at)
    }

    /// News for a waiter, if there is any.
    pub(crate) fn resolve(&self, ticket: Ticket) -> Option<Result<Credential, RefreshFailure>> {
        if self.credential.generation() > ticket.generation {
            return Some(present(self.credential.clone()));
        }
        if self.failures != ticket.failures {
            return self.last_failure().cloned().map(Err);
        }
        None
    }

    /// A waiter has waited for as long as it may.
    pub(crate) fn ran_out(&mut self) {
        self.troubles_mut().count(FailureKind::Deadline);
    }

    fn is_closed(&self) -> bool {
        self.gate() == Gate::Closed
    }

    /// Joins the flight, or begins one.
    fn await_flight(&mut self, trigger: Trigger, at: Moment<'_>) -> Admission {
        let generation = self.credential.generation();
        let blocked = self.blocked(at);
        match (&mut self.flight, blocked) {
            (Some(flight), _) if flight.is_stuck() && flight.base == generation => {
                return Admission::Refuse(RefreshFailure::new(FailureKind::Unsaved));
            }
            (Some(flight), _) if flight.base == generation => {
                flight.has_waiters = true;
                self.joined += 1;
            }
            (_, Some(failure)) => return Admission::Refuse(failure),
            (Some(flight), None) => {
                flight.relaunch = true;
                self.joined += 1;
            }
            (None, None) => self.begin_flight(trigger),
        }
        Admission::Wait(self.ticket())
    }

    /// Why no flight may begin for a while.
    pub(super) fn cooling(&self, at: Moment<'_>) -> Option<RefreshFailure> {
        let failure = self.blocked_by()?;
        failure.retry_at().filter(|end| *end > at.now()).map(|_| failure.clone())
    }

    /// Why no flight may begin now.
    fn blocked(&self, at: Moment<'_>) -> Option<RefreshFailure> {
        if self.draining {
            return Some(RefreshFailure::new(FailureKind::Shutdown));
        }
        let is_over = |end: Instant| end <= at.now();
        self.blocked_by().filter(|failure| !failure.retry_at().is_some_and(is_over)).cloned()
    }

    /// The brake: counts brand-new tokens that were refused without ever having been
    /// accepted, and stops refreshing when there were too many.
    fn strike(&mut self, accepted: bool, at: Moment<'_>) {
        let brand_new = std::mem::take(&mut self.brand_new);
        if accepted || !brand_new {
            return;
        }
        let (now, policy) = (at.now(), at.policy);
        let strikes = &mut self.troubles_mut().strikes;
        strikes.push_back(now);
        strikes.retain(|strike| now.duration_since(*strike) <= policy.brake_window);
        if strikes.len() > policy.brake_after {
            strikes.clear();
            let until = after(now, policy.brake_pause);
            let failure = RefreshFailure::new(FailureKind::Braked).with_retry_at(until);
            self.tell_waiters(failure.clone());
            self.troubles_mut().blocked_by = Some(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_token_that_works_is_used_without_asking_for_another() {
        let (mut machine, rules) = signed_in();
        assert!(matches!(machine.admit(rules.at(0)), Admission::Proceed));
        assert!(machine.effects().begin.is_none());
    }

    #[test]
    fn near_its_end_a_token_is_used_and_renewed() {
        let (mut machine, rules) = signed_in();
        assert!(matches!(machine.admit(rules.at(LIFE - 1)), Admission::Proceed));
        let effects = machine.effects();
        assert_eq!(effects.begin.map(|flight| flight.trigger), Some(Trigger::Early));
        assert_eq!(effects.gate, Gate::Open, "requests go on with the old token");
    }

    #[test]
    fn a_second_challenge_joins_the_flight_of_the_first() {
        let (mut machine, rules) = signed_in();
        let generation = machine.credential().generation();
        let first = machine.challenge(generation, true, rules.at(0));
        assert!(machine.effects().begin.is_some());
        let second = machine.challenge(generation, true, rules.at(0));
        assert!(machine.effects().begin.is_none());
        assert!(matches!((first, second), (Admission::Wait(a), Admission::Wait(b)) if a == b));
        assert_eq!(machine.joined(), 1);
    }

    #[test]
    fn a_challenge_of_an_older_token_refreshes_nothing() {
        let (mut machine, rules) = signed_in();
        let late = machine.challenge(Generation::ZERO, true, rules.at(0));
        assert!(matches!(late, Admission::Proceed));
        assert!(machine.effects().begin.is_none());
    }

    #[test]
    fn tokens_that_are_refused_when_they_are_new_pull_the_brake() {
        let (mut machine, rules) = signed_in();
        for _ in 0..=rules.policy.brake_after {
            machine.brand_new = true;
            let generation = machine.credential().generation();
            let _ = machine.challenge(generation, false, rules.at(0));
            machine.flight = None;
        }
        let braked = machine.refresh(rules.at(0));
        assert!(matches!(braked, Admission::Refuse(why) if why.kind() == FailureKind::Braked));
        let later = rules.policy.brake_pause.as_secs();
        assert!(matches!(machine.refresh(rules.at(later)), Admission::Wait(_)));
    }
}
