//! What went wrong lately: plain data of the machine.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{doubts::Doubts, parts::Minted};
use crate::{
    state::failure::RefreshFailure,
    store::OpenCause,
    time::Due,
    tokens::{Generation, Tokens},
};

/// What went wrong lately. Most credentials have none of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    /// Why no new flight starts, until its `retry_at` or (without one) for good.
    pub(super) blocked_by: Option<RefreshFailure>,
    /// Until then no brand-new token that is refused has a flight started. A token that has run
    /// out by its own expiry has.
    pub(super) brake: Option<Due>,
    /// The stored generation whose refresh token the server has rejected, and why. It
    /// outlasts a store that cannot be read for a while.
    pub(super) rejected: Option<(Generation, RefreshFailure)>,
    /// The stored generation whose refresh token the server has rejected once, which may not be
    /// its last word.
    pub(super) doubtful_rejection: Option<Generation>,
    /// What had been left open when a rejection was doubted. What is found since may be of the
    /// session that this has ended; a redeem that works says that it is not.
    pub(super) doubted_over: Option<OpenCause>,
    /// Transient failures in a row.
    pub(super) transient_failures: u32,
    /// How often a challenge had the store read again while only a sign-in elsewhere could
    /// help, and when it may be read again.
    pub(super) rechecks: u32,
    pub(super) recheck_at: Option<Due>,
    /// Minted by a flight whose runtime went away before the save.
    pub(super) unsaved: Option<Box<Minted>>,
    /// Minted, and given up since: for the shell to discard.
    pub(super) unused: Option<Box<Tokens>>,
    /// When brand-new tokens were refused.
    pub(super) strikes: VecDeque<Instant>,
    /// Refusals that may not be about the token.
    pub(super) doubts: Option<Box<Doubts>>,
    /// The last failure that waiters were told.
    pub(super) last_failure: Option<RefreshFailure>,
}

impl Troubles {
    /// No request will use these.
    pub(super) fn give_up(&mut self, minted: Minted) {
        self.unused = minted.into_unused().map(Box::new);
    }

    /// A flight came to a good end.
    pub(super) fn recover(&mut self) {
        self.blocked_by = None;
        self.rejected = None;
        self.doubtful_rejection = None;
        self.transient_failures = 0;
        self.rechecks = 0;
        self.recheck_at = None;
    }
}
