//! How reqwest's bodies are kept.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Body as _;
use reqwest::Body;

use crate::body::{Budget, KeepBody, Replay, ReplayBody};

/// Keeps a clone of a body whose bytes are known, and tees a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBytes;

impl KeepBody<Body> for KnownBytes {
    fn keep(
        &self,
        mut body: Body,
        cap: usize,
        budget: &Budget,
    ) -> (ReplayBody<Body>, Replay<Body>) {
        let Some(bytes) = known_bytes(&mut body) else {
            return ReplayBody::tee(body, cap, budget);
        };
        let copy = Body::from(bytes.clone());
        ReplayBody::with_copy(Body::from(bytes), |_| copy, cap, budget)
    }

    fn send(&self, body: Body) -> ReplayBody<Body> {
        ReplayBody::plain(body)
    }
}

/// Takes the bytes out of a body that consists of bytes alone, without copying them. reqwest
/// offers no way but to read the body, which never waits.
fn known_bytes(body: &mut Body) -> Option<Bytes> {
    body.as_bytes()?;
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Bytes::new();
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) {
        let Ok(data) = frame.into_data() else { continue };
        // There is one frame today; should reqwest ever give several, none is lost.
        bytes = if bytes.is_empty() { data } else { [bytes, data].concat().into() };
    }
    Some(bytes)
}
