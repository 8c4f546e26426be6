//! [`List`]: what is to come, and when. Plain data: time is an argument, and nothing here waits, locks
//! or calls.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::super::{RefreshState, clock::LOOK, machine::Upkeep};
use crate::time::{MAX_WAIT, Time, after};

/// However short the tokens' lives and the cool-down are, no credential is looked at sooner after the
/// time before.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// By how much the wall clock may have gained before all credentials are looked at.
const DRIFT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct List {
    /// Flights, by the deadline of their first waiter.
    deadlines: BTreeMap<DeadlineKey, Weak<RefreshState>>,
    /// How many keys were given for them.
    deadlines_given: u64,
    /// Credentials that are kept fresh, by when they are looked at.
    looks: BTreeMap<(Instant, Address), Weak<RefreshState>>,
    kept: HashMap<Address, Kept>,
    /// A moment by both clocks, from which on the wall clock has gained less than [`DRIFT`].
    clocks: Option<Time>,
    /// Until when the task sleeps. `None`: there is none.
    sleeps: Option<Instant>,
}

/// With a number of its own: a flight may land late, when the next one of the same state has the same
/// deadline.
pub(super) type DeadlineKey = (Instant, u64);

/// A state's address, while there is a `Weak` to it and no other state can have the same.
pub(super) type Address = usize;

struct Kept {
    guards: u32,
    /// When it is looked at. `None`: it is looked at now.
    at: Option<Instant>,
    /// Not before that.
    earliest: Instant,
    /// It is to be looked at again.
    again: bool,
}

/// What the task does about a new alarm.
pub(super) enum Task {
    /// It looks at the list in time.
    IsAwake,
    Sleeps,
    Missing,
}

/// What rings.
pub(super) enum Ring {
    Deadline(Weak<RefreshState>),
    Look(Address, Weak<RefreshState>),
}

impl List {
    pub(super) fn has_task(&self) -> bool {
        self.sleeps.is_some()
    }

    /// There is nothing to come, and the task may not know it.
    pub(super) fn is_over(&self) -> bool {
        self.kept.is_empty() && self.deadlines.is_empty() && self.has_task()
    }

    pub(super) fn add_deadline(&mut self, at: Instant, state: &Arc<RefreshState>) -> DeadlineKey {
        self.deadlines_given += 1;
        let key = (at, self.deadlines_given);
        self.deadlines.insert(key, Arc::downgrade(state));
        key
    }

    pub(super) fn remove_deadline(&mut self, key: DeadlineKey) {
        self.deadlines.remove(&key);
    }

    /// One more guard of a state. `true`: it is the first, and the state is looked at now.
    pub(super) fn keep(&mut self, state: &Arc<RefreshState>, now: Instant) -> bool {
        let address = Arc::as_ptr(state).addr();
        let new = || Kept { guards: 0, at: None, earliest: now, again: false };
        let kept = self.kept.entry(address).or_insert_with(new);
        kept.guards += 1;
        let is_first = kept.guards == 1;
        if is_first {
            kept.at = Some(now);
            self.looks.insert((now, address), Arc::downgrade(state));
        }
        is_first
    }

    /// A guard is gone.
    pub(super) fn release(&mut self, address: Address) {
        let Some(kept) = self.kept.get_mut(&address) else { return };
        kept.guards -= 1;
        if kept.guards == 0 {
            self.forget(address);
        }
    }

    pub(super) fn forget(&mut self, address: Address) {
        let at = self.kept.remove(&address).and_then(|kept| kept.at);
        at.and_then(|at| self.looks.remove(&(at, address)));
    }

    /// There is an alarm at that moment, and the task will be awake by then.
    pub(super) fn rings_at(&mut self, at: Instant) -> Task {
        match self.sleeps {
            Some(until) if until <= at => Task::IsAwake,
            sleeps => {
                self.sleeps = Some(at);
                if sleeps.is_some() { Task::Sleeps } else { Task::Missing }
            }
        }
    }

    /// Something has happened to this state. `true`: the task sleeps too long for it.
    pub(super) fn look_again(&mut self, address: Address, now: Instant) -> bool {
        let Some(kept) = self.kept.get_mut(&address) else { return false };
        kept.again = true;
        let next = now.max(kept.earliest);
        let Some(at) = kept.at.filter(|at| *at > next) else { return false };
        if let Some(state) = self.looks.remove(&(at, address)) {
            kept.at = Some(next);
            self.looks.insert((next, address), state);
        }
        self.sleeps.is_some_and(|until| until > next)
    }

    /// What rings now. `may_look`: a flight may begin.
    pub(super) fn next(&mut self, now: Instant, may_look: bool) -> Option<Ring> {
        if let Some(first) = self.deadlines.first_entry().filter(|first| first.key().0 <= now) {
            return Some(Ring::Deadline(first.remove()));
        }
        let first = self.looks.first_entry().filter(|first| may_look && first.key().0 <= now)?;
        let ((_, address), state) = first.remove_entry();
        if let Some(kept) = self.kept.get_mut(&address) {
            kept.at = None;
            kept.again = false;
            kept.earliest = after(now, MIN_PAUSE);
        }
        Some(Ring::Look(address, state))
    }

    /// A state was looked at, and says when to look again.
    pub(super) fn looked(
        &mut self,
        address: Address,
        state: Weak<RefreshState>,
        upkeep: Upkeep,
        time: Time,
    ) {
        // If it has a moment already, it was let go and is kept anew since.
        let kept = self.kept.get_mut(&address).filter(|kept| kept.at.is_none());
        let Some(kept) = kept else { return };
        let next = match upkeep {
            _ if kept.again => time.now,
            // By the wall clock if that says less: the machine may have slept.
            Upkeep::Until(due) => after(time.now, due.left(time)),
            Upkeep::News => after(time.now, MAX_WAIT),
            Upkeep::Over => {
                self.kept.remove(&address);
                return;
            }
        };
        let next = next.max(kept.earliest);
        kept.at = Some(next);
        self.looks.insert((next, address), state);
    }

    /// Until when nothing rings, for the task to sleep. `None`: nothing will.
    pub(super) fn sleep(&mut self, now: Instant, may_look: bool) -> Option<Instant> {
        let deadline = self.deadlines.first_key_value().map(|first| first.0.0);
        let look = self.looks.first_key_value().map(|first| first.0.0).map(|at| match may_look {
            true => at.min(after(now, LOOK)),
            false => after(now, LOOK),
        });
        self.sleeps = deadline.into_iter().chain(look).min();
        self.sleeps
    }

    /// Has every credential looked at if the machine has slept, or the wall clock was set forward.
    pub(super) fn notice_clocks(&mut self, time: Time) {
        let before = *self.clocks.get_or_insert(time);
        let by_wall = time.wall.duration_since(before.wall).unwrap_or_default();
        let passed = time.now.saturating_duration_since(before.now);
        if by_wall < passed {
            self.clocks = Some(time);
        }
        if by_wall < passed + DRIFT {
            return;
        }
        self.clocks = Some(time);
        for ((_, address), state) in mem::take(&mut self.looks) {
            if let Some(kept) = self.kept.get_mut(&address) {
                let at = time.now.max(kept.earliest);
                kept.at = Some(at);
                self.looks.insert((at, address), state);
            }
        }
    }
}
