//! Responses that can still carry new tokens to the browser that holds them ([`Heads`]).

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// How many responses of a credential have not sent their head yet. Where the tokens are kept in a
/// browser's cookie a refresh token is spent only while there is one: afterwards the new tokens would
/// have no way to where they live. Clones count the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    owed: AtomicUsize,
    /// Only the browser has the newest tokens: those that are known here are spent.
    is_stale: AtomicBool,
}

impl Heads {
    pub(super) fn may_redeem(&self) -> bool {
        self.0.owed.load(Ordering::Acquire) > 0 && !self.0.is_stale.load(Ordering::Acquire)
    }
}

/// A response whose head is still to be sent.
#[cfg(feature = "session")]
#[derive(Debug)]
pub(crate) struct OwedHead(Heads);

#[cfg(feature = "session")]
impl Heads {
    pub(crate) fn owe(&self) -> OwedHead {
        self.0.owed.fetch_add(1, Ordering::AcqRel);
        OwedHead(self.clone())
    }

    pub(crate) fn set_stale(&self, is_stale: bool) {
        self.0.is_stale.store(is_stale, Ordering::Release);
    }
}

#[cfg(feature = "session")]
impl Drop for OwedHead {
    fn drop(&mut self) {
        self.0.0.owed.fetch_sub(1, Ordering::AcqRel);
    }
}
