//! The browser and the memory as one store ([`BrowserCopy`]).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{Shown, now};
use crate::{
    refresher::BoxFuture,
    session::{
        ended::Ended,
        record::{MAX_CONFLICTS, note, noted},
    },
    state::Heads,
    store::{
        Deleted, KeptUntil, Lease, Leased, OpenRedeem, Record, SaveError, StoreError, TokenStore,
    },
    time::Time,
    tokens::{Generation, RESERVED_IN_BROWSER, RESERVED_UNREVOKED, Tokens},
};

/// One session's tokens, which are in the browser's cookies, and in the memory while the browser may not
/// have received them. To its [`RefreshState`](crate::RefreshState) it is a store like any other, whose
/// record is the newest of what the memory has and a request has shown. Clones are one.
///
/// If the memory's note says that the browser has newer ones it is *stale*: its tokens are spent, and
/// are neither redeemed nor written into a cookie.
#[derive(Clone)]
pub(in crate::session) struct BrowserCopy {
    memory: Arc<dyn TokenStore>,
    /// Refresh tokens are spent only while a response can take the new ones along.
    pub(in crate::session) heads: Heads,
    seen: Arc<Mutex<Seen>>,
}

/// What this process has seen of the two.
#[derive(Default)]
struct Seen {
    /// The newest tokens, and when they were minted.
    newest: Record,
    minted: u64,
    /// The newest generation that the browser alone has.
    in_browser: Generation,
    /// What the memory held when it was last read or written, and under which number.
    memory: Memory,
    held: Generation,
    /// The tokens of the session that has ended are still to be revoked.
    unrevoked: bool,
    /// The generation that is too large for cookies.
    too_large: Generation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Memory {
    /// Nothing: it was lost, or the session was not used for long.
    #[default]
    Absent,
    Tokens,
    /// Which generation the browser has.
    InBrowser,
    Ended,
}

/// What stands in the place of tokens that the browser has.
fn in_browser() -> Tokens {
    Tokens::new("").with_extra(RESERVED_IN_BROWSER, "1")
}

/// What stands in the place of an ended session's tokens, if only the browser has them.
fn unrevoked(ended: Ended) -> Tokens {
    note(ended).with_extra(RESERVED_UNREVOKED, "1")
}

impl Seen {
    /// Takes in what the memory holds. Returns its end, or else the newest of both.
    fn see(&mut self, record: Record) -> Record {
        self.held = record.generation;
        let is_empty = record.generation == Generation::ZERO;
        match &record.tokens {
            None if is_empty => self.memory = Memory::Absent,
            None => self.memory = Memory::Ended,
            Some(tokens) if noted(tokens).is_some() => {
                self.memory = Memory::Ended;
                self.unrevoked = tokens.extra(RESERVED_UNREVOKED).is_some();
            }
            Some(tokens) if tokens.extra(RESERVED_IN_BROWSER).is_some() => {
                self.memory = Memory::InBrowser;
                self.in_browser = self.in_browser.max(record.generation);
            }
            Some(_) => {
                self.memory = Memory::Tokens;
                // At the latest.
                self.offer(&record, now());
            }
        }
        match self.memory {
            // With a number that the state takes for a later one.
            Memory::Ended => {
                let number = record.generation.max(self.newest.generation.next());
                Record::new(number, record.tokens)
            }
            _ => self.newest.clone(),
        }
    }

    fn offer(&mut self, record: &Record, minted: u64) {
        if record.generation > self.newest.generation {
            (self.newest, self.minted) = (record.clone(), minted);
        }
    }

