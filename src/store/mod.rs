//! Where tokens live: the [`TokenStore`] trait, and [`MemoryStore`], the default.
//!
//! One store value is one credential. The store's record is the truth for the
//! refresh token: every flight takes the lease, reads the record, redeems what it
//! finds there (or adopts it, if somebody else was faster) and saves the result
//! before anyone is given it.

#[cfg(feature = "test-util")]
pub mod conformance;
mod family;
#[cfg(feature = "file")]
mod file;
#[cfg(any(feature = "file", feature = "redis"))]
mod format;
mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{fmt, sync::Arc};

pub use self::family::Stores;
#[cfg(feature = "file")]
pub use self::file::{FileStore, FileStores};
pub use self::memory::{MemoryStore, MemoryStores};
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStores, RedisStoresBuilder};
#[cfg(any(feature = "file", feature = "redis"))]
pub use crate::seal::Keyring;

pub use crate::error::OpenCause;
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// What a store holds for one credential: its generation, and its tokens unless
/// it is signed out. The default is a store that was never written.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The version. It grows with every write and survives a deletion.
    pub generation: Generation,
    /// `None`: signed out, or never signed in.
    pub tokens: Option<Tokens>,
}

/// What [`TokenStore::delete`] did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Deleted {
    /// The version that the store is at now.
    pub generation: Generation,
    /// The tokens that were there, to be revoked. `None` if there were none, or none
    /// that can be read.
    pub tokens: Option<Tokens>,
}

/// What came of [`TokenStore::lease`].
#[derive(Debug)]
pub enum Leased {
    /// The lock is held.
    Lease(Box<dyn Lease>),
    /// It is not, and need not be: somebody else has written this meanwhile.
    Newer(Record),
}

/// A redeem that was begun and whose end nobody has noted: the refresh token of that
/// generation may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OpenRedeem {
    /// Whose refresh token it is. Of no meaning once the store holds a later one.
    pub generation: Generation,
    /// How it came about.
    pub cause: OpenCause,
}

impl Record {
    /// A record of this generation. `None`: signed out.
    #[must_use]
    pub fn new(generation: Generation, tokens: impl Into<Option<Tokens>>) -> Self {
        Self { generation, tokens: tokens.into() }
    }
}

impl Deleted {
    /// The store is at `generation` now, and held these tokens.
    #[must_use]
    pub fn new(generation: Generation, tokens: impl Into<Option<Tokens>>) -> Self {
        Self { generation, tokens: tokens.into() }
    }
}

impl OpenRedeem {
    /// The redeem of this generation's refresh token was interrupted.
    #[must_use]
    pub fn new(generation: Generation, cause: OpenCause) -> Self {
        Self { generation, cause }
    }
}

impl Record {
    /// Whether this is what was written as `other`. A store may keep an expiry less
    /// exactly than it was given.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.generation == other.generation && self.has_tokens_of(other)
    }

    /// Whether these are the same tokens, as whatever generation.
    pub(crate) fn has_tokens_of(&self, other: &Self) -> bool {
        match (&self.tokens, &other.tokens) {
            (Some(ours), Some(theirs)) => {
                ours.access_token() == theirs.access_token()
                    && ours.refresh_token() == theirs.refresh_token()
            }
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
    }
}

/// A place for one credential's tokens, with versions and a lock.
///
/// Every future may be dropped at any point (the runtime is shut down); a write
/// must then have happened whole or not at all.
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the record; [`Record::default`] if there is none.
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>>;

    /// Compare-and-swap: writes `record` if the store's generation is `expected`. This
    /// is a sign-in, which asks for no lease: it wins over a redeem under way.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the generation is another one;
    /// [`SaveError::Failed`] if it was not written, or nobody can tell.
    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Removes the tokens whatever the generation, and moves to the next one. The
    /// number must outlive the tokens, so that a save that was under way meets a
    /// conflict.
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>>;

    /// Waits for the credential's lock, or until the store holds a later generation
    /// than `seen`: whoever waits may then do without the lock. A store that learns
    /// of the lock only need not look for records.
    ///
    /// The lock must not run out while it is held and its holder is alive: a lease with
    /// a time limit renews itself.
    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>>;
}

/// A store that several states share.
impl<S: TokenStore + ?Sized> TokenStore for Arc<S> {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        (**self).load()
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        (**self).save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        (**self).delete()
    }

    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        (**self).lease(seen)
    }
}

/// The lock on one credential, held from before the record is read until after
/// the new one is saved.
///
/// ```text
/// lease -> open redeem? -> (load) -> intend -> [the token is spent] -> save -> release
/// ```
///
/// Whoever is killed after [`intend`](Self::intend) leaves the intent behind, and the
/// next holder finds it: [`open_redeem`](Self::open_redeem). A lock with a time limit
/// has a second, longer one from `intend` on, so that a holder that has stalled may come
/// back with what it was given. Once another holder has the lock, a save is
/// [`SaveError::LeaseLost`].
///
/// Dropping it is what a crash does: the lock is given back at some time, and the intent
/// stays.
pub trait Lease: Send {
    /// The redeem that was interrupted under an earlier holder, if there was one. Not
    /// changed by what this holder does.
    fn open_redeem(&self) -> Option<OpenRedeem>;

    /// Whether the lock is still held, as far as can be told without asking anyone.
    /// Asked right before the refresh token is spent; if it is not, nothing is.
    fn is_held(&self) -> bool {
        true
    }

    /// Notes, where a crash does not reach it, that the refresh token of `generation` is
    /// about to be spent.
    ///
    /// # Errors
    ///
    /// It is not noted for certain, or the lock is lost: nothing is spent then.
    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Compare-and-swap like [`TokenStore::save`], for the holder of the lock. It ends
    /// the intent in the same step.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the generation is another one.
    /// [`SaveError::LeaseLost`] if somebody else has had the lock since: it is taken
    /// anew then, and the save tried again. Any other failure is answered with the same
    /// call again, so a write whose outcome is unknown is [`SaveError::Failed`].
    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Gives the lock back, and leaves to the next holder what it has to know of a
    /// redeem: `None` ends the intent.
    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()>;
}

impl fmt::Debug for dyn Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
