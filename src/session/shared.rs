//! What the sessions of an application have in common, and how one begins, is found, and ends
//! ([`Shared`]).

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use smallvec::SmallVec;
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
    record::{Living, REMEMBERED, SessionRecord, Stored},
    registry::Registry,
    sealed::{BrowserCopy, InBrowser, Sealed, Shown, new_id},
    status::Counters,
};
use crate::{
    error::ConfigError,
    metrics,
    state::{Health, Renewal},
    store::{SaveError, StoreError, Stores},
    time::Time,
    tokens::Tokens,
};

pub(super) struct Shared {
    pub(super) renewal: Renewal,
    pub(super) stores: Arc<dyn Stores>,
    /// The tokens are in the cookies, and `stores` are the memory.
    pub(super) sealed: Option<Sealed>,
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

/// A session that a request claims to have.
pub(super) struct Claim {
    pub(super) digest: Digested,
    /// What its cookies hold, if the tokens are in them.
    pub(super) shown: Option<Arc<Shown>>,
}

/// What a cookie stands for.
pub(super) enum Visit {
    /// No session that is known.
    Unknown,
    /// The browser may have a newer cookie by now: it is to come again.
    Again,
    Ended(Ended),
    Lives(Arc<Entry>),
}

impl Shared {
    /// The sessions that a request's cookies stand for. They are taken off it.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> SmallVec<[Claim; 1]> {
        match &self.sealed {
            None => {
                let digests = self.cookie.take(headers).into_iter();
                digests.map(|digest| Claim { digest, shown: None }).collect()
            }
            Some(sealed) => {
                let shown = sealed.take(&self.cookie, headers).into_iter();
                shown.map(|it| Claim { digest: it.digest(), shown: Some(it) }).collect()
            }
        }
    }

    /// The session, if the store need not be asked.
    pub(super) fn glance(self: &Arc<Self>, claim: &Claim) -> Option<Arc<Entry>> {
        let entry = self.registry.get(&claim.digest)?;
        let time = self.now();
        let is_sure = entry.was_looked_at(self.trust_for, time.now)
            && !entry.deadline.has_come(time)
            && !entry.state.health().needs_sign_in()
            && self.is_known(&entry, claim, time);
        if is_sure {
            self.used(&entry, time.now);
        }
        is_sure.then_some(entry)
    }

