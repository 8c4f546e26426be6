//! Redeeming: the [`Refresher`] trait, and why a redeem fails: [`RefreshError`].

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    error::{BoxError, SharedError},
    tokens::Tokens,
};

/// A boxed future, for the calls that happen once a refresh.
///
/// ```
/// use tower_refresh::BoxFuture;
///
/// fn answer() -> BoxFuture<'static, u8> {
///     Box::pin(async { 42 })
/// }
/// # drop(answer());
/// ```
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a [`Refresher`] is asked for (RFC 6749, section 6).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{Refresher, Tokens, refresher::{RefreshRequest, Trigger}};
///
/// // A test of a refresher calls it with a request of its own.
/// let refresher = async |spent: Tokens| Ok(Tokens::new(format!("after {}", spent.access_token())));
/// let request = RefreshRequest::new(Tokens::new("first"), Trigger::Expired);
/// assert_eq!(refresher.refresh(request).await?.access_token(), "after first");
/// # Ok::<_, tower_refresh::RefreshError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshRequest {
    /// The tokens that the store holds. `None` only if the store has none and
    /// [`Refresher::needs_tokens`] is false.
    pub tokens: Option<Tokens>,
    /// What the refresh was started for.
    pub trigger: Trigger,
}

/// What a refresh was started for.
///
/// A refresher finds it in its [request](RefreshRequest); `oauth2::RefreshTokenGrant` has an example that
/// logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// The first use of a credential whose store was not read yet.
    FirstUse,
    /// A token that is about to run out; requests go on with it meanwhile.
    Early,
    /// A token that has run out.
    Expired,
    /// A server refused the token.
    Challenge,
    /// [`RefreshState::refresh`](crate::RefreshState::refresh).
    Requested,
}

impl Trigger {
    /// A stable word for it, for metrics and logs: `first_use`, `early`, `expired`,
    /// `challenge`, `requested`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstUse => "first_use",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::Challenge => "challenge",
            Self::Requested => "requested",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RefreshRequest {
    /// A request to redeem these tokens: for tests of a refresher, and for refreshers that
    /// ask another one.
    #[must_use]
    pub fn new(tokens: impl Into<Option<Tokens>>, trigger: Trigger) -> Self {
        Self { tokens: tokens.into(), trigger }
    }
}

/// A caller asks for these to be redeemed ([`Trigger::Requested`]): for a closure that has
/// another refresher do the work.
impl From<Tokens> for RefreshRequest {
    fn from(tokens: Tokens) -> Self {
        Self::new(tokens, Trigger::Requested)
    }
}

/// Redeems: gets new tokens from the authorization server.
///
/// A closure from [`Tokens`] to a future, such as an async closure, is a refresher if it can be
/// cloned. Each call gets a clone of what the closure has captured; put what the calls share into an
/// `Arc`. An `Arc` of a refresher is one, too.
///
/// The state calls a refresher for one generation at a time, in a task of its own, while it holds the
/// store's lease. No caller's cancellation reaches that task. A refresher
///
/// - must not send its request through the layer it serves: it would wait for itself;
/// - should have a time limit: the state never cuts it off, because the token may be spent;
/// - should not block its thread: if the runtime has only one, waiters do not hear their deadlines;
/// - may pass its request on to another refresher, to count or to log, and then returns the other's
///   error as it came (`oauth2::RefreshTokenGrant` has an example).
///
/// If it panics, waiters get [`FailureKind::Panicked`](crate::FailureKind::Panicked). After that, as
/// after a transient failure, the state calls it with the same tokens again. So a refresher that
/// cannot read the server's answer loses the new refresh token that was in it.
///
/// ```
/// use tower_refresh::{RefreshError, RefreshState, Tokens};
///
/// #[derive(Clone)]
/// struct Client;
///
/// impl Client {
///     async fn redeem(&self, refresh_token: &str) -> Result<Tokens, std::io::Error> {
///         Ok(Tokens::new("new-access").with_refresh_token("rotated"))
///     }
/// }
///
/// let client = Client;
/// let state = RefreshState::builder(async move |spent: Tokens| {
///     let token = spent.refresh_token().unwrap_or_default();
///     client.redeem(token).await.map_err(RefreshError::transient)
/// })
/// .tokens(Tokens::new("old-access").with_refresh_token("original"))
/// .build();
/// # let _ = state;
/// ```
pub trait Refresher: Send + Sync + 'static {
    /// Redeems the tokens of the request.
    ///
    /// # Errors
    ///
    /// [`RefreshError::rejected`] only where the server refused the grant itself,
    /// [`RefreshError::client_refused`] where it refused the client;
    /// everything else is [`RefreshError::transient`].
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>>;

