//! The bodies of requests and responses whose beginning is looked at.

use std::{
    collections::VecDeque,
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
    /// A request's body, wrapped by a [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer) or an
    /// `InBodyLayer` (feature `in-body`), which learns by that when the body has ended or was dropped.
    pub struct Watched<B> {
        #[pin]
        body: B,
        end: End,
    }
}

/// The body's side: says that the body has ended, at the latest when it is dropped.
struct End(Arc<AtomicBool>);

/// The response's side: knows whether the request's body has ended. `None`: it waits for nothing
/// that its response says.
pub(crate) struct Upload(Option<Arc<AtomicBool>>);

/// A response's body, wrapped by a [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer) or an `InBodyLayer`
/// (feature `in-body`). The layer may have looked at its first frames; the reader gets them all the
/// same.
pub struct Peeked<B: Body> {
    /// What the body has given already, and the reader has not got.
    frames: VecDeque<Frame<B::Data>>,
    /// What came after them instead of another frame.
    last: Option<Last<B::Error>>,
    body: B,
}

enum Last<E> {
    Failed(E),
    /// Stays, so that the body is not polled again after its end.
    Ended,
}

impl<B: Body> Watched<B> {
    pub(crate) fn new(body: B) -> (Self, Upload) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, end: End(Arc::clone(&ended)) }, Upload(Some(ended)))
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
    /// Of a request whose body waits for nothing that its response says.
    #[cfg(feature = "reqwest")]
    pub(crate) fn over() -> Self {
        Self(None)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|ended| ended.load(Relaxed))
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
        Self { frames: VecDeque::new(), last: None, body }
    }

    /// The body itself, of which something may have been taken.
    #[cfg(feature = "reqwest")]
    pub(crate) fn get_ref(&self) -> &B {
        &self.body
    }

    /// The body itself, if nothing of it was taken.
    #[cfg(feature = "reqwest")]
    pub(crate) fn untouched(self) -> Result<B, Self> {
        if self.frames.is_empty() && self.last.is_none() { Ok(self.body) } else { Err(self) }
    }
}

impl<B: Body + Unpin> Peeked<B> {
    /// Looks at one frame more, and leaves it for the reader. `None`: the body gives an error or
    /// its end instead.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<&Frame<B::Data>>> {
        if self.last.is_some() {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.frames.push_back(frame);
                return Poll::Ready(self.frames.back());
            }
            Some(Err(error)) => self.last = Some(Last::Failed(error)),
            None => self.last = Some(Last::Ended),
        }
        Poll::Ready(None)
    }

    /// Whether the frames that were looked at are all there are.
    pub(super) fn has_ended(&self) -> bool {
        match &self.last {
            Some(last) => matches!(last, Last::Ended),
            None => self.body.is_end_stream(),
        }
    }
}

impl<B: Body + Unpin> Body for Peeked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.last.take() {
            Some(Last::Failed(error)) => Poll::Ready(Some(Err(error))),
            Some(Last::Ended) => {
                self.last = Some(Last::Ended);
                Poll::Ready(None)
            }
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let length = |frame: &Frame<B::Data>| frame.data_ref().map_or(0, Buf::remaining) as u64;
        let held = self.frames.iter().map(length).fold(0, u64::saturating_add);
        if matches!(self.last, Some(Last::Ended)) {
            return SizeHint::with_exact(held);
        }
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        // A body may claim any size, so the sum may overflow: then there is no upper bound,
        // which is better than a wrong one.
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(held)) {
            hint.set_upper(upper);
        }
        hint
    }
}

// Frames that were looked at are never pinned.
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
