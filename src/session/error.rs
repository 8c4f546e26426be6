//! Why a sign-in failed ([`SignInError`]).

use std::fmt;

use crate::{error::ConfigError, store::StoreError};

/// Why [`SessionSlot::sign_in`](super::SessionSlot::sign_in) failed.
///
/// ```
/// use http::StatusCode;
/// use tower_refresh::session::SignInError;
///
/// /// What the callback answers.
/// fn status(error: &SignInError) -> StatusCode {
///     match error {
///         SignInError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
///         SignInError::Ended => StatusCode::UNAUTHORIZED, // begin the sign-in anew
///         _ => StatusCode::INTERNAL_SERVER_ERROR,
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SignInError {
    /// The store could not keep the session.
    Store(StoreError),
    /// Before this session was stored, the provider ended its own session, or the user ended all of
    /// theirs ([`Sessions::end_all`](super::Sessions::end_all)). Begin the sign-in anew.
    Ended,
    /// The operating system has no random bytes.
    Random(ConfigError),
    /// The tokens do not fit into cookies ([`Sessions::sealed`](super::Sessions::sealed)). A browser
    /// would drop such cookies without a word. Keep fewer claims, ask the provider for smaller tokens, or keep the
    /// sessions in a store ([`Sessions::builder`](super::Sessions::builder)).
    #[non_exhaustive]
    TooLarge {
        /// How many bytes the cookies would take, names included.
        bytes: usize,
        /// How many they may take.
        limit: usize,
        /// The length of the access token.
        access_token: usize,
        /// The length of the refresh token.
        refresh_token: usize,
        /// The length of the [`Identity`](super::Identity), as JSON.
        identity: usize,
    },
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
            Self::Ended => f.write_str(
                "the provider or the user has ended the session meanwhile: sign in again",
            ),
            Self::Random(error) => error.fmt(f),
            Self::TooLarge { bytes, limit, access_token, refresh_token, identity } => write!(
                f,
                "the session would take {bytes} bytes of cookies, and may take {limit}: its access token \
                 has {access_token}, its refresh token {refresh_token}, and what is kept of the user \
                 {identity}. Keep fewer claims, ask for smaller tokens, or keep sessions in a store"
            ),
        }
    }
}

impl std::error::Error for SignInError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Ended | Self::TooLarge { .. } => None,
            Self::Random(error) => error.source(),
        }
    }
}
