//! The sessions of an application: [`Sessions`].

use std::{fmt, sync::Arc};

use tokio::task::JoinSet;

use super::{
    cookie::SessionCookie,
    index::IndexKey,
    layer::SessionLayer,
    shared::{Shared, finish},
    status::SessionsStatus,
};
use crate::{state::Drained, store::StoreError};

/// The sessions of an application: who is signed in, by the cookie that their browser has. The tokens
/// are in a store; each session is one [`RefreshState`](crate::RefreshState), and has one refresh for
/// all tabs and, where the store is shared, for all replicas.
///
/// Cheap to clone; clones are the same sessions. See the [module](super) for a program.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Shared>);

impl Sessions {
    /// The layer that finds each request's session. Requests without one pass, too, unless
    /// [`SessionLayer::required`] says otherwise.
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(Arc::clone(&self.0))
    }

    /// Ends all sessions of a user, or of one of the provider's own sessions, on every replica, and also
    /// those whose sign-in is under way. Their tokens are revoked. Returns how many sessions it has ended.
    ///
    /// Cancel safe: what it has begun goes on.
    ///
    /// # Errors
    ///
    /// The store failed, and some may live: call again.
    pub async fn end_all(&self, key: &IndexKey) -> Result<usize, StoreError> {
        let sessions = self.clone();
        let key = key.clone();
        finish(async move { sessions.0.end_by(&key, None).await }).await
    }

    /// Graceful shutdown, once the server takes no more requests: waits until every refresh under way
    /// has saved its tokens. Returns what could not be done, as
    /// [`RefreshState::drain`](crate::RefreshState::drain) does. Wrap it in a timeout.
    pub async fn drain(&self) -> Drained {
        let mut draining = JoinSet::new();
        for entry in self.0.registry.all() {
            draining.spawn(async move { entry.state.drain().await });
        }
        let mut all = Drained::default();
        while let Some(drained) = draining.join_next().await {
            let Ok(drained) = drained else { continue };
            all.unrevoked.extend(drained.unrevoked);
            all.unsaved |= drained.unsaved;
        }
        all
    }

    /// How many sessions are loaded, refreshing, and ended.
    #[must_use]
    pub fn status(&self) -> SessionsStatus {
        let entries = self.0.registry.all();
        let refreshing = entries.iter().filter(|entry| entry.state.is_in_flight()).count();
        self.0.counters.status(entries.len(), refreshing)
    }

    /// The cookie.
    #[must_use]
    pub fn cookie(&self) -> &SessionCookie {
        &self.0.cookie
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("status", &self.status()).finish_non_exhaustive()
    }
}
