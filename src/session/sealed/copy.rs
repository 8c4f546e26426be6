//! The browser and the memory as one store ([`BrowserCopy`]).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::Shown;
use crate::{
    refresher::BoxFuture,
    session::{
        ended::Ended,
        identity::seconds,
        record::{note, noted},
    },
    store::{
        Deleted, KeptUntil, Lease, Leased, OpenRedeem, Record, SaveError, StoreError, TokenStore,
    },
    time::Time,
    tokens::{Generation, RESERVED_IN_BROWSER, RESERVED_MINTED_AT, Tokens},
};

/// One session's tokens, which are in the browser's cookies, and in the memory while the browser may not
/// have received them. To its [`RefreshState`](crate::RefreshState) it is a store like any other, whose
/// record is the newest of what the memory has and a request has shown. Clones are one.
#[derive(Clone)]
pub(in crate::session) struct BrowserCopy {
    memory: Arc<dyn TokenStore>,
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
    memory: Memory,
}

/// What the memory held when it was last read or written.
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

/// The browser has newer tokens than any that are known here.
const STALE: &str = "only the browser has the newest tokens of this session";

/// How often a note is written anew because a refresh was saved meanwhile.
const MAX_CONFLICTS: usize = 16;

/// What stands in the place of tokens that the browser has.
fn in_browser() -> Tokens {
    Tokens::new("").with_extra(RESERVED_IN_BROWSER, "1")
}

impl Seen {
    /// Takes in what the memory holds. Returns the newest of both.
    fn see(&mut self, record: Record) -> Result<Record, StoreError> {
        let Some(tokens) = &record.tokens else {
            if record.generation == Generation::ZERO {
                self.memory = Memory::Absent;
                return Ok(self.newest.clone());
            }
            self.memory = Memory::Ended;
            return Ok(record);
        };
        if noted(tokens).is_some() {
            self.memory = Memory::Ended;
            return Ok(record);
        }
        if tokens.extra(RESERVED_IN_BROWSER).is_some() {
            self.memory = Memory::InBrowser;
            self.in_browser = self.in_browser.max(record.generation);
        } else {
            self.memory = Memory::Tokens;
            let minted = tokens.extra(RESERVED_MINTED_AT).and_then(|text| text.parse().ok());
            let tokens = tokens.clone().without_extra(RESERVED_MINTED_AT);
            self.offer(&Record::new(record.generation, tokens), minted.unwrap_or_default());
        }
        if self.is_stale() { Err(StoreError::new(STALE)) } else { Ok(self.newest.clone()) }
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
        Self { memory, seen: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has shown this.
    pub(in crate::session) fn show(&self, shown: &Shown) {
        self.lock().offer(&shown.record, shown.minted());
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

    /// Whether the memory has these tokens and nobody gives them up yet: from now on the caller does.
    pub(in crate::session) fn gives_up(&self, generation: Generation) -> bool {
        let mut seen = self.lock();
        let is_held = seen.memory == Memory::Tokens && seen.newest.generation == generation;
        if is_held {
            seen.memory = Memory::InBrowser;
        }
        is_held
    }

    /// The browser has these tokens for good.
    pub(in crate::session) async fn forget(&self, generation: Generation) -> Result<(), SaveError> {
        // The same number: for a refresh that is being saved it makes no difference.
        let number = Record::new(generation, in_browser());
        let saved = self.memory.save(generation, number).await;
        let mut seen = self.lock();
        if saved.is_ok() {
            seen.in_browser = seen.in_browser.max(generation);
        } else if seen.memory == Memory::InBrowser {
            // The next request that shows them tries again, if they are still there.
            seen.memory = Memory::Tokens;
        }
        saved
    }

    /// What is to be written over what the memory holds. A conflict: its newest is not `expected`.
    async fn prepare(
        &self,
        expected: Generation,
        record: &Record,
    ) -> Result<(Generation, Record), SaveError> {
        let held = self.memory.load().await?;
        let known = held.generation;
        let newest = self.lock().see(held);
        if newest.is_ok_and(|newest| newest.generation == expected) {
            Ok((known, stamped(record, seconds(Time::never_back().wall))))
        } else {
            Err(SaveError::Conflict)
        }
    }

    fn saved(&self, record: &Record) {
        let mut seen = self.lock();
        match &record.tokens {
            Some(tokens) if noted(tokens).is_none() => {
                seen.memory = Memory::Tokens;
                let minted = seconds(Time::never_back().wall);
                seen.offer(record, minted);
            }
            _ => seen.memory = Memory::Ended,
        }
    }
}

/// With the moment at which they were minted.
fn stamped(record: &Record, now: u64) -> Record {
    let tokens = record.tokens.clone().map(|tokens| match noted(&tokens) {
        Some(_) => tokens,
        None => tokens.with_extra(RESERVED_MINTED_AT, now.to_string()),
    });
    Record::new(record.generation, tokens)
}

impl TokenStore for BrowserCopy {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async {
            let held = self.memory.load().await?;
            self.lock().see(held)
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let changed = self.memory.changed(known).await?;
            let mut seen = self.lock();
            let newest = match changed {
                None => seen.newest.clone(),
                // What is stale is nobody's news: the browser is asked for it.
                Some(record) => match seen.see(record) {
                    Ok(record) if seen.memory == Memory::Ended => return Ok(Some(record)),
                    Ok(record) => record,
                    Err(_) => return Ok(None),
                },
            };
            Ok((newest.generation > known).then_some(newest))
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let (known, stamped) = self.prepare(expected, &record).await?;
            self.memory.save(known, stamped).await?;
            self.saved(&record);
            Ok(())
        })
    }

    /// Leaves a note: a copy of the cookie opens for as long as the session may last, and stores keep
    /// the mere mark of a sign-out for less.
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            for _ in 0..MAX_CONFLICTS {
                // What cannot be read is deleted as it is.
                let Ok(held) = self.memory.load().await else { break };
                let known = held.generation;
                let newest = self.lock().see(held).unwrap_or_default();
                let next = known.max(newest.generation).next_at(Time::never_back().wall);
                let ended = Record::new(next, note(Ended::SignedOutElsewhere));
                match self.memory.save(known, ended).await {
                    Ok(()) => {
                        self.lock().memory = Memory::Ended;
                        return Ok(Deleted::new(next, newest.tokens));
                    }
                    Err(SaveError::Failed(error)) => return Err(error),
                    Err(SaveError::Conflict | SaveError::LeaseLost) => {}
                }
            }
            self.memory.delete().await
        })
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
                match self.memory.save(Generation::ZERO, number).await {
                    Ok(()) => self.lock().memory = Memory::InBrowser,
                    Err(SaveError::Failed(error)) => return Err(error),
                    Err(SaveError::Conflict | SaveError::LeaseLost) => {}
                }
            }
            self.memory.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            Ok(match self.memory.lease(known).await? {
                Leased::Newer(record) => Leased::Newer(self.lock().see(record)?),
                Leased::Lease(lease) => {
                    Leased::Lease(Box::new(CopyLease { lease, copy: self.clone() }))
                }
            })
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
            let (known, stamped) = self.copy.prepare(expected, &record).await?;
            self.lease.save(known, stamped).await?;
            self.copy.saved(&record);
            Ok(())
        })
    }

    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        self.lease.release(open_redeem)
    }
}
