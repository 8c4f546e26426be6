//! What requests and callers are told: proceed, wait for a flight, or be refused.

use super::{
    Machine, Told,
    doubts::{Route, Weight},
    messages::{Admission, Gate, Moment, Ticket},
    parts::{Flight, Minting, Stage, Standing, Wanted},
};
use crate::{
    credential::Credential,
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure, present},
    tokens::Generation,
};

/// The pauses that a flight may begin in.
#[derive(Clone, Copy, Debug, Default)]
struct Passes {
    /// That of the brake.
    brake: bool,
    /// That after a refused client.
    client: bool,
}

impl Machine {
    /// Before a request is sent. With [`Admission::Refuse`] it is sent all the same, with
    /// what there is.
    pub(crate) fn admit(&mut self, at: Moment<'_>) -> Admission {
        match self.standing {
            Standing::SignedOut => Admission::Proceed,
            Standing::Unread => self.await_flight(Trigger::FirstUse, at),
            Standing::SignedIn if self.credential.has_run_out(at.time) || self.is_closed() => {
                self.await_flight(Trigger::Expired, at)
            }
            Standing::SignedIn => {
                let early = self.credential.early().is_some_and(|early| at.has_come(early));
                let may_begin = |machine: &Self| machine.blocked(Passes::default(), at).is_none();
                if early && self.flight.is_none() && may_begin(self) {
                    self.begin_flight(Trigger::Early, Wanted::default());
                }
                Admission::Proceed
            }
        }
    }

    /// A caller asks for the token. Unlike a request, it will not be challenged: if only a
    /// sign-in of another process can help, the store is looked at now and then.
    pub(crate) fn token(&mut self, at: Moment<'_>) -> Admission {
        let answer = self.admit(at);
        let helpless = match answer {
            Admission::Proceed => self.standing == Standing::SignedOut,
            Admission::Refuse(_) => self.is_unredeemable(),
            Admission::Wait(_) => false,
        };
        if helpless { self.recheck(false, at).unwrap_or(answer) } else { answer }
    }

    /// The server refused the token of `generation` on this route, if that is known.
    /// `accepted` says whether the current generation was ever accepted.
    pub(crate) fn challenge(
        &mut self,
        generation: Generation,
        accepted: bool,
        route: Option<Route>,
        at: Moment<'_>,
    ) -> Admission {
        if self.standing == Standing::SignedOut {
            let recheck = self.recheck(true, at);
            return recheck.unwrap_or_else(|| Admission::Refuse(RefreshFailure::signed_out()));
        }
        if generation < self.credential.generation() {
            return self.admit(at);
        }
        let weight = self.weigh(accepted, route, at);
        if weight == (Weight::Fact { brand_new: true }) {
            self.strike(at);
        }
        if self.is_unredeemable() {
            if let Some(answer) = self.recheck(weight != Weight::Doubt, at) {
                return answer;
            }
        }
        match weight {
            Weight::Doubt => self.await_doubtful_flight(route, at),
            Weight::Fact { brand_new } => {
                let passes = Passes { brake: !brand_new, client: false };
                self.await_needed_flight(Trigger::Challenge, passes, at)
            }
        }
    }

