//! How a credential does, in a word.

use super::{
    Machine,
    messages::Gate,
    parts::{Flight, Stage, Standing},
};
use crate::{
    state::{failure::FailureKind, status::Health},
    time::Time,
};

impl Machine {
    /// What stands against the session counts more than a token that still works.
    pub(crate) fn health(&self, time: Time) -> Health {
        if self.standing == Standing::SignedOut && !self.has_found_session() {
            return Health::SignedOut;
        }
        if self.is_rejected() {
            return Health::Rejected;
        }
        if self.is_unsaved() {
            return Health::Unsaved;
        }
        if self.flight.is_some() && self.gate() == Gate::Closed {
            return Health::Refreshing;
        }
        match (self.blocked_by().map(|failure| failure.kind()), self.standing) {
            (Some(FailureKind::ClientRefused), _) => Health::ClientRefused,
            (Some(_), _) => Health::CoolingDown,
            _ if self.braked_until(time).is_some() => Health::Braked,
            (None, Standing::Unread) => Health::Unread,
            (None, _) if self.credential.has_run_out(time) => Health::Expired,
            (None, _) => Health::Fresh,
        }
    }

    /// The server has rejected the refresh token, and the store has no other: a flight that
    /// reads it once more for that reason has landed.
    fn is_rejected(&self) -> bool {
        let rechecks = |flight: &Flight| matches!(flight.stage, Stage::Rechecking { .. });
        let rechecks = self.flight.as_deref().is_some_and(rechecks);
        let rejected = self.troubles.as_ref().and_then(|troubles| troubles.rejected.as_ref());
        // What was found since is another session.
        rejected.is_some_and(|(of, _)| *of >= self.stored) && !rechecks
    }

    /// Signed out as far as requests know; but another process has signed in since, and what it
    /// has written is being redeemed, or that has failed and will be tried again.
    fn has_found_session(&self) -> bool {
        let redeems = |flight: &Flight| {
            let is_on = matches!(flight.stage, Stage::Intending { .. } | Stage::Redeeming(_));
            // Of one that a sign-out came before, nothing is served.
            (flight.tries_again || is_on) && !self.is_superseded(flight)
        };
        let fails = |kind| {
            matches!(
                kind,
                FailureKind::Transient | FailureKind::ClientRefused | FailureKind::Panicked
            )
        };
        self.flight.as_deref().is_some_and(redeems)
            || self.blocked_by().is_some_and(|failure| fails(failure.kind()))
    }

    /// Tokens are minted that the store does not have.
    pub(crate) fn is_unsaved(&self) -> bool {
        let stuck = |flight: &_| !self.is_superseded(flight) && flight.is_stuck();
        self.flight.as_deref().is_some_and(stuck) || self.has_left_unsaved()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Admission, messages::Outcome, testing::*};
    use super::*;
    use crate::{refresher::RefreshError, store::Record};