    /// Whether there must be tokens to redeem. `true` for the refresh-token grant; `false` for a
    /// refresher that gets its first token by itself, on first use, such as client credentials (RFC
    /// 6749, section 4.4).
    fn needs_tokens(&self) -> bool {
        true
    }

    /// What the tokens are minted for, if their use depends on it: the resource (RFC 8707) or audience
    /// that is asked for, in any form that is always the same. The record notes it, and a state whose
    /// refresher names another one does not use the record's tokens. Default: `None`, so that any
    /// tokens will do.
    fn minted_for(&self) -> Option<String> {
        None
    }
}

// A copy is called, because the future of an async closure that borrows from what it has captured
// can be named, and so be known to be `Send`, only if the closure goes into it.
impl<F, Fut> Refresher for F
where
    F: FnOnce(Tokens) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Tokens, RefreshError>> + Send + 'static,
{
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        match request.tokens {
            Some(tokens) => Box::pin(self.clone()(tokens)),
            None => {
                Box::pin(async { Err(RefreshError::rejected("there are no tokens to redeem")) })
            }
        }
    }
}

/// A refresher that several families or wrappers share.
impl<R: Refresher + ?Sized> Refresher for Arc<R> {
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        (**self).refresh(request)
    }

    fn needs_tokens(&self) -> bool {
        (**self).needs_tokens()
    }

    fn minted_for(&self) -> Option<String> {
        (**self).minted_for()
    }
}

/// A refresher that needs no tokens to begin with, from a closure without
/// arguments: the client-credentials grant, a metadata server, a signed JWT.
///
/// ```
/// use tower_refresh::{RefreshState, Tokens, refresher_fn};
///
/// let state = RefreshState::builder(refresher_fn(async || Ok(Tokens::new("minted")))).build();
/// # let _ = state;
/// ```
pub fn refresher_fn<F, Fut>(mint: F) -> RefresherFn<F>
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Tokens, RefreshError>> + Send + 'static,
{
    RefresherFn(mint)
}

/// See [`refresher_fn`].
#[derive(Clone)]
pub struct RefresherFn<F>(F);

impl<F, Fut> Refresher for RefresherFn<F>
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Tokens, RefreshError>> + Send + 'static,
{
    fn refresh(&self, _: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(self.0.clone()())
    }

    fn needs_tokens(&self) -> bool {
        false
    }
}

impl<F> fmt::Debug for RefresherFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefresherFn").finish_non_exhaustive()
    }
}

/// Why a refresher could not redeem.
///
/// Its kind decides what happens next. After *rejected* the credential is dead until the next
/// sign-in. After *client refused* the state pauses for minutes. After *transient* it tries again
/// soon. When in doubt, say transient.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::RefreshError;
///
/// /// What a refresher makes of a token endpoint's answer.
/// fn failure(status: u16, code: &str) -> RefreshError {
///     match (status, code) {
///         (400, "invalid_grant") => RefreshError::rejected("the session has ended"),
///         (401, "invalid_client") => RefreshError::client_refused("the secret is wrong"),
///         (503, _) => RefreshError::transient("busy").with_retry_after(Duration::from_secs(5)),
///         _ => RefreshError::transient("no answer that can be read"),
///     }
///     .with_code(code)
/// }
/// assert!(failure(400, "invalid_grant").is_rejected());
/// ```
pub struct RefreshError {
    pub(crate) kind: RefreshErrorKind,
    pub(crate) unspent: bool,
    pub(crate) answered: bool,
    pub(crate) code: Option<Arc<str>>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) source: SharedError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshErrorKind {
    Rejected,
    ClientRefused,
    Transient,
}

