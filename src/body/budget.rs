//! What all requests together may keep.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Bytes that all requests sharing it may keep for replays at one time.
///
/// Cloning gives another handle to the same budget. A request that finds it used up is sent all the
/// same, it only cannot be replayed ([`NotReplayable::OverBudget`](super::NotReplayable::OverBudget)).
///
/// Counted are the bytes of each kept frame, and 64 bytes of bookkeeping for each frame and for each
/// trailer field, so that many tiny frames are bounded as well. Not counted is memory that a chunk
/// keeps alive but does not show: one byte sliced from a large buffer counts as one.
#[derive(Clone)]
pub struct Budget(Arc<Pool>);

struct Pool {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes. `0` keeps nothing, `usize::MAX` keeps without a limit.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Pool { limit: bytes, used: AtomicUsize::new(0) }))
    }

    /// Bytes in use now, bookkeeping included. Never above [`limit`](Self::limit).
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// The bytes it was made with.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

/// A budget of so many bytes, as by [`Budget::new`].
impl From<usize> for Budget {
    fn from(bytes: usize) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("used", &self.used()).field("limit", &self.limit()).finish()
    }
}

/// One request's part of a budget, given back when it is dropped.
pub(super) struct Charge {
    budget: Budget,
    held: usize,
}

impl Charge {
    pub(super) fn none(budget: &Budget) -> Self {
        Self { budget: budget.clone(), held: 0 }
    }

    /// Takes more; `false`, and nothing taken, if that would pass the limit.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Pool { limit, used } = &*self.budget.0;
        // Not add-then-undo: for a moment that would be above the limit, and would refuse others.
        let taken = used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| sum <= limit)
        });
        if taken.is_ok() {
            // No overflow: `used` counts this too, and it did not.
            self.held += bytes;
        }
        taken.is_ok()
    }

    /// Gives a part back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.budget.0.used.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.held > 0 {
            self.shrink(self.held);
        }
    }
}
