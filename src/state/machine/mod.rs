//! The decisions about one credential, as a pure state machine: no async, no lock,
//! no clock, no I/O. Time and chance are arguments; what has to be done is
//! returned. This file answers requests and keeps what is known; the way of one
//! flight is in [`flight`].
//!
//! Rules that hold after every call:
//!
//! - there is at most one flight, and whoever is told to wait has one to wait for;
//! - the generation never goes back;
//! - a flight that began before a sign-in or sign-out (it is *superseded*) changes
//!   nothing any more.

use std::collections::VecDeque;

use tokio::time::Instant;

mod flight;
mod landing;
#[cfg(test)]
mod model;
mod policy;
mod saving;
mod sign_in_out;
mod upkeep;

pub use self::policy::WhileUnsaved;
use self::saving::Minted;
pub(crate) use self::{
    flight::{Flight, Outcome, Step},
    policy::{Policy, after},
    upkeep::Upkeep,
};
use crate::{
    error::{FailureKind, RefreshFailure},
    state::status::{Counts, Trigger},
    store::Record,
    tokens::{Credential, Generation, Time, Tokens},
};

/// What a request is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Use the current credential, which may have no token.
    Go,
    /// Wait until [`Machine::resolve`] has an answer.
    Wait(Ticket),
    /// There will be no fresh token for this request.
    Refuse(RefreshFailure),
}

/// What a waiter has seen already: news is anything beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) generation: Generation,
    pub(crate) failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The store was not read yet.
    Unread,
    /// There is a token.
    Held,
    /// There is none until somebody signs in.
    SignedOut,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    policy: Policy,
    standing: Standing,
    credential: Credential,
    /// The store's generation when it was last read or written. The credential's
    /// own may be ahead of it, never behind.
    stored: Generation,
    /// Tokens to begin with, if the store turns out empty.
    seed: Option<Tokens>,
    flight: Option<Flight>,
    /// Minted by a flight whose runtime went away before the save.
    unsaved: Option<Minted>,
    /// Why no new flight starts, until its `retry_at` or (without one) for good.
    trouble: Option<RefreshFailure>,
    /// The stored generation whose refresh token the server has rejected, and why: that
    /// outlasts a store that cannot be read for a while.
    dead: Option<(Generation, RefreshFailure)>,
    /// Transient failures in a row.
    tries: u32,
    /// How often the store was looked into on account of a challenge, while only others
    /// could help, and when it may be again.
    looks: u32,
    look_at: Option<Instant>,
    /// The current token came from a flight and was not refused yet.
    fresh: bool,
    /// When brand-new tokens were refused.
    strikes: VecDeque<Instant>,
    /// The last failure that waiters were told, and how many there were.
    last_failure: Option<RefreshFailure>,
    failures: u64,
    draining: bool,
    /// Signed out here, while the store may still hold the tokens.
    signing_out: bool,
    sign_outs: u64,
    counts: Counts,
}

impl Machine {
    /// A credential whose store is read on first use; `seed` is stored if there is
    /// nothing yet.
    pub(crate) fn unread(policy: Policy, seed: Option<Tokens>) -> Self {
        Self {
            policy,
            standing: Standing::Unread,
            credential: Credential::absent(Generation::ZERO),
            stored: Generation::ZERO,
            seed,
            flight: None,
            unsaved: None,
            trouble: None,
            dead: None,
            tries: 0,
            looks: 0,
            look_at: None,
            fresh: false,
            strikes: VecDeque::new(),
            last_failure: None,
            failures: 0,
            draining: false,
            signing_out: false,
            sign_outs: 0,
            counts: Counts::default(),
        }
    }

    /// Before a request is sent. With [`Answer::Refuse`] it is sent all the same,
    /// with what there is.
    pub(crate) fn admit(&mut self, now: Instant) -> Answer {
        match self.standing {
            Standing::SignedOut => Answer::Go,
            Standing::Unread => self.await_flight(Trigger::FirstUse, now),
            Standing::Held if self.credential.expires().is_some_and(|at| at <= now) => {
                self.await_flight(Trigger::Expired, now)
            }
            Standing::Held if self.closed() => self.await_flight(Trigger::Expired, now),
            Standing::Held => {
                if self.credential.early().is_some_and(|at| at <= now)
                    && self.flight.is_none()
                    && self.blocked(now).is_none()
                {
                    self.launch(Trigger::Early);
                }
                Answer::Go
            }
        }
    }

    /// The server refused the token of `generation`. `accepted` says whether the
    /// current generation was ever accepted.
    pub(crate) fn challenge(
        &mut self,
        generation: Generation,
        accepted: bool,
        now: Instant,
    ) -> Answer {
        if self.standing == Standing::SignedOut {
            return self.look(now).unwrap_or_else(|| Answer::Refuse(RefreshFailure::signed_out()));
        }
        if generation < self.credential.generation() {
            return self.admit(now);
        }
        self.strike(accepted, now);
        if self.is_dead() {
            if let Some(answer) = self.look(now) {
                return answer;
            }
        }
        self.await_flight(Trigger::Challenge, now)
    }

    /// Somebody asks for a refresh. A dead or signed-out credential is not
    /// redeemed, but the store may have a newer one.
    pub(crate) fn refresh(&mut self, now: Instant) -> Answer {
        if self.signing_out {
            return Answer::Refuse(RefreshFailure::signed_out());
        }
        let idle = self.flight.is_none() && !self.draining && self.cooling(now).is_none();
        if idle && self.is_dead() {
            self.launch(Trigger::Requested);
            return Answer::Wait(self.ticket());
        }
        self.await_flight(Trigger::Requested, now)
    }

