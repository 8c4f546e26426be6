//! What the sessions of an application have in common, and how one is found ([`Shared`]).

use std::{future::Future, sync::Arc, time::Duration};

use http::HeaderMap;
use smallvec::SmallVec;
use tokio::{runtime::Handle, time::Instant};

use super::{
    cookie::SessionCookie,
    csrf::CsrfCheck,
    ended::Ended,
    entry::Entry,
    id::{Digested, SessionId, SessionName},
    index::Index,
    record::{Living, REMEMBERED, SessionRecord, Stored},
    registry::Registry,
    sealed::{InBrowser, Sealed, Shown},
    status::Counters,
};
use crate::{
    state::{Health, Renewal},
    store::{StoreError, Stores},
    time::Time,
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
    /// A sign-in has set it beside what the browser had before: it is to take that one's place.
    pub(super) landing: Option<Box<SessionId>>,
}

impl Claim {
    pub(super) fn new(digest: Digested) -> Self {
        Self { digest, shown: None, landing: None }
    }
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
                let (digests, beside) = self.cookie.take(headers);
                let beside = beside.map(|id| (id.digest(), id));
                let beside = beside.filter(|(digest, _)| !digests.contains(digest));
                let landing = beside.map(|(digest, id)| Claim {
                    landing: Some(Box::new(id)),
                    ..Claim::new(digest)
                });
                landing.into_iter().chain(digests.into_iter().map(Claim::new)).collect()
            }
            Some(sealed) => {
                let shown = sealed.take(&self.cookie, headers).into_iter();
                shown
                    .map(|it| Claim { shown: Some(Arc::clone(&it)), ..Claim::new(it.digest()) })
                    .collect()
            }
        }
    }

    /// The session, if the store need not be asked.
    pub(super) fn glance(self: &Arc<Self>, claim: &Claim) -> Option<Arc<Entry>> {
        let entry = self.registry.get(&claim.digest)?;
        let time = self.now();
        let is_sure = claim.landing.is_none()
            && entry.was_looked_at(self.trust_for, time.now)
            && !entry.deadline.has_come(time)
            && !entry.state.health().needs_sign_in()
            && self.is_known(&entry, claim, time);
        if is_sure {
            self.used(&entry, time.now);
        }
        is_sure.then_some(entry)
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
                self.show(&entry, claim);
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
            // Only the browser has the newest tokens; or no memory knows whether these are.
            let is_in_doubt = copy.is_forgotten() && shown.has_run_out(time.wall);
            if copy.is_stale() || (is_in_doubt && may_come_again) {
                return Ok(if may_come_again { Visit::Again } else { Visit::Unknown });
            }
            if self.is_idle(&entry, browser, shown, time) {
                // Not ended: it may be a copy of an old jar.
                return Ok(Visit::Ended(Ended::Idle));
            }
        }
        let visit = self.judge(&entry).await?;
        match (&visit, &entry.in_browser, &claim.shown) {
            (Visit::Lives(_), ..) => {
                self.used(&entry, Instant::now());
                self.received(&entry, claim);
            }
            (_, Some(browser), Some(shown)) => self.revoke_shown(&browser.copy, shown),
            _ => {}
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
        if self.seems_idle(entry, Instant::now()) {
            return Ok(Visit::Ended(Ended::Idle));
        }
        self.judge(entry).await
    }

    /// The store has just been looked at.
    async fn judge(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Visit, StoreError> {
        let time = Time::now();
        if entry.deadline.has_come(time) {
            self.end(entry, Ended::Deadline).await?;
            // It may have ended before, for another reason.
            return Ok(Visit::Ended(entry.record.ended.get().unwrap_or(Ended::Deadline)));
        }
        match entry.state.health() {
            // This process has ended it, and the store was away: elsewhere it may live.
            Health::SignedOut if entry.state.owes_deletion() => {
                let ended = entry.record.ended.get().unwrap_or(Ended::SignedOutElsewhere);
                self.end(entry, ended).await?;
                Ok(Visit::Ended(ended))
            }
            // The record is gone without a note.
            Health::SignedOut => Ok(Visit::Ended(self.has_ended(entry, Ended::Idle))),
            Health::Rejected => Ok(match self.end_rejected(entry).await? {
                Some(ended) => Visit::Ended(ended),
                None => Visit::Lives(Arc::clone(entry)),
            }),
            _ => Ok(Visit::Lives(Arc::clone(entry))),
        }
    }

    /// Reads the record, and creates nothing if there is none.
    pub(super) async fn load(self: &Arc<Self>, claim: &Claim) -> Result<Visit, StoreError> {
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
            Stored::Ended(ended) => {
                if let (Some(browser), Some(shown)) = (&in_browser, &claim.shown) {
                    self.revoke_shown(&browser.copy, shown);
                }
                Visit::Ended(ended)
            }
            Stored::Lives(living) => {
                let of = (&self.renewal, record, in_browser);
                let Living { record: stored, identity, deadline } = *living;
                let entry = Entry::new(claim.digest, of, &stored, (identity, deadline), time);
                let loaded = self.registry.insert(Arc::clone(&entry), time.now);
                if !Arc::ptr_eq(&loaded, &entry) {
                    // Another request was faster, and may have shown an older cookie.
                    self.show(&loaded, claim);
                    loaded.state.look().await?;
                }
                Visit::Lives(loaded)
            }
        })
    }

    pub(super) fn record(&self, digest: Digested) -> Arc<SessionRecord> {
        let store = self.stores.store(SessionName::of(digest).as_str());
        Arc::new(SessionRecord::new(store, self.idle, REMEMBERED))
    }

    /// A request uses it: the store is to know, now and then.
    fn used(&self, entry: &Arc<Entry>, now: Instant) {
        entry.use_now(now);
        // A sealed session's is told with each cookie that is written.
        let is_told = entry.in_browser.as_ref().is_some_and(|it| !it.copy.keeps_all());
        if !is_told && self.idle.is_some_and(|idle| entry.take_touch(idle / 10, now)) {
            let entry = Arc::clone(entry);
            spawn(async move {
                if entry.record.touch().await.is_err() {
                    entry.touch_failed();
                }
            });
        }
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
