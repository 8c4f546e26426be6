//! The sessions of an application: [`Sessions`], and how a request's is found.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderName;
use tokio::{runtime::Handle, task::JoinSet, time::Instant};

use super::{
    cookie::SessionCookie,
    csrf::CsrfCheck,
    ended::Ended,
    entry::Entry,
    id::{Digested, SessionId, SessionName},
    identity::Identity,
    index::{Index, IndexKey},
    layer::SessionLayer,
    record::{Living, SessionRecord, Stored},
    refresher::CheckedRefresher,
    registry::Registry,
    status::{Counters, SessionsStatus},
};
use crate::{
    error::ConfigError,
    metrics,
    state::{Drained, Health, Renewal, RenewalBuilder},
    store::{SaveError, StoreError, Stores},
    time::Time,
    tokens::Tokens,
};

/// The sessions of an application: who is signed in, by the cookie that their browser has. The tokens
/// are in a store; each session is one [`RefreshState`](crate::RefreshState), and has one refresh for
/// all tabs and, where the store is shared, for all replicas.
///
/// Cheap to clone; clones are the same sessions. See the [module](super) for a program.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) renewal: Renewal,
    stores: Arc<dyn Stores>,
    pub(super) cookie: SessionCookie,
    pub(super) csrf: CsrfCheck,
    max_age: Duration,
    idle: Option<Duration>,
    trust_for: Duration,
    /// How often an open stream looks at the store.
    pub(super) watch_every: Duration,
    registry: Registry,
    pub(super) index: Index,
    pub(super) counters: Counters,
}

/// Configures [`Sessions`].
#[must_use]
pub struct SessionsBuilder {
    renewal: RenewalBuilder,
    stores: Arc<dyn Stores>,
    cookie: Option<SessionCookie>,
    csrf: CsrfCheck,
    max_age: Duration,
    idle: Option<Duration>,
    trust_for: Duration,
    watch_every: Duration,
}

/// How long a session stays loaded that nobody uses.
const KEEP_LOADED: Duration = Duration::from_secs(60);

/// What a cookie stands for.
pub(super) enum Visit {
    /// No session that is known.
    Unknown,
    Ended(Ended),
    Lives(Arc<Entry>),
}

impl Sessions {
    /// Begins with how tokens are renewed, which all sessions share, and where they live. Everything
    /// else has a default.
    ///
    /// The hooks of the [`Renewal`] revoke what sessions leave behind: `on_sign_out` and `on_discard`.
    /// Its [`empty_store_ends`](RenewalBuilder::empty_store_ends) is always on: a session whose record
    /// is gone has ended. A [`RefreshLayer`](crate::RefreshLayer) sends a session's token to no origin that
    /// it was not told of ([`allow_origin`](crate::RefreshLayer::allow_origin)).
    pub fn builder(renewal: RenewalBuilder, stores: impl Stores) -> SessionsBuilder {
        SessionsBuilder {
            renewal: renewal.empty_store_ends(true).wrap(CheckedRefresher::new),
            stores: Arc::new(stores),
            cookie: None,
            csrf: CsrfCheck::default(),
            max_age: Duration::from_secs(12 * 3600),
            idle: Some(Duration::from_secs(1800)),
            trust_for: Duration::ZERO,
            watch_every: Duration::from_secs(5),
        }
    }

    /// The layer that finds each request's session. As it comes, requests without one pass, too; see
    /// [`SessionLayer::required`].
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }

    /// Ends all sessions of a user, or of one of the provider's own sessions, on every replica, those
    /// too that are being signed in at this moment. Their tokens are revoked. Returns how many it has
    /// ended.
    ///
    /// Cancel safe: what has begun goes on.
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
    /// has saved its tokens. What is left to be done is returned, as by
    /// [`RefreshState::drain`](crate::RefreshState::drain). Wrap it in a timeout.
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

    /// What an operator may want to know.
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

