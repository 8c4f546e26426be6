//! How sessions end: more of [`Shared`].

use std::{future::Future, sync::Arc};

use super::{
    ended::Ended,
    entry::Entry,
    id::SessionName,
    index::IndexKey,
    shared::{Claim, Shared, Visit, finish, spawn},
};
use crate::{
    metrics,
    state::Health,
    store::{SaveError, StoreError},
};

impl Shared {
    /// Ends it: in the store, and everywhere.
    pub(super) async fn end(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        ended: Ended,
    ) -> Result<(), StoreError> {
        let (shared, entry) = (Arc::clone(self), Arc::clone(entry));
        finish(async move {
            entry.record.ended.set(ended);
            entry.state.clear_soon().await?;
            shared.has_ended(&entry, ended);
            Ok(())
        })
        .await
    }

    /// The server has rejected the refresh token that the record held when it was last read. If the
    /// record still holds it the session has ended; `None`: it does not.
    pub(super) fn end_rejected(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
    ) -> impl Future<Output = Result<Option<Ended>, StoreError>> + Send + 'static {
        let (shared, entry) = (Arc::clone(self), Arc::clone(entry));
        // Now: what is adopted from now on was not rejected.
        let rejected = entry.state.rejected();
        finish(async move {
            let Some((known, failure)) = rejected else { return Ok(None) };
            let ended = Ended::rejected(failure.as_ref());
            match entry.record.end_at(known, ended).await {
                Ok(()) => Ok(Some(shared.has_ended(&entry, ended))),
                Err(SaveError::Conflict | SaveError::LeaseLost) => {
                    entry.state.look().await?;
                    let is_out = entry.state.health() == Health::SignedOut;
                    Ok(is_out.then(|| shared.has_ended(&entry, Ended::Idle)))
                }
                Err(SaveError::Failed(error)) => Err(error),
            }
        })
    }

    /// It has ended: tells so once. Returns how, by what is known first.
    pub(super) fn has_ended(self: &Arc<Self>, entry: &Arc<Entry>, ended: Ended) -> Ended {
        let ended = entry.record.ended.set(ended);
        self.registry.remove(entry);
        if entry.tell() {
            self.tell_ended(&entry.name(), ended);
            let (shared, entry) = (Arc::clone(self), Arc::clone(entry));
            spawn(async move { shared.index.remove(&entry.identity, &entry.name()).await });
        }
        ended
    }

    /// A sign-in of this browser has taken the place of these, which it did not bring then.
    pub(super) async fn replace(self: &Arc<Self>, old: impl Iterator<Item = Claim>) {
        for claim in old {
            if let Ok(Visit::Lives(entry)) = self.visit(&claim, false).await {
                // If that fails the next request tries again, or it ends by itself.
                let _ = self.end(&entry, Ended::Replaced).await;
            }
        }
    }

    pub(super) fn tell_ended(&self, name: &SessionName, ended: Ended) {
        self.counters.ended(ended);
        metrics::session_ended(ended.as_str());
        tracing::info!(session = %name, reason = ended.as_str(), "session ended");
    }

    /// Ends all that are known by this key, but for one.
    pub(super) async fn end_by(
        self: &Arc<Self>,
        key: &IndexKey,
        but: Option<&SessionName>,
    ) -> Result<usize, StoreError> {
        let (mut count, mut failed) = (0, None);
        for name in self.index.end(key, but).await? {
            match self.end_named(&name).await {
                Ok(has_ended) => count += usize::from(has_ended),
                // The others are not to live on for that.
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(count),
            Some(error) => Err(error),
        }
    }

    /// Whether it lived.
    pub(super) async fn end_named(
        self: &Arc<Self>,
        name: &SessionName,
    ) -> Result<bool, StoreError> {
        let Some(digest) = name.digest() else { return Ok(false) };
        let visit = match self.registry.get(&digest) {
            Some(entry) => self.watch(&entry).await?,
            None if self.sealed.is_some() => return self.end_in_browser(digest).await,
            None => self.load(&Claim::new(digest)).await?,
        };
        let Visit::Lives(entry) = visit else { return Ok(false) };
        self.end(&entry, Ended::SignedOutElsewhere).await?;
        Ok(true)
    }
}
