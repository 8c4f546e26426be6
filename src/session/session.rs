//! One signed-in browser: [`Session`].

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::time::{Instant, timeout_at};

use super::{
    ended::Ended,
    entry::Entry,
    id::SessionName,
    identity::Identity,
    index::IndexKey,
    place::Slot,
    shared::{Visit, finish},
};
use crate::{state::RefreshState, store::StoreError, time::Time};

/// A session that lives: who is signed in, and their tokens. A handler takes it from the request's
/// [`SessionSlot`](super::SessionSlot), or as an extractor where the feature `axum` is on. Cheap to clone.
///
/// ```
/// use http::Request;
/// use tower_refresh::session::Session;
///
/// /// A handler's own call to an API, by a client with `RefreshLayer::per_request(FromExtensions)`.
/// fn orders(session: &Session) -> Request<String> {
///     let mut request = Request::new(String::new());
///     session.attach(&mut request);
///     request
/// }
/// ```
#[derive(Clone)]
pub struct Session {
    entry: Arc<Entry>,
    slot: Arc<Slot>,
}

impl Session {
    pub(super) fn new(entry: Arc<Entry>, slot: Arc<Slot>) -> Self {
        Self { entry, slot }
    }

    /// The credential: for a client behind a [`RefreshLayer`](crate::RefreshLayer), which finds it in
    /// the request's extensions by [`FromExtensions`](crate::FromExtensions), and for calls of one's
    /// own.
    #[must_use]
    pub fn state(&self) -> &Arc<RefreshState> {
        &self.entry.state
    }

    /// Puts the credential into a request of your own, where
    /// [`FromExtensions`](crate::FromExtensions) finds it.
    pub fn attach<B>(&self, request: &mut http::Request<B>) {
        request.extensions_mut().insert(Arc::clone(self.state()));
    }

    /// Who has signed in.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.entry.identity
    }

    /// When the session ends at the latest.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.entry.deadline.wall
    }

    /// The session's name in stores and logs: a hash, never the cookie's value.
    #[must_use]
    pub fn name(&self) -> SessionName {
        self.entry.name()
    }

    /// Signs out: ends the session in the store, takes the cookie away with this request's response, and
    /// gives the tokens to the [hook](crate::state::RenewalBuilder::on_sign_out) that revokes them. For
    /// a route that takes POST.
    ///
    /// It goes on if the caller is cancelled.
    ///
    /// # Errors
    ///
    /// The store could not delete. In this process the session has ended. The browser keeps its cookie,
    /// so that the user can try again.
    pub async fn sign_out(&self) -> Result<(), StoreError> {
        self.slot.shared.end(&self.entry, Ended::SignedOut).await?;
        self.slot.signed_out(&self.entry, Ended::SignedOut);
        Ok(())
    }

    /// Ends all other sessions of the user, on every replica. Returns how many.
    ///
    /// # Errors
    ///
    /// The store failed, and some may live: call again.
    pub async fn end_others(&self) -> Result<usize, StoreError> {
        let (shared, name) = (Arc::clone(&self.slot.shared), self.name());
        let key = IndexKey::sub(self.identity());
        finish(async move { shared.end_by(&key, Some(&name)).await }).await
    }

    /// Waits until the session ends, here or on another replica, and says why: for streams and sockets,
    /// which should end then. It looks at the store now and then
    /// ([`watch_every`](super::SessionsBuilder::watch_every)), and goes on waiting while the store cannot
    /// be reached. Waiting does not keep the session from being idle.
    ///
    /// Cancel safe.
    pub async fn ended(&self) -> Ended {
        let shared = &self.slot.shared;
        let mut health = self.entry.state.subscribe_health();
        loop {
            let now = Instant::now();
            let is_sure = self.entry.was_looked_at(shared.watch_every, now);
            if self.entry.deadline.has_come(Time::now()) {
                let _ = shared.watch(&self.entry).await;
                // Whatever the store says, or does not say.
                return self.entry.record.ended.get().unwrap_or(Ended::Deadline);
            }
            if !is_sure || self.entry.state.health().needs_sign_in() {
                // A store that fails says nothing.
                if let Ok(Visit::Ended(ended)) = shared.watch(&self.entry).await {
                    return ended;
                }
            }
            let next = (now + shared.watch_every).min(self.entry.deadline.now);
            // At the deadline itself it is looked at again; then not at once, if the store is away.
            let next = next.max(now + shared.watch_every / 16);
            // Never an error: the sender is in the state.
            let _ = timeout_at(next, health.changed()).await;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name()).finish_non_exhaustive()
    }
}