impl SessionsBuilder {
    /// The cookie. Default: [`SessionCookie::host`] with the name `sid`.
    pub fn cookie(mut self, cookie: SessionCookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// A session ends so long after its sign-in, whatever happens; earlier, if the provider has said
    /// so ([`Identity::expires_at`]). Default: 12 hours.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// A session ends when no request has used it for so long. A refresh, and a stream that is open,
    /// are no use. Each process tells the store of it at most once in a tenth of that time, so a session
    /// may end that much earlier. `None`: never for that reason. Default: 30 minutes.
    ///
    /// Takes a store that keeps ends ([`TokenStore::keep_until`](crate::store::TokenStore::keep_until)), as all of this crate do. With
    /// another one, only [`max_age`](Self::max_age) counts.
    pub fn idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// For how long a look at the store is believed. Zero: each request looks, so that a session that
    /// was ended on one replica has ended on all. Longer: one that was ended elsewhere may be served
    /// for that long, and the store is asked that much less. Default: zero.
    pub fn trust_for(mut self, time: Duration) -> Self {
        self.trust_for = time;
        self
    }

    /// How often an open stream looks at the store whether its session lives
    /// ([`Session::ended`](super::Session::ended)). Default: 5 seconds.
    pub fn watch_every(mut self, time: Duration) -> Self {
        self.watch_every = time.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3600));
        self
    }

    /// Lets pages of this origin, besides the application's own, send unsafe requests. The
    /// application's own is the one that the request's host says, so that it need not be named.
    ///
    /// # Errors
    ///
    /// The text is not a scheme and an authority, such as `https://app.example.com`.
    pub fn trusted_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        self.csrf.trust(origin)?;
        Ok(self)
    }

    /// Unsafe requests have to bring this header, too, whatever it says: a page of another origin
    /// cannot send it without being allowed to (CORS). The application's own scripts set it, and forms
    /// cannot. Default: none.
    pub fn csrf_header(mut self, name: HeaderName) -> Self {
        self.csrf.require(name);
        self
    }

    /// Builds them. Nothing is read yet.
    ///
    /// # Errors
    ///
    /// The time of [`max_age`](Self::max_age) or [`idle`](Self::idle) is shorter than a second.
    pub fn build(self) -> Result<Sessions, ConfigError> {
        let second = Duration::from_secs(1);
        if self.max_age < second || self.idle.is_some_and(|idle| idle < second) {
            return Err(ConfigError::new(
                "a session's `max_age` and `idle` are a second or more: shorter ones would end it at once",
            ));
        }
        let cookie = match self.cookie {
            Some(cookie) => cookie,
            None => SessionCookie::host("sid")?,
        };
        Ok(Sessions(Arc::new(Shared {
            renewal: self.renewal.build(),
            index: Index::new(Arc::clone(&self.stores)),
            stores: self.stores,
            cookie,
            csrf: self.csrf,
            max_age: self.max_age,
            idle: self.idle,
            trust_for: self.trust_for,
            watch_every: self.watch_every,
            registry: Registry::new(KEEP_LOADED.max(self.trust_for)),
            counters: Counters::default(),
        })))
    }
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

/// Why nobody was signed in.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignInError {
    /// The store could not keep the session.
    Store(StoreError),
    /// The provider has ended its own session, or the user all of theirs, before this one was stored
    /// ([`Sessions::end_all`]). Begin the sign-in anew.
    Ended,
    /// The operating system has no random bytes.
    Random(ConfigError),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Ended => {
                f.write_str("the provider has ended its session meanwhile: sign in again")
            }
            Self::Random(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SignInError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Ended => None,
            Self::Random(error) => error.source(),
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsBuilder")
            .field("cookie", &self.cookie)
            .field("max_age", &self.max_age)
            .field("idle", &self.idle)
            .field("trust_for", &self.trust_for)
            .finish_non_exhaustive()
    }
}
