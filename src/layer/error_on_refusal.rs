//! An error instead of the server's refusal, for callers who want one ([`ErrorOnRefusalLayer`]).

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Extensions, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{body::NotReplayable, error::BoxError, state::RefreshFailure};

/// In a response's extensions: the token was refused, and the request was not helped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unhelped;

/// A layer for above a [`RefreshLayer`](crate::RefreshLayer) or a `ReqwestLayer`. If a request's token
/// was refused, and the layer below could not help, the caller gets an error, [`Refused`], instead of
/// the server's response. For callers who turn a response into an error of their own (a typed client,
/// `error_for_status`), and would lose the reason with the response's extensions.
///
/// All other responses pass as they are, also a refused replay's and that to a request which
/// [was carried out in part](super::Verdict::RefreshOnly). Errors of the service below are boxed, and
/// can be downcast to what they were.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::error::Error;
///
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Empty;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_refresh::{
///     FailureKind, RefreshError, RefreshFailure, RefreshLayer, RefreshState, Tokens,
///     body::ReplayBody, layer::ErrorOnRefusalLayer,
/// };
///
/// let refresher = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
/// let state = RefreshState::builder(refresher).tokens(Tokens::new("old")).build();
/// let client = ServiceBuilder::new()
///     .layer(ErrorOnRefusalLayer::new())
///     .layer(RefreshLayer::new(state))
///     .service(service_fn(async |_: Request<ReplayBody<Empty<Bytes>>>| {
///         let mut response = Response::new(Empty::<Bytes>::new());
///         *response.status_mut() = StatusCode::UNAUTHORIZED;
///         Ok::<_, std::convert::Infallible>(response)
///     }));
///
/// let error = client.oneshot(Request::new(Empty::new())).await.unwrap_err();
/// let reason = error.source().and_then(|source| source.downcast_ref::<RefreshFailure>());
/// assert_eq!(reason.map(RefreshFailure::kind), Some(FailureKind::Rejected));
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorOnRefusalLayer(());

impl ErrorOnRefusalLayer {
    /// The layer. There is nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ErrorOnRefusalLayer {
    type Service = ErrorOnRefusal<S>;

    fn layer(&self, inner: S) -> ErrorOnRefusal<S> {
        ErrorOnRefusal { inner }
    }
}

/// The service of an [`ErrorOnRefusalLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ErrorOnRefusal<S> {
    inner: S,
}

impl<S, R> Service<R> for ErrorOnRefusal<S>
where
    S: Service<R>,
    S::Response: Answer,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ErrorOnRefusalFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        ErrorOnRefusalFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of an [`ErrorOnRefusal`].
    #[derive(Debug)]
    pub struct ErrorOnRefusalFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, R, E> Future for ErrorOnRefusalFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: Answer,
    E: Into<BoxError>,
{
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(cx)).map_err(Into::into)?;
        Poll::Ready(match Refused::of(&response) {
            Some(refused) => Err(refused.into()),
            None => Ok(response),
        })
    }
}

/// A response of `http`, or of reqwest.
///
/// Public because bounds of public services name it, and sealed because its module is private.
pub trait Answer {
    /// The status code.
    fn status(&self) -> StatusCode;

    /// What stands beside the response.
    fn extensions(&self) -> &Extensions;
}

impl<B> Answer for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn extensions(&self) -> &Extensions {
        self.extensions()
    }
}

#[cfg(feature = "reqwest")]
impl Answer for reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn extensions(&self) -> &Extensions {
        self.extensions()
    }
}

/// The server refused a request's token, and the request was not helped. Made by an
/// [`ErrorOnRefusalLayer`], or by the middleware for reqwest where
/// it is asked for that. [`source`](Error::source) is the [`RefreshFailure`], or else the
/// [`NotReplayable`].
///
/// [`ErrorOnRefusalLayer`] has an example.
#[derive(Clone, Debug)]
pub struct Refused {
    status: StatusCode,
    failure: Option<RefreshFailure>,
    not_replayed: Option<NotReplayable>,
}

impl Refused {
    /// What this response tells of its request, if the request was not helped. For clients that turn a
    /// response into an error of their own, and have a place to say what it means, but no error that could
    /// carry another: the hook `post` of a client that progenitor has generated.
    ///
    /// ```
    /// # fn _in_a_hook<B>(response: &http::Response<B>) -> Result<(), String> {
    /// use tower_refresh::layer::Refused;
    ///
    /// if let Some(refused) = Refused::of(response) {
    ///     return Err(format!("{refused}: {:?}", refused.failure()));
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn of(response: &impl Answer) -> Option<Self> {
        let extensions = response.extensions();
        extensions.get::<Unhelped>()?;
        Some(Self {
            status: response.status(),
            failure: extensions.get().cloned(),
            not_replayed: extensions.get().copied(),
        })
    }

    /// The status of the server's response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Why there is no newer token. `None`: there is, or will be, but the request could not be
    /// sent again.
    #[must_use]
    pub fn failure(&self) -> Option<&RefreshFailure> {
        self.failure.as_ref()
    }

    /// Why the request could not have been sent again, if that was so.
    #[must_use]
    pub fn not_replayed(&self) -> Option<NotReplayable> {
        self.not_replayed
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where there is a failure the request may have had no token at all.
        f.write_str(match self.failure {
            Some(_) => "the server refused the request, and there is no newer token",
            None => "the server refused the access token, and the request could not be sent again",
        })
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match (&self.failure, &self.not_replayed) {
            (Some(failure), _) => Some(failure),
            (None, Some(reason)) => Some(reason),
            (None, None) => None,
        }
    }
}
