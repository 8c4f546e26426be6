//! How a flight ends when nothing was minted: something is adopted, there is nothing, it was
//! rejected, or it failed and is tried again later; and the landing.

use std::time::Duration;

use super::{
    Machine, Standing,
    flight::{Stage, Step},
    policy::{LONGEST_ASKED, after},
};
use crate::{
    error::{FailureKind, RefreshFailure},
    state::status::Trigger,
    store::Record,
    tokens::Time,
};

impl Machine {
    /// Somebody else has written what is newer: a refresh, a sign-in, a sign-out.
    pub(super) fn adopt(&mut self, record: &Record, time: Time, jitter: f64) -> Step {
        self.publish_record(record, time, jitter);
        self.recovered();
        if record.tokens.is_none() {
            self.note(RefreshFailure::signed_out());
        }
        self.land()
    }

    /// The store is empty and the refresher needs tokens.
    pub(super) fn bereft(&mut self) -> Step {
        match self.standing {
            Standing::Held => self.publish_absent(self.credential.generation().next()),
            _ => self.standing = Standing::SignedOut,
        }
        self.note(RefreshFailure::signed_out());
        self.land()
    }

    pub(super) fn reject(&mut self, failure: RefreshFailure) -> Step {
        if !self.is_superseded() {
            self.trouble = Some(failure.clone());
            self.note(failure);
        }
        self.land()
    }

    /// Cools down: nobody tries again before the pause is over.
    pub(super) fn fail(
        &mut self,
        failure: RefreshFailure,
        retry_after: Option<Duration>,
        time: Time,
        jitter: f64,
    ) -> Step {
        if !self.is_superseded() {
            self.tries = self.tries.saturating_add(1);
            let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
            let pause = self.policy.backoff(self.tries, jitter).max(asked);
            let failure = failure.with_retry_at(after(time.now, pause));
            self.trouble = Some(failure.clone());
            self.note(failure);
        }
        self.land()
    }

    pub(super) fn recovered(&mut self) {
        self.trouble = None;
        self.dead = None;
        self.tries = 0;
        self.looks = 0;
        self.look_at = None;
    }

    /// The end, unless somebody waits for a refresh of what came between.
    pub(super) fn land(&mut self) -> Step {
        let Some(flight) = self.flight.take().filter(|flight| flight.again) else {
            return Step::Land;
        };
        if self.draining {
            self.note(RefreshFailure::new(FailureKind::Shutdown));
            return Step::Land;
        }
        self.launch(Trigger::Challenge);
        if !flight.leased {
            return Step::Lease(self.stored);
        }
        self.leased(flight.found);
        self.enter(Stage::Loading, Step::Load)
    }
}