    fn refused(error: RefreshError) -> (Machine, Rules) {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Refused(error), rules.at(0));
        (machine, rules)
    }

    #[test]
    fn a_token_is_fresh_until_it_has_run_out() {
        let (machine, rules) = signed_in();
        assert_eq!(machine.health(rules.at(LIFE - 1).time), Health::Fresh);
        assert_eq!(machine.health(rules.at(LIFE).time), Health::Expired);
        assert_eq!(Machine::unread(true, None).health(rules.at(0).time), Health::Unread);
    }

    #[test]
    fn it_is_refreshing_while_requests_wait_for_that() {
        let (mut machine, rules) = signed_in();
        let _ = machine.admit(rules.at(LIFE - 1));
        assert!(machine.in_flight().is_some());
        assert_eq!(machine.health(rules.at(LIFE - 1).time), Health::Fresh, "ahead of its end");
        let _ = machine.admit(rules.at(LIFE));
        assert_eq!(machine.health(rules.at(LIFE).time), Health::Refreshing);
    }

    /// Whether the sign-out was ours or another process's.
    #[test]
    fn it_is_signed_out_while_a_redeem_that_came_before_is_under_way() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.sign_out();
        assert_eq!(machine.health(rules.at(0).time), Health::SignedOut);
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let out = Record::new(machine.stored().next(), None);
        machine.looked(machine.stored(), &out, rules.at(0));
        assert_eq!(machine.health(rules.at(0).time), Health::SignedOut);
    }

    #[test]
    fn a_failure_is_told_until_it_is_overcome() {
        for (error, health) in [
            (RefreshError::transient("503"), Health::CoolingDown),
            (RefreshError::client_refused("invalid_client"), Health::ClientRefused),
        ] {
            let (mut machine, rules) = refused(error);
            let pause = rules.policy.client_cool_down.as_secs();
            for at in [0, LIFE, pause] {
                assert_eq!(machine.health(rules.at(at).time), health, "at {at} s");
            }
            assert!(machine.retry_at(rules.at(pause).time).is_none());
            let _ = machine.admit(rules.at(pause));
            assert_eq!(machine.health(rules.at(pause).time), Health::Refreshing);
        }
    }

    #[test]
    fn a_rejection_lasts_until_a_sign_in() {
        let (mut machine, rules) = refused(RefreshError::rejected("invalid_grant"));
        let now = rules.at(0);
        assert_eq!(machine.health(now.time), Health::Refreshing, "the store is read once more");
        let _ = machine.advance(Outcome::Loaded(stored()), now);
        assert_eq!(machine.health(now.time), Health::Rejected);
        let _ = machine.refresh(now);
        assert_eq!(machine.health(now.time), Health::Rejected, "it only looks at the store");
        let _ = machine.advance(Outcome::failed("away"), now);
        assert_eq!(machine.health(now.time), Health::Rejected, "the store cannot be read");
        machine.signed_in(&record(2), machine.sign_outs(), now);
        assert_eq!(machine.health(now.time), Health::Fresh);
    }

    #[test]
    fn what_is_not_saved_and_what_is_signed_out_is_told() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let now = rules.at(0);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), now);
        assert_eq!(machine.health(now.time), Health::Refreshing);
        let _ = machine.advance(Outcome::failed("disk full"), now);
        assert_eq!(machine.health(now.time), Health::Unsaved);
        let mut elsewhere = machine.clone();
        elsewhere.signed_in(&record(5), 0, now);
        assert_eq!(elsewhere.health(now.time), Health::Fresh, "a sign-in has come before");
        machine.aborted(shut_down());
        assert_eq!(machine.health(now.time), Health::Unsaved, "the next flight saves them");
        machine.sign_out();
        assert_eq!(machine.health(now.time), Health::SignedOut);

        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let _ = machine.advance(Outcome::Newer(Record::new(generation(2), None)), rules.at(0));
        assert_eq!(machine.health(rules.at(0).time), Health::SignedOut, "another process's");
    }

    #[test]
    fn a_brake_is_told() {
        let (mut machine, rules) = signed_in();
        for _ in 0..=rules.policy.brake_after {
            machine.minting = super::super::parts::Minting::BrandNew;
            let refused = machine.credential().generation();
            let _ = machine.challenge(refused, false, None, rules.at(0));
            machine.flight = None;
        }
        assert_eq!(machine.health(rules.at(0).time), Health::Braked);
    }

    /// `Health::Braked`: "As `CoolingDown`": "tried again by the next request once `retry_in` is over."
    /// The token has run out, so that the next request refreshes it now (invariant 9), and not in a
    /// minute.
    #[test]
    fn a_token_that_has_run_out_is_not_told_as_braked() {
        let (mut machine, rules) = signed_in();
        machine.troubles_mut().brake = Some(rules.at(999).after(Duration::ZERO));
        let now = rules.at(LIFE);
        let (health, retry_at) = (machine.health(now.time), machine.retry_at(now.time));
        assert!(matches!(machine.admit(now), Admission::Wait(_)), "a request does refresh it");
        assert_eq!((health, retry_at), (Health::Expired, None));
    }

    /// `Health::Rejected`: "The session has ended [...]. Only a sign-in helps." Another process has signed
    /// in since, with a refresh token alone. It is found, its redeem fails for a moment, and is tried
    /// again after the cool-down: the word is that of the new session.
    #[test]
    fn a_rejection_is_not_told_of_the_session_that_came_after_it() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        let _ = machine.advance(no, rules.at(0));
        let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        assert_eq!(machine.health(rules.at(0).time), Health::Rejected);
        begin(&mut machine, &rules);
        for outcome in [Outcome::Leased(None), Outcome::Loaded(begins_with(5)), Outcome::Intended] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        let redeeming = machine.health(rules.at(0).time);
        let _ = machine.advance(Outcome::Refused(RefreshError::transient("503")), rules.at(0));
        assert!(matches!(machine.refresh(rules.at(60)), Admission::Wait(_)), "it is tried again");
        machine.flight = None;
        let cooling = machine.health(rules.at(0).time);
        assert_eq!((redeeming, cooling), (Health::Refreshing, Health::CoolingDown));
    }

    /// `Health::SignedOut`: "only a sign-in helps". The same after a sign-out.
    #[test]
    fn a_sign_out_is_not_told_of_the_session_that_came_after_it() {
        let (mut machine, rules) = signed_in();
        let number = machine.sign_out();
        machine.deleted(generation(2), number);
        let _ = machine.effects();
        begin(&mut machine, &rules);
        for outcome in [Outcome::Leased(None), Outcome::Loaded(begins_with(5)), Outcome::Intended] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        let _ = machine.advance(Outcome::Refused(RefreshError::transient("503")), rules.at(0));
        assert_eq!(machine.health(rules.at(0).time), Health::CoolingDown);
    }
}
