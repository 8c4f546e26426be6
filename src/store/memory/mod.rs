//! Tokens in this process's memory: one credential ([`MemoryStore`], the default), or many
//! ([`MemoryStores`]).

mod slots;

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::sync::OwnedMutexGuard;

use self::slots::{Family, LockShare, Slot};
use super::{Deleted, KeptUntil, Lease, Leased, OpenCause, OpenRedeem, Record, Stores, TokenStore};
use crate::{
    refresher::BoxFuture,
    store::{SaveError, StoreError},
    tokens::{Generation, Tokens},
};

/// Keeps one credential in memory, and loses it with the process. Clones share the record and
/// the lease.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{RefreshState, Tokens, store::{MemoryStore, TokenStore}};
///
/// let store = MemoryStore::new();
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
///     .store(store.clone())
///     .build();
/// state.set(Tokens::new("first")).await?;
/// assert_eq!(store.load().await?.tokens, Some(Tokens::new("first")));
/// # Ok::<_, tower_refresh::store::StoreError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Slot>);

/// Keeps the credentials of many names in memory, and loses them with the process. Cheap to
/// clone; clones are one family.
///
/// A name that holds tokens is kept until it is signed out, whether or not there is a handle on it. A
/// name that was never saved or is signed out is kept while there is a handle, a lease or a caller
/// that waits for the lease. Until then a late save of a session that has ended meets its generation;
/// after that nothing is left. So a made-up name costs nothing once its handle is gone.
///
/// An idle name that holds tokens costs less than 200 bytes of memory besides the text of its
/// tokens and its name. No record goes by itself unless it has an
/// [end](crate::store::TokenStore::keep_until): a program that signs names in has to sign them out.
///
/// When the last clone is dropped, the records go with it. Handles that are left go on as stores of
/// their own.
///
/// ```
/// use tower_refresh::{Generation, Tokens, store::{MemoryStores, Record, TokenStore}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stores = MemoryStores::new();
/// let record = Record::new(Generation::new(1), Tokens::new("access"));
/// stores.store("alice").save(Generation::ZERO, record).await?;
/// assert_eq!(stores.store("bob").load().await?, Record::default());
/// assert_eq!(stores.len(), 1);
/// stores.store("alice").delete().await?;
/// assert!(stores.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStores(Arc<Family>);

impl MemoryStore {
    /// An empty store: never signed in.
    #[must_use]
    pub fn new() -> Self {
        Self(Slot::alone(Record::default()))
    }

    /// A store that holds `tokens` as generation 1. A life given by
    /// [`Tokens::with_expires_in`] counts from now.
    #[must_use]
    pub fn with_tokens(tokens: Tokens) -> Self {
        Self::with_record(Record::new(Generation::ZERO.next(), tokens))
    }

    pub(crate) fn with_record(record: Record) -> Self {
        let tokens = record.tokens.map(|tokens| tokens.absolute(crate::time::Time::now()));
        Self(Slot::alone(Record { tokens, ..record }))
    }
}

impl MemoryStore {
    /// As a store of any kind, without an allocation for the handle.
    pub(crate) fn into_dyn(self) -> Arc<dyn TokenStore> {
        self.0
    }
}

impl MemoryStores {
    /// No names yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store of the credential of this name, which may be any text.
    #[must_use]
    pub fn store(&self, name: impl AsRef<str>) -> MemoryStore {
        MemoryStore(self.0.slot(name.as_ref()))
    }

    /// How many names are kept: those that hold tokens, and those of which a handle is left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no name is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Stores for MemoryStores {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        self.0.slot(name)
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.0.load()
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.0.changed(known)
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        self.0.save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.0.delete()
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        self.0.keep_until(end)
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        self.0.lease(known)
    }
}

/// A slot is a store by itself, so that the handle which a family gives out is the slot's own
/// `Arc`, without a wrapper in an allocation of its own.
impl TokenStore for Slot {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Ok(self.record()) })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.changed_since(known)) })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.swap(expected, record, false) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async { Ok(self.clear()) })
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(async move { Ok(self.end_at(end)) })
    }

    fn lease(&self, _known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async {
            let gone = || StoreError::new("the store is being dropped");
            // Declared first, dropped last: a caller that gives up waiting first leaves the
            // queue, and then gives back its share.
            let share = self.share_lock().ok_or_else(gone)?;
            let open = share.lock().ok_or_else(gone)?.lock_owned().await;
            let open_redeem = *open;
            Ok(Leased::Lease(Box::new(MemoryLease { open, share, open_redeem })))
        })
    }
}

struct MemoryLease {
    /// The lock itself, and what the next holder finds in it. It stands before the share, and
    /// is therefore given back before it.
    open: OwnedMutexGuard<Option<OpenRedeem>>,
    share: LockShare,
    /// What this holder has found.
    open_redeem: Option<OpenRedeem>,
}

impl Lease for MemoryLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        // What the next holder finds if this one is dropped.
        *self.open = Some(OpenRedeem::new(generation, OpenCause::HolderEnded));
        Box::pin(async { Ok(()) })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.share.slot().swap(expected, record, true)?;
            *self.open = None;
            Ok(())
        })
    }

    fn release(mut self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        *self.open = open_redeem;
        Box::pin(async move { drop(self) })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, signed_in) = self.0.summary();
        f.debug_struct("MemoryStore")
            .field("generation", &generation)
            .field("signed_in", &signed_in)
            .finish()
    }
}

/// Without the names: they may be known to few.
impl fmt::Debug for MemoryStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStores").field("names", &self.len()).finish()
    }
}