impl RefreshError {
    fn new(kind: RefreshErrorKind, unspent: bool, source: BoxError) -> Self {
        let source = Arc::new(source);
        Self { kind, unspent, answered: false, code: None, retry_after: None, source }
    }

    /// The server refused the grant for good: `invalid_grant` (RFC 6749, section 5.2). The
    /// refresh token is dead.
    ///
    /// In two cases the flight tries the same tokens once more before the credential ends: if an
    /// earlier redeem of them was left open (its process ended, or its answer was lost), and if another
    /// process, or this flight itself, has just written them to the store. For some servers with a
    /// grace period refuse a refresh token while they serve another redeem of it, and give the same
    /// pair a moment later. The flight gives the lease back for a second, reads the store again, and
    /// adopts what another process has saved meanwhile.
    pub fn rejected(source: impl Into<BoxError>) -> Self {
        Self::new(RefreshErrorKind::Rejected, true, source.into())
    }

    /// The server refused the client, or what the client asks for: `invalid_client`,
    /// `unauthorized_client`, `unsupported_grant_type`, `invalid_scope` (RFC 6749, section
    /// 5.2). That says nothing of the refresh token, so the state tries it again after a long pause
    /// ([`client_cool_down`](crate::state::RenewalBuilder::client_cool_down)).
    pub fn client_refused(source: impl Into<BoxError>) -> Self {
        Self::new(RefreshErrorKind::ClientRefused, true, source.into())
    }

    /// Anything that may pass: the network, a 5xx, a 429, an answer that could
    /// not be read.
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self::new(RefreshErrorKind::Transient, false, source.into())
    }

    /// The server's `Retry-After` (RFC 9110, section 10.2.3): the state does not try again before
    /// that. More than an hour counts as an hour.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Says that the refresh token was certainly not spent: no connection could be made, or the server
    /// itself refused (a 4xx; what a proxy says does not count). Without this the next lease holder
    /// learns that the token may be spent; if its own try is rejected, the failure says so
    /// ([`RefreshFailure::open_redeem`](crate::RefreshFailure::open_redeem)).
    #[must_use]
    pub fn unspent(mut self) -> Self {
        self.unspent = true;
        self
    }

    /// Says that the server answered with a failure that leaves open whether it has spent the refresh
    /// token: a 5xx, which may be a proxy's. The next lease holder learns that
    /// ([`OpenCause::ServerFailed`](crate::store::OpenCause::ServerFailed)); without this it learns
    /// that there was no answer.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.answered = true;
        self
    }

    /// A word for the cause that may be shown and logged: the server's error code, such as
    /// `invalid_grant`. There must be no secret in it. [`RefreshFailure::code`] has it.
    ///
    /// [`RefreshFailure::code`]: crate::RefreshFailure::code
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Arc<str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Whether the server refused the grant for good.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.kind == RefreshErrorKind::Rejected
    }

    /// Whether the server refused the client, or what it asks for.
    #[must_use]
    pub fn is_client_refused(&self) -> bool {
        self.kind == RefreshErrorKind::ClientRefused
    }

    /// Whether the refresh token was certainly not spent.
    #[must_use]
    pub fn is_unspent(&self) -> bool {
        self.unspent
    }

    /// Whether the server answered, with a failure that does not say whether the refresh token
    /// was spent.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The word for the cause, as it was given to [`with_code`](Self::with_code).
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
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
            .field("kind", &self.kind)
            .field("unspent", &self.unspent)
            .field("answered", &self.answered)
            .field("code", &self.code)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RefreshErrorKind::Rejected => "the refresh was rejected",
            RefreshErrorKind::ClientRefused => "the server refused the client",
            RefreshErrorKind::Transient => "the refresh failed and may be tried again",
        })
    }
}

impl Error for RefreshError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.source)
    }
}
