//! [`ReqwestLayer`]: the layer, for services that take reqwest's requests.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Uri;
use pin_project_lite::pin_project;
use reqwest::{Body, Request, Response, Url};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::KnownBytes, config, origin::mark_origin, response::BorrowedResponse, template::Template,
};
use crate::{
    body::ReplayBody,
    layer::{Config, Refresh, RefreshLayer, ResponseFuture},
};

/// A [`RefreshLayer`] for services that take reqwest's own requests and give its own responses and
/// errors: [`reqwest::Client`] is one, and so is what generated clients and SDKs take. It does
/// what [`RefreshMiddleware`](crate::RefreshMiddleware) does, without `reqwest_middleware`.
///
/// A request of reqwest has no extensions of the caller's, so that
/// [`per_request`](RefreshLayer::per_request) goes by the head alone.
///
/// ```no_run
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_refresh::{RefreshLayer, RefreshState, ReqwestLayer};
///
/// # async fn example(state: std::sync::Arc<RefreshState>) -> Result<(), Box<dyn std::error::Error>> {
/// let http = reqwest::Client::new();
/// let mut client = ServiceBuilder::new()
///     .layer(ReqwestLayer::new(RefreshLayer::new(state)))
///     .service(http.clone());
///
/// let request = http.get("https://api.example.com/orders").build()?;
/// let response: reqwest::Response = client.ready().await?.call(request).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ReqwestLayer {
    config: Arc<Config>,
}

impl ReqwestLayer {
    /// A layer that does what this one does.
    #[must_use]
    pub fn new<K>(layer: RefreshLayer<K>) -> Self {
        Self { config: config(layer) }
    }
}

impl<S> Layer<S> for ReqwestLayer {
    type Service = ReqwestRefresh<S>;

    fn layer(&self, inner: S) -> ReqwestRefresh<S> {
        ReqwestRefresh { inner, config: Arc::clone(&self.config) }
    }
}

/// The service of a [`ReqwestLayer`].
#[derive(Clone)]
pub struct ReqwestRefresh<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> Service<Request> for ReqwestRefresh<S>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: From<reqwest::Error>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ReqwestRefreshFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Ok(uri) = Uri::try_from(request.url().as_str()) else {
            // It cannot be sent, which reqwest says in its own words.
            return ReqwestRefreshFuture {
                state: State::Plain { future: self.inner.call(request) },
            };
        };
        let (template, request) = Template::new(request, uri);
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let attempts = Attempts { inner, template: Arc::new(template) };
        let mut service = Refresh::new(attempts, Arc::clone(&self.config), KnownBytes);
        // The service below is ready: the one that `poll_ready` was called on is in it.
        ReqwestRefreshFuture { state: State::Refreshed { future: service.call(request) } }
    }
}

/// The service below, as one that takes what the layer sends.
struct Attempts<S> {
    inner: S,
    template: Arc<Template>,
}

impl<S: Clone> Clone for Attempts<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), template: Arc::clone(&self.template) }
    }
}

impl<S> Service<http::Request<ReplayBody<Body>>> for Attempts<S>
where
    S: Service<Request, Response = Response>,
    S::Error: From<reqwest::Error>,
{
    type Response = http::Response<BorrowedResponse>;
    type Error = S::Error;
    type Future = AttemptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<ReplayBody<Body>>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.template.request(parts, body) {
            Ok(request) => {
                let sent_to = request.url().clone();
                AttemptFuture::Sent { future: self.inner.call(request), sent_to }
            }
            Err(error) => AttemptFuture::Failed { error: Some(error) },
        }
    }
}

pin_project! {
    /// An attempt that is under way.
    #[project = AttemptProjection]
    enum AttemptFuture<F> {
        Sent { #[pin] future: F, sent_to: Url },
        // The closure that attaches the token has made a URL of it that is none.
        Failed { error: Option<reqwest::Error> },
    }
}

impl<F, E> Future for AttemptFuture<F>
where
    F: Future<Output = Result<Response, E>>,
    E: From<reqwest::Error>,
{
    type Output = Result<http::Response<BorrowedResponse>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AttemptProjection::Sent { future, sent_to } => {
                let mut response = ready!(future.poll(cx))?;
                mark_origin(&mut response, sent_to);
                Poll::Ready(Ok(BorrowedResponse::lend(response)))
            }
            AttemptProjection::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error.into())),
                None => panic!("polled after its end"),
            },
        }
    }
}

pin_project! {
    /// The response of a [`ReqwestRefresh`]. Dropping it cancels the attempt under way; a refresh
    /// that it waits for goes on.
    ///
    /// # Panics
    ///
    /// If it is polled after its end.
    pub struct ReqwestRefreshFuture<S>
    where
        S: Service<Request, Response = Response>,
        S::Error: From<reqwest::Error>,
    {
        #[pin]
        state: State<S>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S>
    where
        S: Service<Request, Response = Response>,
        S::Error: From<reqwest::Error>,
    {
        Plain { #[pin] future: S::Future },
        Refreshed { #[pin] future: ResponseFuture<Attempts<S>, Body, BorrowedResponse> },
    }
}

impl<S> Future for ReqwestRefreshFuture<S>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: From<reqwest::Error>,
{
    type Output = Result<Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Plain { future } => future.poll(cx),
            StateProjection::Refreshed { future } => {
                Poll::Ready(Ok(BorrowedResponse::give_back(ready!(future.poll(cx))?)))
            }
        }
    }
}

impl fmt::Debug for ReqwestLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestLayer").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for ReqwestRefresh<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestRefresh").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for ReqwestRefreshFuture<S>
where
    S: Service<Request, Response = Response>,
    S::Error: From<reqwest::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestRefreshFuture").finish_non_exhaustive()
    }
}
