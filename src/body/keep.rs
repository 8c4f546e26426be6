//! How a layer keeps bodies: by teeing them, or by cloning them.

use std::fmt;

use bytes::Buf;
use http_body::Body;

use super::{Budget, Replay, ReplayBody};
use crate::error::BoxError;

/// How a [`RefreshLayer`](crate::RefreshLayer) keeps bodies of type `B`.
///
/// Public because bounds of public services name it, and sealed because its module is
/// private: only this crate can name it, and so implement it.
pub trait KeepBody<B> {
    /// The body to send, and the handle to replay it.
    fn keep(&self, body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>);

    /// The body to send of a request that will not be replayed.
    fn send(&self, body: B) -> ReplayBody<B>;
}

/// Bodies are kept by teeing them: what a body yields while it is sent is kept. The default
/// of [`RefreshLayer`](crate::RefreshLayer), for bodies of every type.
// Hidden, because a default need not be named.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tee;

/// In the types [`RefreshLayer`](crate::RefreshLayer) and [`Refresh`](crate::layer::Refresh): bodies are
/// kept by cloning them, as [`clone_bodies`](crate::RefreshLayer::clone_bodies) says. For bodies that
/// are `Clone`. Without it bodies are kept by teeing them.
///
/// ```
/// use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::CloneBody};
///
/// struct Clients {
///     layer: RefreshLayer<CloneBody>,
/// }
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next"))).build();
/// let clients = Clients { layer: RefreshLayer::new(state).clone_bodies() };
/// # let _ = clients.layer;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CloneBody;

impl<B> KeepBody<B> for Tee
where
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    fn keep(&self, body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>) {
        ReplayBody::tee(body, cap, budget)
    }

    fn send(&self, body: B) -> ReplayBody<B> {
        ReplayBody::plain(body)
    }
}

impl<B> KeepBody<B> for CloneBody
where
    B: Body + Unpin + Clone,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    fn keep(&self, body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>) {
        ReplayBody::cloned(body, B::clone, cap, budget)
    }

    fn send(&self, body: B) -> ReplayBody<B> {
        ReplayBody::plain(body)
    }
}

/// In the type of [`Refresh`](crate::layer::Refresh): bodies are kept by a closure that clones those
/// that can be, as [`try_clone_bodies`](crate::RefreshLayer::try_clone_bodies) says.
#[derive(Clone, Copy)]
pub struct TryCloneBody<F>(pub(crate) F);

impl<B, F> KeepBody<B> for TryCloneBody<F>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    F: Fn(&B) -> Option<B>,
{
    fn keep(&self, body: B, cap: usize, budget: &Budget) -> (ReplayBody<B>, Replay<B>) {
        ReplayBody::with_whole_copy(body, &self.0, cap, budget)
    }

    fn send(&self, body: B) -> ReplayBody<B> {
        ReplayBody::whole(body)
    }
}

impl<F> fmt::Debug for TryCloneBody<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TryCloneBody")
    }
}
