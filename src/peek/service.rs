//! [`Peeking`]: the service of a layer that looks into responses.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{Peek, PeekFuture, Peeked, Watched};

/// A service whose responses are looked into: that of a
/// [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer) or of an `InBodyLayer` (feature `in-body`).
#[derive(Clone, Debug)]
pub struct Peeking<S, P> {
    inner: S,
    layer: P,
}

impl<S, P> Peeking<S, P> {
    pub(crate) fn new(inner: S, layer: P) -> Self {
        Self { inner, layer }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, P, B, ResBody> Service<Request<B>> for Peeking<S, P>
where
    S: Service<Request<Watched<B>>, Response = Response<ResBody>>,
    P: Peek + Clone,
    B: Body,
    ResBody: Body + Unpin,
{
    type Response = Response<Peeked<ResBody>>;
    type Error = S::Error;
    type Future = PeekFuture<S::Future, ResBody, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let (body, upload) = Watched::new(body);
        let future = self.inner.call(Request::from_parts(parts, body));
        PeekFuture::new(future, upload, self.layer.clone())
    }
}