    fn is_stale(&self) -> bool {
        self.in_browser > self.newest.generation
    }
}

impl BrowserCopy {
    pub(in crate::session) fn new(memory: Arc<dyn TokenStore>) -> Self {
        Self { memory, heads: Heads::default(), seen: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks or changes what was seen.
    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self.lock();
        let result = change(&mut seen);
        self.heads.set_stale(seen.is_stale());
        result
    }

    /// A request has shown this.
    pub(in crate::session) fn show(&self, shown: &Shown) {
        self.with(|seen| seen.offer(&shown.record, shown.minted()));
    }

    /// The newest generation that is known.
    pub(in crate::session) fn newest(&self) -> Generation {
        self.lock().newest.generation
    }

    /// The newest tokens that are known, and when they were minted.
    pub(super) fn newest_record(&self) -> (Record, u64) {
        let seen = self.lock();
        (seen.newest.clone(), seen.minted)
    }

    /// Whether only the browser has the newest tokens.
    pub(in crate::session) fn is_stale(&self) -> bool {
        self.lock().is_stale()
    }

    /// Whether nothing is remembered of the session.
    pub(in crate::session) fn is_forgotten(&self) -> bool {
        self.lock().memory == Memory::Absent
    }

    /// The newest tokens are too large for cookies: the memory keeps them.
    pub(super) fn mark_too_large(&self) {
        self.with(|seen| seen.too_large = seen.newest.generation);
    }

    /// Whether the memory has to keep the newest tokens.
    pub(in crate::session) fn keeps_all(&self) -> bool {
        let seen = self.lock();
        seen.too_large != Generation::ZERO && seen.too_large == seen.newest.generation
    }

    /// Whether the memory has these tokens and no request gives them up yet: from now on the caller does.
    pub(in crate::session) fn gives_up(&self, generation: Generation) -> bool {
        self.with(|seen| {
            let is_held = seen.memory == Memory::Tokens && seen.newest.generation == generation;
            if is_held {
                seen.memory = Memory::InBrowser;
            }
            is_held
        })
    }

    /// The browser has these tokens for good. Under the lease: a redeem that another holder has left open
    /// is noted with them, and then they stay.
    pub(in crate::session) async fn forget(&self, generation: Generation) -> bool {
        let is_forgotten = self.forget_leased(generation).await.unwrap_or(false);
        self.with(|seen| match is_forgotten {
            true => seen.in_browser = seen.in_browser.max(generation),
            // The next request that shows them tries again, if they are still there.
            _ if seen.memory == Memory::InBrowser => seen.memory = Memory::Tokens,
            _ => {}
        });
        is_forgotten
    }

    async fn forget_leased(&self, generation: Generation) -> Result<bool, SaveError> {
        let Leased::Lease(mut lease) = self.memory.lease(generation).await? else {
            return Ok(false);
        };
        if let open @ Some(_) = lease.open_redeem() {
            lease.release(open).await;
            return Ok(false);
        }
        // The same number: nothing has been refreshed.
        let saved = lease.save(generation, Record::new(generation, in_browser())).await;
        lease.release(None).await;
        saved.map(|()| true)
    }

    /// Whether this process is to revoke the tokens of the session that has ended. `true` for one only.
    pub(in crate::session) async fn takes_revocation(&self) -> Result<bool, StoreError> {
        if !self.lock().unrevoked {
            return Ok(false);
        }
        let held = self.memory.load().await?;
        let Some(tokens) = held.tokens.filter(|it| it.extra(RESERVED_UNREVOKED).is_some()) else {
            return Ok(false);
        };
        let known = held.generation;
        let settled = Record::new(known.next(), tokens.without_extra(RESERVED_UNREVOKED));
        match self.memory.save(known, settled).await {
            Ok(()) => {
                self.with(|seen| (seen.held, seen.unrevoked) = (known.next(), false));
                Ok(true)
            }
            Err(SaveError::Failed(error)) => Err(error),
            Err(SaveError::Conflict | SaveError::LeaseLost) => Ok(false),
        }
    }

    /// What is to be written over what the memory holds. A conflict: its newest is not `expected`.
    async fn prepare(
        &self,
        expected: Generation,
        record: &Record,
    ) -> Result<(Generation, Record), SaveError> {
        let held = self.memory.load().await?;
        let known = held.generation;
        let (newest, is_stale) = self.with(|seen| (seen.see(held), seen.is_stale()));
        let ended = record.tokens.as_ref().and_then(noted);
        if newest.generation != expected || (is_stale && ended.is_none()) {
            return Err(SaveError::Conflict);
        }
        Ok(match (ended, &record.tokens) {
            // An end has a number that no process knows yet.
            (Some(ended), Some(tokens)) => {
                let tokens = if is_stale { unrevoked(ended) } else { tokens.clone() };
                (known, Record::new(record.generation.max(known.next()), tokens))
            }
            _ => (known, record.clone()),
        })
    }

    fn saved(&self, record: &Record, written: Generation) {
        self.with(|seen| {
            seen.held = written;
            match &record.tokens {
                Some(tokens) if noted(tokens).is_none() => {
                    seen.memory = Memory::Tokens;
                    seen.offer(record, now());
                }
                _ => seen.memory = Memory::Ended,
            }
        });
    }

    /// Notes the end of a session of which this process knows too little to end it otherwise. Returns what
    /// it knows of its tokens.
    async fn end(&self) -> Result<Deleted, StoreError> {
        let ended = Ended::SignedOutElsewhere;
        for _ in 0..MAX_CONFLICTS {
            // What cannot be read is deleted as it is.
            let Ok(held) = self.memory.load().await else { break };
            let known = held.generation;
            let (has_tokens, newest) = self.with(|seen| {
                seen.see(held);
                (seen.memory == Memory::Tokens, seen.newest.clone())
            });
            let next = known.max(newest.generation).next_at(Time::never_back().wall);
            let noted = if has_tokens { note(ended) } else { unrevoked(ended) };
            match self.memory.save(known, Record::new(next, noted)).await {
                Ok(()) => {
                    self.with(|seen| {
                        (seen.memory, seen.held, seen.unrevoked) =
                            (Memory::Ended, next, !has_tokens);
                    });
                    return Ok(Deleted::new(next, newest.tokens));
                }
                Err(SaveError::Failed(error)) => return Err(error),
                Err(SaveError::Conflict | SaveError::LeaseLost) => {}
            }
        }
        self.memory.delete().await
    }
}

impl TokenStore for BrowserCopy {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async {
            let held = self.memory.load().await?;
            Ok(self.with(|seen| seen.see(held)))
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            // By the memory's own number: its record may be older than what a request has shown.
            let (held, memory) = {
                let seen = self.lock();
                (seen.held, seen.memory)
            };
            if memory == Memory::Ended {
                return self.load().await.map(Some);
            }
            let changed = self.memory.changed(held).await?;
            Ok(self.with(|seen| {
                let newest = match changed {
                    None => seen.newest.clone(),
                    Some(record) => seen.see(record),
                };
                // A stale copy has no news: the browser is asked for what it has.
                let is_newer = newest.generation > known && !seen.is_stale();
                (seen.memory == Memory::Ended || is_newer).then_some(newest)
            }))
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let (known, prepared) = self.prepare(expected, &record).await?;
            let written = prepared.generation;
            self.memory.save(known, prepared).await?;
            self.saved(&record, written);
            Ok(())
        })
    }

