//! What a store holds for a session: its tokens, or for some minutes how it has ended.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use super::{
    ended::{Ended, EndedCell},
    identity::Identity,
};
use crate::{
    refresher::BoxFuture,
    store::{Deleted, KeptUntil, Leased, Record, SaveError, StoreError, TokenStore},
    time::Time,
    tokens::{Generation, RESERVED_DEADLINE, RESERVED_ENDED, Tokens},
};

/// For how long a session that has ended is told from one that never was.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);

/// How often the note of an end is written anew because a refresh was saved meanwhile.
pub(super) const MAX_CONFLICTS: usize = 16;

/// A session's record in a store. To its [`RefreshState`](crate::RefreshState) the note of an ended
/// session is what a sign-out leaves: a later number, and no tokens.
pub(super) struct SessionRecord {
    store: Arc<dyn TokenStore>,
    idle: Option<Duration>,
    /// For how long it is noted that the session has ended.
    remembered: Duration,
    /// Whose it is and when it ends, for tokens that a handler signs in with in its middle.
    kept: OnceLock<(Arc<Identity>, SystemTime)>,
    /// How the session has ended, as far as this process knows.
    pub(super) ended: EndedCell,
}

/// What was found under a session's name.
pub(super) enum Stored {
    /// Nothing, or nothing of a session.
    Nothing,
    Ended(Ended),
    Lives(Box<Living>),
}

/// A session's record, and what this crate has noted in it.
pub(super) struct Living {
    pub(super) record: Record,
    pub(super) identity: Identity,
    pub(super) deadline: SystemTime,
}

/// These tokens as a session's.
pub(super) fn of_session(tokens: Tokens, identity: &Identity, deadline: SystemTime) -> Tokens {
    let since = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    identity.put_into(tokens).with_extra(RESERVED_DEADLINE, since.as_secs().to_string())
}

/// What stands in the place of an ended session's tokens.
pub(super) fn note(ended: Ended) -> Tokens {
    Tokens::new("").with_extra(RESERVED_ENDED, ended.as_str())
}

/// How the session has ended whose record this is, if that is noted there.
pub(super) fn noted(tokens: &Tokens) -> Option<Ended> {
    // A word of a later version of this program says at least that it has ended.
    tokens.extra(RESERVED_ENDED).map(|word| Ended::parse(word).unwrap_or(Ended::SignedOutElsewhere))
}

impl SessionRecord {
    pub(super) fn new(
        store: Arc<dyn TokenStore>,
        idle: Option<Duration>,
        remembered: Duration,
    ) -> Self {
        Self { store, idle, remembered, kept: OnceLock::new(), ended: EndedCell::default() }
    }

    /// What never changes of it.
    pub(super) fn keep(&self, identity: &Arc<Identity>, deadline: SystemTime) {
        let _ = self.kept.set((Arc::clone(identity), deadline));
    }

    /// The session is used at this moment: its record is kept for that much longer.
    pub(super) async fn touch(&self) -> Result<(), StoreError> {
        let Some((_, deadline)) = self.kept.get() else { return Ok(()) };
        // After its deadline a session can still be told from one that never was, and its tokens be
        // revoked.
        let last = deadline.checked_add(REMEMBERED).unwrap_or(*deadline);
        let end = self.idle.map(|idle| Time::now().after(idle).wall.min(last));
        self.store.keep_until(end.unwrap_or(last)).await.map(drop)
    }

    pub(super) async fn find(&self) -> Result<Stored, StoreError> {
        let record = self.store.load().await?;
        let Some(tokens) = &record.tokens else {
            return Ok(match record.generation {
                Generation::ZERO => Stored::Nothing,
                _ => Stored::Ended(Ended::SignedOutElsewhere),
            });
        };
        if let Some(ended) = noted(tokens) {
            return Ok(Stored::Ended(ended));
        }
        let seconds = tokens.extra(RESERVED_DEADLINE).and_then(|text| text.parse().ok());
        let deadline = seconds.map(Duration::from_secs);
        let deadline = deadline.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        Ok(match (Identity::of_tokens(tokens), deadline) {
            (Some(identity), Some(deadline)) => {
                Stored::Lives(Box::new(Living { record, identity, deadline }))
            }
            _ => Stored::Nothing,
        })
    }

    /// Ends the session in the store if its record is still of this generation.
    pub(super) async fn end_at(
        &self,
        generation: Generation,
        ended: Ended,
    ) -> Result<(), SaveError> {
        self.store.save(generation, Record::new(generation.next(), note(ended))).await?;
        self.ended.set(ended);
        self.forget_in_time().await;
        Ok(())
    }

    /// Puts the note of its end into the place of the tokens, in one step: no process that looks meanwhile
    /// finds an end without its reason.
    async fn put_note(&self) -> Result<Deleted, StoreError> {
        for _ in 0..MAX_CONFLICTS {
            // One that cannot be read is deleted as it is.
            let Ok(record) = self.store.load().await else { break };
            let Some(tokens) = record.tokens else { break };
            if noted(&tokens).is_some() {
                return Ok(Deleted::new(record.generation, None));
            }
            let ended = self.ended.get().unwrap_or(Ended::SignedOutElsewhere);
            match self.end_at(record.generation, ended).await {
                Ok(()) => return Ok(Deleted::new(record.generation.next(), tokens)),
                Err(SaveError::Failed(error)) => return Err(error),
                // A refresh has come between.
                Err(SaveError::Conflict | SaveError::LeaseLost) => {}
            }
        }
        let deleted = self.store.delete().await?;
        self.forget_in_time().await;
        Ok(deleted)
    }

    pub(super) async fn forget_in_time(&self) {
        if let Some(end) = SystemTime::now().checked_add(self.remembered) {
            // Without that, the note stays for as long as the store keeps records.
            let _ = self.store.keep_until(end).await;
        }
    }

    /// As the state is to see it.
    fn read(&self, record: Record) -> Record {
        let ended = match &record.tokens {
            Some(tokens) => noted(tokens),
            None if record.generation == Generation::ZERO => None,
            None => Some(Ended::SignedOutElsewhere),
        };
        match ended {
            None => record,
            Some(ended) => {
                self.ended.set(ended);
                Record::new(record.generation, None)
            }
        }
    }
}

impl TokenStore for SessionRecord {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Ok(self.read(self.store.load().await?)) })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(
            async move { Ok(self.store.changed(known).await?.map(|record| self.read(record))) },
        )
    }

    /// A sign-in: of the session itself, or with other tokens in its middle.
    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let kept = self.kept.get();
            let tokens = record.tokens.map(|tokens| match kept {
                Some((identity, deadline)) => of_session(tokens, identity, *deadline),
                None => tokens,
            });
            self.store.save(expected, Record::new(record.generation, tokens)).await?;
            Ok(self.touch().await?)
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(self.put_note())
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        self.store.keep_until(end)
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            Ok(match self.store.lease(known).await? {
                Leased::Newer(record) => Leased::Newer(self.read(record)),
                lease => lease,
            })
        })
    }
}
