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
//! The store's record is the truth for the refresh token. Every flight takes the lease, reads
//! the record, redeems what it finds there (or adopts it, if another process was faster), and
//! saves the new tokens before a waiter gets them.

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
/// Every future may be dropped at any point, as when the runtime is shut down. A write must then have
/// happened whole or not at all.
///
/// # A store of your own
///
/// This one keeps a credential in a row that stands for a database's. The comments say what a
/// database does otherwise. It passes the tests that `store_conformance!` (feature `test-util`)
/// writes; so should yours.
///
/// ```
/// use std::{mem, sync::{Arc, Mutex}};
/// use tokio::sync::OwnedMutexGuard;
/// use tower_refresh::{BoxFuture, Generation, store::{SaveError, StoreError}};
/// use tower_refresh::store::{Deleted, Lease, Leased, OpenCause, OpenRedeem, Record, TokenStore};
///
/// type Answer<'a, T, E = StoreError> = BoxFuture<'a, Result<T, E>>;
///
/// /// The record, and beside it the lock, which holds the redeem that was left open. A database
/// /// locks a row for some time, and its holder prolongs that while it lives.
/// #[derive(Clone, Default)]
/// struct Row(Arc<Mutex<Record>>, Arc<tokio::sync::Mutex<Option<OpenRedeem>>>);
///
/// impl TokenStore for Row {
///     fn load(&self) -> Answer<'_, Record> {
///         Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
///     }
///     fn save(&self, expected: Generation, record: Record) -> Answer<'_, (), SaveError> {
///         Box::pin(async move {
///             let mut row = self.0.lock().unwrap();
///             if row.generation != expected { // `UPDATE ... WHERE generation = ?`
///                 return Err(SaveError::Conflict);
///             }
///             *row = record;
///             Ok(())
///         })
///     }
///     fn delete(&self) -> Answer<'_, Deleted> {
///         Box::pin(async {
///             let mut row = self.0.lock().unwrap();
///             let next = row.generation.next(); // stays, so that a late save meets a conflict
///             Ok(Deleted::new(next, mem::replace(&mut *row, Record::new(next, None)).tokens))
///         })
///     }
///     fn lease(&self, _known: Generation) -> Answer<'_, Leased> {
///         Box::pin(async {
///             let open = self.1.clone().lock_owned().await;
///             Ok(Leased::Lease(Box::new(Holder { row: self.clone(), found: *open, open })))
///         })
///     }
/// }
///
/// struct Holder { row: Row, found: Option<OpenRedeem>, open: OwnedMutexGuard<Option<OpenRedeem>> }
///
/// impl Lease for Holder {
///     fn open_redeem(&self) -> Option<OpenRedeem> {
///         self.found
///     }
///     fn intend(&mut self, generation: Generation) -> Answer<'_, ()> {
///         // The next holder finds this if this one crashes: a database commits it now.
///         *self.open = Some(OpenRedeem::new(generation, OpenCause::HolderEnded));
///         Box::pin(async { Ok(()) })
///     }
///     fn save(&mut self, expected: Generation, record: Record) -> Answer<'_, (), SaveError> {
///         // A database does both in one transaction, which fails with `SaveError::LeaseLost`
///         // if another holder has had the lock since.
///         Box::pin(async move {
///             self.row.save(expected, record).await?;
///             *self.open = None;
///             Ok(())
///         })
///     }
///     fn release(mut self: Box<Self>, open: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
///         Box::pin(async move { *self.open = open })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::BoxError> {
/// use tower_refresh::{RefreshState, Tokens};
///
/// let store = Row::default();
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
/// #     #[derive(Default)]
/// #     struct Table(Mutex<std::collections::HashMap<String, Row>>);
/// #     impl Subject for Table {
/// #         type Store = Row;
/// #         fn open(&self, name: &str) -> BoxFuture<'_, Row> {
/// #             let row = self.0.lock().unwrap().entry(name.to_owned()).or_default().clone();
/// #             Box::pin(async { row })
/// #         }
/// #         fn broken(&self) -> Result<Row, &'static str> {
/// #             Err("memory is always there")
/// #         }
/// #         fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
/// #             Box::pin(async { Err("a mutex cannot be taken from its holder") })
/// #         }
/// #         fn lease_time(&self) -> Result<std::time::Duration, &'static str> {
/// #             Err("a mutex has no time limit")
/// #         }
/// #     }
/// #     macro_rules! all {
/// #         ($($check:ident)*) => { $(conformance::$check(&Table::default()).await;)* };
/// #     }
/// #     all! {
/// #         a_store_begins_empty what_is_saved_is_loaded a_look_tells_what_has_changed
/// #         a_record_ends_when_it_is_told_to a_save_takes_the_expected_generation_only
/// #         a_save_may_keep_its_number of_racing_saves_one_wins a_sign_out_leaves_its_generation
/// #         names_are_apart errors_keep_their_source one_holder_at_a_time a_lease_needs_no_news
/// #         a_waiter_gets_the_lease_or_what_is_newer a_sign_in_needs_no_lease
/// #         a_dropped_lease_is_free a_dropped_waiter_takes_nothing
/// #         a_living_holder_keeps_its_lease a_lost_lease_cannot_write
/// #         a_lost_lease_leaves_intents_alone a_lease_is_for_several_intents
/// #         a_save_may_end_the_lease an_intent_outlives_its_holder
/// #         without_an_intent_nothing_is_left a_save_ends_the_intent what_is_left_is_found
/// #     }
/// # }
/// # Ok(()) }
/// ```
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the record; [`Record::default`] if there is none. Creates nothing.
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>>;

    /// Reads the record if its generation is no longer `known`, else answers `None`. A server that
    /// looks at its session's record for each request usually gets `None`, so a store should find
    /// that out in one round trip and without opening a seal. The default reads the record.
    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let record = self.load().await?;
            Ok((record.generation != known).then_some(record))
        })
    }

    /// Compare-and-swap: writes `record` if the store's generation is `expected`. This is a
    /// sign-in, which takes no lease and wins over a redeem under way. The generation of `record` is
    /// later than `expected`, or equal to it.
    ///
    /// After [`load`](Self::load) has failed, a sign-in expects [`Generation::ZERO`]. A store that
    /// knows its record to be damaged beyond reading may overwrite it then; every other store
    /// answers as always.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the store's generation is another one; [`SaveError::Failed`] if the
    /// record was not written, or if the store cannot tell.
    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Removes the tokens, whatever the generation is, and moves to the next generation. That
    /// number must outlive the tokens, so that a save that was under way meets a conflict. A store
    /// that was never written, or has lost its record, should [take the number from the
    /// clock](Generation::next_at).
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>>;

    /// Gives the record an end, such as that of a session that is left idle. From then on the store
    /// is as if the record had never been written: its generation is gone, too.
    ///
    /// The end only moves to a later time: an earlier one changes nothing. A lease holder's
    /// [save](Lease::save) keeps the end. A sign-in ([`save`](Self::save)) and a deletion remove it.
    /// Nothing else of the record changes. A store without tokens writes nothing, so that a session
    /// which has ended does not come back.
    ///
    /// The default keeps no ends.
    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        let _ = end;
        Box::pin(async { Ok(KeptUntil::Unsupported) })
    }

    /// Waits for the credential's lock, or until the store holds a later generation than `known`,
    /// with which the caller needs no lock. A store may leave out the second: if it learns at once
    /// that the lock is free, it need not look for later records while it waits. A store that
    /// cannot give the lock now, as on a file system that is mounted read-only, should look for a
    /// later record before it fails.
    ///
    /// The lock must not run out while its holder is alive: a lease with a time limit renews itself.
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
/// next holder finds it as an [open redeem](Self::open_redeem). A lock with a time limit has a
/// longer one from `intend` on, so that a holder that has stalled may still save the tokens that
/// it was given. Once another holder has the lock, a save fails with [`SaveError::LeaseLost`].
///
/// To drop a lease is like a crash of its holder: the store gives the lock to another holder at
/// some time, and the intent stays.
///
/// [`TokenStore`] has an example.
pub trait Lease: Send {
    /// The redeem that an earlier holder has left open. The answer stays the same, whatever this
    /// holder does.
    fn open_redeem(&self) -> Option<OpenRedeem>;

    /// Whether this holder still has the lock, as far as can be told without I/O. The flight asks
    /// right before it spends the refresh token, and spends nothing if the answer is `false`.
    fn is_held(&self) -> bool {
        true
    }

    /// Notes that the refresh token of `generation` is about to be spent. The note must survive a
    /// crash of this process.
    ///
    /// # Errors
    ///
    /// The note may not have been written, or the lock is lost. The flight then spends nothing.
    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Compare-and-swap like [`TokenStore::save`], for the holder of the lock. The save ends the
    /// intent in the same step. A store may give the lock back in that step, too: after a save that
    /// has worked, the flight calls nothing of the lease but `release`.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the store's generation is another one.
    /// [`SaveError::LeaseLost`] if another holder has had the lock since: the flight takes the lease
    /// anew and tries the save again. [`SaveError::Failed`] otherwise, also if the outcome is
    /// unknown: the flight makes the same call again.
    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Gives the lock back, and leaves this open redeem to the next holder; `None` ends the intent.
    /// If another holder has the lock by now, nothing happens.
    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()>;
}

impl fmt::Debug for dyn Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
