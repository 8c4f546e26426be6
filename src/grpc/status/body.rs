//! The bodies of [`GrpcStatusLayer`](super::GrpcStatusLayer)'s requests and responses.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A request's body as it is. [`GrpcStatusLayer`](super::GrpcStatusLayer) learns when the
    /// body has ended or was dropped.
    pub struct Watched<B> {
        #[pin]
        body: B,
        end: End,
    }
}

/// The body's side: says that the body has ended, at the latest when it is dropped.
struct End(Arc<AtomicBool>);

/// The response's side: knows whether the request's body has ended.
pub(super) struct Upload(Arc<AtomicBool>);

/// A response's body as it is. [`GrpcStatusLayer`](super::GrpcStatusLayer) may have looked at
/// the first frame, which the reader gets all the same.
pub struct Peeked<B: Body> {
    /// What the body has given already, and the reader has not got: a frame, an error, or the
    /// end.
    first: Option<First<B>>,
    body: B,
}

type First<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

impl<B: Body> Watched<B> {
    pub(super) fn new(body: B) -> (Self, Upload) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, end: End(Arc::clone(&ended)) }, Upload(ended))
    }
}

impl End {
    fn say(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.say();
    }
}

impl Upload {
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.body.as_mut().poll_frame(cx));
        if !matches!(polled, Some(Ok(_))) || this.body.is_end_stream() {
            this.end.say();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> Peeked<B> {
    pub(super) fn new(body: B) -> Self {
        Self { first: None, body }
    }
}

impl<B: Body + Unpin> Peeked<B> {
    /// Looks at the first frame and leaves it for the reader. `None`: the body gives an error or
    /// its end instead.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<&Frame<B::Data>>> {
        if self.first.is_none() {
            self.first = Some(ready!(Pin::new(&mut self.body).poll_frame(cx)));
        }
        let frame = self.first.as_ref().and_then(|first| first.as_ref()?.as_ref().ok());
        Poll::Ready(frame)
    }
}

impl<B: Body + Unpin> Body for Peeked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.first.take() {
            Some(None) => {
                // Stays, so that the body is not polled again after its end.
                self.first = Some(None);
                Poll::Ready(None)
            }
            Some(first) => Poll::Ready(first),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.first {
            Some(first) => first.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let first = match &self.first {
            Some(None) => return SizeHint::with_exact(0),
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Buf::remaining) as u64,
            _ => 0,
        };
        let mut hint = SizeHint::new();
        // A body may claim any size, so the sum may overflow: then there is no upper bound,
        // which is better than a wrong one.
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(first)) {
            hint.set_upper(upper);
        }
        hint
    }
}

// The first frame is never pinned.
impl<B: Body + Unpin> Unpin for Peeked<B> {}

// By hand, because a body's bytes may be secret.
impl<B> fmt::Debug for Watched<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl<B: Body> fmt::Debug for Peeked<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeked").finish_non_exhaustive()
    }
}
