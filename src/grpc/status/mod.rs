//! [`GrpcStatusLayer`] and its service.

mod body;
mod future;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

pub use self::{
    body::{Peeked, Watched},
    future::GrpcStatusFuture,
};

/// Makes a status that comes right after the head a part of the head.
///
/// A server that refuses a call may answer with nothing but a status ("Trailers-Only"), and
/// [`RefreshLayer`](crate::RefreshLayer) sees that. Other servers answer with a head, no
/// message, and the status in trailers; what is layered above sees a call that was
/// accepted. This layer, put inside of `RefreshLayer`, looks at the first frame of a
/// response's body. If that is trailers with a `grpc-status`, they are copied into the head,
/// as if the response had been a status alone, so that it can be refreshed and replayed.
/// They still come in the body, too. Any other frame, or error, is put back in front.
///
/// Only responses with HTTP status 200, a content type `application/grpc`, in whatever
/// encoding, and no `grpc-status` in the head are looked at.
///
/// # What waits
///
/// As long as the request's body is being sent a head passes at once, and a first frame is
/// seen only if it is there already: a server of a stream may well wait for its client.
/// After the request's end a head is held until the first frame, but no longer than
/// [`hold`](Self::hold). So it is only the head of an answer whose first message comes later
/// that is ever held; no message is.
///
/// # Bodies
///
/// The request's body becomes [`Watched`], the response's [`Peeked`]; the latter has to be
/// `Unpin`, as those of hyper and tonic are. A client with a fixed body type takes one line
/// between:
///
#[cfg_attr(not(doctest), doc = include_str!("tonic.md"))]
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct GrpcStatusLayer {
    hold: Duration,
}

/// A service whose responses show a status that comes right after their heads. Made by
/// [`GrpcStatusLayer`].
#[derive(Clone, Debug)]
pub struct GrpcStatus<S> {
    inner: S,
    hold: Duration,
}

impl GrpcStatusLayer {
    /// Holds a head for 50 ms at most.
    pub const fn new() -> Self {
        Self { hold: Duration::from_millis(50) }
    }

    /// How long the head of a response is held at most until its first frame comes.
    /// Default: 50 ms. With zero nothing is held, and a first frame is seen only if it is
    /// there with the head. Anything longer needs a tokio runtime with its time driver
    /// enabled, and panics without one.
    pub const fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

impl Default for GrpcStatusLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for GrpcStatusLayer {
    type Service = GrpcStatus<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcStatus { inner, hold: self.hold }
    }
}

impl<S, B, ResBody> Service<Request<B>> for GrpcStatus<S>
where
    S: Service<Request<Watched<B>>, Response = Response<ResBody>>,
    B: Body,
    ResBody: Body + Unpin,
{
    type Response = Response<Peeked<ResBody>>;
    type Error = S::Error;
    type Future = GrpcStatusFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let (body, sent) = Watched::new(body);
        let future = self.inner.call(Request::from_parts(parts, body));
        GrpcStatusFuture::new(future, sent, self.hold)
    }
}
