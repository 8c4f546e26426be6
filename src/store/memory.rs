//! The default store: this process's memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::{Deleted, Lease, Leased, OpenCause, OpenRedeem, Record, TokenStore};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// Keeps the record in memory, and loses it with the process. Several
/// [`RefreshState`](crate::RefreshState)s may share one through an `Arc`.
#[derive(Debug, Default)]
pub struct MemoryStore(Arc<Memory>);

#[derive(Debug, Default)]
struct Memory {
    record: Mutex<Record>,
    /// The lease, and the intent of whoever has it, or had it.
    lock: Arc<tokio::sync::Mutex<Option<OpenRedeem>>>,
}

impl MemoryStore {
    /// An empty store: never signed in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that holds `tokens` as generation 1. A life given by
    /// [`Tokens::with_expires_in`] counts from now.
    #[must_use]
    pub fn with_tokens(tokens: Tokens) -> Self {
        let tokens = tokens.absolute(crate::tokens::Time::now());
        let record = Record::new(Generation::ZERO.next(), tokens);
        Self(Arc::new(Memory { record: Mutex::new(record), ..Memory::default() }))
    }
}

impl Memory {
    fn record(&self) -> MutexGuard<'_, Record> {
        // Every write is one assignment: a poisoned record is whole.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, expected: Generation, record: Record) -> Result<(), SaveError> {
        let mut held = self.record();
        if held.generation != expected {
            return Err(SaveError::Conflict);
        }
        *held = record;
        Ok(())
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Ok(self.0.record().clone()) })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.0.swap(expected, record) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            let mut held = self.0.record();
            let generation = held.generation.next();
            let deleted = std::mem::replace(&mut *held, Record::new(generation, None));
            Ok(Deleted::new(generation, deleted.tokens))
        })
    }

    fn lease(&self, _seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async {
            let intent = Arc::clone(&self.0.lock).lock_owned().await;
            let open_redeem = *intent;
            let memory = Arc::clone(&self.0);
            Ok(Leased::Lease(Box::new(MemoryLease { memory, intent, open_redeem })))
        })
    }
}

struct MemoryLease {
    memory: Arc<Memory>,
    intent: OwnedMutexGuard<Option<OpenRedeem>>,
    open_redeem: Option<OpenRedeem>,
}

impl Lease for MemoryLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        // What the next holder finds if this one is dropped.
        *self.intent = Some(OpenRedeem::new(generation, OpenCause::HolderEnded));
        Box::pin(async { Ok(()) })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.memory.swap(expected, record)?;
            *self.intent = None;
            Ok(())
        })
    }

    fn release(mut self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        *self.intent = left;
        Box::pin(async move { drop(self) })
    }
}
