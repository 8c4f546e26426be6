//! Graceful shutdown, and what it has to leave.

use std::sync::Arc;

use super::{RefreshState, unrevoked::Unrevoked, waiters::wake};
use crate::tokens::Tokens;

/// What a [`RefreshState::drain`] had to leave.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use tower_refresh::{RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next"))).build();
/// // At the end of `main`. A store that is away would keep it waiting.
/// let left = tokio::time::timeout(Duration::from_secs(10), state.drain()).await?;
/// assert!(left.is_clean());
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Tokens that no request will use and that live on at the server, the newest last; at most the
    /// newest 64. A hook has failed to revoke them, or its runtime was shut down before it could; or
    /// they have a refresh token that came too late, and there is no hook for that
    /// ([`on_discard`](super::RenewalBuilder::on_discard)). Keep them somewhere safe and revoke them
    /// later, if that matters.
    ///
    /// Not among them are tokens of which only [`clear`](RefreshState::clear) told: those of a sign-out
    /// without a hook ([`NotAsked`](super::Revocation::NotAsked)), and those that this process does not
    /// know ([`Unknown`](super::Revocation::Unknown)).
    pub unrevoked: Vec<Tokens>,
    /// New tokens were minted and are lost: the runtime of their refresh was shut down before
    /// they were saved, and there was no refresh after it.
    pub unsaved: bool,
}

impl Drained {
    /// Nothing was left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unrevoked.is_empty() && !self.unsaved
    }
}

impl RefreshState {
    /// Graceful shutdown: starts no refresh from now on, and waits until the refresh under way has
    /// saved its tokens. It waits for as long as the save keeps failing, so wrap it in a timeout.
    /// Cancel safe.
    ///
    /// It also waits for the hooks, and for sign-ins and sign-outs under way. It waits for a lease that
    /// another process has only if there are tokens to be saved. Neither the refresher, the store nor
    /// a hook may await it, because it waits for them.
    ///
    /// Tokens that could not be revoked yet ([`on_sign_out`](super::RenewalBuilder::on_sign_out)) are
    /// tried once more. Those that are left then are in the returned [`Drained`].
    pub async fn drain(self: &Arc<Self>) -> Drained {
        let channels = self.channels();
        let mut ends = channels.ends.subscribe();
        self.with(|machine, _| machine.drain());
        // A flight that waits for its turn or its lease hears of it.
        let woken = self.lock().waiters.take_flight();
        woken.into_iter().for_each(wake);
        // `keep_fresh`, which would wait for the next flight, hears that there is none.
        let is_kept_fresh = self.lock().is_kept_fresh;
        self.look_again(is_kept_fresh);
        // And so does what is to be revoked for the last time.
        channels.ends.send_replace(());
        while self.lock().running > 0 {
            // The sender is in `self`: this cannot end in an error.
            let _ = ends.changed().await;
        }
        let inner = self.lock();
        Drained {
            unrevoked: inner.unrevoked().map_or(Vec::new(), Unrevoked::tokens),
            unsaved: inner.machine.is_unsaved(),
        }
    }
}