    /// News for a waiter, if there is any.
    pub(crate) fn resolve(&self, ticket: Ticket) -> Option<Result<Credential, RefreshFailure>> {
        if self.credential.generation() > ticket.generation {
            return Some(self.credential.clone().present());
        }
        if self.failures > ticket.failures {
            return self.last_failure.clone().map(Err);
        }
        None
    }

    /// No new flight from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// A waiter has waited long enough.
    pub(crate) fn ran_out(&mut self) {
        self.counts.failed(FailureKind::Deadline);
    }

    /// When the next refresh may be tried, while none may now.
    pub(crate) fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.trouble.as_ref()?.retry_at().filter(|at| *at > now)
    }

    /// What is known of the store.
    pub(crate) fn stored(&self) -> Generation {
        self.stored
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// How often waiters were told of a failure.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn flight(&self) -> Option<&Flight> {
        self.flight.as_ref()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn last_failure(&self) -> Option<&RefreshFailure> {
        self.last_failure.as_ref()
    }

    /// Whether requests have to ask [`admit`](Self::admit) although their token
    /// has not run out: the current one was refused, or nothing was read yet.
    pub(crate) fn closed(&self) -> bool {
        match &self.flight {
            _ if self.standing == Standing::Unread => true,
            Some(flight) => flight.blocking && !self.superseded(flight) && !flight.is_stuck(),
            None => false,
        }
    }

    /// The ticket of somebody who waits from now on.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { generation: self.credential.generation(), failures: self.failures }
    }

    /// A sign-in or sign-out has come between.
    pub(super) fn superseded(&self, flight: &Flight) -> bool {
        flight.base != self.credential.generation()
    }

    /// Joins the flight, or starts one.
    fn await_flight(&mut self, trigger: Trigger, now: Instant) -> Answer {
        let generation = self.credential.generation();
        let blocked = self.blocked(now);
        match (&mut self.flight, blocked) {
            (Some(flight), _) if flight.is_stuck() && flight.base == generation => {
                return Answer::Refuse(RefreshFailure::new(FailureKind::Unsaved));
            }
            (Some(flight), _) if flight.base == generation => {
                flight.blocking = true;
                self.counts.joined += 1;
            }
            (_, Some(failure)) => return Answer::Refuse(failure),
            (Some(flight), None) => {
                flight.again = true;
                self.counts.joined += 1;
            }
            (None, None) => self.launch(trigger),
        }
        Answer::Wait(self.ticket())
    }

    pub(super) fn launch(&mut self, trigger: Trigger) {
        self.flight = Some(Flight::new(trigger, self.credential.generation(), self.is_dead()));
    }

    /// Why no flight may start for a while.
    pub(super) fn cooling(&self, now: Instant) -> Option<RefreshFailure> {
        let trouble = self.trouble.as_ref()?;
        trouble.retry_at().filter(|at| *at > now).map(|_| trouble.clone())
    }

    /// Why no flight may start now.
    fn blocked(&self, now: Instant) -> Option<RefreshFailure> {
        if self.draining {
            return Some(RefreshFailure::new(FailureKind::Shutdown));
        }
        self.trouble
            .as_ref()
            .filter(|trouble| trouble.retry_at().is_none_or(|at| at > now))
            .cloned()
    }

    /// The brake: counts brand-new tokens that were refused without ever having
    /// been accepted, and stops refreshing when there were too many.
    fn strike(&mut self, accepted: bool, now: Instant) {
        let fresh = std::mem::take(&mut self.fresh);
        if accepted || !fresh {
            return;
        }
        self.strikes.push_back(now);
        let window = self.policy.brake_window;
        self.strikes.retain(|at| now.duration_since(*at) <= window);
        if self.strikes.len() > self.policy.brake_after {
            self.strikes.clear();
            let until = after(now, self.policy.brake_pause);
            let failure = RefreshFailure::new(FailureKind::Braked).with_retry_at(until);
            self.note(failure.clone());
            self.trouble = Some(failure);
        }
    }

    /// Tells every waiter of a failure.
    pub(super) fn note(&mut self, failure: RefreshFailure) {
        self.counts.failed(failure.kind());
        self.failures += 1;
        self.last_failure = Some(failure);
    }

    /// What was known about the old tokens does not hold for new ones.
    pub(super) fn forget(&mut self) {
        self.trouble = None;
        self.dead = None;
        self.unsaved = None;
        self.seed = None;
        self.signing_out = false;
        self.tries = 0;
        self.looks = 0;
        self.look_at = None;
        self.fresh = false;
        self.strikes.clear();
    }

    /// Makes the store's record the current credential.
    pub(super) fn publish_record(&mut self, record: &Record, time: Time, jitter: f64) {
        self.stored = record.generation;
        let generation = self.credential.generation().next().max(record.generation);
        match &record.tokens {
            Some(tokens) => {
                let expires = tokens.deadline(time);
                let early = expires.map(|at| self.policy.early(time.now, at, jitter));
                self.publish(Credential::new(generation, tokens, expires, early));
            }
            None => self.publish_absent(generation),
        }
    }

    pub(super) fn publish(&mut self, credential: Credential) {
        debug_assert!(credential.generation() > self.credential.generation());
        self.credential = credential;
        self.standing = Standing::Held;
    }

    pub(super) fn publish_absent(&mut self, generation: Generation) {
        debug_assert!(generation >= self.credential.generation());
        self.credential = Credential::absent(generation);
        self.standing = Standing::SignedOut;
    }
}
