//! The decisions about one credential, as a pure state machine: no async, no lock, no clock,
//! no channel, no I/O. Time and chance are arguments ([`Moment`]); what has to be done is
//! returned, as the flight's next [`Step`] or as [`Effects`]. The shell around it
//! ([`RefreshState`](super::RefreshState) and its driver) carries both out and decides
//! nothing.
//!
//! This file is the one door: nothing outside reaches past it.
//!
//! | file | who calls it, and what it decides |
//! |---|---|
//! | `requests.rs` | requests and callers: proceed, wait for a flight, be refused |
//! | `doubts.rs` | challenges that may not be about the token |
//! | `recheck.rs` | challenges of a credential that cannot be redeemed: read the store again? |
//! | `health.rs` | operators: how the credential does |
//! | `look.rs` | a caller that has looked at the store, without a flight |
//! | `upkeep.rs` | `keep_fresh`: when to look ahead |
//! | `sign_in_out.rs` | sign-ins and sign-outs of this process |
//! | `flight.rs` | the driver: what follows from the outcome of a step |
//! | `intent.rs` | from the record to the redeem: what is noted before a token is spent |
//! | `saving.rs` | from the redeem to the store, or to the discard hook |
//! | `landing.rs` | how a flight ends |
//! | `messages.rs`, `parts.rs`, `troubles.rs`, `policy.rs` | what the shell tells and is told; what the machine knows; the numbers |
//! | `model/` | tests: the machine against a model of the world around it |
//!
//! Rules that hold after every call:
//!
//! - there is at most one flight, and a request that is told to wait has one to wait for;
//! - the generation never goes back;
//! - a flight that began before a sign-in or sign-out (it is *superseded*) changes nothing
//!   any more.

#[cfg(test)]
mod clocks;
#[cfg(test)]
mod corners;
mod doubts;
mod flight;
mod health;
mod intent;
mod landing;
mod look;
mod messages;
#[cfg(test)]
mod model;
mod parts;
mod policy;
mod recheck;
mod requests;
mod saving;
mod sign_in_out;
#[cfg(test)]
mod store_corners;
#[cfg(test)]
mod testing;
mod troubles;
mod upkeep;

use std::mem;

pub use self::policy::WhileUnsaved;
pub(crate) use self::{
    doubts::{Accepted, Before, Route},
    messages::{
        Admission, Departure, Effects, Gate, Landing, Moment, Outcome, Step, Ticket, Upkeep,
    },
    policy::{MAX_RETRY_AFTER, Policy},
};
use self::{
    parts::{Flight, Minted, Minting, Stage, Standing, Wanted},
    troubles::Troubles,
};
use crate::{
    credential::Credential,
    error::SharedError,
    refresher::Trigger,
    state::failure::RefreshFailure,
    store::Record,
    time::{Due, Time},
    tokens::{Generation, Tokens},
};

/// What is known of one credential, and its flight.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    credential: Credential,
    standing: Standing,
    /// Other processes may write to the store.
    shared: bool,
    minting: Minting,
    draining: bool,
    /// Signed out here, while the store may still hold the tokens.
    signing_out: bool,
    /// The store's generation when it was last read or written. The credential's
    /// own may be ahead of it, and behind what was redeemed or offered again.
    stored: Generation,
    /// How many sign-outs there were. May wrap around: it is compared for equality only.
    sign_outs: u32,
    /// How many failures waiters were told. May wrap around, too.
    failures: u32,
    // Of 32 bits each, because there is one for each of many credentials.
    refreshes: u32,
    joined: u32,
    // Boxed, because an idle credential has none of them.
    flight: Option<Box<Flight>>,
    /// Tokens to begin with, if the store turns out empty, and from when on their life counts.
    seed: Option<Box<(Tokens, Time)>>,
    troubles: Option<Box<Troubles>>,
    /// How the last flight has landed.
    landing: Landing,
    noted: Noted,
}

/// Effects that the shell has not taken yet.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    published: bool,
    failed: Told,
}

/// Who hears of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    None,
    /// The brake was pulled while a flight was under way: its waiters do not.
    User,
    Waiters,
}

