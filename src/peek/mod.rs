//! What a layer does that looks at the beginning of a response's body before it gives the head on:
//! every frame that it takes for that is given back, in its order and as it was.
//!
//! [`Peeking`] and [`PeekFuture`] are the machine, [`Peek`] and [`Look`] are what a layer says to it:
//! [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer), and the feature `in-body`.

mod body;
mod future;
mod service;

use std::time::Duration;

use bytes::Buf;
use http::Response;
use http_body::Frame;

pub(crate) use self::body::Upload;
pub use self::{
    body::{Peeked, Watched},
    future::PeekFuture,
    service::Peeking,
};

/// How long a head is held at most if the user says nothing.
pub(crate) const HOLD: Duration = Duration::from_millis(50);

/// Which responses a layer looks into.
///
/// Public because bounds of public services name it, and sealed because its module is private.
pub trait Peek {
    /// How it looks.
    type Look: Look;

    /// Judges by the head alone. `None`: the response passes.
    fn begin<B>(&self, head: &Response<B>) -> Option<Self::Look>;
}

/// One look into the body of one response.
pub trait Look {
    /// A frame has come. They come in order, and none is left out.
    fn frame<D: Buf>(&mut self, frame: &Frame<D>) -> Next;

    /// Nothing more is seen: nothing more is needed, it takes too long, or there is no more. Says in
    /// the head what has been found.
    fn conclude<B>(self, response: &mut Response<B>);

    /// How long the head may be held.
    fn hold(&self) -> Duration;
}

/// What is needed to find out more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next frame, which is worth waiting for.
    Wait,
    /// The next frame if it is there already.
    #[cfg_attr(not(feature = "in-body"), allow(dead_code, reason = "gRPC has one frame"))]
    Glance,
    /// Nothing.
    Enough,
}
