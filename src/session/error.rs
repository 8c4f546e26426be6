//! Why nobody was signed in ([`SignInError`]).

use std::fmt;

use crate::{error::ConfigError, store::StoreError};

/// Why nobody was signed in.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignInError {
    /// The store could not keep the session.
    Store(StoreError),
    /// The provider has ended its own session, or the user all of theirs, before this one was stored
    /// ([`Sessions::end_all`](super::Sessions::end_all)). Begin the sign-in anew.
    Ended,
    /// The operating system has no random bytes.
    Random(ConfigError),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Ended => {
                f.write_str("the provider has ended its session meanwhile: sign in again")
            }
            Self::Random(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SignInError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Ended => None,
            Self::Random(error) => error.source(),
        }
    }
}
