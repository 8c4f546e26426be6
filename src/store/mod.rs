//! Where tokens live: the [`TokenStore`] trait, and [`MemoryStore`], the default.
//!
//! One store value is one credential. The store's record is the truth for the
//! refresh token: every flight takes the lease, reads the record, redeems what it
//! finds there (or adopts it, if somebody else was faster) and saves the result
//! before anyone is given it.

mod memory;

use std::sync::Arc;

pub use memory::MemoryStore;

use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// What a store holds for one credential: its generation, and its tokens unless
/// it is signed out. The default is a store that was never written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The version. It grows with every write and survives a deletion.
    pub generation: Generation,
    /// `None`: signed out, or never signed in.
    pub tokens: Option<Tokens>,
}

/// What [`TokenStore::delete`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct Deleted {
    /// The version that the store is at now.
    pub generation: Generation,
    /// The tokens that were there, to be revoked. `None` if there were none, or none
    /// that can be read.
    pub tokens: Option<Tokens>,
}

impl Record {
    /// Whether this is what was written as `other`. A store may keep an expiry less
    /// exactly than it was given.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.tokens, &other.tokens) {
            (Some(ours), Some(theirs)) => {
                ours.access_token() == theirs.access_token()
                    && ours.refresh_token() == theirs.refresh_token()
            }
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        same && self.generation == other.generation
    }
}

/// A place for one credential's tokens, with versions and a lock.
///
/// Every future may be dropped at any point (the runtime is shut down); a write
/// must then have happened whole or not at all.
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the record; [`Record::default`] if there is none.
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>>;

    /// Compare-and-swap: writes `record` if the store's generation is `expected`.
    ///
    /// # Errors
    ///
    /// [`SaveError::Conflict`] if the generation is another one. Any other failure
    /// is answered with the same call again, so a write whose outcome is unknown
    /// is [`SaveError::Failed`].
    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>>;

    /// Removes the tokens whatever the generation, and moves to the next one. The
    /// number must outlive the tokens, so that a save that was under way meets a
    /// conflict.
    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>>;

    /// Waits for the credential's lock. It must not run out while it is held and
    /// its holder is alive: a lease with a time limit renews itself.
    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, StoreError>>;
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

    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, StoreError>> {
        (**self).lease()
    }
}

/// The lock on one credential, held from before the record is read until after
/// the new one is saved. Dropping it gives it back at some time; [`release`](Self::release)
/// does so now.
pub trait Lease: Send {
    /// Whether the lock is still held. Asked right before the refresh token is
    /// spent; if it is not, nothing is.
    fn is_held(&self) -> bool {
        true
    }

    /// Gives the lock back.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}
