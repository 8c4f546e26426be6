//! What the sessions of an application have in common, and how one begins, is found, and ends
//! ([`Shared`]).

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, time::Instant};

use super::{
    cookie::SessionCookie,
    csrf::CsrfCheck,
    ended::Ended,
    entry::Entry,
    error::SignInError,
    id::{Digested, SessionId, SessionName},
    identity::Identity,
    index::{Index, IndexKey},
    record::{Living, SessionRecord, Stored},
    registry::Registry,
    status::Counters,
};
use crate::{
    metrics,
    state::{Health, Renewal},
    store::{SaveError, StoreError, Stores},
    time::Time,
    tokens::Tokens,
};

pub(super) struct Shared {
    pub(super) renewal: Renewal,
    pub(super) stores: Arc<dyn Stores>,
    pub(super) cookie: SessionCookie,
    pub(super) csrf: CsrfCheck,
    pub(super) max_age: Duration,
    pub(super) idle: Option<Duration>,
    pub(super) trust_for: Duration,
    /// How often an open stream looks at the store.
    pub(super) watch_every: Duration,
    pub(super) registry: Registry,
    pub(super) index: Index,
    pub(super) counters: Counters,
}

/// What a cookie stands for.
pub(super) enum Visit {
    /// No session that is known.
    Unknown,
    Ended(Ended),
    Lives(Arc<Entry>),
}

impl Shared {
    /// The session, if the store need not be asked.
    pub(super) fn glance(self: &Arc<Self>, digest: &Digested) -> Option<Arc<Entry>> {
        let entry = self.registry.get(digest)?;
        let time = Time::now();
        let is_sure = entry.was_looked_at(self.trust_for, time.now)
            && !entry.deadline.has_come(time)
            && !entry.state.health().needs_sign_in();
        if is_sure {
            self.used(&entry, time.now);
        }
        is_sure.then_some(entry)
    }

    /// What has become of the session of this name. Looks at the store once.
    pub(super) async fn visit(self: &Arc<Self>, digest: Digested) -> Result<Visit, StoreError> {
        let begun = Instant::now();
        let entry = match self.registry.get(&digest) {
            Some(entry) => {
                self.counters.looked();
                entry.state.look().await?;
                entry
            }
            None => match self.load(digest).await? {
                Visit::Lives(entry) => entry,
                other => return Ok(other),
            },
        };
        entry.looked(begun);
        let visit = self.judge(entry).await?;
        if let Visit::Lives(entry) = &visit {
            self.used(entry, Instant::now());
        }
        Ok(visit)
    }

    /// The same for who has the session already, and does not use it.
    pub(super) async fn watch(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Visit, StoreError> {
        if let Some(ended) = entry.record.ended.get() {
            return Ok(Visit::Ended(ended));
        }
        let begun = Instant::now();
        self.counters.looked();
        entry.state.look().await?;
        entry.looked(begun);
        self.judge(Arc::clone(entry)).await
    }

    /// The store has just been looked at.
    async fn judge(self: &Arc<Self>, entry: Arc<Entry>) -> Result<Visit, StoreError> {
        let time = Time::now();
        if entry.deadline.has_come(time) {
            self.end(&entry, Ended::Deadline).await?;
            // It may have ended before, for another reason.
            return Ok(Visit::Ended(entry.record.ended.get().unwrap_or(Ended::Deadline)));
        }
        match entry.state.health() {
            // This process has ended it, and the store was away: elsewhere it may live.
            Health::SignedOut if entry.state.owes_deletion() => {
                let ended = entry.record.ended.get().unwrap_or(Ended::SignedOutElsewhere);
                self.end(&entry, ended).await?;
                Ok(Visit::Ended(ended))
            }
            // The record is gone without a note.
            Health::SignedOut => Ok(Visit::Ended(self.has_ended(&entry, Ended::Idle))),
            Health::Rejected => Ok(match self.end_rejected(&entry).await? {
                Some(ended) => Visit::Ended(ended),
                None => Visit::Lives(entry),
            }),
            _ => Ok(Visit::Lives(entry)),
        }
    }

    /// Reads the record, and creates nothing if there is none.
    pub(super) async fn load(self: &Arc<Self>, digest: Digested) -> Result<Visit, StoreError> {
        self.counters.looked();
        let time = Time::now();
        let record = self.record(digest);
        let finding = Arc::clone(&record);
        // In a task, whose panic is the store's.
        let found = finish(async move { finding.find().await }).await?;
        Ok(match found {
            Stored::Nothing => Visit::Unknown,
            Stored::Ended(ended) => Visit::Ended(ended),
            Stored::Lives(living) => {
                let of = (&self.renewal, record);
                let Living { record: stored, identity, deadline } = *living;
                let entry = Entry::new(digest, of, &stored, (identity, deadline), time);
                Visit::Lives(self.registry.insert(entry, time.now))
            }
        })
    }

    fn record(&self, digest: Digested) -> Arc<SessionRecord> {
        let store = self.stores.store(SessionName::of(digest).as_str());
        Arc::new(SessionRecord::new(store, self.idle))
    }

    /// A request uses it: the store is to know, now and then.
    fn used(&self, entry: &Arc<Entry>, now: Instant) {
        entry.use_now(now);
        if self.idle.is_some_and(|idle| entry.take_touch(idle / 10, now)) {
            let entry = Arc::clone(entry);
            spawn(async move {
                if entry.record.touch().await.is_err() {
                    entry.touch_failed();
                }
            });
        }
    }

    /// A new session, in the store and in this process. What its browser had is another matter.
    pub(super) async fn begin(
        self: &Arc<Self>,
        tokens: Tokens,
        identity: Identity,
    ) -> Result<(SessionId, Arc<Entry>), SignInError> {
        let id = SessionId::random().map_err(SignInError::Random)?;
        let (digest, time) = (id.digest(), Time::now());
        let latest = time.after(self.max_age).wall;
        let deadline = identity.expiry().map_or(latest, |expiry| expiry.min(latest));
        let of = (&self.renewal, self.record(digest));
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
        Ok((id, self.registry.insert(entry, time.now)))
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
    fn has_ended(self: &Arc<Self>, entry: &Arc<Entry>, ended: Ended) -> Ended {
        let ended = entry.record.ended.set(ended);
        self.registry.remove(entry);
        if entry.tell() {
            self.counters.ended(ended);
            metrics::session_ended(ended.as_str());
            tracing::info!(session = %entry.name(), reason = ended.as_str(), "session ended");
            let (shared, entry) = (Arc::clone(self), Arc::clone(entry));
            spawn(async move { shared.index.remove(&entry.identity, &entry.name()).await });
        }
        ended
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
    async fn end_named(self: &Arc<Self>, name: &SessionName) -> Result<bool, StoreError> {
        let Some(digest) = name.digest() else { return Ok(false) };
        let visit = match self.registry.get(&digest) {
            Some(entry) => self.watch(&entry).await?,
            None => self.load(digest).await?,
        };
        let Visit::Lives(entry) = visit else { return Ok(false) };
        self.end(&entry, Ended::SignedOutElsewhere).await?;
        Ok(true)
    }
}

/// Nothing waits for it.
pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(work);
    }
}

/// Goes on when its caller goes away.
pub(super) async fn finish<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn(work).await.unwrap_or_else(|end| {
            let panicked = end.is_panic();
            let reason = if panicked { "the store panicked" } else { "the runtime is gone" };
            Err(StoreError::new(reason).into())
        }),
        Err(_) => work.await,
    }
}
