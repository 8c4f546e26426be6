//! [`Budget`]: how many bytes all requests together may keep for their replays.

use std::fmt;

use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How many bytes the requests that share it may keep for their replays at one time.
///
/// A clone is another handle to the same budget, so that several layers can share one
/// ([`RefreshLayer::replay_budget`](crate::RefreshLayer::replay_budget)). A request that would pass
/// the limit is sent all the same, and cannot be replayed
/// ([`NotReplayable::OverBudget`](super::NotReplayable::OverBudget)).
///
/// The budget counts the bytes of each kept frame, and 64 bytes of bookkeeping for each frame and for
/// each trailer field, so that many tiny frames are bounded as well. It does not count memory that a
/// chunk keeps alive and does not show: one byte sliced from a large buffer counts as one.
///
/// ```
/// use tower_refresh::{RefreshLayer, RefreshState, Tokens, refresher_fn, body::Budget};
/// # let state = || RefreshState::builder(refresher_fn(async || Ok(Tokens::new("minted")))).build();
/// # let (orders, billing) = (state(), state());
///
/// let budget = Budget::new(16 << 20);
/// let orders = RefreshLayer::new(orders).replay_budget(budget.clone());
/// let billing = RefreshLayer::new(billing).replay_budget(budget.clone());
/// // What both keep together, for a metric.
/// assert_eq!(budget.used(), 0);
/// # let _ = (orders, billing);
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Pool>);

struct Pool {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes. `0` keeps nothing, and `usize::MAX` is no limit.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Pool { limit: bytes, used: AtomicUsize::new(0) }))
    }

    /// How many bytes are in use now, bookkeeping included. Never more than
    /// [`limit`](Self::limit).
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// How many bytes it was made with.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

/// A budget of so many bytes, as made by [`Budget::new`].
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

/// What one request has taken from a budget. Given back when it is dropped.
pub(super) struct Charge {
    budget: Budget,
    held: usize,
}

impl Charge {
    #[inline]
    pub(super) fn none(budget: &Budget) -> Self {
        Self { budget: budget.clone(), held: 0 }
    }

    /// Takes so many bytes more. `false`, and nothing is taken, if that would pass the limit.
    #[must_use]
    #[inline]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Pool { limit, used } = &*self.budget.0;
        // Not added first and taken back: for that moment the budget would be above its limit,
        // and would refuse other requests.
        let taken = used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| sum <= limit)
        });
        if taken.is_ok() {
            // Does not overflow, because `used` includes `held` and has not overflowed.
            self.held += bytes;
        }
        taken.is_ok()
    }

    /// Gives a part back.
    #[inline]
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.budget.0.used.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        if self.held > 0 {
            self.shrink(self.held);
        }
    }
}