    /// Leaves a note: a copy of the cookie opens for as long as the session may last, and stores keep
    /// the mere mark of a sign-out for less.
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(self.end())
    }

    /// If nothing is remembered of the session, its number is from now on.
    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(async move {
            let (memory, newest) = {
                let seen = self.lock();
                (seen.memory, seen.newest.generation)
            };
            if memory == Memory::Absent && newest != Generation::ZERO {
                let number = Record::new(newest, in_browser());
                match self.memory.save(Generation::ZERO, number.clone()).await {
                    Ok(()) => drop(self.with(|seen| seen.see(number))),
                    Err(SaveError::Failed(error)) => return Err(error),
                    Err(SaveError::Conflict | SaveError::LeaseLost) => {}
                }
            }
            self.memory.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            loop {
                // By the memory's own number, as in `changed`.
                let held = self.lock().held;
                let record = match self.memory.lease(held).await? {
                    Leased::Newer(record) => record,
                    Leased::Lease(lease) => {
                        let lease = CopyLease { lease, copy: self.clone() };
                        return Ok(Leased::Lease(Box::new(lease)));
                    }
                };
                let (newest, memory) = self.with(|seen| (seen.see(record), seen.memory));
                if memory == Memory::Ended || newest.generation > known {
                    return Ok(Leased::Newer(newest));
                }
            }
        })
    }
}

/// The memory's lease.
struct CopyLease {
    lease: Box<dyn Lease>,
    copy: BrowserCopy,
}

impl Lease for CopyLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.lease.open_redeem()
    }

    fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lease.intend(generation)
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let (known, prepared) = self.copy.prepare(expected, &record).await?;
            let written = prepared.generation;
            self.lease.save(known, prepared).await?;
            self.copy.saved(&record, written);
            Ok(())
        })
    }

    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        self.lease.release(open_redeem)
    }
}