impl Machine {
    /// A credential whose store is read on first use. `shared`: other processes may write
    /// there. `seed` is stored if there is nothing yet: tokens whose life counts from that moment.
    pub(crate) fn unread(shared: bool, seed: Option<(Tokens, Time)>) -> Self {
        Self {
            credential: Credential::absent(Generation::ZERO),
            standing: Standing::Unread,
            shared,
            minting: Minting::Elsewhere,
            draining: false,
            signing_out: false,
            stored: Generation::ZERO,
            sign_outs: 0,
            failures: 0,
            refreshes: 0,
            joined: 0,
            flight: None,
            seed: seed.map(Box::new),
            troubles: None,
            landing: Landing::Nothing,
            noted: Noted::default(),
        }
    }

    /// What the shell has to do on account of the calls since the last time it asked.
    #[inline]
    pub(crate) fn effects(&mut self) -> Effects {
        let Noted { published, failed } = mem::take(&mut self.noted);
        let begins = |flight: &mut Box<Flight>| {
            (!mem::replace(&mut flight.begun, true))
                .then_some((flight.trigger, flight.in_background))
        };
        let begun = self.flight.as_mut().and_then(begins);
        let loading = |flight: &Flight| matches!(flight.stage, Stage::Loading);
        let reads = self.flight.as_deref().is_some_and(loading);
        Effects {
            gate: self.gate(),
            publish: published.then(|| self.credential.clone()),
            wake: published || failed == Told::Waiters,
            failed: match failed {
                Told::None => None,
                Told::User => self.brake().map(RefreshFailure::braked),
                Told::Waiters => self.last_failure().cloned(),
            },
            discard: self.troubles.as_mut().and_then(|troubles| troubles.unused.take()),
            begin: begun.map(|(trigger, in_background)| Departure {
                step: match reads {
                    true => Step::Load,
                    false => Step::Lease(self.stored),
                },
                trigger,
                in_background,
                ticket: self.ticket(),
            }),
        }
    }

    /// No new flight from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What the flight under way was started for.
    pub(crate) fn in_flight(&self) -> Option<Trigger> {
        self.flight.as_ref().map(|flight| flight.trigger)
    }

    /// When the next refresh may be tried, while none may now.
    pub(crate) fn retry_at(&self, time: Time) -> Option<Due> {
        let cools = self.blocked_by().and_then(RefreshFailure::due);
        let braked = self.braked_until(time);
        cools.filter(|due| !due.has_come(time)).into_iter().chain(braked).reduce(Due::max)
    }

    /// How many failures waiters were told. Only equal or not equal has a meaning.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Neither a flight, nor a pause before the next, nor tokens that the store does not have.
    #[cfg(feature = "session")]
    pub(crate) fn is_at_rest(&self, time: Time) -> bool {
        self.flight.is_none() && self.retry_at(time).is_none() && !self.is_unsaved()
    }

    pub(crate) fn last_failure(&self) -> Option<&RefreshFailure> {
        self.troubles.as_ref()?.last_failure.as_ref()
    }

