//! How a flight ends when nothing was minted: it adopts what is newer, finds nothing, was
//! rejected, or failed and is tried again later; and the landing.

use std::time::Duration;

use super::{
    flight::{Course, lost_record},
    messages::{Landing, Step},
    parts::{Flight, Stage, Standing, Wanted},
    policy::MAX_RETRY_AFTER,
};
use crate::{
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
    tokens::Generation,
};

/// The session was there, and its record is gone without a sign-out.
pub(super) const EMPTY_STORE: &str = "empty_store";

impl Course<'_> {
    /// Another process has written what is newer: a refresh, a sign-in, a sign-out.
    pub(super) fn adopt(mut self, record: &Record) -> Step {
        self.flight.landing = match self.machine.standing {
            Standing::Unread if !self.flight.found_run_out => Landing::Read,
            _ => Landing::Adopted,
        };
        self.doubt_is_void();
        self.machine.publish_record(record, self.at);
        self.machine.recovered();
        if record.tokens.is_none() {
            self.machine.tell_waiters(RefreshFailure::signed_out());
            return self.finish_or_relaunch();
        }
        self.refresh_or_finish()
    }

    /// The store is empty, and the refresher needs tokens.
    pub(super) fn store_is_empty(self, record: &Record) -> Step {
        if self.may_outlive(record) {
            return self.offer();
        }
        let mut failure = RefreshFailure::signed_out();
        match self.machine.standing {
            Standing::SignedIn => {
                let next = self.machine.credential.generation().next();
                self.machine.publish_absent(next);
                failure = failure.with_code(EMPTY_STORE);
            }
            _ => self.machine.standing = Standing::SignedOut,
        }
        self.machine.tell_waiters(failure);
        self.finish_or_relaunch()
    }

    /// Whether the current token is used on: the store has lost its record, rather than having
    /// been told of a sign-out, and nothing says that the token does not work.
    fn may_outlive(&self, record: &Record) -> bool {
        self.machine.standing == Standing::SignedIn
            && *record == Record::default()
            && !self.at.policy.absent_ends
            && !self.flight.wanted.refused
            && !self.machine.credential.has_run_out(self.at.time)
    }

    /// Puts the access token that still works into the store again. The refresh token is lost:
    /// the store's was the only one.
    fn offer(self) -> Step {
        // Without a known end it may be older than the trace of a sign-out, which stores keep
        // for a time only, and other processes would be signed in again.
        let lives = self.machine.credential.end().is_some();
        match self.machine.credential.tokens().filter(|_| lives) {
            Some(tokens) if self.flight.leased => self.save_offered(tokens),
            Some(_) => self.go(Stage::Leasing, Step::Lease(Generation::ZERO)),
            None => self.fail(lost_record(), None),
        }
    }

    /// The server rejected the refresh token, and the store has no other.
    pub(super) fn reject(mut self, failure: RefreshFailure) -> Step {
        if !self.is_superseded() {
            self.doubt_is_void();
            self.machine.troubles_mut().blocked_by = Some(failure.clone());
            self.machine.tell_waiters(failure);
        }
        self.finish_or_relaunch()
    }

    /// Cools down: no flight begins before the pause is over.
    pub(super) fn fail(mut self, failure: RefreshFailure, retry_after: Option<Duration>) -> Step {
        self.cool_down(failure, retry_after);
        self.finish_or_relaunch()
    }

    pub(super) fn cool_down(&mut self, failure: RefreshFailure, retry_after: Option<Duration>) {
        if self.is_superseded() {
            return;
        }
        self.doubt_is_void();
        let troubles = self.machine.troubles_mut();
        troubles.transient_failures = troubles.transient_failures.saturating_add(1);
        let pause = match failure.kind() {
            FailureKind::ClientRefused => self.at.policy.client_cool_down,
            _ => self.at.policy.backoff(troubles.transient_failures, self.at.jitter),
        };
        let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let failure = failure.with_retry_at(self.at.after(pause.max(asked)));
        troubles.blocked_by = Some(failure.clone());
        self.machine.tell_waiters(failure);
    }

    /// Nothing was refreshed: that says nothing of a refusal that was doubted.
    pub(super) fn doubt_is_void(&mut self) {
        if self.flight.wanted.doubted {
            self.machine.doubt_is_void(self.at);
        }
    }

    /// There are tokens now that a caller may have wanted to be refreshed before they were
    /// known.
    pub(super) fn refresh_or_finish(mut self) -> Step {
        if self.flight.then_refresh {
            self.flight.relaunch.get_or_insert(Wanted::held(false));
        }
        self.finish_or_relaunch()
    }

    /// The end, unless a caller waits for a refresh of what came between.
    pub(super) fn finish_or_relaunch(mut self) -> Step {
        let Flight { relaunch, then_refresh, leased, found, open_redeem, landing, .. } =
            *self.flight;
        let untouched = landing == Landing::Nothing;
        self.machine.landing = match untouched && self.is_superseded() {
            true => Landing::Superseded,
            false => landing,
        };
        let Some(wanted) = relaunch else { return Step::Land { open_redeem } };
        if self.machine.draining {
            self.machine.tell_waiters(RefreshFailure::new(FailureKind::Shutdown));
            return Step::Land { open_redeem };
        }
        let trigger = if then_refresh { Trigger::Requested } else { Trigger::Challenge };
        let next = self.machine.new_flight(trigger, wanted);
        *self.flight = Flight { leased, found, open_redeem, landing, begun: true, ..next };
        let known = self.machine.stored;
        match leased {
            true => self.go(Stage::Loading, Step::Load),
            false => self.go(Stage::Leasing, Step::Lease(known)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, Machine, Outcome, testing::*};
    use super::*;
    use crate::refresher::RefreshError;

    #[test]
    fn a_transient_failure_is_tried_again_after_the_servers_own_pause() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let busy = RefreshError::transient("503").with_retry_after(Duration::from_secs(20));
        let _ = machine.advance(Outcome::Refused(busy), rules.at(0));
        assert!(matches!(machine.refresh(rules.at(19)), Admission::Refuse(_)));
        assert!(matches!(machine.refresh(rules.at(20)), Admission::Wait(_)));
    }

    #[test]
    fn a_rejection_is_final_while_the_store_holds_the_same_token() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
        assert!(matches!(machine.advance(no, rules.at(0)), Step::Load));
        let landed = machine.advance(Outcome::Loaded(stored()), rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
        begin(&mut machine, &rules);
        let _ = machine.advance(Outcome::Leased(None), rules.at(LIFE));
        let landed = machine.advance(Outcome::Loaded(stored()), rules.at(LIFE));
        assert!(matches!(landed, Step::Land { .. }), "it is not redeemed again");
    }

    /// A flight that finds the store empty.
    fn finds_nothing(trigger: Trigger, refused: bool, at: u64, ends: bool) -> (Machine, Step) {
        let (mut machine, mut rules) = signed_in();
        rules.policy.absent_ends = ends;
        machine.begin_flight(trigger, Wanted::held(refused));
        let _ = machine.effects();
        let _ = machine.advance(Outcome::Leased(None), rules.at(at));
        let step = machine.advance(Outcome::Loaded(Record::default()), rules.at(at));
        (machine, step)
    }

    #[test]
    fn an_empty_store_does_not_take_away_a_token_that_works() {
        for (trigger, refused) in
            [(Trigger::Early, false), (Trigger::Challenge, false), (Trigger::Requested, false)]
        {
            let (mut machine, step) = finds_nothing(trigger, refused, 0, false);
            let Step::Save { expected, record } = step else { panic!("{step:?}") };
            assert_eq!(expected, Generation::ZERO);
            let offered = record.tokens.expect("they are offered to the store");
            assert_eq!(offered.access_token(), "access-1");
            assert_eq!(offered.refresh_token(), None);
            assert_eq!(offered.expires_at(), machine.credential().expires_at());
            let rules = Rules::default();
            assert!(matches!(machine.advance(Outcome::Saved, rules.at(0)), Step::Land { .. }));
            assert_eq!(machine.credential().access_token(), Some("access-1"));
            assert_eq!(machine.stored, record.generation);
            let effects = machine.effects();
            assert!(effects.wake && effects.publish.is_none(), "nothing is newer");
        }
    }

    /// A sign-out that the store has forgotten must not be undone.
    #[test]
    fn a_token_without_an_end_is_kept_and_not_offered() {
        let (mut machine, rules) = signed_in();
        let endless = Record::new(generation(2), tokens(2).without_expiry());
        machine.signed_in(&endless, 0, rules.at(0));
        begin(&mut machine, &rules);
        let _ = machine.advance(Outcome::Leased(None), rules.at(0));
        let landed = machine.advance(Outcome::Loaded(Record::default()), rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
    }

    #[test]
    fn an_empty_store_signs_out_when_the_token_does_not_work_or_it_is_to_mean_that() {
        for (trigger, refused, at, ends) in [
            (Trigger::Challenge, true, 0, false),
            (Trigger::Expired, true, LIFE, false),
            (Trigger::Early, false, 0, true),
        ] {
            let (mut machine, step) = finds_nothing(trigger, refused, at, ends);
            assert!(matches!(step, Step::Land { .. }));
            assert!(!machine.credential().is_present());
            assert!(machine.effects().wake);
        }
    }

    #[test]
    fn an_offer_that_cannot_be_saved_keeps_no_request_waiting() {
        let (mut machine, _) = finds_nothing(Trigger::Early, false, 0, false);
        let landed = machine.advance(Outcome::failed("away"), Rules::default().at(0));
        assert!(matches!(landed, Step::Land { .. }));
        assert!(machine.credential().is_present());
    }

    #[test]
    fn tokens_that_were_minted_for_another_resource_are_not_used() {
        for (asked, minted, used) in [
            (Some("a"), Some("a"), true),
            (Some("a"), Some("b"), false),
            (Some(""), Some("b"), false),
            (Some("a"), None, true),
            (None, Some("b"), true),
        ] {
            let mut rules = Rules::default();
            rules.policy.minted_for = minted.map(str::to_owned);
            let tokens = rules.policy.stamp(tokens(1));
            rules.policy.minted_for = asked.map(str::to_owned);
            let mut machine = Machine::unread(true, None);
            let _ = machine.admit(rules.at(0));
            let record = Record::new(generation(1), tokens);
            let landed = machine.advance(Outcome::Newer(record), rules.at(0));
            assert!(matches!(landed, Step::Land { .. }));
            assert_eq!(machine.credential().is_present(), used, "{asked:?} {minted:?}");
            if !used {
                let told = machine.last_failure().unwrap().shared_source().unwrap();
                assert!(told.to_string().contains("another resource"));
            }
        }
    }

    #[test]
    fn a_lease_that_is_waited_for_is_given_up_at_the_end_unless_there_are_tokens_to_save() {
        for unsaved in [false, true] {
            let (mut machine, rules) = signed_in();
            redeeming(&mut machine, &rules);
            let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
            match unsaved {
                true => machine.aborted(shut_down()),
                false => machine.flight = None,
            }
            begin(&mut machine, &rules);
            assert!(!machine.gives_up_lease());
            machine.drain();
            assert_eq!(machine.gives_up_lease(), !unsaved);
        }
    }

    #[test]
    fn a_refresh_that_is_asked_for_after_a_sign_in_follows_the_superseded_flight() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        machine.signed_in(&record(5), 0, rules.at(0));
        assert!(matches!(machine.refresh(rules.at(0)), Admission::Wait(_)));
        let _ = machine.advance(Outcome::Panicked, rules.at(0));
        assert!(machine.in_flight().is_some(), "the next one, under the same lease");
    }
}
