//! Reading a response to its end, so that its HTTP/1 connection can be used again.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use tokio::time::{Sleep, sleep};

/// A longer body is not worth it: a new connection is cheaper.
const MOST_BYTES: usize = 64 << 10;

/// Nor is one that does not come.
const MOST_TIME: Duration = Duration::from_millis(100);

/// Reads a body to its end and throws it away, within bounds.
pub(crate) struct Drain<B> {
    body: Pin<Box<B>>,
    left: usize,
    clock: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Drain<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body: Box::pin(body), left: MOST_BYTES, clock: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
                    let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(MOST_TIME)));
                    return clock.as_mut().poll(cx);
                }
            }
        }
        Poll::Ready(())
    }
}
