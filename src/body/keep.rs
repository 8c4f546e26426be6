//! How a layer keeps bodies: by teeing them, or by cloning them.

use bytes::Buf;
use http_body::Body;

#[cfg(feature = "reqwest-middleware")]
use {
    bytes::Bytes,
    std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    },
};

use super::{Budget, Replay, ReplayBody};
use crate::error::BoxError;

/// How a [`RefreshLayer`](crate::RefreshLayer) keeps bodies of type `B`. Implemented
/// by [`Tee`] for all and by [`CloneBody`] for those that are `Clone`.
pub trait KeepBody<B>: sealed::Sealed {
    /// The body to send, and the handle to replay it.
    #[doc(hidden)]
    fn keep(body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>);
}

/// Keeps what a body yields while it is sent: [`ReplayBody::tee`].
#[derive(Clone, Copy, Debug)]
pub struct Tee;

/// Keeps a clone of the body: [`ReplayBody::cloned`].
#[derive(Clone, Copy, Debug)]
pub struct CloneBody;

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Tee {}
    impl Sealed for super::CloneBody {}
    #[cfg(feature = "reqwest-middleware")]
    impl Sealed for super::KnownBytes {}
}

impl<B> KeepBody<B> for Tee
where
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    fn keep(body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>) {
        ReplayBody::tee(body, cap, budget)
    }
}

impl<B> KeepBody<B> for CloneBody
where
    B: Body + Unpin + Clone,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    fn keep(body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>) {
        ReplayBody::cloned(body, B::clone, cap, budget)
    }
}

/// For reqwest's bodies: keeps a clone of bytes that are known, and tees a stream.
#[cfg(feature = "reqwest-middleware")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownBytes;

#[cfg(feature = "reqwest-middleware")]
impl KeepBody<reqwest::Body> for KnownBytes {
    fn keep(
        mut body: reqwest::Body,
        cap: usize,
        budget: &Budget,
    ) -> (ReplayBody<reqwest::Body>, Replay<reqwest::Body>) {
        let Some(bytes) = known_bytes(&mut body) else {
            return ReplayBody::tee(body, cap, budget);
        };
        let copy = reqwest::Body::from(bytes.clone());
        ReplayBody::with_copy(reqwest::Body::from(bytes), |_| copy, cap, budget)
    }
}

/// Takes the bytes out of a body that is nothing else, without copying them: the only way
/// that reqwest offers is to read it, which takes no waiting.
#[cfg(feature = "reqwest-middleware")]
fn known_bytes(body: &mut reqwest::Body) -> Option<Bytes> {
    body.as_bytes()?;
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Bytes::new();
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) {
        let Ok(data) = frame.into_data() else { continue };
        // There is one frame; should there ever be more, none is lost.
        bytes = if bytes.is_empty() { data } else { [bytes, data].concat().into() };
    }
    Some(bytes)
}