    /// Whether what the cookies hold is nothing new.
    fn is_known(&self, entry: &Entry, claim: &Claim, time: Time) -> bool {
        let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) else { return true };
        shown.generation() <= browser.copy.newest()
            && !browser.copy.is_stale()
            && !self.is_idle(entry, browser, shown, time)
    }

    /// Whether a sealed session has ended because nobody used it. Its memory tells how long it was not
    /// used; the newest cookie does better, and an older one says nothing.
    fn is_idle(&self, entry: &Entry, browser: &InBrowser, shown: &Shown, time: Time) -> bool {
        let Some(idle) = self.idle else { return false };
        let is_newest = shown.generation() == browser.copy.newest() || browser.copy.is_forgotten();
        is_newest && shown.is_idle(idle, time.wall) && !entry.was_used(idle, time.now)
    }

    /// By the clock that cookies are written by, if any are.
    fn now(&self) -> Time {
        if self.sealed.is_some() { Time::never_back() } else { Time::now() }
    }

    /// What has become of the session of this name. Looks at the store once.
    pub(super) async fn visit(
        self: &Arc<Self>,
        claim: &Claim,
        may_come_again: bool,
    ) -> Result<Visit, StoreError> {
        let begun = Instant::now();
        let entry = match self.registry.get(&claim.digest) {
            Some(entry) => {
                if let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) {
                    browser.copy.show(shown);
                }
                self.counters.looked();
                entry.state.look().await?;
                Visit::Lives(entry)
            }
            None => self.load(claim).await?,
        };
        let entry = match entry {
            Visit::Lives(entry) => entry,
            Visit::Again if !may_come_again => return Ok(Visit::Unknown),
            other => return Ok(other),
        };
        entry.looked(begun);
        if let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) {
            let time = self.now();
            let copy = &browser.copy;
            // Only the browser has the newest tokens; or nobody remembers whether these are.
            let is_in_doubt = copy.is_forgotten() && shown.has_run_out(time.wall);
            if copy.is_stale() || (is_in_doubt && may_come_again) {
                return Ok(if may_come_again { Visit::Again } else { Visit::Unknown });
            }
            if self.is_idle(&entry, browser, shown, time) {
                self.end(&entry, Ended::Idle).await?;
                return Ok(Visit::Ended(entry.record.ended.get().unwrap_or(Ended::Idle)));
            }
        }
        let visit = self.judge(entry).await?;
        if let Visit::Lives(entry) = &visit {
            self.used(entry, Instant::now());
            self.received(entry, claim);
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
        let is_forgotten = entry.in_browser.as_ref().is_some_and(|it| it.copy.is_forgotten());
        if is_forgotten && self.idle.is_some_and(|idle| !entry.was_used(idle, Instant::now())) {
            self.end(entry, Ended::Idle).await?;
            return Ok(Visit::Ended(entry.record.ended.get().unwrap_or(Ended::Idle)));
        }
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
    async fn load(self: &Arc<Self>, claim: &Claim) -> Result<Visit, StoreError> {
        self.counters.looked();
        let time = Time::now();
        let (record, in_browser) = match &claim.shown {
            Some(shown) => {
                let copy = self.copy(claim.digest);
                copy.show(shown);
                (self.record_of(&copy), Some(InBrowser::shown(shown, copy)))
            }
            None => (self.record(claim.digest), None),
        };
        let finding = Arc::clone(&record);
        // In a task, whose panic is the store's.
        let found = finish(async move { finding.find().await }).await;
        if in_browser.as_ref().is_some_and(|it| it.copy.is_stale()) {
            return Ok(Visit::Again);
        }
        Ok(match found? {
            Stored::Nothing => Visit::Unknown,
            Stored::Ended(ended) => Visit::Ended(ended),
            Stored::Lives(living) => {
                let of = (&self.renewal, record, in_browser);
                let Living { record: stored, identity, deadline } = *living;
                let entry = Entry::new(claim.digest, of, &stored, (identity, deadline), time);
                Visit::Lives(self.registry.insert(entry, time.now))
            }
        })
    }

    fn record(&self, digest: Digested) -> Arc<SessionRecord> {
        let store = self.stores.store(SessionName::of(digest).as_str());
        Arc::new(SessionRecord::new(store, self.idle, REMEMBERED))
    }

    fn copy(&self, digest: Digested) -> BrowserCopy {
        BrowserCopy::new(self.stores.store(SessionName::of(digest).as_str()))
    }

    /// What is remembered of a sealed session outlives every cookie that is not idle; and its end, every
    /// cookie.
    fn record_of(&self, copy: &BrowserCopy) -> Arc<SessionRecord> {
        let remembered = self.max_age.saturating_add(REMEMBERED);
        Arc::new(SessionRecord::new(Arc::new(copy.clone()), self.idle, remembered))
    }

    /// A cookie of a sealed session is about to be written: what is remembered of it lasts for longer. If
    /// the memory was lost, it begins anew.
    pub(super) async fn remember(&self, entry: &Entry, browser: &InBrowser) {
        let was_forgotten = browser.copy.is_forgotten();
        if entry.record.touch().await.is_err() {
            tracing::debug!(session = %entry.name(), "the memory was not told that it is used");
            return;
        }
        if was_forgotten {
            let times = (browser.begun(), entry.deadline.wall);
            // An end of all of a user's sessions that was begun meanwhile finds it in the memory.
            let _ = self.index.add(&entry.identity, &entry.name(), times).await;
        }
    }

    /// A request shows what the browser has of a sealed session: what it has for good need not be
    /// remembered any more.
    fn received(self: &Arc<Self>, entry: &Arc<Entry>, claim: &Claim) {
        let Some(sealed) = &self.sealed else { return };
        let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) else { return };
        let generation = shown.generation();
        if sealed.is_last_write(shown) && browser.copy.gives_up(generation) {
            let (copy, entry) = (browser.copy.clone(), Arc::clone(entry));
            spawn(async move {
                // If that fails they are remembered for longer.
                if copy.forget(generation).await.is_ok() {
                    let _ = entry.record.touch().await;
                }
            });
        }
    }

    /// A request uses it: the store is to know, now and then.
    fn used(&self, entry: &Arc<Entry>, now: Instant) {
        entry.use_now(now);
        // A sealed session's is told with each cookie that is written.
        if self.sealed.is_none() && self.idle.is_some_and(|idle| entry.take_touch(idle / 10, now)) {
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
        let digest = id.digest();
        let of = (&self.renewal, self.record(digest), None);
        Ok((id, self.begin_as(digest, of, (tokens, identity), |_| Ok(())).await?))
    }

    /// The same with the tokens in cookies.
    pub(super) async fn begin_sealed(
        self: &Arc<Self>,
        sealed: &Sealed,
        (tokens, identity): (Tokens, Identity),
    ) -> Result<Arc<Entry>, SignInError> {
        const NO_RANDOMNESS: ConfigError =
            ConfigError::new("the operating system has no random bytes");
        let (id, digest) = new_id().ok_or(SignInError::Random(NO_RANDOMNESS))?;
        let (copy, now) = (self.copy(digest), Time::never_back().wall);
        let record = self.record_of(&copy);
        let of = (&self.renewal, record, Some(InBrowser::new(id, now, copy)));
        let fits = |entry: &Entry| {
            let Some(browser) = &entry.in_browser else { return Ok(()) };
            sealed.write(&self.cookie, browser, true).map(drop)
        };
        self.begin_as(digest, of, (sealed.trim(tokens), identity), fits).await
    }

    async fn begin_as(
        self: &Arc<Self>,
        digest: Digested,
        of: (&Renewal, Arc<SessionRecord>, Option<InBrowser>),
        (tokens, identity): (Tokens, Identity),
        fits: impl FnOnce(&Entry) -> Result<(), SignInError>,
    ) -> Result<Arc<Entry>, SignInError> {
        let time = Time::now();
        let latest = time.after(self.max_age).wall;
        let deadline = identity.expiry().map_or(latest, |expiry| expiry.min(latest));
        let entry = Entry::new(digest, of, &Default::default(), (identity, deadline), time);
        // No request knows it yet.
        let stored = self.store_new(&entry, tokens.clone(), (time.wall, deadline)).await;
        let stored = stored.and_then(|()| fits(&entry));
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
            None if self.sealed.is_some() => return self.end_in_browser(digest).await,
            None => self.load(&Claim { digest, shown: None }).await?,
        };
        let Visit::Lives(entry) = visit else { return Ok(false) };
        self.end(&entry, Ended::SignedOutElsewhere).await?;
        Ok(true)
    }

    /// Ends a sealed session that no request has shown to this process.
    async fn end_in_browser(&self, digest: Digested) -> Result<bool, StoreError> {
        let record = self.record_of(&self.copy(digest));
        if matches!(record.find().await, Ok(Stored::Ended(_))) {
            return Ok(false);
        }
        let ended = record.ended.set(Ended::SignedOutElsewhere);
        let deleted = record.put_note().await?;
        self.counters.ended(ended);
        metrics::session_ended(ended.as_str());
        tracing::info!(session = %SessionName::of(digest), reason = ended.as_str(), "session ended");
        if let Some(tokens) = deleted.tokens {
            self.renewal.revoke(tokens).await;
        }
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
