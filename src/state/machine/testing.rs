//! What the unit cases of the verbs have in common.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Admission, Machine, Moment, Outcome, Policy, Step};
use crate::{
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
    time::Time,
    tokens::{Generation, Tokens},
};

/// How long an access token lives, in seconds.
pub(super) const LIFE: u64 = 100;

/// The default policy, on a clock that begins at zero.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    start: Instant,
}

impl Default for Rules {
    fn default() -> Self {
        Self { policy: Policy::default(), start: Instant::now() }
    }
}

impl Rules {
    /// So many seconds after the beginning. The random number is 1: pauses are whole.
    pub(super) fn at(&self, seconds: u64) -> Moment<'_> {
        let passed = Duration::from_secs(seconds);
        let time = Time { now: self.start + passed, wall: SystemTime::UNIX_EPOCH + passed };
        Moment { policy: &self.policy, time, jitter: 1.0, may_redeem: true }
    }
}

pub(super) fn generation(number: u64) -> Generation {
    Generation::new(number)
}

/// `access-<n>` and `refresh-<n>`, which live for [`LIFE`].
pub(super) fn tokens(number: u64) -> Tokens {
    Tokens::new(format!("access-{number}"))
        .with_refresh_token(format!("refresh-{number}"))
        .with_expires_in(Duration::from_secs(LIFE))
}

/// These tokens as a store keeps them when they were made at the beginning.
pub(super) fn record(number: u64) -> Record {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(LIFE);
    Record::new(generation(number), tokens(number).with_expires_at(end))
}

pub(super) fn record_of(number: u64) -> Option<Tokens> {
    record(number).tokens
}

/// A refresh token to begin with, as a store keeps it.
pub(super) fn begins_with(number: u64) -> Record {
    Record::new(generation(number), Tokens::new("").with_refresh_token(format!("refresh-{number}")))
}

/// What is told when a runtime is shut down.
pub(super) fn shut_down() -> RefreshFailure {
    RefreshFailure::new(FailureKind::Shutdown)
}

/// What the store of [`signed_in`] holds.
pub(super) fn stored() -> Record {
    record(1)
}

/// A credential with `tokens(1)`, whose store other processes share.
pub(super) fn signed_in() -> (Machine, Rules) {
    let (mut machine, rules) = (Machine::unread(true, None), Rules::default());
    machine.signed_in(&stored(), 0, rules.at(0));
    let _ = machine.effects();
    (machine, rules)
}

/// A credential with these tokens to begin with, whose store was not read yet.
pub(super) fn begun_with(seed: Tokens) -> (Machine, Rules) {
    let rules = Rules::default();
    (Machine::unread(true, Some((seed, rules.at(0).time))), rules)
}

/// A flight begins; it waits for the lease.
pub(super) fn begin(machine: &mut Machine, rules: &Rules) {
    assert!(matches!(machine.refresh(rules.at(0)), Admission::Wait(_)));
    assert!(machine.effects().begin.is_some());
}

/// A flight is redeeming what the store holds.
pub(super) fn redeeming(machine: &mut Machine, rules: &Rules) {
    begin(machine, rules);
    for outcome in [Outcome::Leased(None), Outcome::Loaded(stored()), Outcome::Intended] {
        let _ = machine.advance(outcome, rules.at(0));
    }
}

/// The flight that has begun, to its end: it refreshes, and lands with `tokens(number)`.
pub(super) fn land(machine: &mut Machine, number: u64, at: Moment<'_>) {
    assert!(machine.effects().begin.is_some());
    let stored = record(machine.stored.get());
    for outcome in [
        Outcome::Leased(None),
        Outcome::Loaded(stored),
        Outcome::Intended,
        Outcome::Redeemed(tokens(number)),
    ] {
        let _ = machine.advance(outcome, at);
    }
    assert!(matches!(machine.advance(Outcome::Saved, at), Step::Land { .. }));
    let _ = machine.effects();
}
