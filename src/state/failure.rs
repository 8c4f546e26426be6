//! [`RefreshFailure`]: why there is no fresh token.

use std::{error::Error, fmt, io, sync::Arc};

use tokio::time::Instant;

use crate::{
    credential::Credential,
    error::{SharedError, sources},
    refresher::RefreshError,
    store::OpenCause,
    time::Due,
};

/// Why there is no fresh token. Cheap to clone, and put into the extensions of a
/// response that could not be helped.
///
/// The page [`questions`](crate::guide::questions) says what to do about each kind, and lists every
/// other error of this crate.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{FailureKind, RefreshError, RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |_spent: Tokens| {
///     Err(RefreshError::rejected("the user was removed").with_code("invalid_grant"))
/// })
/// .tokens(Tokens::new("first").with_refresh_token("r1"))
/// .build();
///
/// let failure = state.refresh().await.unwrap_err();
/// assert_eq!(failure.kind(), FailureKind::Rejected);
/// assert_eq!(failure.code(), Some("invalid_grant"));
/// assert!(failure.retry_at().is_none()); // only a sign-in helps
/// # });
/// ```
#[derive(Clone)]
pub struct RefreshFailure(
    // Behind a pointer, because whatever a request is told may be one.
    Arc<Inner>,
);

#[derive(Clone)]
struct Inner {
    kind: FailureKind,
    open_redeem: Option<OpenCause>,
    awaits_lease: bool,
    retry_at: Option<Due>,
    code: Option<Arc<str>>,
    source: Option<SharedError>,
}

/// The kinds of [`RefreshFailure`].
///
/// The page [`questions`](crate::guide::questions#why-did-my-call-fail) says what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The server refused the refresh token. Only a sign-in helps, here or in another process:
    /// challenges read a shared store now and then.
    Rejected,
    /// The server refused the client, and not the refresh token: its secret is wrong, or it may not
    /// have this grant or scope. The refresh is tried again after the
    /// [`client_cool_down`](super::RenewalBuilder::client_cool_down), or at once by
    /// [`refresh`](crate::RefreshState::refresh).
    ClientRefused,
    /// The refresh failed and is tried again after the cool-down.
    Transient,
    /// The refresher panicked. The refresh is tried again after the cool-down, too.
    Panicked,
    /// The store could not be locked or read; nothing was redeemed.
    Store,
    /// New tokens could not be saved yet, and no request gets them until they are saved. The save is
    /// tried again in the background.
    Unsaved,
    /// The server refused brand-new tokens again and again, so refreshing pauses.
    Braked,
    /// The refusal may not be about the token: the server accepts it for other requests, or did until
    /// a moment ago, and a refresh did not help lately. Another refusal may start a refresh after a
    /// pause, or sooner if there are signs that the token does not work any more.
    Doubted,
    /// The access token is empty or has a control character, so no header can carry it. The request
    /// was sent without it.
    Unsendable,
    /// There is no token, and none can be had without signing in.
    SignedOut,
    /// The refresh took longer than this request may wait. The refresh goes on.
    Deadline,
    /// The credential is being drained, or its runtime was shut down.
    Shutdown,
    /// The tokens are in the browser's cookie, and no response can take new ones there any more, since
    /// its head was sent: in a stream, behind an upgraded connection, in a task. The refresh token was
    /// not spent; the browser's next request refreshes.
    NoResponseHead,
    /// There is no tokio runtime here, and refreshes run in tasks of one.
    NoRuntime,
}

