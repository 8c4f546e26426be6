//! [`GrpcStatusLayer`] and its service: for servers that refuse a call after the head.

mod look;

use std::time::Duration;

use tower_layer::Layer;

#[cfg(feature = "reqwest")]
pub(crate) use self::look::StatusLook;
use crate::peek::{HOLD, PeekFuture, Peeking};

/// A tower layer that copies a status which comes right after a response's head into the head.
///
/// A server that refuses a call may answer with a status alone ("Trailers-Only"), and
/// [`RefreshLayer`](crate::RefreshLayer) sees that. Another server answers with a head, no
/// message, and the status in trailers; the layers above see a call that was accepted. This
/// layer, put below `RefreshLayer`, looks at the first frame of a response's body. If that is
/// trailers with a `grpc-status`, the layer copies them into the head, as if the response had
/// been a status alone, so that the token is refreshed and the call replayed. The trailers
/// still come in the body, too. Any other frame, or an error, comes in the body as without the layer.
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
/// The request's body becomes [`Watched`](super::Watched), the response's
/// [`Peeked`](super::Peeked). The response's body has to be `Unpin`, as those of hyper and tonic are. A client with a fixed body type takes one
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
pub type GrpcStatus<S> = Peeking<S, GrpcStatusLayer>;

/// The response of a [`GrpcStatus`].
pub type GrpcStatusFuture<F, ResBody> = PeekFuture<F, ResBody, GrpcStatusLayer>;

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
        Peeking::new(inner, *self)
    }
}
