//! [`CachedToken`]: a credential's token, as a service puts it on one request after the other.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::attach::Attach;
use crate::{
    credential::Credential,
    state::{Admission, FailureKind, RefreshFailure, RefreshState, Wait},
    time::Time,
};

/// A token as it goes on requests. Usable while the state's gate word stays the same and the
/// token need not be renewed: one atomic read and one look at the clock a request.
#[derive(Clone)]
pub(super) struct CachedToken {
    gate_word: u64,
    /// From when on the state has to be asked. `None`: the token has no known end.
    ask_from: Option<Instant>,
    pub(super) credential: Credential,
    /// The credential's token cannot stand in a header.
    unsendable: bool,
    /// The header's value, if it goes into a header.
    pub(super) value: Option<HeaderValue>,
}

/// How long the wall clock is not looked at, at most: a request that uses the token in the slot
/// looks at the monotonic clock only, which stands still while the machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// The bit of a gate word that says so.
const GATE_CLOSED: u64 = 1;

impl CachedToken {
    /// The state's current token, and whether a request can be sent with it. `own_memory`: see
    /// [`Attach::value`].
    fn read(attach: &Attach, state: &RefreshState, own_memory: bool) -> (Self, bool) {
        // The gate word before the credential: should the credential change in between, the
        // word is the older one, and the next request reads both again.
        let gate_word = state.gate_word();
        let credential = state.current();
        let value = attach.value(&credential, own_memory);
        let mut is_usable = gate_word & GATE_CLOSED == 0;
        let ask_from = credential.early().map(|early| {
            let time = Time::now();
            let is_early = early.has_come(time);
            is_usable &= !is_early;
            if is_early { time.now } else { early.now.min(time.now + LOOK) }
        });
        let unsendable = attach.is_unsendable(&credential, value.as_ref());
        (Self { gate_word, ask_from, credential, unsendable, value }, is_usable)
    }

    /// The token in the slot, if a request can be sent with it without asking the state. An
    /// empty slot is filled first.
    #[inline]
    pub(super) fn usable<'a>(
        slot: &'a mut Option<Self>,
        attach: &Attach,
        state: &RefreshState,
        own_memory: bool,
    ) -> Option<&'a Self> {
        match slot {
            Some(token) => token.is_usable(state).then_some(&*token),
            None => {
                let (token, is_usable) = Self::read(attach, state, own_memory);
                let token = slot.insert(token);
                is_usable.then_some(&*token)
            }
        }
    }

    fn is_usable(&self, state: &RefreshState) -> bool {
        self.gate_word == state.gate_word()
            && self.gate_word & GATE_CLOSED == 0
            && self.ask_from.is_none_or(|moment| Instant::now() < moment)
    }

    /// Why a request goes without a token although there is one.
    #[inline]
    pub(super) fn refusal(&self) -> Option<Box<RefreshFailure>> {
        self.unsendable.then(|| Box::new(RefreshFailure::new(FailureKind::Unsendable)))
    }

    /// Asks the state, which may start a refresh: the token to send the request with, and why
    /// it is no fresh one, if it is not; or what the request has to wait for.
    pub(super) fn admit<'a>(
        slot: &'a mut Option<Self>,
        attach: &Attach,
        state: &Arc<RefreshState>,
        own_memory: bool,
    ) -> Result<(&'a Self, Option<Box<RefreshFailure>>), Wait> {
        let refused = match state.admit() {
            Admission::Proceed => None,
            Admission::Refuse(failure) => Some(Box::new(failure)),
            Admission::Wait(ticket) => return Err(Wait::new(Arc::clone(state), ticket)),
        };
        let token = slot.insert(Self::read(attach, state, own_memory).0);
        Ok((token, refused.or_else(|| token.refusal())))
    }
}

#[cfg(all(test, tower_refresh_loom))]
mod interleavings;
