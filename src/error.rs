//! What can go wrong. The crate's front page has the table of who makes and who reads which
//! error.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

/// Any error, boxed.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a refresher could not redeem.
///
/// The difference between the two kinds matters more than anything else here: a
/// *rejected* credential stays dead until the next sign-in, while a
/// *transient* failure is tried again. When in doubt, say transient.
pub struct RefreshError {
    pub(crate) rejected: bool,
    pub(crate) unspent: bool,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) source: BoxError,
}

impl RefreshError {
    /// The server refused the grant for good: `invalid_grant` and the like
    /// (RFC 6749, section 5.2).
    pub fn rejected(source: impl Into<BoxError>) -> Self {
        Self { rejected: true, unspent: true, retry_after: None, source: source.into() }
    }

    /// Anything that may pass: the network, a 5xx, a 429, an answer that could
    /// not be read.
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self { rejected: false, unspent: false, retry_after: None, source: source.into() }
    }

    /// The server's `Retry-After` (RFC 9110, section 10.2.3): no try before that, or
    /// for an hour if it is longer.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The refresh token was certainly not spent: no connection could be made, or the
    /// server itself refused (a 4xx; what a proxy says does not count). Otherwise the
    /// next lease holder is told that it may be, and if its try is rejected, the failure says so
    /// ([`RefreshFailure::open_redeem`]).
    #[must_use]
    pub fn unspent(mut self) -> Self {
        self.unspent = true;
        self
    }

    /// Whether the server refused the grant for good.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.rejected
    }

    /// Whether the refresh token was certainly not spent.
    #[must_use]
    pub fn is_unspent(&self) -> bool {
        self.unspent
    }

    /// The server's `Retry-After`, as it was given to
    /// [`with_retry_after`](Self::with_retry_after).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Debug for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshError")
            .field("rejected", &self.rejected)
            .field("unspent", &self.unspent)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.rejected {
            "the refresh was rejected"
        } else {
            "the refresh failed and may be tried again"
        })
    }
}

impl Error for RefreshError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// A store could not do what it was asked.
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

/// Why a record was not saved.
#[derive(Debug)]
#[non_exhaustive]
pub enum SaveError {
    /// The store's generation is not the expected one: another process, or a sign-in, wrote.
    Conflict,
    /// The lock under which it was to be saved is another holder's by now.
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

/// Why there is no fresh token. Cheap to clone, and put into the extensions of a
/// response that could not be helped.
#[derive(Clone)]
pub struct RefreshFailure {
    kind: FailureKind,
    open_redeem: Option<OpenCause>,
    retry_at: Option<Instant>,
    source: Option<Arc<BoxError>>,
}

/// The kinds of [`RefreshFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The server refused the refresh token. Stays so until a sign-in, here or, where
    /// the store is shared, by another process: challenges read the store now and then.
    Rejected,
    /// The refresh failed and is tried again after the cool-down.
    Transient,
    /// The refresher panicked. Treated like [`Transient`](Self::Transient).
    Panicked,
    /// The store could not be locked or read; nothing was redeemed.
    Store,
    /// New tokens were minted, could not be saved yet, and are not served until
    /// they are. Saving goes on in the background.
    Unsaved,
    /// Brand-new tokens were refused again and again: refreshing pauses.
    Braked,
    /// There is no token, and none can be had without signing in.
    SignedOut,
    /// The refresh took longer than this request may wait. It goes on.
    Deadline,
    /// The credential is being drained, or its runtime was shut down.
    Shutdown,
}

impl RefreshFailure {
    pub(crate) fn new(kind: FailureKind) -> Self {
        Self { kind, open_redeem: None, retry_at: None, source: None }
    }

    pub(crate) fn signed_out() -> Self {
        Self::new(FailureKind::SignedOut)
    }

    pub(crate) fn with_retry_at(mut self, at: Instant) -> Self {
        self.retry_at = Some(at);
        self
    }

    pub(crate) fn with_open_redeem(mut self, cause: Option<OpenCause>) -> Self {
        self.open_redeem = cause;
        self
    }

    pub(crate) fn with_source(mut self, source: BoxError) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// An earlier redeem was left open, and may have spent the refresh token before this
    /// try; and how that came about. Where the server has no grace period for a spent token
    /// the session is lost then. `None`: no such redeem is known.
    #[must_use]
    pub fn open_redeem(&self) -> Option<OpenCause> {
        self.open_redeem
    }

    /// Before this moment no refresh is tried again. `None` where time alone
    /// does not help, or nothing has to be waited for.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

impl FailureKind {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Transient => "transient",
            Self::Panicked => "panicked",
            Self::Store => "store",
            Self::Unsaved => "unsaved",
            Self::Braked => "braked",
            Self::SignedOut => "signed_out",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "the refresh token was rejected",
            Self::Transient => "the refresh failed and will be tried again",
            Self::Panicked => "the refresher panicked",
            Self::Store => "the token store failed",
            Self::Unsaved => "the new tokens could not be saved yet",
            Self::Braked => "new tokens are refused again and again; refreshing pauses",
            Self::SignedOut => "signed out",
            Self::Deadline => "the refresh took too long to wait for",
            Self::Shutdown => "shutting down",
        })
    }
}

impl fmt::Display for RefreshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.open_redeem {
            Some(cause) => write!(f, "; an earlier refresh may have spent it: {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RefreshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshFailure")
            .field("kind", &self.kind)
            .field("open_redeem", &self.open_redeem)
            .field("retry_at", &self.retry_at)
            .finish_non_exhaustive()
    }
}

impl Error for RefreshFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.source {
            Some(source) => Some(&***source),
            None => None,
        }
    }
}

/// Why the end of a redeem is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenCause {
    /// Its holder ended without a word, killed perhaps, and the lock was freed with it.
    HolderEnded,
    /// Its holder did not come back before its deadline: killed, stalled or cut off.
    HolderSilent,
    /// Its holder lives, and had no answer that it could read.
    AnswerLost,
}

impl OpenCause {
    /// A word for it, as a store keeps it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HolderEnded => "ended",
            Self::HolderSilent => "silent",
            Self::AnswerLost => "unanswered",
        }
    }

    /// What [`as_str`](Self::as_str) has written. `None` for any other word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::HolderEnded, Self::HolderSilent, Self::AnswerLost]
            .into_iter()
            .find(|cause| cause.as_str() == word)
    }
}

impl fmt::Display for OpenCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HolderEnded => "the process that began it ended before it could save",
            Self::HolderSilent => "the process that began it did not come back in time",
            Self::AnswerLost => "its answer was lost",
        })
    }
}

/// A setting that cannot be used. The message names it and says what it has to be; the
/// [source](Error::source), where there is one, says more. No secret is in either: a library's
/// error that may quote a password is left out.
#[derive(Debug)]
pub struct ConfigError {
    message: &'static str,
    source: Option<BoxError>,
}

impl ConfigError {
    pub(crate) const fn new(message: &'static str) -> Self {
        Self { message, source: None }
    }

    /// The caller sees to it that no secret is in the source, nor in its own sources.
    #[cfg(any(feature = "oauth2-client", feature = "redis"))]
    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
