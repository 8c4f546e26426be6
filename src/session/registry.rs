//! The sessions that this process has loaded: one entry, and so one state, for each (S1).

use std::{
    array,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{entry::Entry, id::Digested};

/// A table that grows is copied under its lock.
const SHARDS: usize = 64;

/// How often the entries of a shard are looked through for those that may go.
const SWEEP: Duration = Duration::from_secs(30);

/// How many of a shard go at once: the request that comes by waits while they are dropped.
const GO_AT_ONCE: usize = 256;

/// The entries, by what their sessions are called. One that no request uses goes after some time, unless
/// something would be lost with it: the next request loads it again.
pub(super) struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    /// How long an entry stays that no request uses.
    keep: Duration,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Digested, Arc<Entry>, BuildHasherDefault<FirstBytes>>,
    /// Those that have ended with something still to be done: a refresh under way, tokens to be revoked.
    ended: Vec<Arc<Entry>>,
    swept: Option<Instant>,
}

impl Registry {
    pub(super) fn new(keep: Duration) -> Self {
        Self { shards: array::from_fn(|_| Mutex::default()), keep }
    }

    fn shard(&self, digest: &Digested) -> MutexGuard<'_, Shard> {
        // Not by the bytes that the tables go by.
        lock(&self.shards[usize::from(digest[31]) % SHARDS])
    }

    pub(super) fn get(&self, digest: &Digested) -> Option<Arc<Entry>> {
        self.shard(digest).entries.get(digest).cloned()
    }

    /// Puts it there, or returns the one that is there.
    pub(super) fn insert(&self, entry: Arc<Entry>, now: Instant) -> Arc<Entry> {
        let mut shard = self.shard(&entry.digest);
        let entry = Arc::clone(shard.entries.entry(entry.digest).or_insert(entry));
        let gone = shard.sweep(self.keep, now);
        drop(shard);
        // Their tokens are wiped outside the lock.
        drop(gone);
        entry
    }

    /// Takes this one out.
    pub(super) fn remove(&self, entry: &Arc<Entry>) {
        let mut shard = self.shard(&entry.digest);
        let is_it = shard.entries.get(&entry.digest).is_some_and(|it| Arc::ptr_eq(it, entry));
        let gone = if is_it { shard.entries.remove(&entry.digest) } else { None };
        let done = shard.ended.iter().position(|entry| entry.state.is_at_rest());
        let done = done.map(|at| shard.ended.swap_remove(at));
        if is_it && !entry.state.is_at_rest() {
            shard.ended.push(Arc::clone(entry));
        }
        drop(shard);
        drop((gone, done));
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let all = self.shards.iter().flat_map(|shard| {
            let shard = lock(shard);
            shard.entries.values().chain(&shard.ended).cloned().collect::<Vec<_>>()
        });
        all.collect()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Nothing panics while it is held.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn sweep(&mut self, keep: Duration, now: Instant) -> Vec<Arc<Entry>> {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) < SWEEP {
            return Vec::new();
        }
        let (ended, mut gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ended).into_iter().partition(|it| !it.state.is_at_rest());
        self.ended = ended;
        let most = gone.len() + GO_AT_ONCE;
        // An entry is given out under this lock only: what has one owner now has no other soon.
        self.entries.retain(|_, entry| {
            let goes = gone.len() < most && entry.is_idle(now, keep);
            if goes {
                gone.push(Arc::clone(entry));
            }
            !goes
        });
        // If there may be more, the next one goes on.
        if gone.len() < most {
            self.swept = Some(now);
        }
        gone
    }
}

/// The keys are hashes already, and of random texts: what a stranger makes up is never in a table.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    // The length of the array, which comes before its bytes.
    fn write_usize(&mut self, _: usize) {}
}
