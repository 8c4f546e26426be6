//! Families of stores: one place, many credentials.

use std::sync::Arc;
#[cfg(feature = "file")]
use std::{error::Error, time::SystemTime};

use super::TokenStore;
#[cfg(feature = "file")]
use super::{Deleted, KeptUntil, Leased, Record};
#[cfg(feature = "file")]
use crate::{
    refresher::BoxFuture,
    store::{SaveError, StoreError},
    tokens::Generation,
};

/// A store for each name: the tokens of many users or sessions in one place.
///
/// A name is any text that stays the same for as long as the credential lives, such as the id of a
/// user or the hash of a session's id. Stores do not keep it secret, so never use a token or the value
/// of a cookie.
///
/// - All handles on one name, of this family and of every other one on the same place, share
///   one record and one lease.
/// - Two names have two records, however alike they are. A place that cannot tell two names apart, or
///   cannot keep a name (too long for a file, say), refuses it: every operation of that name's store
///   fails with an error that says so.
/// - A name whose tokens were saved keeps them without any handle. A signed-out name keeps
///   its generation while a handle on it lives, and at a place that outlives the process for
///   as long as that place promises.
///
/// [`MemoryStores`](super::MemoryStores), `FileStores` (feature `file`), `RedisStores` (feature
/// `redis`) and `PostgresStores` (feature `postgres`) are families. Write your own against the tests of
/// `stores_conformance!` (feature `test-util`).
///
/// ```
/// use tower_refresh::{Generation, Tokens, store::{MemoryStores, Record, Stores, TokenStore}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::store::SaveError> {
/// async fn sign_in(stores: &impl Stores, user: &str) -> Result<(), tower_refresh::store::SaveError> {
///     let store = stores.store(user);
///     let known = store.load().await?.generation;
///     store.save(known, Record::new(known.next(), Tokens::new("access"))).await
/// }
///
/// let stores = MemoryStores::new();
/// sign_in(&stores, "alice").await?;
/// assert_eq!(stores.store("alice").load().await?.generation, Generation::new(1));
/// assert_eq!(stores.store("bob").load().await?, Record::default());
/// # Ok(()) }
/// ```
pub trait Stores: Send + Sync + 'static {
    /// The store of the credential of this name. The call is cheap, does no I/O and never fails; if
    /// something is wrong, the store's operations say so.
    ///
    /// Neither this nor [`TokenStore::load`] creates anything. What [`TokenStore::lease`] creates for a
    /// name that was never written goes with the lease. So a name from outside (a cookie that was made
    /// up) leaves nothing behind.
    fn store(&self, name: &str) -> Arc<dyn TokenStore>;
}

/// A family that is shared.
impl<S: Stores + ?Sized> Stores for Arc<S> {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        (**self).store(name)
    }
}

/// The store of a name that cannot be kept: every operation fails, for the reason that it was
/// refused.
#[cfg(feature = "file")]
pub(super) struct Refused(Arc<dyn Error + Send + Sync>);

#[cfg(feature = "file")]
impl Refused {
    pub(super) fn new(error: StoreError) -> Self {
        Self(error.into_source().into())
    }

    fn error(&self) -> StoreError {
        StoreError::new(Arc::clone(&self.0))
    }
}

#[cfg(feature = "file")]
impl TokenStore for Refused {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn changed(&self, _: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn save(&self, _: Generation, _: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async { Err(self.error().into()) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn keep_until(&self, _: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn lease(&self, _: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async { Err(self.error()) })
    }
}
