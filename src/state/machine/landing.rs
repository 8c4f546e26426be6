//! How a flight ends when nothing was minted: it adopts what is newer, finds nothing, was
//! rejected, or failed and is tried again later; and the landing.

use std::time::Duration;

use super::{
    Machine,
    flight::Course,
    parts::{Flight, Stage, Standing, Step},
    policy::MAX_RETRY_AFTER,
};
use crate::{
    refresher::Trigger,
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
    tokens::Generation,
};

impl Machine {
    /// Why the server rejected the refresh token of this stored generation, if it did.
    pub(super) fn rejection_of(&self, generation: Generation) -> Option<RefreshFailure> {
        let (rejected, why) = self.troubles.as_ref()?.rejected.as_ref()?;
        (*rejected == generation).then(|| why.clone())
    }
}

impl Course<'_> {
    /// Another process has written what is newer: a refresh, a sign-in, a sign-out.
    pub(super) fn adopt(self, record: &Record) -> Step {
        self.machine.publish_record(record, self.at);
        self.machine.recovered();
        if record.tokens.is_none() {
            self.machine.tell_waiters(RefreshFailure::signed_out());
        }
        self.finish_or_relaunch()
    }

    /// The store is empty, and the refresher needs tokens.
    pub(super) fn store_is_empty(self) -> Step {
        match self.machine.standing {
            Standing::SignedIn => {
                let next = self.machine.credential.generation().next();
                self.machine.publish_absent(next);
            }
            _ => self.machine.standing = Standing::SignedOut,
        }
        self.machine.tell_waiters(RefreshFailure::signed_out());
        self.finish_or_relaunch()
    }

    /// The server rejected the refresh token, and the store has no other.
    pub(super) fn reject(self, failure: RefreshFailure) -> Step {
        if !self.is_superseded() {
            self.machine.troubles_mut().blocked_by = Some(failure.clone());
            self.machine.tell_waiters(failure);
        }
        self.finish_or_relaunch()
    }

    /// Cools down: no flight begins before the pause is over.
    pub(super) fn fail(self, failure: RefreshFailure, retry_after: Option<Duration>) -> Step {
        if !self.is_superseded() {
            let troubles = self.machine.troubles_mut();
            troubles.transient_failures = troubles.transient_failures.saturating_add(1);
            let pause = self.at.policy.backoff(troubles.transient_failures, self.at.jitter);
            let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
            let failure = failure.with_retry_at(self.at.after(pause.max(asked)));
            troubles.blocked_by = Some(failure.clone());
            self.machine.tell_waiters(failure);
        }
        self.finish_or_relaunch()
    }

    /// The end, unless a caller waits for a refresh of what came between.
    pub(super) fn finish_or_relaunch(mut self) -> Step {
        let Flight { relaunch, leased, found, open_redeem, .. } = *self.flight;
        if relaunch && self.machine.draining {
            self.machine.tell_waiters(RefreshFailure::new(FailureKind::Shutdown));
        } else if relaunch {
            let next = self.machine.new_flight(Trigger::Challenge);
            *self.flight = Flight { leased, found, open_redeem, ..next };
            let known = self.machine.stored;
            return match leased {
                true => self.go(Stage::Loading, Step::Load),
                false => self.go(Stage::Leasing, Step::Lease(known)),
            };
        }
        Step::Land { open_redeem }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, parts::Outcome, testing::*};
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

    #[test]
    fn an_empty_store_signs_out() {
        let (mut machine, rules) = signed_in();
        begin(&mut machine, &rules);
        let _ = machine.advance(Outcome::Leased(None), rules.at(0));
        let _ = machine.advance(Outcome::Loaded(Record::default()), rules.at(0));
        assert!(!machine.credential().is_present());
        assert!(machine.effects().wake);
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
