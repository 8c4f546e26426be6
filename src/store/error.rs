//! What a store can say went wrong, and how a redeem came to be left open.

use std::{error::Error, fmt};

use crate::error::BoxError;

/// A store could not do what it was asked. A [`TokenStore`](super::TokenStore) makes it; the page
/// [`questions`](crate::guide::questions#every-error) says who reads it.
///
/// ```
/// use std::{error::Error, io};
/// use tower_refresh::store::StoreError;
///
/// let error = StoreError::new(io::Error::other("disk full: /var/lib/alice.json"));
/// assert_eq!(error.to_string(), "the token store failed"); // what may be logged
/// assert_eq!(error.source().unwrap().to_string(), "disk full: /var/lib/alice.json");
/// ```
pub struct StoreError(BoxError);

impl StoreError {
    /// Wraps the store's own error, which stays reachable as the source.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }

    /// What it was made of, to be told in the words of another one.
    #[cfg(feature = "file")]
    pub(crate) fn into_source(self) -> BoxError {
        self.0
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreError").finish_non_exhaustive()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token store failed")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Why a record was not saved. [`TokenStore`](super::TokenStore) has an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum SaveError {
    /// The store's generation is not the expected one: another process, or a sign-in, wrote.
    Conflict,
    /// Another holder has the lock by now under which the record was to be saved.
    LeaseLost,
    /// The store could not write, or cannot tell whether it did. The same record
    /// will be saved again.
    Failed(StoreError),
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("the store holds another generation"),
            Self::LeaseLost => f.write_str("the lease was lost"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for SaveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Conflict | Self::LeaseLost => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl From<StoreError> for SaveError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Why the end of a redeem is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenCause {
    /// The lease holder ended without a word (it was killed, perhaps), which freed its lock.
    HolderEnded,
    /// The lease holder did not come back before its deadline: it was killed, stalled or cut off.
    HolderSilent,
    /// The lease holder lives. It got no answer that it could read.
    AnswerLost,
    /// The lease holder lives. The server's answer does not say whether the token was spent: a 5xx,
    /// perhaps that of a proxy.
    ServerFailed,
}

impl OpenCause {
    /// A word for it, as a store keeps it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HolderEnded => "ended",
            Self::HolderSilent => "silent",
            Self::AnswerLost => "unanswered",
            Self::ServerFailed => "failed",
        }
    }

    /// What [`as_str`](Self::as_str) has written. `None` for any other word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::HolderEnded, Self::HolderSilent, Self::AnswerLost, Self::ServerFailed]
            .into_iter()
            .find(|cause| cause.as_str() == word)
    }
}

impl fmt::Display for OpenCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HolderEnded => "the process that began it ended before it could save",
            Self::HolderSilent => "the process that began it did not come back in time",
            Self::AnswerLost => "it got no answer that could be read",
            Self::ServerFailed => "the server's answer does not say whether the token was spent",
        })
    }
}
