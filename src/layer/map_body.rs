//! Clients that take one type of body: what they are sent is made of a [`ReplayBody`], or is the
//! caller's own body.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{Refresh, RefreshLayer};
use crate::{
    body::{ReplayBody, Tee, TryCloneBody},
    error::BoxError,
};

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

/// A [`RefreshLayer`] that leaves the body's type as it is. Made by
/// [`RefreshLayer::try_clone_bodies`].
#[derive(Clone)]
pub struct OwnBodyLayer<F> {
    pub(super) layer: RefreshLayer<TryCloneBody<F>>,
}

impl<S: Clone, F: Clone> Layer<S> for OwnBodyLayer<F> {
    type Service = Refresh<OwnBody<S>, TryCloneBody<F>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.layer.layer(OwnBody { inner })
    }
}

/// The service below a [`Refresh`] whose bodies are the caller's own, and clones of them.
///
/// # Panics
///
/// In `call`, if it was taken out of its [`Refresh`] and is given a body that is not whole:
/// [`ReplayBody::plain`] makes one that is.
#[derive(Clone, Copy, Debug)]
pub struct OwnBody<S> {
    inner: S,
}

impl<S, B> Service<Request<ReplayBody<B>>> for OwnBody<S>
where
    S: Service<Request<B>>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReplayBody<B>>) -> S::Future {
        let own = |body: ReplayBody<B>| {
            // Below its `Refresh` it cannot fail: those bodies are the caller's own or whole clones,
            // and nothing has polled them yet.
            body.into_source().unwrap_or_else(|_| panic!("the body is not the caller's own"))
        };
        self.inner.call(request.map(own))
    }
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

impl<F> fmt::Debug for OwnBodyLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnBodyLayer").field("layer", &self.layer).finish()
    }
}
