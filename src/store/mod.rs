//! Where tokens live: the [`TokenStore`] trait and its stores, one credential each, and
//! [`Stores`], a store for each name.
//!
//! | one credential | many, by name | feature | for |
//! |---|---|---|---|
//! | [`MemoryStore`], the default | [`MemoryStores`] | | one process |
//! | `FileStore` | `FileStores` | `file` | processes of one machine |
//! | `RedisStore` | `RedisStores` | `redis` | replicas |
//! | `PostgresStore` | `PostgresStores` | `postgres` | replicas |
//!
//! The store's record is the truth for the refresh token: every flight takes the lease, reads
//! the record, redeems what it finds there (or adopts it, if another process was faster) and
//! saves the result before a waiter is given it.

#[cfg(feature = "test-util")]
pub mod conformance;
mod error;
mod family;
#[cfg(feature = "file")]
mod file;
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
mod format;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod timed_lease;

use std::{fmt, sync::Arc, time::SystemTime};

pub use self::error::{OpenCause, SaveError, StoreError};
pub use self::family::Stores;
#[cfg(feature = "file")]
pub use self::file::{FileStore, FileStores};
#[cfg(all(fuzzing, feature = "file", feature = "postgres"))]
pub(crate) use self::format::fuzz::records as fuzz_records;
pub use self::memory::{MemoryStore, MemoryStores};
#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresStore, PostgresStores, PostgresStoresBuilder};
pub use self::record::{Deleted, KeptUntil, Leased, OpenRedeem, Record};
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStores, RedisStoresBuilder};
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub use crate::seal::Keyring;

use crate::{refresher::BoxFuture, tokens::Generation};

/// A place for one credential's tokens, with versions and a lock.
///
/// Every future may be dropped at any point (the runtime is shut down); a write
/// must then have happened whole or not at all.
///
/// # A store of your own
///
/// Here over a map, which stands for the table of a database. What a database does otherwise
/// is said where it matters. The tests of `store_conformance!` (feature `test-util`) say
/// whether it is right.
///
/// ```
/// use std::{collections::HashMap, mem, sync::{Arc, Mutex}};
/// use tokio::sync::OwnedMutexGuard;
/// use tower_refresh::{BoxFuture, Generation, store::{SaveError, StoreError}};
/// use tower_refresh::store::{Deleted, Lease, Leased, OpenCause, OpenRedeem, Record, TokenStore};
///
/// #[derive(Clone, Default)]
/// struct MapStore {
///     map: Arc<Mutex<HashMap<String, Record>>>,
///     name: String,
///     /// The lease, and the open redeem in it. A database locks a row, for a time that the
///     /// holder makes longer while it lives.
///     lock: Arc<tokio::sync::Mutex<Option<OpenRedeem>>>,
/// }
///
/// impl MapStore {
///     /// Compare-and-swap: `UPDATE ... WHERE name = ? AND generation = ?`.
///     fn swap(&self, expected: Generation, record: Record) -> Result<(), SaveError> {
///         let mut map = self.map.lock().unwrap();
///         if map.get(&self.name).cloned().unwrap_or_default().generation != expected {
///             return Err(SaveError::Conflict);
///         }
///         map.insert(self.name.clone(), record);
///         Ok(())
///     }
/// }
///
/// impl TokenStore for MapStore {
///     fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
///         let record = self.map.lock().unwrap().get(&self.name).cloned();
///         Box::pin(async { Ok(record.unwrap_or_default()) })
///     }
///
///     fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
///         Box::pin(async move { self.swap(expected, record) })
///     }
///
///     fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
///         Box::pin(async {
///             let mut map = self.map.lock().unwrap();
///             let record = map.entry(self.name.clone()).or_default();
///             // The generation stays behind, so that a late save meets a conflict.
///             let generation = record.generation.next();
///             let deleted = mem::replace(record, Record::new(generation, None));
///             Ok(Deleted::new(generation, deleted.tokens))
///         })
///     }
///
///     fn lease(&self, _known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
///         Box::pin(async {
///             let open = Arc::clone(&self.lock).lock_owned().await;
///             let lease = MapLease { store: self.clone(), found: *open, open };
///             Ok(Leased::Lease(Box::new(lease)))
///         })
///     }
/// }
///
/// struct MapLease {
///     store: MapStore,
///     found: Option<OpenRedeem>,
///     open: OwnedMutexGuard<Option<OpenRedeem>>,
/// }
///
/// impl Lease for MapLease {
///     fn open_redeem(&self) -> Option<OpenRedeem> {
///         self.found
///     }
///
///     fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
///         // What the next holder finds if this one crashes: a database commits it now.
///         *self.open = Some(OpenRedeem::new(generation, OpenCause::HolderEnded));
///         Box::pin(async { Ok(()) })
///     }
///
///     fn save(&mut self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
///         Box::pin(async move {
///             // In a database both in one transaction, which checks, too, that no other
///             // holder has had the lock since: else `SaveError::LeaseLost`.
///             self.store.swap(expected, record)?;
///             *self.open = None;
///             Ok(())
///         })
///     }
///
///     fn release(mut self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
///         *self.open = open_redeem;
///         Box::pin(async { drop(self) })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::BoxError> {
/// use tower_refresh::{RefreshState, Tokens};
///
/// let store = MapStore::default();
/// let state = RefreshState::builder(async |_: Tokens| Ok(Tokens::new("new")))
///     .store(store.clone())
///     .build();
/// state.set(Tokens::new("old").with_refresh_token("refresh")).await?;
/// state.refresh().await?;
/// let refreshed = Tokens::new("new").with_refresh_token("refresh");
/// assert_eq!(store.load().await?.tokens, Some(refreshed));
/// # #[cfg(feature = "test-util")]
/// # {
/// #     use tower_refresh::store::conformance::{self, Subject};
/// #     impl Subject for MapStore {
/// #         type Store = Self;
/// #         fn open(&self, name: &str) -> BoxFuture<'_, Self> {
/// #             let store = Self { name: name.to_owned(), ..self.clone() };
/// #             Box::pin(async { store })
/// #         }
/// #         fn broken(&self) -> Result<Self, &'static str> {
/// #             Err("memory is always there")
/// #         }
/// #         fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
/// #             Box::pin(async { Err("a mutex cannot be taken from its holder") })
/// #         }
/// #         fn lease_time(&self) -> Result<std::time::Duration, &'static str> {
/// #             Err("a mutex has no time limit")
/// #         }
/// #     }
/// #     conformance::a_sign_out_leaves_its_generation(&MapStore::default()).await;
/// #     conformance::one_holder_at_a_time(&MapStore::default()).await;
/// #     conformance::an_intent_outlives_its_holder(&MapStore::default()).await;
/// #     conformance::what_is_left_is_found(&MapStore::default()).await;
/// # }
/// # Ok(()) }
/// ```
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the record; [`Record::default`] if there is none. Creates nothing.
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>>;

    /// Reads the record, unless it is still the one of generation `known`: `None` then. Where a
    /// server looks at its session's record for each request, that is the usual answer, so a store
    /// best finds it out in one round trip and opens no seal. The default reads the record.
    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let record = self.load().await?;
            Ok((record.generation != known).then_some(record))
        })
    }

    /// Compare-and-swap: writes `record` if the store's generation is `expected`. This
    /// is a sign-in, which asks for no lease: it wins over a redeem under way. The record's own
    /// generation is a later one, or `expected` itself.
    ///
    /// A sign-in also comes, with [`Generation::ZERO`] expected, when [`load`](Self::load) has
    /// failed. A store that knows what it holds for damaged beyond reading may write in its
    /// place; every other answers as always.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the generation is another one;
    /// [`SaveError::Failed`] if it was not written, or if that cannot be told.
    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Removes the tokens whatever the generation, and moves to the next one. The
    /// generation must outlive the tokens, so that a save that was under way meets a
    /// conflict. Of a store that was never written, or has lost its record, the next one is
    /// best [taken from the clock](Generation::next_at).
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>>;

    /// Gives the record an end of its own, such as that of a session that is left idle. When it has
    /// come, the store is as if the record had never been written, by its number, too.
    ///
    /// The end only moves on: an earlier one than there is changes nothing. A holder's
    /// [save](Lease::save) keeps it, a sign-in ([`save`](Self::save)) and a deletion begin anew
    /// without. Nothing else of the record changes, and nothing is written where there are no
    /// tokens: a session that has ended is not brought back.
    ///
    /// The default keeps no ends.
    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        let _ = end;
        Box::pin(async { Ok(KeptUntil::Unsupported) })
    }

    /// Waits for the credential's lock, or until the store holds a later generation
    /// than `known`: the caller may then do without the lock. A store that is told when
    /// the lock is free need not look for records. One that cannot give the lock now, as on a
    /// file system that is mounted read-only, best looks for a later record before it fails.
    ///
    /// The lock must not run out while its holder is alive: a lease with a time limit renews
    /// itself.
    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>>;
}

