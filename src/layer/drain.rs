//! [`Drain`]: reads a refused response to its end, so that its HTTP/1 connection can be used
//! for the replay.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use tokio::time::{Sleep, sleep};

/// Stop draining after so many bytes: a new connection is cheaper.
const MAX_BYTES: usize = 64 << 10;

/// Stop draining when the body makes the request wait so long: a new connection is cheaper.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// A body that is read and thrown away, within bounds.
pub(super) struct Drain<B> {
    body: Pin<Box<B>>,
    /// How many bytes may still be read.
    left: usize,
    /// Runs from the first moment at which the body had nothing to give.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Drain<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body: Box::pin(body), left: MAX_BYTES, timer: None }
    }

    /// Ready when the body is at its end, or a bound is reached.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_end_stream() {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Buf::remaining);
                    match self.left.checked_sub(length.max(1)) {
                        Some(left) => self.left = left,
                        None => return Poll::Ready(()),
                    }
                }
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(MAX_WAIT)));
                    return timer.as_mut().poll(cx);
                }
            }
        }
        Poll::Ready(())
    }
}
