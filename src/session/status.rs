//! What an operator may want to know of all sessions: [`SessionsStatus`].

use std::sync::atomic::{AtomicU64, Ordering};

use super::ended::{ALL, Ended};

/// The numbers of this process's sessions.
///
/// ```
/// # use tower_refresh::{Renewal, Tokens, store::MemoryStores};
/// use tower_refresh::session::{Ended, Sessions};
///
/// # let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next")));
/// # let sessions = Sessions::builder(renewal, MemoryStores::new()).build()?;
/// let status = sessions.status();
/// assert_eq!((status.loaded, status.ended(Ended::Reused)), (0, 0));
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionsStatus {
    /// How many sessions are loaded: those that were used within the last minute or so, and those that
    /// still have something to finish.
    pub loaded: usize,
    /// How many of them are being refreshed.
    pub refreshing: usize,
    /// How many sessions this process has signed in.
    pub begun: u64,
    /// How often the store was looked at for a request or a stream.
    pub looks: u64,
    ended: [u64; ALL.len()],
}

impl SessionsStatus {
    /// How many have ended for this reason, as far as this process knows.
    #[must_use]
    pub fn ended(&self, ended: Ended) -> u64 {
        self.ended[ended.position()]
    }

    /// How many have ended, by reason.
    pub fn all_ended(&self) -> impl Iterator<Item = (Ended, u64)> {
        ALL.into_iter().zip(self.ended)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    begun: AtomicU64,
    looks: AtomicU64,
    ended: [AtomicU64; ALL.len()],
}

impl Counters {
    pub(super) fn begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn looked(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        crate::metrics::session_looked();
    }

    pub(super) fn ended(&self, ended: Ended) {
        self.ended[ended.position()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status(&self, loaded: usize, refreshing: usize) -> SessionsStatus {
        SessionsStatus {
            loaded,
            refreshing,
            begun: self.begun.load(Ordering::Relaxed),
            looks: self.looks.load(Ordering::Relaxed),
            ended: self.ended.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }
}
