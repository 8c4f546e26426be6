//! How a session begins: more of [`Shared`].

use std::{sync::Arc, time::SystemTime};

use super::{
    ended::Ended,
    entry::Entry,
    error::SignInError,
    id::{Digested, SessionId},
    identity::Identity,
    record::SessionRecord,
    sealed::InBrowser,
    shared::Shared,
};
use crate::{metrics, state::Renewal, time::Time, tokens::Tokens};

impl Shared {
    /// A new session, in the store and in this process. What its browser had is another matter.
    pub(super) async fn begin(
        self: &Arc<Self>,
        tokens: Tokens,
        identity: Identity,
    ) -> Result<(SessionId, Arc<Entry>), SignInError> {
        let id = SessionId::random().map_err(SignInError::Random)?;
        let digest = id.digest();
        let of = (&self.renewal, self.record(digest), None);
        Ok((id, self.begin_as(digest, of, (tokens, identity)).await?))
    }

    /// When a session ends that begins now.
    pub(super) fn deadline(&self, identity: &Identity, time: Time) -> SystemTime {
        let latest = time.after(self.max_age).wall;
        identity.expiry().map_or(latest, |expiry| expiry.min(latest))
    }

    pub(super) async fn begin_as(
        self: &Arc<Self>,
        digest: Digested,
        of: (&Renewal, Arc<SessionRecord>, Option<InBrowser>),
        (tokens, identity): (Tokens, Identity),
    ) -> Result<Arc<Entry>, SignInError> {
        let time = Time::now();
        let deadline = self.deadline(&identity, time);
        let entry = Entry::new(digest, of, &Default::default(), (identity, deadline), time);
        // No request knows it yet.
        let stored = self.store_new(&entry, tokens.clone(), (time.wall, deadline)).await;
        if let Err(error) = stored {
            // It may be there: what cannot be reached by a cookie should not live.
            if self.end(&entry, Ended::SignedOutElsewhere).await.is_err() {
                self.renewal.revoke(tokens).await;
            }
            return Err(error);
        }
        self.counters.begun();
        metrics::session_begun();
        tracing::info!(session = %entry.name(), "signed in");
        Ok(self.registry.insert(entry, time.now))
    }

    async fn store_new(
        &self,
        entry: &Arc<Entry>,
        tokens: Tokens,
        times: (SystemTime, SystemTime),
    ) -> Result<(), SignInError> {
        entry.state.set(tokens).await?;
        entry.touched_at_birth();
        let added = self.index.add(&entry.identity, &entry.name(), times).await?;
        if added { Ok(()) } else { Err(SignInError::Ended) }
    }
}
