//! From the record to the redeem, and what of it a crash must not hide: the intent, noted
//! before a refresh token is spent, and the open redeem, left for the next holder of the
//! lease.
//!
//! | when the flight lands after | the next holder finds |
//! |---|---|
//! | no redeem, or one that certainly spent nothing | what this flight has found |
//! | a redeem that may have spent the token | [`OpenCause::AnswerLost`], or [`OpenCause::ServerFailed`] if there was an answer |
//! | a save | nothing |
//!
//! A process that dies leaves the intent itself.

use std::time::Duration;

use super::{
    flight::Course,
    messages::{Outcome, Step},
    parts::{Redeem, Stage},
};
use crate::{
    refresher::{RefreshErrorKind, RefreshRequest},
    state::failure::{FailureKind, RefreshFailure},
    store::{OpenCause, OpenRedeem, Record},
    tokens::{Generation, Tokens},
};

/// How long a server may take to serve a redeem that another holder has begun.
const GRACE: Duration = Duration::from_secs(1);

impl Course<'_> {
    /// The lease is held, and this record is to be redeemed.
    pub(super) fn prepare_redeem(mut self, record: Record) -> Step {
        if !self.at.may_redeem {
            // No pause: the next request may.
            if !self.is_superseded() {
                self.doubt_is_void();
                self.machine.tell_waiters(RefreshFailure::new(FailureKind::NoResponseHead));
            }
            return self.finish_or_relaunch();
        }
        let from = record.generation;
        // From here on this record counts as known: a sign-in that has written it and
        // is about to say so does not supersede the redeem of its own token.
        self.machine.stored = self.machine.stored.max(from);
        match record.tokens {
            Some(tokens) if tokens.refresh_token().is_some() => {
                self.go(Stage::Intending { from, tokens }, Step::Intend(from))
            }
            // There is no refresh token that could be spent.
            tokens => self.redeem(from, tokens),
        }
    }

    pub(super) fn redeem(self, from: Generation, tokens: Option<Tokens>) -> Step {
        let request = RefreshRequest::new(tokens.clone(), self.flight.trigger);
        let redeem = Redeem { from, tokens, begun: self.at.time };
        self.go(Stage::Redeeming(redeem), Step::Redeem(request))
    }

    pub(super) fn redeem_ended(mut self, redeem: Redeem, outcome: Outcome) -> Step {
        let open = match &outcome {
            Outcome::Refused(error) if error.unspent => None,
            Outcome::Refused(error) if error.answered => Some(OpenCause::ServerFailed),
            // The lease was lost, and the refresher was not called.
            Outcome::Failed(_) => None,
            // After an answer with tokens, too: only the save closes the redeem.
            _ => Some(OpenCause::AnswerLost),
        };
        if let Some(cause) = open.filter(|_| redeem.refresh_token().is_some()) {
            self.flight.open_redeem = Some(OpenRedeem::new(redeem.from, cause));
        }
        match outcome {
            Outcome::Redeemed(tokens) => self.redeemed(tokens, redeem),
            // Where no tokens are needed, a sign-in would not mend it.
            Outcome::Refused(error) if error.is_rejected() && self.at.policy.needs_tokens => {
                let from = redeem.from;
                let cause = self.open_cause_of(from);
                let failure = RefreshFailure::new(FailureKind::Rejected)
                    .with_error(&error)
                    .with_open_redeem(cause.or(self.machine.troubles_mut().doubted_over));
                self.machine.troubles_mut().rejected = Some((from, failure.clone()));
                // The store is read once more now; not again right away.
                self.machine.rechecked(self.at);
                self.go(Stage::Rechecking { from, failure }, Step::Load)
            }
            Outcome::Refused(error) => {
                let kind = match error.kind {
                    RefreshErrorKind::Transient => FailureKind::Transient,
                    _ => FailureKind::ClientRefused,
                };
                let failure = RefreshFailure::new(kind).with_error(&error);
                self.fail(failure, error.retry_after)
            }
            Outcome::Panicked => self.fail(RefreshFailure::new(FailureKind::Panicked), None),
            // The lease was lost. The driver brings nothing else.
            outcome => self.fail(outcome.into_failure(FailureKind::Store), None),
        }
    }

    /// The server rejected what stands in the store as `from`, and the store has nothing newer.
    ///
    /// Some servers with a grace period refuse a refresh token while they serve another redeem
    /// of it, and have the pair for both a moment later (better-auth). So what may be redeemed
    /// elsewhere now is looked at and tried once more: where an earlier redeem was left open, and
    /// where the record was written since this machine last looked. The lease is given back
    /// meanwhile, because the other holder may be waiting for it to save.
    pub(super) fn rejected(mut self, from: Generation, failure: RefreshFailure) -> Step {
        if self.is_superseded() || !self.doubts_rejection(from) {
            return self.reject(failure);
        }
        let generation = self.machine.credential.generation();
        let open_redeem = self.flight.open_redeem;
        self.flight.tries_again = true;
        self.flight.lost_lease();
        let step = Step::Yield { open_redeem, wait: GRACE, generation };
        self.go(Stage::Yielding { from }, step)
    }

    /// Whether a rejection of this generation's refresh token may not be the server's last word.
    /// Then it is not before a second one has come, in this flight or in another.
    pub(super) fn doubts_rejection(&mut self, from: Generation) -> bool {
        let open_cause = self.open_cause_of(from);
        let is_in_doubt = self.flight.record_is_new || open_cause.is_some();
        let troubles = self.machine.troubles_mut();
        let doubts = is_in_doubt && troubles.doubtful_rejection != Some(from);
        if doubts {
            troubles.rejected = None;
            troubles.doubtful_rejection = Some(from);
            troubles.doubted_over = open_cause.or(troubles.doubted_over);
        }
        doubts
    }

    /// How an earlier redeem of this generation's refresh token was left open.
    fn open_cause_of(&self, from: Generation) -> Option<OpenCause> {
        let found = self.flight.found?;
        (found.generation == from).then_some(found.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, Machine, messages::Moment, testing::*};
    use super::*;
    use crate::{refresher::RefreshError, state::status::Health};

    fn answer_lost() -> Option<OpenRedeem> {
        Some(OpenRedeem::new(stored().generation, OpenCause::AnswerLost))
    }

    /// The tokens are in a browser's cookie, and the last response's head was sent.
    #[test]
    fn without_a_way_for_new_tokens_nothing_is_spent_and_nothing_pauses() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let no_way = Moment { may_redeem: false, ..rules.at(0) };
        let _ = machine.advance(Outcome::Leased(None), no_way);
        let landed = machine.advance(Outcome::Loaded(stored()), no_way);
        assert!(matches!(landed, Step::Land { open_redeem: None }), "{landed:?}");
        let told = machine.last_failure().map(|failure| failure.kind());
        assert_eq!(told, Some(FailureKind::NoResponseHead));
        assert!(matches!(machine.refresh(rules.at(0)), Admission::Wait(_)));
        // What another process has minted is taken over all the same.
        let _ = machine.advance(Outcome::Leased(None), no_way);
        let _ = machine.advance(Outcome::Loaded(record(7)), no_way);
        assert_eq!(machine.credential().access_token(), Some("access-7"));
    }

    #[test]
    fn a_lost_answer_is_left_to_the_next_holder() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let lost = Outcome::Refused(RefreshError::transient("reset"));
        let landed = machine.advance(lost, rules.at(0));
        assert!(matches!(landed, Step::Land { open_redeem } if open_redeem == answer_lost()));
    }

    #[test]
    fn an_answer_that_says_nothing_of_the_token_is_not_told_as_a_lost_one() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let busy = Outcome::Refused(RefreshError::transient("503").answered());
        let landed = machine.advance(busy, rules.at(0));
        let Step::Land { open_redeem: Some(open) } = landed else { panic!("{landed:?}") };
        assert_eq!(open, OpenRedeem::new(stored().generation, OpenCause::ServerFailed));
    }

    #[test]
    fn what_certainly_spent_nothing_leaves_nothing_open() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let refused = Outcome::Refused(RefreshError::transient("no connection").unspent());
        let landed = machine.advance(refused, rules.at(0));
        assert!(matches!(landed, Step::Land { open_redeem: None }));
    }

    #[test]
    fn a_refused_client_is_tried_again_and_at_once_by_a_caller() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let wrong_secret = Outcome::Refused(RefreshError::client_refused("invalid_client"));
        let landed = machine.advance(wrong_secret, rules.at(0));
        assert!(matches!(landed, Step::Land { open_redeem: None }), "the token is not spent");
        let told = machine.last_failure().map(RefreshFailure::kind);
        assert_eq!(told, Some(FailureKind::ClientRefused));
        let pause = rules.policy.client_cool_down.as_secs();
        for (at, tries) in [(LIFE, false), (pause - 1, false), (pause, true)] {
            let waits = matches!(machine.clone().admit(rules.at(at)), Admission::Wait(_));
            assert_eq!(waits, tries, "at {at} s");
        }
        assert!(matches!(machine.refresh(rules.at(1)), Admission::Wait(_)));
    }

    /// As client credentials are: there is nothing that a sign-in could set.
    #[test]
    fn what_needs_no_tokens_does_not_die_of_a_rejection() {
        let (mut machine, mut rules) = (Machine::unread(true, None), Rules::default());
        rules.policy.needs_tokens = false;
        let _ = machine.admit(rules.at(0));
        for outcome in [Outcome::Leased(None), Outcome::Loaded(Record::default())] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        let _ = machine.advance(no, rules.at(0));
        let pause = rules.policy.client_cool_down.as_secs();
        assert!(matches!(machine.admit(rules.at(pause - 1)), Admission::Refuse(_)));
        assert!(matches!(machine.admit(rules.at(pause)), Admission::Wait(_)));
    }

    #[test]
    fn a_save_closes_the_redeem() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let landed = machine.advance(Outcome::Saved, rules.at(0));
        assert!(matches!(landed, Step::Land { open_redeem: None }));
    }

    fn rejection() -> Outcome {
        Outcome::Refused(RefreshError::rejected("invalid_grant"))
    }

    fn holder_ended() -> Option<OpenRedeem> {
        Some(OpenRedeem::new(stored().generation, OpenCause::HolderEnded))
    }

    /// A flight that has found an open redeem is rejected, and has read the store once more.
    fn rejected_in_doubt(machine: &mut Machine, rules: &Rules) -> Step {
        begin(machine, rules);
        for outcome in [
            Outcome::Leased(holder_ended()),
            Outcome::Loaded(stored()),
            Outcome::Intended,
            rejection(),
        ] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        machine.advance(Outcome::Loaded(stored()), rules.at(0))
    }

    #[test]
    fn a_rejection_says_that_an_earlier_holder_may_have_spent_the_token() {
        let (mut machine, rules) = signed_in();
        let _ = rejected_in_doubt(&mut machine, &rules);
        for outcome in [
            Outcome::Done,
            Outcome::Leased(holder_ended()),
            Outcome::Loaded(stored()),
            Outcome::Intended,
            rejection(),
            Outcome::Loaded(stored()),
        ] {
            let _ = machine.advance(outcome, rules.at(1));
        }
        let told = machine.last_failure().and_then(RefreshFailure::open_redeem);
        assert_eq!(told, Some(OpenCause::HolderEnded));
    }

    #[test]
    fn a_rejection_while_another_redeem_may_be_served_yields_the_lease_and_is_tried_once_more() {
        let (mut machine, rules) = signed_in();
        let step = rejected_in_doubt(&mut machine, &rules);
        let Step::Yield { open_redeem, wait, .. } = step else { panic!("{step:?}") };
        assert_eq!((open_redeem, wait.as_secs()), (holder_ended(), 1));
        assert!(machine.last_failure().is_none(), "the credential is not ended yet");
        assert_ne!(machine.health(rules.at(0).time), Health::Rejected);
        let lease = machine.advance(Outcome::Done, rules.at(1));
        assert!(matches!(lease, Step::Lease(known) if known == stored().generation));
        let _ = machine.advance(Outcome::Leased(holder_ended()), rules.at(1));
        let _ = machine.advance(Outcome::Loaded(stored()), rules.at(1));
        let redeem = machine.advance(Outcome::Intended, rules.at(1));
        assert!(matches!(redeem, Step::Redeem(request) if request.tokens == stored().tokens));
        let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(1));
        assert!(matches!(save, Step::Save { .. }));
        let _ = machine.advance(Outcome::Saved, rules.at(1));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
        assert_eq!(machine.health(rules.at(1).time), Health::Fresh);
    }

    #[test]
    fn what_the_other_holder_saves_meanwhile_is_adopted() {
        let (mut machine, rules) = signed_in();
        let _ = rejected_in_doubt(&mut machine, &rules);
        let _ = machine.advance(Outcome::Done, rules.at(1));
        let landed = machine.advance(Outcome::Newer(record(2)), rules.at(1));
        assert!(matches!(landed, Step::Land { open_redeem: None }));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
    }

    /// A holder that was stopped for too long saves its pair after all, while the second try is
    /// waited for; but the server has ended the session, since the token came twice.
    #[test]
    fn the_rejection_of_what_was_saved_late_says_that_a_redeem_was_left_open() {
        let (mut machine, rules) = signed_in();
        let _ = rejected_in_doubt(&mut machine, &rules);
        let _ = machine.advance(Outcome::Done, rules.at(1));
        let _ = machine.advance(Outcome::Newer(record(2)), rules.at(1));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
        begin(&mut machine, &rules);
        for outcome in [
            Outcome::Leased(None),
            Outcome::Loaded(record(2)),
            Outcome::Intended,
            rejection(),
            Outcome::Loaded(record(2)),
        ] {
            let _ = machine.advance(outcome, rules.at(2));
        }
        let told = machine.last_failure().and_then(RefreshFailure::open_redeem);
        assert_eq!(told, Some(OpenCause::HolderEnded));
    }

    #[test]
    fn never_more_than_one_more_try() {
        for lease_fails in [false, true] {
            let (mut machine, rules) = signed_in();
            let _ = rejected_in_doubt(&mut machine, &rules);
            let _ = machine.advance(Outcome::Done, rules.at(1));
            if lease_fails {
                // Then the next flight has the second try.
                let _ = machine.advance(Outcome::failed("away"), rules.at(1));
                assert!(matches!(machine.refresh(rules.at(10)), Admission::Wait(_)));
                let _ = machine.effects();
            }
            for outcome in [
                Outcome::Leased(holder_ended()),
                Outcome::Loaded(stored()),
                Outcome::Intended,
                rejection(),
            ] {
                let _ = machine.advance(outcome, rules.at(10));
            }
            let landed = machine.advance(Outcome::Loaded(stored()), rules.at(10));
            assert!(matches!(landed, Step::Land { .. }), "{lease_fails} {landed:?}");
            assert_eq!(machine.health(rules.at(10).time), Health::Rejected);
        }
    }

    #[test]
    fn a_store_that_cannot_be_read_after_a_rejection_in_doubt_leaves_the_second_try() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        for outcome in [
            Outcome::Leased(holder_ended()),
            Outcome::Loaded(stored()),
            Outcome::Intended,
            rejection(),
            Outcome::failed("away"),
        ] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        assert_ne!(machine.health(rules.at(0).time), Health::Rejected);
        assert!(matches!(machine.refresh(rules.at(10)), Admission::Wait(_)));
        let _ = machine.effects();
        let _ = machine.advance(Outcome::Leased(holder_ended()), rules.at(10));
        let second = machine.advance(Outcome::Loaded(stored()), rules.at(10));
        assert!(matches!(second, Step::Intend(_)), "{second:?}");
    }

    #[test]
    fn what_another_process_has_written_since_is_in_doubt_too() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        // It has run out already, and is redeemed.
        for outcome in
            [Outcome::Leased(None), Outcome::Loaded(record(2)), Outcome::Intended, rejection()]
        {
            let _ = machine.advance(outcome, rules.at(LIFE));
        }
        let step = machine.advance(Outcome::Loaded(record(2)), rules.at(LIFE));
        assert!(matches!(step, Step::Yield { .. }), "{step:?}");
    }

    /// Two replicas may begin with the same tokens, each with a store of its own.
    #[test]
    fn what_the_flight_has_put_into_the_store_itself_is_in_doubt_too() {
        let rules = Rules::default();
        let seed = record_of(1).map(|tokens| (tokens, rules.at(0).time));
        let mut machine = Machine::unread(false, seed);
        let _ = machine.admit(rules.at(LIFE));
        let _ = machine.effects();
        for outcome in [Outcome::Leased(None), Outcome::Loaded(Record::default()), Outcome::Saved] {
            let _ = machine.advance(outcome, rules.at(LIFE));
        }
        let seeded = Record::new(machine.stored, record_of(1).unwrap());
        for outcome in
            [Outcome::Leased(None), Outcome::Loaded(seeded.clone()), Outcome::Intended, rejection()]
        {
            let _ = machine.advance(outcome, rules.at(LIFE));
        }
        let step = machine.advance(Outcome::Loaded(seeded), rules.at(LIFE));
        assert!(matches!(step, Step::Yield { .. }), "{step:?}");
    }

    #[test]
    fn a_rejection_without_doubt_is_not_waited_for() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(rejection(), rules.at(0));
        let landed = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
    }
}
