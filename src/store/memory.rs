//! The default store: this process's memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::{Deleted, Lease, Record, TokenStore};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// Keeps the record in memory, and loses it with the process. Several
/// [`RefreshState`](crate::RefreshState)s may share one through an `Arc`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    record: Mutex<Record>,
    lock: Arc<tokio::sync::Mutex<()>>,
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
        let record = Record {
            generation: Generation::ZERO.next(),
            tokens: Some(tokens.absolute(crate::tokens::Time::now())),
        };
        Self { record: Mutex::new(record), ..Self::default() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Every write is one assignment: a poisoned record is whole.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Ok(self.record().clone()) })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let mut held = self.record();
            if held.generation != expected {
                return Err(SaveError::Conflict);
            }
            *held = record;
            Ok(())
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            let mut held = self.record();
            let generation = held.generation.next();
            let deleted = std::mem::replace(&mut *held, Record { generation, tokens: None });
            Ok(Deleted { generation, tokens: deleted.tokens })
        })
    }

    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, StoreError>> {
        Box::pin(async {
            let held = Arc::clone(&self.lock).lock_owned().await;
            Ok(Box::new(MemoryLease { _held: held }) as Box<dyn Lease>)
        })
    }
}

struct MemoryLease {
    _held: OwnedMutexGuard<()>,
}

impl Lease for MemoryLease {
    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}
