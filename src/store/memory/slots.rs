//! The records themselves, and which of them a family keeps. Nothing here waits.
//!
//! A [`Slot`] is one credential, and at the same time the handle on it: all handles on one
//! name are clones of one `Arc`. A [`Family`] finds the slot of a name. What it keeps of it
//! depends on what is in the slot:
//!
//! | slot | the family has | and without a handle |
//! |---|---|---|
//! | holds tokens | the slot itself | it stays |
//! | was never written, or is signed out | a weak reference | it goes, and its entry with it |
//!
//! Locks are taken in one order: the names, then a slot. Tokens, slots and whatever else runs
//! code of its own when it is dropped are dropped after the locks were given back.

use std::{
    array,
    borrow::Borrow,
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hash, Hasher},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    store::{Deleted, KeptUntil, OpenRedeem, Record, SaveError},
    time::{Due, Time, after},
    tokens::Generation,
};

/// The lock on one credential, and the redeem that its holder has open, or has left open.
pub(super) type LeaseLock = tokio::sync::Mutex<Option<OpenRedeem>>;

/// One credential.
pub(super) struct Slot {
    /// Itself: a lease keeps the slot that it was asked for through a plain reference.
    this: Weak<Self>,
    /// Dangling, if it stands alone.
    family: Weak<Family>,
    name: Box<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    record: Record,
    /// When the record ends, if it has an end of its own.
    end: Option<Box<Due>>,
    /// There only while a caller has or wants the lease, or a redeem is open.
    lock: Option<Arc<LeaseLock>>,
}

/// A share in a slot's lease lock. The last one takes the lock away, unless a redeem is open.
pub(super) struct LockShare {
    slot: Arc<Slot>,
    /// `None` only while it is being dropped.
    lock: Option<Arc<LeaseLock>>,
}

impl Slot {
    /// A slot without a family.
    pub(super) fn alone(record: Record) -> Arc<Self> {
        Self::new(Weak::new(), "", record)
    }

    fn new(family: Weak<Family>, name: &str, record: Record) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            family,
            name: name.into(),
            state: Mutex::new(State { record, ..State::default() }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write is one assignment: the state of a poisoned lock is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, after the record's end if that has come.
    fn current(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.end.as_ref().is_none_or(|end| !end.has_come(Time::now())) {
            return state;
        }
        let old = mem::take(&mut state.record);
        state.end = None;
        drop(state);
        self.settle(old.tokens.is_some(), false);
        self.state()
    }

    pub(super) fn record(&self) -> Record {
        self.current().record.clone()
    }

    /// The record, unless it is of this generation.
    pub(super) fn changed_since(&self, known: Generation) -> Option<Record> {
        let state = self.current();
        (state.record.generation != known).then(|| state.record.clone())
    }

    /// Its generation, and whether it holds tokens.
    pub(super) fn summary(&self) -> (Generation, bool) {
        let state = self.state();
        (state.record.generation, state.record.tokens.is_some())
    }

    /// Compare-and-swap. The record keeps its end or has none any more.
    pub(super) fn swap(
        &self,
        expected: Generation,
        record: Record,
        keeps_end: bool,
    ) -> Result<(), SaveError> {
        let mut state = self.current();
        if state.record.generation != expected {
            return Err(SaveError::Conflict);
        }
        let holds = record.tokens.is_some();
        let old = mem::replace(&mut state.record, record);
        state.end = state.end.take().filter(|_| keeps_end && holds);
        drop(state);
        self.settle(old.tokens.is_some(), holds);
        Ok(())
    }

    /// Leaves the generation after the current one, without tokens.
    pub(super) fn clear(&self) -> Deleted {
        let mut state = self.current();
        let generation = state.record.generation.next();
        state.end = None;
        let old = mem::replace(&mut state.record, Record::new(generation, None));
        drop(state);
        self.settle(old.tokens.is_some(), false);
        Deleted::new(generation, old.tokens)
    }

    /// The record ends then, if it has tokens and no later end.
    pub(super) fn end_at(&self, end: SystemTime) -> KeptUntil {
        let time = Time::now();
        let left = end.duration_since(time.wall).unwrap_or_default();
        let end = Due { wall: end, ..time.after(left) };
        let mut state = self.current();
        if state.record.tokens.is_none() {
            return KeptUntil::NoTokens;
        }
        // By both clocks: the wall clock may have been set back since.
        let end = state.end.as_ref().map_or(end, |known| known.max(end));
        state.end = Some(Box::new(end));
        drop(state);
        if let Some(family) = self.family.upgrade() {
            family.sweep(&self.name, time);
        }
        KeptUntil::Kept
    }

    /// Tells the family if the slot has gone from holding tokens to holding none, or back.
    fn settle(&self, held: bool, holds: bool) {
        if held != holds {
            if let Some(family) = self.family.upgrade() {
                if family.settle(self) {
                    family.sweep(&self.name, Time::now());
                }
            }
        }
    }

    /// Allocates the lease lock if it is not there. `None` never comes: what is called by
    /// reference has an owner.
    pub(super) fn share_lock(&self) -> Option<LockShare> {
        let slot = self.this.upgrade()?;
        let lock = Some(Arc::clone(self.state().lock.get_or_insert_default()));
        Some(LockShare { slot, lock })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(family) = self.family.upgrade() {
            family.forget(self);
        }
    }
}

impl LockShare {
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) fn lock(&self) -> Option<Arc<LeaseLock>> {
        self.lock.clone()
    }
}

