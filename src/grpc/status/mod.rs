//! [`GrpcStatusLayer`] and its service: for servers that refuse a call after the head.

mod future;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

pub use self::future::GrpcStatusFuture;
#[cfg(feature = "reqwest")]
pub(crate) use self::future::StatusLook;
use crate::peek::{HOLD, Peeked, Watched};

/// A tower layer that copies a status which comes right after a response's head into the head.
///
/// A server that refuses a call may answer with a status alone ("Trailers-Only"), and
/// [`RefreshLayer`](crate::RefreshLayer) sees that. Another server answers with a head, no
/// message, and the status in trailers; the layers above see a call that was accepted. This
/// layer, put below `RefreshLayer`, looks at the first frame of a response's body. If that is
/// trailers with a `grpc-status`, the layer copies them into the head, as if the response had
/// been a status alone, so that the token is refreshed and the call replayed. The trailers
/// still come in the body, too. Any other frame, or an error, comes in the body as ever.
///
/// Only responses with HTTP status 200, a content type `application/grpc` in whatever
/// encoding, and no `grpc-status` in the head are looked at.
///
/// # What waits
///
/// While the request's body is being sent a head passes at once, and its first frame is seen
/// only if it is there already: a server that streams may wait for its client. After the
/// request's end a head is held until the first frame, but no longer than
/// [`hold`](Self::hold). A message is never held.
///
/// # Bodies
///
/// The request's body becomes [`Watched`], the response's [`Peeked`]. The response's body has
/// to be `Unpin`, as those of hyper and tonic are. A client with a fixed body type takes one
/// line between:
///
#[cfg_attr(not(doctest), doc = include_str!("tonic.md"))]
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct GrpcStatusLayer {
    hold: Duration,
}

/// A service whose responses show in their heads a status that comes right after. Made by
/// [`GrpcStatusLayer`].
#[derive(Clone, Debug)]
pub struct GrpcStatus<S> {
    inner: S,
    layer: GrpcStatusLayer,
}

impl GrpcStatusLayer {
    /// A layer that holds a head for 50 ms at most.
    pub const fn new() -> Self {
        Self { hold: HOLD }
    }

    /// Holds the head of a response for so long at most, until its first frame comes. With
    /// zero nothing is held, and a first frame is seen only if it is there with the head.
    /// Default: 50 ms.
    ///
    /// # Panics
    ///
    /// The service's futures panic if they have to hold a head, for longer than zero, outside
    /// of a tokio runtime with its time driver enabled.
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
        GrpcStatus { inner, layer: *self }
    }
}

impl<S> GrpcStatus<S> {
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
        let (body, upload) = Watched::new(body);
        let future = self.inner.call(Request::from_parts(parts, body));
        GrpcStatusFuture::new(future, upload, self.layer)
    }
}
