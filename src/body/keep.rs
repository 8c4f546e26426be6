//! How a layer keeps bodies: by teeing them, or by cloning them.

use bytes::Buf;
use http_body::Body;

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
