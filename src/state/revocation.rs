//! What a hook that revokes tokens returns, and what a sign-out tells of it.

use std::{error::Error, fmt, sync::Arc};

use crate::{
    error::{BoxError, SharedError},
    refresher::BoxFuture,
    tokens::Tokens,
};

/// What a hook that revokes tokens returns: nothing, or a `Result` that says whether it worked.
///
/// After an error the state calls the hook with the same tokens again while the process lives, at
/// the pace of the [cool-down](super::RenewalBuilder::cool_down). If the error is a
/// [`RefreshError`](crate::RefreshError), its `Retry-After` counts, and after a
/// [rejected](crate::RefreshError::rejected) one the hook is not called again.
///
/// [`on_sign_out`](super::RenewalBuilder::on_sign_out) has an example.
pub trait HookResult: sealed::Sealed {
    /// Whether it worked.
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

impl HookResult for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> HookResult for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// Of a hook that does not return.
impl HookResult for sealed::Never {
    fn into_result(self) -> Result<(), BoxError> {
        self
    }
}

#[allow(unreachable_pub, reason = "what a public item names must be as public")]
mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for Never {}

    /// `!`, which cannot be named otherwise.
    pub type Never = <fn() -> ! as Returns>::Output;

    pub trait Returns {
        type Output;
    }

    impl<T> Returns for fn() -> T {
        type Output = T;
    }
}

pub(crate) type TokensHook =
    Arc<dyn Fn(Tokens) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// What has become of the tokens at the server.
///
/// [`SignedOut::revocation`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revocation {
    /// There were no tokens, or none that can be read.
    Nothing,
    /// There is no hook that would have revoked them.
    NotAsked,
    /// They are revoked, as far as the hook knows.
    Done,
    /// The hook failed, and is called again while the process lives.
    Pending,
    /// The hook failed, and is not called again: the server refused for good, or the hook
    /// panicked, or there is no runtime or no time for another try.
    Failed,
    /// The store holds no tokens. An earlier deletion, to which no answer came, may have deleted some,
    /// so neither the store nor this process knows them any more, and they may live on at the server.
    Unknown,
}

impl Revocation {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NotAsked => "not_asked",
            Self::Done => "done",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What [`RefreshState::clear`](super::RefreshState::clear) returns: this process and its store are
/// signed out, and the tokens may or may not be revoked at the server.
///
/// [`on_sign_out`](super::RenewalBuilder::on_sign_out) has an example.
#[derive(Clone)]
#[non_exhaustive]
pub struct SignedOut {
    /// What has become of the tokens at the server.
    pub revocation: Revocation,
    error: Option<SharedError>,
}

impl SignedOut {
    /// Whether the refresh token may live on at the server, so that a program with a copy can use it.
    #[must_use]
    pub fn lives_on(&self) -> bool {
        !matches!(self.revocation, Revocation::Nothing | Revocation::Done)
    }

    /// The hook's error, whose text may hold a secret. `None`: there was none, or the hook panicked.
    #[must_use]
    pub fn error(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_ref().map(|error| &***error as &(dyn Error + 'static))
    }

    pub(super) fn new(revocation: Revocation) -> Self {
        Self { revocation, error: None }
    }

    pub(super) fn failed(revocation: Revocation, error: Option<SharedError>) -> Self {
        Self { revocation, error }
    }
}

impl fmt::Debug for SignedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedOut").field("revocation", &self.revocation).finish_non_exhaustive()
    }
}
