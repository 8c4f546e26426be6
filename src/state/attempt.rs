//! A call with the credential's token, and once more with a newer one if that is refused
//! ([`RefreshState::attempt`]).

use std::{error::Error, fmt, future::Future, sync::Arc};

use super::RefreshState;
use crate::{credential::Credential, state::failure::RefreshFailure};

/// There was no token for an [attempt](RefreshState::attempt), or no newer one after it was refused.
/// [`source`](Error::source) is the [`RefreshFailure`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{FailureKind, RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |spent: Tokens| Ok(spent)).build(); // signed out
/// let error = state.attempt(async |_| "connected", |_| false).await.unwrap_err();
/// assert_eq!(error.failure().kind(), FailureKind::SignedOut);
/// assert!(error.outcome().is_none()); // nothing was called
/// # });
/// ```
#[derive(Clone)]
pub struct AttemptError<T> {
    failure: RefreshFailure,
    outcome: Option<T>,
}

impl RefreshState {
    /// Calls with the token to use now; if the outcome says that the token was refused, has it
    /// refreshed, as all who are refused at the same time do, and calls once more with the new
    /// one. What a [`RefreshLayer`](crate::RefreshLayer) does for HTTP, for protocols that no layer
    /// serves: the password of a database, the token of a WebSocket or of a message broker.
    ///
    /// The outcome of the second call is the caller's, whatever it is.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::io;
    ///
    /// use tower_refresh::{Credential, RefreshState, Tokens};
    ///
    /// async fn connect(credential: Credential) -> io::Result<&'static str> {
    ///     match credential.access_token() {
    ///         Some("new") => Ok("connected"),
    ///         _ => Err(io::ErrorKind::PermissionDenied.into()),
    ///     }
    /// }
    ///
    /// let state = RefreshState::builder(async |_: Tokens| Ok(Tokens::new("new")))
    ///     .tokens(Tokens::new("old"))
    ///     .build();
    /// let is_refused = |outcome: &io::Result<_>| {
    ///     outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    /// };
    /// assert_eq!(state.attempt(connect, is_refused).await??, "connected");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// Cancel safe as far as the calls are: a refresh goes on.
    ///
    /// # Errors
    ///
    /// If there is no token, and nothing was called; or if the first call was refused and there is no
    /// newer token: the [error](AttemptError) has the call's outcome then.
    pub async fn attempt<T, F>(
        self: &Arc<Self>,
        mut call: impl FnMut(Credential) -> F,
        is_refused: impl Fn(&T) -> bool,
    ) -> Result<T, AttemptError<T>>
    where
        F: Future<Output = T>,
    {
        let nothing = |failure| AttemptError { failure, outcome: None };
        let first = self.token().await.map_err(nothing)?;
        let generation = first.generation();
        let outcome = call(first).await;
        if !is_refused(&outcome) {
            self.accepted(generation);
            return Ok(outcome);
        }
        let second = match self.challenged(generation).await {
            Ok(second) => second,
            Err(failure) => return Err(AttemptError { failure, outcome: Some(outcome) }),
        };
        // It may be a connection.
        drop(outcome);
        let generation = second.generation();
        self.replayed();
        let outcome = call(second).await;
        match is_refused(&outcome) {
            true => self.refused_again(generation, None),
            false => self.accepted(generation),
        }
        Ok(outcome)
    }
}

impl<T> AttemptError<T> {
    /// Why there is no token, or no newer one.
    #[must_use]
    pub fn failure(&self) -> &RefreshFailure {
        &self.failure
    }

    /// What came of the call that was refused. `None`: nothing was called.
    #[must_use]
    pub fn outcome(&self) -> Option<&T> {
        self.outcome.as_ref()
    }

    /// The same, whole.
    #[must_use]
    pub fn into_outcome(self) -> Option<T> {
        self.outcome
    }
}

impl<T> From<AttemptError<T>> for RefreshFailure {
    fn from(error: AttemptError<T>) -> Self {
        error.failure
    }
}

// By hand, because the outcome may hold a secret.
impl<T> fmt::Debug for AttemptError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptError").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for AttemptError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.outcome {
            Some(_) => "the access token was refused, and it could not be refreshed",
            None => "there is no access token",
        })
    }
}

impl<T> Error for AttemptError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.failure)
    }
}
