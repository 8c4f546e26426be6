//! [`Source`]: the request's own body, polled by the rules.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

use super::error::BodyError;

pub(super) type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The request's own body. It is not polled again after its end, an error or a panic.
pub(super) enum Source<B> {
    Live {
        body: B,
        /// `false` while the body is polled, and therefore for ever if it panics then.
        intact: bool,
    },
    /// A replay has taken the body over. The reader is yet to get the error that says so.
    Superseded,
    /// The reader has got an error.
    Failed,
    /// The body has ended.
    Over,
}

impl<B> Source<B> {
    pub(super) fn new(body: B) -> Self {
        Self::Live { body, intact: true }
    }

    /// Whether the body has panicked while it was polled.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Live { intact: false, .. })
    }

    /// Ends in an error, which the reader gets once.
    fn fail(&mut self, error: BodyError) -> PolledFrame {
        *self = Self::Failed;
        Poll::Ready(Some(Err(error)))
    }
}

impl<B> Source<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let (body, intact) = match self {
            Self::Live { body, intact } => (body, intact),
            Self::Superseded => return self.fail(BodyError::superseded()),
            Self::Failed | Self::Over => return Poll::Ready(None),
        };
        if !mem::replace(intact, false) {
            return self.fail(BodyError::source_failed(
                "the request body panicked when it was last polled",
            ));
        }
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Copies nothing where the data are `Bytes` already.
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                *intact = true;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(BodyError::source_failed(error)),
            Poll::Ready(None) => {
                *self = Self::Over;
                Poll::Ready(None)
            }
            Poll::Pending => {
                *intact = true;
                Poll::Pending
            }
        }
    }
}

impl<B: Body> Source<B> {
    /// `true` only if it is certain: a client that is told so reads no further, and would lose
    /// what is still to come.
    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Live { body, intact } => *intact && body.is_end_stream(),
            Self::Superseded | Self::Failed => false,
            Self::Over => true,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Live { body, intact: true } => body.size_hint(),
            Self::Live { .. } | Self::Superseded | Self::Failed => SizeHint::default(),
            Self::Over => SizeHint::with_exact(0),
        }
    }
}
