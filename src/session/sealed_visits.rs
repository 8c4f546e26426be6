//! What is different about a visit where the tokens are in the cookies: more of [`Shared`].

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    ended::Ended,
    entry::Entry,
    error::SignInError,
    id::{Digested, NO_RANDOMNESS, SessionName},
    identity::Identity,
    record::{REMEMBERED, SessionRecord, Stored, of_session},
    sealed::{BrowserCopy, InBrowser, Sealed, Shown, new_id},
    shared::{Claim, Shared, spawn},
};
use crate::{
    store::{StoreError, TokenStore},
    time::Time,
    tokens::Tokens,
};

impl Shared {
    /// A request shows what its browser has.
    pub(super) fn show(&self, entry: &Entry, claim: &Claim) {
        if let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) {
            browser.copy.show(shown);
        }
    }

    /// Whether what the cookies hold is nothing new.
    pub(super) fn is_known(&self, entry: &Entry, claim: &Claim, time: Time) -> bool {
        let (Some(browser), Some(shown)) = (&entry.in_browser, &claim.shown) else { return true };
        shown.generation() <= browser.copy.newest()
            && !browser.copy.is_stale()
            && !self.is_idle(entry, browser, shown, time)
    }

    /// Whether no request has used a sealed session for so long. While the memory has
    /// its record, one has: the record ends with the idle time. Without a memory the cookie tells.
    pub(super) fn is_idle(
        &self,
        entry: &Entry,
        browser: &InBrowser,
        shown: &Shown,
        time: Time,
    ) -> bool {
        let is_idle = |idle| shown.is_idle(idle, time.wall) && !entry.was_used(idle, time.now);
        browser.copy.is_forgotten() && self.idle.is_some_and(is_idle)
    }

    /// The same where no request shows a cookie: as far as this process knows.
    pub(super) fn seems_idle(&self, entry: &Entry, now: Instant) -> bool {
        let is_forgotten = entry.in_browser.as_ref().is_some_and(|it| it.copy.is_forgotten());
        is_forgotten && self.idle.is_some_and(|idle| !entry.was_used(idle, now))
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
    /// the memory was lost, it begins anew, which is a small sign-in. `false`: its like have been ended.
    pub(super) async fn remember(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        browser: &InBrowser,
    ) -> bool {
        if browser.copy.is_forgotten() {
            let times = (browser.begun(), entry.deadline.wall);
            match self.index.add(&entry.identity, &entry.name(), times).await {
                Ok(true) => {}
                Ok(false) => return self.end(entry, Ended::SignedOutElsewhere).await.is_err(),
                // The next request tries again, as nothing is remembered yet.
                Err(_) => return true,
            }
        }
        if entry.record.touch().await.is_err() {
            tracing::debug!(session = %entry.name(), "the memory was not told that it is used");
        }
        true
    }

    /// A session has ended whose tokens only the browser had, and a request shows them.
    pub(super) fn revoke_shown(&self, copy: &BrowserCopy, shown: &Shown) {
        let (copy, renewal, tokens) = (copy.clone(), self.renewal.clone(), shown.tokens());
        let record = self.record_of(&copy);
        spawn(async move {
            if let (Ok(true), Some(tokens)) = (copy.takes_revocation().await, tokens) {
                record.forget_in_time().await;
                renewal.revoke(tokens).await;
            }
        });
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
                // If not they are remembered for longer.
                if copy.forget(generation).await {
                    let _ = entry.record.touch().await;
                }
            });
        }
    }

    /// As [`begin`](Self::begin), with the tokens in cookies.
    pub(super) async fn begin_sealed(
        self: &Arc<Self>,
        sealed: &Sealed,
        (tokens, identity): (Tokens, Identity),
    ) -> Result<Arc<Entry>, SignInError> {
        let (id, digest) = new_id().ok_or(SignInError::Random(NO_RANDOMNESS))?;
        let (copy, now) = (self.copy(digest), Time::never_back().wall);
        let tokens = self.renewal.stamp(sealed.trim(tokens));
        let deadline = self.deadline(&identity, Time::now());
        let kept = of_session(tokens.clone(), &identity, deadline);
        if let Err(error) = sealed.fits(&self.cookie, kept) {
            self.renewal.revoke(tokens).await;
            return Err(error);
        }
        let of = (&self.renewal, self.record_of(&copy), Some(InBrowser::new(id, now, copy)));
        self.begin_as(digest, of, (tokens, identity)).await
    }

    /// Ends a sealed session that no request has shown to this process.
    pub(super) async fn end_in_browser(&self, digest: Digested) -> Result<bool, StoreError> {
        let copy = self.copy(digest);
        let record = self.record_of(&copy);
        let found = record.find().await?;
        if matches!(found, Stored::Ended(_)) || copy.is_forgotten() {
            // Idle: the list that names it is in the same memory.
            return Ok(false);
        }
        let ended = record.ended.set(Ended::SignedOutElsewhere);
        let deleted = record.delete().await?;
        self.tell_ended(&SessionName::of(digest), ended);
        if let Some(tokens) = deleted.tokens {
            self.renewal.revoke(tokens).await;
        }
        Ok(true)
    }
}
