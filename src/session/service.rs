//! [`SessionService`]: the tower service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    answer,
    body::SessionBody,
    future::{SessionFuture, State},
    layer::SessionLayer,
    place::Found,
    request::{Finding, OneVisit, find, may_come_again},
    shared::Visit,
    slot::SessionSlot,
};

/// The service that a [`SessionLayer`] makes.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S> SessionService<S> {
    pub(super) fn new(inner: S, layer: SessionLayer) -> Self {
        Self { inner, layer }
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service below, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service below alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.clone())
    }
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body<Data = Bytes>,
{
    type Response = Response<SessionBody<R>>;
    type Error = S::Error;
    type Future = SessionFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (mut parts, body) = request.into_parts();
        let shared = &self.layer.shared;
        let mut visit = OneVisit::new(self.layer.clone(), &mut parts);
        let outer = parts.extensions.get::<SessionSlot>();
        if let Some(slot) = outer.filter(|slot| Arc::ptr_eq(&slot.0.shared, shared)) {
            // The layer above has done all else.
            if self.layer.rules.requires(&parts.uri) {
                slot.0.ask();
                if slot.0.lives().is_none() {
                    return SessionFuture::answered(visit.required(&parts, slot.0.ended()));
                }
            }
            let future = inner.call(Request::from_parts(parts, body));
            return SessionFuture { state: State::Calling { future, visit } };
        }
        // Off the request in any case: what is refused goes no further either.
        let mut claims = shared.take(&mut parts.headers);
        parts.headers.remove(AUTHORIZATION);
        let may_be_forged = !self.layer.rules.is_exempt(&parts);
        if may_be_forged && !shared.csrf.allows(&parts, !claims.is_empty()) {
            return SessionFuture::answered(answer::forged());
        }
        let known = match &claims[..] {
            [] => Some(Found::NoCookie),
            [claim] => shared.glance(claim).map(|entry| Found::Visit(Visit::Lives(entry))),
            _ => None,
        };
        match known {
            Some(found) => match visit.admit(&mut parts, found, claims.pop()) {
                None => {
                    let future = inner.call(Request::from_parts(parts, body));
                    SessionFuture { state: State::Calling { future, visit } }
                }
                Some(answer) => SessionFuture::answered(answer),
            },
            None => {
                let may_come_again = !visit.is_again && may_come_again(&parts);
                let finding: Finding = Box::pin(find(Arc::clone(shared), claims, may_come_again));
                // Its place is given back while the store is asked: others need not wait for that.
                drop(inner);
                let (request, inner) = (Some((parts, body)), self.inner.clone());
                SessionFuture {
                    state: State::Finding {
                        finding,
                        request,
                        inner: Some(inner),
                        visit: Some(visit),
                    },
                }
            }
        }
    }
}
impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}