    /// The user's errors that are held here. Dropping the last reference to one runs code of
    /// the user, so the shell keeps its own for as long as it has the lock.
    pub(crate) fn errors(&self) -> [Option<SharedError>; 4] {
        let rechecking = match self.flight.as_deref().map(|flight| &flight.stage) {
            Some(Stage::Rechecking { failure, .. }) => Some(failure),
            _ => None,
        };
        let rejected = self.troubles.as_ref().and_then(|troubles| troubles.rejected.as_ref());
        let rejected = rejected.map(|(_, failure)| failure);
        [rechecking, rejected, self.blocked_by(), self.last_failure()]
            .map(|failure| failure?.shared_source())
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// How the last flight has landed.
    pub(crate) fn landing(&self) -> Landing {
        self.landing
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.refreshes.into()
    }

    pub(crate) fn joined(&self) -> u64 {
        self.joined.into()
    }

    fn gate(&self) -> Gate {
        let closed = match &self.flight {
            _ if self.standing == Standing::Unread => true,
            Some(flight) => {
                flight.wanted.closes_gate && !self.is_superseded(flight) && !flight.is_stuck()
            }
            None => false,
        };
        if closed { Gate::Closed } else { Gate::Open }
    }

    /// The ticket of a request that waits from now on.
    fn ticket(&self) -> Ticket {
        let before_redeem = self.flight.as_ref().is_some_and(|flight| flight.is_before_redeem());
        Ticket { generation: self.credential.generation(), failures: self.failures, before_redeem }
    }

    /// Whether a sign-in or sign-out came after this flight had begun.
    fn is_superseded(&self, flight: &Flight) -> bool {
        flight.base != self.credential.generation()
    }

    fn begin_flight(&mut self, trigger: Trigger, wanted: Wanted) {
        self.flight = Some(Box::new(self.new_flight(trigger, wanted)));
    }

    fn new_flight(&self, trigger: Trigger, wanted: Wanted) -> Flight {
        Flight::new(trigger, wanted, self.credential.generation(), self.is_unredeemable())
    }

    fn blocked_by(&self) -> Option<&RefreshFailure> {
        self.troubles.as_ref()?.blocked_by.as_ref()
    }

    fn brake(&self) -> Option<Due> {
        self.troubles.as_ref()?.brake
    }

    /// The brake, while it holds: not for a token that has run out by its own expiry.
    fn braked_until(&self, time: Time) -> Option<Due> {
        let holds = |over: &Due| !over.has_come(time) && !self.credential.has_run_out(time);
        self.brake().filter(holds)
    }

    fn troubles_mut(&mut self) -> &mut Troubles {
        self.troubles.get_or_insert_default()
    }

    /// A flight whose runtime went away has left tokens.
    pub(crate) fn has_left_unsaved(&self) -> bool {
        self.troubles.as_ref().is_some_and(|troubles| troubles.unsaved.is_some())
    }

    /// Tokens that a flight whose runtime went away has left.
    fn take_unsaved(&mut self) -> Option<Box<Minted>> {
        self.troubles.as_mut()?.unsaved.take()
    }

    /// Tells every waiter of a failure.
    fn tell_waiters(&mut self, failure: RefreshFailure) {
        self.failures = self.failures.wrapping_add(1);
        self.noted.failed = Told::Waiters;
        self.troubles_mut().last_failure = Some(failure);
    }

    /// A flight came to a good end: nothing stands against the next one.
    fn recovered(&mut self) {
        if let Some(troubles) = &mut self.troubles {
            troubles.recover();
        }
    }

    /// A sign-in or sign-out: what was known about the old tokens does not hold for new ones.
    fn reset_history(&mut self) {
        if let Some(troubles) = &mut self.troubles {
            troubles.recover();
            troubles.brake = None;
            troubles.doubted_over = None;
            troubles.strikes.clear();
            troubles.doubts = None;
            if let Some(minted) = troubles.unsaved.take() {
                troubles.give_up(*minted);
            }
        }
        self.seed = None;
        self.signing_out = false;
        self.minting = Minting::Elsewhere;
    }

    /// The number of tokens that are to be stored after `known`, over what the store holds as
    /// `stored`. A store that has lost its data begins with a number that no other process
    /// remembers.
    pub(crate) fn next_generation(
        &self,
        known: Generation,
        stored: Generation,
        time: Time,
    ) -> Generation {
        let next = known.max(self.stored).next();
        match self.shared {
            true => next.max(stored.next_at(time.wall)),
            false => next,
        }
    }

    /// Makes the store's record the current credential.
    fn publish_record(&mut self, record: &Record, at: Moment<'_>) {
        self.stored = record.generation;
        self.minting = Minting::Elsewhere;
        let generation = self.credential.generation().next().max(record.generation);
        match &record.tokens {
            Some(tokens) => {
                self.publish(at.credential(generation, tokens, tokens.end(at.time), at.time));
            }
            None => self.publish_absent(generation),
        }
    }

    fn publish(&mut self, credential: Credential) {
        debug_assert!(credential.generation() > self.credential.generation());
        self.standing = Standing::SignedIn;
        self.change(credential);
    }

    fn publish_absent(&mut self, generation: Generation) {
        debug_assert!(generation >= self.credential.generation());
        self.standing = Standing::SignedOut;
        if generation > self.credential.generation() {
            self.change(Credential::absent(generation));
        }
    }

    fn change(&mut self, credential: Credential) {
        self.credential = credential;
        self.noted.published = true;
    }
}