/// A store that several states share.
impl<S: TokenStore + ?Sized> TokenStore for Arc<S> {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        (**self).load()
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        (**self).changed(known)
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        (**self).save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        (**self).delete()
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        (**self).keep_until(end)
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        (**self).lease(known)
    }
}

/// The lock on one credential, held from before the record is read until after
/// the new one is saved.
///
/// ```text
/// lease -> open redeem? -> (load) -> intend -> [the token is spent] -> save -> release
/// ```
///
/// A holder that is killed after [`intend`](Self::intend) leaves the intent behind, and the
/// next holder finds it as an [open redeem](Self::open_redeem). A lock with a time limit
/// has a second, longer one from `intend` on, so that a holder that has stalled may come
/// back with the tokens it was given. Once another holder has the lock, a save is
/// [`SaveError::LeaseLost`].
///
/// Dropping it is what a crash does: the lock is given back at some time, and the intent
/// stays.
pub trait Lease: Send {
    /// The redeem that an earlier holder has left open. What this holder does, does not
    /// change it.
    fn open_redeem(&self) -> Option<OpenRedeem>;

    /// Whether the lock is still held, as far as can be told without I/O. The flight asks
    /// right before it spends the refresh token, and spends nothing if it is not.
    fn is_held(&self) -> bool {
        true
    }

    /// Notes, where a crash does not reach it, that the refresh token of `generation` is
    /// about to be spent.
    ///
    /// # Errors
    ///
    /// It is not noted for certain, or the lock is lost. The flight then spends nothing.
    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Compare-and-swap like [`TokenStore::save`], for the holder of the lock. It ends
    /// the intent in the same step. A store may give the lock back in the same step, too: after
    /// a save that has worked, the flight asks nothing more of the lease but `release`.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the generation is another one.
    /// [`SaveError::LeaseLost`] if another holder has had the lock since: the flight takes
    /// it anew, and tries the save again. After any other failure it makes the same call
    /// again, so a write whose outcome is unknown is [`SaveError::Failed`].
    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Gives the lock back, and leaves an open redeem to the next holder. `None` ends the
    /// intent. A lock that is another holder's by now is not touched.
    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()>;
}

impl fmt::Debug for dyn Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