impl RefreshFailure {
    pub(crate) fn new(kind: FailureKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            open_redeem: None,
            awaits_lease: false,
            retry_at: None,
            code: None,
            source: None,
        }))
    }

    /// While a failure is made, it has no other owner, and nothing is copied.
    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn signed_out() -> Self {
        Self::new(FailureKind::SignedOut)
    }

    pub(crate) fn braked(until: Due) -> Self {
        Self::new(FailureKind::Braked).with_retry_at(until)
    }

    pub(crate) fn with_retry_at(mut self, at: Due) -> Self {
        self.inner().retry_at = Some(at);
        self
    }

    pub(crate) fn with_open_redeem(mut self, cause: Option<OpenCause>) -> Self {
        self.inner().open_redeem = cause;
        self
    }

    pub(super) fn awaiting_lease(mut self, awaits: bool) -> Self {
        self.inner().awaits_lease = awaits;
        self
    }

    pub(crate) fn with_code(mut self, code: impl Into<Arc<str>>) -> Self {
        self.inner().code = Some(code.into());
        self
    }

    /// The kind of an I/O error among its sources says something of the cause, and no secret.
    pub(crate) fn with_source(mut self, source: SharedError) -> Self {
        let (kind, inner) = (io_kind(&**source), self.inner());
        inner.code = kind.or(inner.code.take());
        inner.source = Some(source);
        self
    }

    /// Of a refresher's error.
    pub(crate) fn with_error(self, error: &RefreshError) -> Self {
        let this = self.with_source(SharedError::clone(&error.source));
        match &error.code {
            Some(code) => this.with_code(Arc::clone(code)),
            None => this,
        }
    }

    /// The user's error that caused it.
    pub(super) fn shared_source(&self) -> Option<SharedError> {
        self.0.source.clone()
    }

    pub(super) fn shared_code(&self) -> Option<Arc<str>> {
        self.0.code.clone()
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// A word for the cause, without secrets, that may be shown and logged: the server's error code
    /// (`invalid_grant`, RFC 6749, section 5.2) or status (`503`); or what the refresher has given to
    /// [`RefreshError::with_code`](crate::RefreshError::with_code); or the kind of the I/O error, such
    /// as `connection refused`. `None` if the cause is not known. The [`source`](Error::source) says
    /// more, and may hold a secret.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Why an earlier redeem was left open, which may have spent the refresh token before this try. If
    /// the server has no grace period for a spent token, the session is lost then. `None`: no such
    /// redeem is known.
    #[must_use]
    pub fn open_redeem(&self) -> Option<OpenCause> {
        self.0.open_redeem
    }

    /// Why a [`FailureKind::Deadline`] came: `true` if the refresh had not begun, because another
    /// process (or another state of this one) had the store's lease; `false` if the token endpoint or
    /// the store took too long.
    #[must_use]
    pub fn awaits_lease(&self) -> bool {
        self.0.awaits_lease
    }

    /// The state tries no refresh before this moment. (A machine that slept does not wait out the
    /// rest: the wall clock counts, too.) `None` if time alone does not help, or if the next request
    /// may try at once.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.0.retry_at.map(|due| due.now)
    }

    /// The same, by both clocks.
    pub(super) fn due(&self) -> Option<Due> {
        self.0.retry_at
    }
}

/// The kind of the first I/O error among these.
pub(super) fn io_kind(error: &(dyn Error + 'static)) -> Option<Arc<str>> {
    let kind =
        sources(error).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)?;
    (kind != io::ErrorKind::Other).then(|| kind.to_string().into())
}

/// This credential, if it has a token.
pub(super) fn present(credential: Credential) -> Result<Credential, RefreshFailure> {
    if credential.is_present() { Ok(credential) } else { Err(RefreshFailure::signed_out()) }
}

impl FailureKind {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::ClientRefused => "client_refused",
            Self::Transient => "transient",
            Self::Panicked => "panicked",
            Self::Store => "store",
            Self::Unsaved => "unsaved",
            Self::Braked => "braked",
            Self::Doubted => "doubted",
            Self::Unsendable => "unsendable",
            Self::SignedOut => "signed_out",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
            Self::NoResponseHead => "no_response_head",
            Self::NoRuntime => "no_runtime",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "the refresh token was rejected",
            Self::ClientRefused => "the authorization server refused the client",
            Self::Transient => "the refresh failed and will be tried again",
            Self::Panicked => "the refresher panicked",
            Self::Store => "the token store failed",
            Self::Unsaved => "the new tokens could not be saved yet",
            Self::Braked => "the server refuses new tokens again and again: refreshing pauses",
            Self::Doubted => {
                "the refusal may not be about the token, and refreshing did not help lately"
            }
            Self::Unsendable => "the access token is empty or has a control character: no header can carry it",
            Self::SignedOut => "signed out",
            Self::Deadline => "the refresh took longer than this request may wait",
            Self::Shutdown => "shutting down",
            Self::NoResponseHead => {
                "no response is left that could take new tokens to the browser that keeps them: its \
                 next request refreshes"
            }
            Self::NoRuntime => "there is no tokio runtime to refresh in: call this within one",
        })
    }
}

impl fmt::Display for RefreshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)?;
        if let Some(code) = &self.0.code {
            write!(f, " ({code})")?;
        }
        if self.0.awaits_lease {
            f.write_str(": another process has the credential's lease")?;
        }
        match self.0.open_redeem {
            Some(cause) => {
                write!(f, "; an earlier refresh may have spent the refresh token: {cause}")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RefreshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshFailure")
            .field("kind", &self.0.kind)
            .field("open_redeem", &self.0.open_redeem)
            .field("awaits_lease", &self.0.awaits_lease)
            .field("retry_at", &self.0.retry_at)
            .field("code", &self.0.code)
            .finish_non_exhaustive()
    }
}

impl Error for RefreshFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&***source),
            None => None,
        }
    }
}
