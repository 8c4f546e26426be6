//! Responses that can still carry new tokens to the browser that holds them ([`Heads`]).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many responses of a credential have not sent their head yet. Where the tokens are kept in a
/// browser's cookie a refresh token is spent only while there is one: afterwards the new tokens would
/// have no way to where they live. Clones count the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(Arc<AtomicUsize>);

#[cfg(feature = "session")]
/// A response whose head is still to be sent.
#[derive(Debug)]
pub(crate) struct OwedHead(Heads);

impl Heads {
    #[cfg(feature = "session")]
    pub(crate) fn owe(&self) -> OwedHead {
        self.0.fetch_add(1, Ordering::AcqRel);
        OwedHead(self.clone())
    }

    pub(super) fn are_owed(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

#[cfg(feature = "session")]
impl Drop for OwedHead {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
