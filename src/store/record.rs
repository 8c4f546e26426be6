//! What stores hold and tell: [`Record`], and what comes of a store's operations.

use super::{Lease, OpenCause};
use crate::tokens::{Generation, Tokens};

/// What a store holds for one credential: its generation, and its tokens unless
/// it is signed out. The default is the record of a store that was never written.
///
/// ```
/// use tower_refresh::{Generation, Tokens, store::Record};
///
/// let never_written = Record::default();
/// let signed_in = Record::new(never_written.generation.next(), Tokens::new("access"));
/// let signed_out = Record::new(signed_in.generation.next(), None);
/// assert_eq!(signed_out.generation, Generation::new(2));
/// assert_eq!(signed_out.tokens, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The generation. It grows with every write and survives a deletion.
    pub generation: Generation,
    /// `None`: signed out, or never signed in.
    pub tokens: Option<Tokens>,
}

/// What [`TokenStore::delete`](super::TokenStore::delete) has deleted.
///
/// [`TokenStore`](super::TokenStore) has an example of this type, of [`Leased`] and of [`OpenRedeem`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Deleted {
    /// The generation that the store is at now.
    pub generation: Generation,
    /// The tokens that were there, to be revoked. `None` if there were none, or none
    /// that can be read.
    pub tokens: Option<Tokens>,
}

/// What [`TokenStore::keep_until`](super::TokenStore::keep_until) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeptUntil {
    /// The store holds tokens, and their end is no earlier than that.
    Kept,
    /// The store holds no tokens, and has written nothing.
    NoTokens,
    /// This store has no ends for records.
    Unsupported,
}

/// What [`TokenStore::lease`](super::TokenStore::lease) returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Leased {
    /// The caller has the lock.
    Lease(Box<dyn Lease>),
    /// The caller does not have the lock, and does not need it: another process or task has written
    /// this record meanwhile.
    Newer(Record),
}

/// A redeem whose end is not known: the refresh token of that generation may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OpenRedeem {
    /// The generation of that refresh token. It means nothing once the store holds a later one.
    pub generation: Generation,
    /// Why its end is not known.
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
    /// The redeem of this generation's refresh token is open.
    #[must_use]
    pub fn new(generation: Generation, cause: OpenCause) -> Self {
        Self { generation, cause }
    }
}

impl Record {
    /// Whether this is what was written as `other`. The expiry does not count: a store may
    /// keep it less exactly than it was given.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.generation == other.generation && self.has_tokens_of(other)
    }

    /// Whether it is, and with the same other fields.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_same_in_all(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.tokens.iter(), other.tokens.iter());
        self.is_same(other) && ours.flat_map(Tokens::extras).eq(theirs.flat_map(Tokens::extras))
    }

    /// Whether these are the same tokens, whatever the generations.
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
