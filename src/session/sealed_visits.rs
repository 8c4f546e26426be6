//! What is different about a visit where the tokens are in the cookies: more of [`Shared`].

use std::sync::Arc;

use super::{
    ended::Ended,
    entry::Entry,
    error::SignInError,
    id::{Digested, SessionName},
    identity::Identity,
    record::{REMEMBERED, SessionRecord, Stored},
    sealed::{BrowserCopy, InBrowser, Sealed, Shown, new_id},
    shared::{Claim, Shared, spawn},
};
use crate::{error::ConfigError, metrics, store::StoreError, time::Time, tokens::Tokens};

impl Shared {
    /// Whether what the cookies hold is nothing new.
    pub(super) fn is_known(&self, entry: &Entry, claim: &Claim, time: Time) -> bool {
        let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) else { return true };
        shown.generation() <= browser.copy.newest()
            && !browser.copy.is_stale()
            && !self.is_idle(entry, browser, shown, time)
    }

    /// Whether a sealed session has ended because nobody used it. Its memory tells how long it was not
    /// used; the newest cookie does better, and an older one says nothing.
    pub(super) fn is_idle(
        &self,
        entry: &Entry,
        browser: &InBrowser,
        shown: &Shown,
        time: Time,
    ) -> bool {
        let Some(idle) = self.idle else { return false };
        let is_newest = shown.generation() == browser.copy.newest() || browser.copy.is_forgotten();
        is_newest && shown.is_idle(idle, time.wall) && !entry.was_used(idle, time.now)
    }

    /// By the clock that cookies are written by, if any are.
    pub(super) fn now(&self) -> Time {
        if self.sealed.is_some() { Time::never_back() } else { Time::now() }
    }

    pub(super) fn copy(&self, digest: Digested) -> BrowserCopy {
        BrowserCopy::new(self.stores.store(SessionName::of(digest).as_str()))
    }

    /// What is remembered of a sealed session outlives every cookie that is not idle; and its end, every
    /// cookie.
    pub(super) fn record_of(&self, copy: &BrowserCopy) -> Arc<SessionRecord> {
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
    pub(super) fn received(self: &Arc<Self>, entry: &Arc<Entry>, claim: &Claim) {
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

    /// Ends a sealed session that no request has shown to this process.
    pub(super) async fn end_in_browser(&self, digest: Digested) -> Result<bool, StoreError> {
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