    /// A caller asks for a refresh. If the store was never read, what is in it is not news: it
    /// is read, and then refreshed, even if the caller goes away. The caller asks again then.
    pub(crate) fn read(&mut self, at: Moment<'_>) -> Option<Ticket> {
        let begins = self.flight.is_none();
        // Tokens to begin with, whose save was broken off, are saved first.
        let unsaved = self.has_left_unsaved();
        match self.standing {
            Standing::Unread => match self.await_flight(Trigger::FirstUse, at) {
                Admission::Wait(ticket) => {
                    if let Some(flight) = &mut self.flight {
                        flight.then_refresh = true;
                        if begins && !unsaved {
                            // Before the lease: what is written while another process has that
                            // was written after this call.
                            flight.stage = Stage::Loading;
                        }
                    }
                    Some(ticket)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// A caller asks for a refresh. A rejected or signed-out credential is not redeemed,
    /// but the store may have a newer one.
    pub(crate) fn refresh(&mut self, at: Moment<'_>) -> Admission {
        if self.signing_out {
            return Admission::Refuse(RefreshFailure::signed_out());
        }
        let only_tries = |failure: &RefreshFailure| failure.kind() == FailureKind::ClientRefused;
        let cooling = self.cooling(at).filter(|failure| !only_tries(failure));
        let may_begin = self.flight.is_none() && !self.draining && cooling.is_none();
        if may_begin && self.is_unredeemable() {
            self.begin_flight(Trigger::Requested, Wanted::held(false));
            return Admission::Wait(self.ticket());
        }
        let passes = Passes { brake: self.passes_brake(at), client: true };
        self.await_needed_flight(Trigger::Requested, passes, at)
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
    pub(crate) fn ran_out(&self) -> RefreshFailure {
        let leasing = |flight: &Flight| matches!(flight.stage, Stage::Leasing);
        let awaits_lease = self.flight.as_deref().is_some_and(leasing);
        RefreshFailure::new(FailureKind::Deadline).awaiting_lease(awaits_lease)
    }

    fn is_closed(&self) -> bool {
        self.gate() == Gate::Closed
    }

    /// Joins the flight, or begins one. Requests are held meanwhile.
    fn await_flight(&mut self, trigger: Trigger, at: Moment<'_>) -> Admission {
        let passes = Passes { brake: self.passes_brake(at), client: false };
        self.await_needed_flight(trigger, passes, at)
    }

    /// The brake stops servers that refuse brand-new tokens. It is not for one that has run out by
    /// its own expiry.
    fn passes_brake(&self, at: Moment<'_>) -> bool {
        self.credential.has_run_out(at.time)
    }

    /// The same, and the pauses that it passes do not hold for it.
    #[inline]
    fn await_needed_flight(
        &mut self,
        trigger: Trigger,
        passes: Passes,
        at: Moment<'_>,
    ) -> Admission {
        let generation = self.credential.generation();
        let refused = trigger == Trigger::Challenge;
        match &mut self.flight {
            Some(flight) if flight.is_stuck() && flight.base == generation => {
                return Admission::Refuse(RefreshFailure::new(FailureKind::Unsaved));
            }
            Some(flight) if flight.base == generation => {
                flight.wanted.by_held(refused);
                self.joined = self.joined.saturating_add(1);
                return Admission::Wait(self.ticket());
            }
            _ => {}
        }
        if let Some(failure) = self.blocked(passes, at) {
            return Admission::Refuse(failure);
        }
        match &mut self.flight {
            Some(flight) => {
                flight.relaunch.get_or_insert_default().by_held(refused);
                self.joined = self.joined.saturating_add(1);
            }
            None => self.begin_flight(trigger, Wanted::held(refused)),
        }
        Admission::Wait(self.ticket())
    }

    /// Joins the flight, or begins one unless that did not help lately. Requests go on with
    /// the token that they have.
    fn await_doubtful_flight(&mut self, route: Option<Route>, at: Moment<'_>) -> Admission {
        let generation = self.credential.generation();
        match &self.flight {
            Some(flight) if flight.base == generation && flight.is_stuck() => {
                return Admission::Refuse(RefreshFailure::new(FailureKind::Unsaved));
            }
            Some(flight) if flight.base == generation || flight.relaunch.is_some() => {
                self.joined = self.joined.saturating_add(1);
                return Admission::Wait(self.ticket());
            }
            _ => {}
        }
        let blocked = self.blocked(Passes::default(), at);
        if let Some(failure) = blocked.or_else(|| self.doubt_pauses(at)) {
            return Admission::Refuse(failure);
        }
        self.doubt_begins(route, at);
        let wanted = Wanted { doubted: true, ..Wanted::default() };
        match &mut self.flight {
            // It was superseded, and is followed by another one.
            Some(flight) => {
                flight.relaunch = Some(wanted);
                self.joined = self.joined.saturating_add(1);
            }
            None => self.begin_flight(Trigger::Challenge, wanted),
        }
        Admission::Wait(self.ticket())
    }

    /// Why no flight may begin for a while.
    pub(super) fn cooling(&self, at: Moment<'_>) -> Option<RefreshFailure> {
        let failure = self.blocked_by()?;
        failure.due().filter(|end| !at.has_come(*end)).map(|_| failure.clone())
    }

    /// Why no flight may begin now.
    fn blocked(&self, passes: Passes, at: Moment<'_>) -> Option<RefreshFailure> {
        if self.draining {
            return Some(RefreshFailure::new(FailureKind::Shutdown));
        }
        let holds = |failure: &&RefreshFailure| {
            let passed = passes.client && failure.kind() == FailureKind::ClientRefused;
            !passed && failure.due().is_none_or(|end| !at.has_come(end))
        };
        let cools = self.blocked_by().filter(holds);
        cools.cloned().or_else(|| {
            let brake = self.brake().filter(|over| !passes.brake && !at.has_come(*over))?;
            Some(RefreshFailure::braked(brake))
        })
    }

    /// The brake: counts brand-new tokens that were refused without ever having been
    /// accepted, and stops refreshing when there were too many.
    fn strike(&mut self, at: Moment<'_>) {
        if self.minting != Minting::BrandNew {
            return;
        }
        self.minting = Minting::Here;
        let (now, policy) = (at.now(), at.policy);
        let strikes = &mut self.troubles_mut().strikes;
        strikes.push_back(now);
        strikes.retain(|strike| now.duration_since(*strike) <= policy.brake_window);
        if strikes.len() > policy.brake_after {
            strikes.clear();
            let until = at.after(policy.brake_pause);
            self.troubles_mut().brake = Some(until);
            // The waiters of a flight hear of that, and the user of both.
            match self.flight {
                Some(_) if self.noted.failed == Told::None => self.noted.failed = Told::User,
                Some(_) => {}
                None => self.tell_waiters(RefreshFailure::braked(until)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, Step, testing::*};
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
        let first = machine.challenge(generation, true, None, rules.at(0));
        assert!(machine.effects().begin.is_some());
        let second = machine.challenge(generation, true, None, rules.at(0));
        assert!(machine.effects().begin.is_none());
        assert!(matches!((first, second), (Admission::Wait(a), Admission::Wait(b)) if a == b));
        assert_eq!(machine.joined(), 1);
    }

    #[test]
    fn a_first_refresh_redeems_what_was_there_and_adopts_what_was_written_since() {
        for written_since in [false, true] {
            let (mut machine, rules) = (Machine::unread(true, None), Rules::default());
            assert!(machine.read(rules.at(0)).is_some());
            let first = machine.effects().begin.map(|departure| departure.step);
            assert!(matches!(first, Some(Step::Load)), "it is read before the lease is taken");
            let lease = machine.advance(Outcome::Loaded(record(1)), rules.at(0));
            assert!(matches!(lease, Step::Lease(known) if known == generation(1)), "{lease:?}");
            assert!(machine.read(rules.at(0)).is_none(), "it is known now");
            let _ = machine.advance(Outcome::Leased(None), rules.at(0));
            let found = if written_since { record(7) } else { record(1) };
            let next = machine.advance(Outcome::Loaded(found), rules.at(0));
            assert_eq!(matches!(next, Step::Land { .. }), written_since);
            assert_eq!(matches!(next, Step::Intend(_)), !written_since);
        }
    }

    #[test]
    fn a_challenge_of_an_older_token_refreshes_nothing() {
        let (mut machine, rules) = signed_in();
        let late = machine.challenge(Generation::ZERO, true, None, rules.at(0));
        assert!(matches!(late, Admission::Proceed));
        assert!(machine.effects().begin.is_none());
    }

    #[test]
    fn tokens_that_are_refused_when_they_are_new_pull_the_brake() {
        let (mut machine, rules) = signed_in();
        for _ in 0..=rules.policy.brake_after {
            machine.minting = Minting::BrandNew;
            let generation = machine.credential().generation();
            let _ = machine.challenge(generation, false, None, rules.at(0));
            machine.flight = None;
        }
        let braked = machine.refresh(rules.at(0));
        assert!(matches!(braked, Admission::Refuse(why) if why.kind() == FailureKind::Braked));
        let later = rules.policy.brake_pause.as_secs();
        assert!(matches!(machine.refresh(rules.at(later)), Admission::Wait(_)));
    }
}
