//! What happens outside of flights: a sign-in or sign-out here, and looking for those of
//! other processes where nothing can be redeemed.

use tokio::time::Instant;

use super::{Answer, Machine, Standing, policy::after};
use crate::{
    error::{FailureKind, RefreshFailure},
    state::status::Trigger,
    store::Record,
    tokens::{Generation, Time},
};

impl Machine {
    /// New tokens stand in the store as `record` (sign-in). They win over whatever
    /// is under way, unless somebody else has written since, or a sign-out came
    /// after the first `sign_outs`: the store's deletion follows then.
    pub(crate) fn signed_in(&mut self, record: &Record, sign_outs: u64, time: Time, jitter: f64) {
        if sign_outs != self.sign_outs
            || record.generation < self.stored
            || record.generation <= self.credential.generation()
        {
            return;
        }
        if record.generation > self.stored {
            self.publish_record(record, time, jitter);
            self.forget();
            return;
        }
        // A flight has read it already, to redeem it. That goes on, and what is known of
        // it stays known; but nobody uses older tokens meanwhile.
        let current = self.credential.generation();
        self.publish_record(record, time, jitter);
        self.fresh = false;
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.base == current) {
            flight.base = self.credential.generation();
        }
    }

    /// How many sign-outs a sign-in that begins now comes after.
    pub(crate) fn sign_outs(&self) -> u64 {
        self.sign_outs
    }

    /// Sign-out, before the store has heard of it: no request gets a token from
    /// now on. Returns how many there were, this one counted.
    pub(crate) fn sign_out(&mut self) -> u64 {
        self.publish_absent(self.credential.generation().next());
        self.forget();
        self.signing_out = true;
        self.sign_outs += 1;
        if let Some(flight) = &mut self.flight {
            // Those who wanted it to go on have heard that there is no need.
            flight.again = false;
        }
        self.sign_outs
    }

    /// The store has deleted its tokens and is at `generation` now: the sign-out of that
    /// number. Another one may have begun since.
    pub(crate) fn deleted(&mut self, generation: Generation, sign_out: u64) {
        if sign_out == self.sign_outs {
            self.signing_out = false;
        }
        if generation > self.stored {
            self.stored = generation;
            let current = self.credential.generation();
            let least = if self.credential.is_present() { current.next() } else { current };
            self.publish_absent(least.max(generation));
        }
    }

    /// There is nothing to redeem: only the store can help.
    pub(super) fn is_dead(&self) -> bool {
        let rejected = |trouble: &RefreshFailure| trouble.kind() == FailureKind::Rejected;
        self.standing == Standing::SignedOut || self.trouble.as_ref().is_some_and(rejected)
    }

    /// Nothing here can be redeemed, but others may have signed in: looks into a store that
    /// is shared, not too often.
    pub(super) fn look(&mut self, now: Instant) -> Option<Answer> {
        if self.signing_out || !self.policy.shared {
            return None;
        }
        match (&self.flight, self.cooling(now)) {
            (Some(flight), _) if self.superseded(flight) => return None,
            (Some(flight), _) if flight.is_stuck() => {
                return Some(Answer::Refuse(RefreshFailure::new(FailureKind::Unsaved)));
            }
            (Some(_), _) => {}
            (None, _) if self.draining => return None,
            // What others have signed in with was found, and could not be redeemed.
            (None, Some(failure)) => return Some(Answer::Refuse(failure)),
            (None, None) if self.look_at.is_some_and(|at| at > now) => return None,
            (None, None) => {
                self.looked(now);
                self.launch(Trigger::Challenge);
            }
        }
        Some(Answer::Wait(self.ticket()))
    }

    /// The pauses between looks grow like those between tries.
    pub(super) fn looked(&mut self, now: Instant) {
        self.looks = self.looks.saturating_add(1);
        self.look_at = Some(after(now, self.policy.backoff(self.looks, 1.0)));
    }
}
