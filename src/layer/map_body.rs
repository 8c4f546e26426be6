//! Clients that take one type of body: what they are sent is made of a [`ReplayBody`].

use std::{
    fmt,
    task::{Context, Poll},
};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::{Refresh, RefreshLayer};
use crate::body::{ReplayBody, Tee, TryCloneBody};

/// A [`RefreshLayer`] over a client with a body type of its own. Made by
/// [`RefreshLayer::map_body`].
#[derive(Clone)]
pub struct MapBodyLayer<F, K = Tee> {
    pub(super) layer: RefreshLayer<K>,
    pub(super) map: F,
}

impl<S: Clone, F: Clone, K: Clone> Layer<S> for MapBodyLayer<F, K> {
    type Service = Refresh<MapBody<S, F>, K>;

    fn layer(&self, inner: S) -> Self::Service {
        self.layer.layer(MapBody { inner, map: self.map.clone() })
    }
}

/// The service below a [`Refresh`] whose bodies are mapped.
#[derive(Clone)]
pub struct MapBody<S, F> {
    inner: S,
    map: F,
}

impl<S, F, B, C> Service<Request<ReplayBody<B>>> for MapBody<S, F>
where
    S: Service<Request<C>>,
    F: Fn(ReplayBody<B>) -> C,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReplayBody<B>>) -> S::Future {
        self.inner.call(request.map(&self.map))
    }
}

/// A [`RefreshLayer`] that leaves the body's type `B` as it is. Made by
/// [`RefreshLayer::try_clone_bodies`].
pub type OwnBodyLayer<B, F> = MapBodyLayer<fn(ReplayBody<B>) -> B, TryCloneBody<F>>;

/// The caller's own body, or a whole clone of it.
pub(super) fn whole<B>(body: ReplayBody<B>) -> B {
    // Below a `Refresh` whose bodies are kept by a `TryCloneBody` it cannot fail: that makes no
    // others, and nothing has polled them yet.
    body.into_source().unwrap_or_else(|_| panic!("the body is not the caller's own"))
}

impl<F, K> fmt::Debug for MapBodyLayer<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBodyLayer").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for MapBody<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
