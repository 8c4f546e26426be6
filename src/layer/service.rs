//! [`Refresh`]: the tower service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    cached::CachedToken,
    config::Config,
    future::ResponseFuture,
    origin::FirstOrigin,
    sharing::{Shared, Sharing},
};
use crate::{
    body::{KeepBody, ReplayBody, Tee},
    error::BoxError,
};

/// A service whose requests carry a token that is kept alive. Made by
/// [`RefreshLayer`](crate::RefreshLayer).
///
/// Clones share the credential and may be used from many tasks. A clone that is called more
/// than once shares no reference count with other clones on the hot path, except for the
/// [budget](crate::RefreshLayer::replay_budget) that requests with a body are charged to.
///
/// `K` says how bodies are kept, as in [`RefreshLayer`](crate::RefreshLayer).
///
/// [`RefreshLayer`](crate::RefreshLayer) has an example.
pub struct Refresh<S, K = Tee> {
    inner: S,
    shared: Arc<Shared<S>>,
    token: Option<CachedToken>,
    sharing: Sharing,
    first_origin: FirstOrigin,
    keep: K,
}

impl<S: Clone, K> Refresh<S, K> {
    pub(crate) fn new(inner: S, config: Arc<Config>, keep: K) -> Self {
        let shared = Shared::new(config, inner.clone());
        Self {
            inner,
            shared,
            token: None,
            sharing: Sharing::Own,
            first_origin: FirstOrigin::None,
            keep,
        }
    }

    /// The response to the one request of a service that is made for it and dropped. It keeps
    /// nothing for requests that come later: no token of its own, and not where this one goes.
    /// `inner` is ready to be called.
    #[cfg(feature = "reqwest")]
    pub(crate) fn once<B, ResBody>(
        mut inner: S,
        config: &Arc<Config>,
        keep: &K,
        request: Request<B>,
    ) -> ResponseFuture<S, B, ResBody>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>>,
        B: Body + Unpin,
        B::Error: Into<BoxError>,
        K: KeepBody<B>,
    {
        let shared = Shared::new(Arc::clone(config), inner.clone());
        let token = (&mut None, false);
        let origin = &mut FirstOrigin::Unnoted;
        ResponseFuture::start(&mut inner, (&shared, keep), token, origin, request)
    }

    /// Stops sharing with the service that this one was cloned from, if it is time to.
    fn update_sharing(&mut self) {
        let template = match self.sharing {
            Sharing::Own => return,
            Sharing::Parents => {
                self.sharing = Sharing::ParentsOnce;
                return;
            }
            Sharing::ParentsOnce => self.shared.service(),
            Sharing::Changed => self.inner.clone(),
        };
        self.sharing = Sharing::Own;
        self.token = None;
        self.shared = Shared::new(Arc::clone(&self.shared.config), template);
    }
}

impl<S, K> Refresh<S, K> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service. What is changed holds for this service's next requests, their
    /// replays, and clones that are made of it afterwards.
    pub fn get_mut(&mut self) -> &mut S {
        self.sharing = Sharing::Changed;
        &mut self.inner
    }

    /// The inner service. Requests that are under way go on.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, K, ResBody> Service<Request<B>> for Refresh<S, K>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone,
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<BoxError>,
    ResBody: Body,
    K: KeepBody<B>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.update_sharing();
        let Self { inner, shared, token, sharing, first_origin, keep } = self;
        let long_lived = *sharing == Sharing::Own;
        ResponseFuture::start(inner, (shared, keep), (token, long_lived), first_origin, request)
    }
}

impl<S: Clone, K: Clone> Clone for Refresh<S, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            token: self.token.clone(),
            sharing: self.sharing.of_clone(),
            first_origin: self.first_origin.of_clone(self.shared.is_redirected()),
            keep: self.keep.clone(),
        }
    }
}

impl<S: fmt::Debug, K> fmt::Debug for Refresh<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