impl Drop for LockShare {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        // Gives up this share before it counts the others, so that of two that are dropped at
        // the same time one finds that it is the last.
        self.lock = None;
        let lock = state.lock.as_mut().and_then(Arc::get_mut);
        if lock.is_some_and(|lock| lock.get_mut().is_none()) {
            state.lock = None;
        }
    }
}

/// The slots of many names.
pub(super) struct Family {
    hasher: RandomState,
    shards: [Mutex<Names>; SHARDS],
}

/// A table that grows is copied under its lock. With a million names in one table that takes
/// 200 ms, in which no credential of the process can be looked up.
const SHARDS: usize = 64;

/// How often records whose end has come are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// A name is in at most one of the two.
#[derive(Default)]
struct Names {
    /// Those that hold tokens.
    kept: HashSet<Kept>,
    /// When those were last taken out whose end has come. `None`: none was given an end.
    swept: Option<Instant>,
    /// Those without tokens, of which a handle is left. With a copy of the name, since the
    /// slot's own cannot be borrowed through a weak reference.
    known: HashMap<Box<str>, Weak<Slot>>,
}

/// A slot in a set of names.
struct Kept(Arc<Slot>);

impl Default for Family {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: array::from_fn(|_| Mutex::default()) }
    }
}

impl Family {
    fn names(&self, name: &str) -> MutexGuard<'_, Names> {
        // Hashed with another key than in the tables. With the same one, the names of one shard
        // would crowd into a 64th of its buckets.
        let shard = self.hasher.hash_one(name) as usize % SHARDS;
        // Nothing panics while it is held.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of this name.
    pub(super) fn slot(self: &Arc<Self>, name: &str) -> Arc<Slot> {
        let mut names = self.names(name);
        if let Some(slot) = names.slot(name) {
            return slot;
        }
        let slot = Slot::new(Arc::downgrade(self), name, Record::default());
        names.know(&slot);
        slot
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        let names = self.shards.iter().map(|shard| shard.lock());
        let names = names.map(|names| names.unwrap_or_else(PoisonError::into_inner));
        names.map(|names| names.kept.len() + names.known.len()).sum()
    }

    /// Keeps the slot if it holds tokens, and knows it otherwise. `true`: a record beside it was
    /// given an end.
    fn settle(&self, slot: &Slot) -> bool {
        let mut names = self.names(&slot.name);
        // The record is read under the lock of the names: of several writers, the last one to
        // come here sees what is there in the end.
        let (_, holds_tokens) = slot.summary();
        let forgotten = match slot.this.upgrade().filter(|_| holds_tokens) {
            Some(slot) => {
                names.known.remove(&*slot.name);
                names.kept.replace(Kept(slot))
            }
            None => {
                names.know(slot);
                names.kept.take(&*slot.name)
            }
        };
        names.shrink();
        let has_ends = names.swept.is_some();
        drop(names);
        // Not the last reference to the slot, as it was called through another one.
        drop(forgotten);
        has_ends
    }

    /// Takes out the records that have ended beside this name, now and then: no caller may ask for them
    /// again.
    fn sweep(&self, name: &str, time: Time) {
        let mut names = self.names(name);
        let is_due = |swept: Instant| time.now >= after(swept, SWEEP);
        if !names.swept.is_none_or(is_due) {
            return;
        }
        names.swept = Some(time.now);
        let has_ended =
            |slot: &Slot| slot.state().end.as_ref().is_some_and(|end| end.has_come(time));
        let ended: Vec<_> = names.kept.iter().filter(|kept| has_ended(&kept.0)).collect();
        let ended: Vec<_> = ended.into_iter().map(|Kept(slot)| Arc::clone(slot)).collect();
        drop(names);
        ended.iter().for_each(|slot| drop(slot.current()));
    }

    /// Takes out the entry of a slot that is being dropped.
    fn forget(&self, slot: &Slot) {
        let mut names = self.names(&slot.name);
        // The name may have a new slot by now.
        if names.known.get(&*slot.name).is_some_and(|known| known.ptr_eq(&slot.this)) {
            names.known.remove(&*slot.name);
            names.shrink();
        }
    }
}

impl Names {
    /// `None`: there is none, or its last handle is gone and it is being dropped.
    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        match self.kept.get(name) {
            Some(Kept(slot)) => Some(Arc::clone(slot)),
            None => self.known.get(name)?.upgrade(),
        }
    }

    fn know(&mut self, slot: &Slot) {
        self.known.insert(slot.name.clone(), Weak::clone(&slot.this));
    }

    /// Gives back the tables of a busier hour.
    fn shrink(&mut self) {
        let (kept, known) = (self.kept.len(), self.known.len());
        if kept * 8 < self.kept.capacity() {
            self.kept.shrink_to(kept * 2);
        }
        if known * 8 < self.known.capacity() {
            self.known.shrink_to(known * 2);
        }
    }
}

impl Borrow<str> for Kept {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Kept {}

#[cfg(test)]
mod tests;
