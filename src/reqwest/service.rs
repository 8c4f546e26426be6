//! [`ReqwestLayer`]: the layer, for services that take reqwest's requests.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Extensions;
use pin_project_lite::pin_project;
use reqwest::{Body, Request, Response, Url};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::KnownBytes,
    looks::Looks,
    origin::{SameOriginOnly, mark_origin},
    response::{BorrowedResponse, LentResponse},
    template,
};
#[cfg(feature = "in-body")]
use crate::in_body::InBodyLayer;
use crate::{
    body::ReplayBody,
    grpc::GrpcStatusLayer,
    layer::{Attach, Config, Refresh, RefreshLayer, ResponseFuture},
    peek::PeekFuture,
};

/// A [`RefreshLayer`] for services that take reqwest's own requests and give its own responses and
/// errors: [`reqwest::Client`] is one, and so is what generated clients and SDKs take. It does
/// what `RefreshMiddleware` does, without `reqwest_middleware`.
///
/// If a refused request could not be helped, the reason is in the response's extensions, or is an
/// error with an [`ErrorOnRefusalLayer`](crate::layer::ErrorOnRefusalLayer) above. A request of reqwest
/// has no extensions, so [`per_request`](RefreshLayer::per_request) has only its head to go by.
///
/// reqwest follows redirects below this layer, and takes the token away when the host changes. If a
/// redirect leads to another host and back, and ends in a 401, that counts as a refusal of the token:
/// reqwest does not show such redirects. This layer does not see either when a layer above follows a
/// redirect, so name the origins that may have the token
/// ([`allow_origin`](RefreshLayer::allow_origin)).
///
/// The feature `reqwest` stands for reqwest 0.13, for as long as it exists: a later version gets a
/// feature of its own.
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
    pub(super) config: Arc<Config>,
    /// `None`: no layer looks into responses.
    pub(super) looks: Option<Arc<Looks>>,
}

impl ReqwestLayer {
    /// A layer that does what this one does.
    #[must_use]
    pub fn new<K>(layer: RefreshLayer<K>) -> Self {
        let mut config = layer.into_config();
        // reqwest follows redirects by itself.
        config.classify = Some(Arc::new(SameOriginOnly(config.classify.take())));
        Self { config: Arc::new(config), looks: None }
    }

    /// Looks at the first frame of gRPC's responses for a status, as this layer does below a
    /// [`RefreshLayer`]. A status that comes after a message is the caller's: the server had begun
    /// to answer.
    ///
    /// Nothing of a response is lost that its caller sees: it is put together again around its body.
    #[must_use]
    pub fn grpc_status(mut self, layer: GrpcStatusLayer) -> Self {
        Arc::make_mut(self.looks.get_or_insert_default()).grpc_status = Some(layer);
        self
    }

    /// Looks at the beginning of responses' bodies for a refusal, as this layer does below a
    /// [`RefreshLayer`]. reqwest has decompressed them if it was built for that.
    ///
    /// Nothing of a response is lost that its caller sees: it is put together again around its body.
    #[cfg(feature = "in-body")]
    #[must_use]
    pub fn in_body(mut self, layer: InBodyLayer) -> Self {
        Arc::make_mut(self.looks.get_or_insert_default()).in_body = Some(layer);
        self
    }
}

impl<S> Layer<S> for ReqwestLayer {
    type Service = ReqwestRefresh<S>;

    fn layer(&self, inner: S) -> ReqwestRefresh<S> {
        ReqwestRefresh { inner, layer: self.clone() }
    }
}

/// The service of a [`ReqwestLayer`].
#[derive(Clone)]
pub struct ReqwestRefresh<S> {
    inner: S,
    layer: ReqwestLayer,
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

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(seen) = template::take_apart(&mut request, Extensions::new()) else {
            // It cannot be sent, which reqwest says in its own words.
            return ReqwestRefreshFuture {
                state: State::Plain { future: self.inner.call(request) },
            };
        };
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let ReqwestLayer { config, looks } = &self.layer;
        let has_closure = matches!(config.attach, Attach::With(_));
        let original = Original { template: request, has_closure, looks: looks.clone() };
        // The service that `poll_ready` was called on is in it.
        let attempts = Attempts { inner, original: Arc::new(original) };
        let future = Refresh::once(attempts, config, &KnownBytes, seen);
        ReqwestRefreshFuture { state: State::Refreshed { future } }
    }
}

/// The service below, as one that takes what the layer sends.
struct Attempts<S> {
    inner: S,
    original: Arc<Original>,
}

/// What all attempts of a request have in common.
struct Original {
    template: Request,
    /// Whether a closure attaches the token, which may change an attempt's URI.
    has_closure: bool,
    looks: Option<Arc<Looks>>,
}

impl<S: Clone> Clone for Attempts<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), original: Arc::clone(&self.original) }
    }
}

impl<S> Service<http::Request<ReplayBody<Body>>> for Attempts<S>
where
    S: Service<Request, Response = Response>,
    S::Error: From<reqwest::Error>,
{
    type Response = LentResponse;
    type Error = S::Error;
    type Future = AttemptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<ReplayBody<Body>>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let Original { template, has_closure, looks } = &*self.original;
        let attempt = template::attempt(template, parts, body, *has_closure, looks.is_some());
        let (request, upload) = match attempt {
            Ok(sent) => sent,
            Err(error) => return AttemptFuture::Failed { error: Some(error) },
        };
        let moved_to = has_closure.then(|| Box::new(request.url().clone()));
        let future = self.inner.call(request);
        let sent = SentFuture { future, original: Arc::clone(&self.original), moved_to };
        match looks {
            None => AttemptFuture::Sent { sent },
            Some(looks) => {
                let peek = PeekFuture::new(sent, upload, Arc::clone(looks));
                AttemptFuture::LookedInto { peek: Box::pin(peek) }
            }
        }
    }
}

pin_project! {
    /// An attempt that is under way.
    #[project = AttemptProjection]
    enum AttemptFuture<F> {
        Sent { #[pin] sent: SentFuture<F> },
        // Boxed because few layers look into responses.
        LookedInto { peek: Pin<Box<PeekFuture<SentFuture<F>, BorrowedResponse, Arc<Looks>>>> },
        // The closure that attaches the token has made a URL of it that is none.
        Failed { error: Option<reqwest::Error> },
    }
}

impl<F, E> Future for AttemptFuture<F>
where
    F: Future<Output = Result<Response, E>>,
    E: From<reqwest::Error>,
{
    type Output = Result<LentResponse, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AttemptProjection::Sent { sent } => sent.poll(cx),
            AttemptProjection::LookedInto { peek } => {
                peek.as_mut().poll(cx).map_ok(BorrowedResponse::looked_into)
            }
            AttemptProjection::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error.into())),
                None => panic!("polled after its end"),
            },
        }
    }
}

pin_project! {
    /// Lends the response to an attempt.
    struct SentFuture<F> {
        #[pin]
        future: F,
        original: Arc<Original>,
        moved_to: Option<Box<Url>>,
    }
}

impl<F, E> Future for SentFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<LentResponse, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let sent_to = this.moved_to.as_deref().unwrap_or(this.original.template.url());
        mark_origin(&mut response, sent_to);
        Poll::Ready(Ok(BorrowedResponse::lend(response)))
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
