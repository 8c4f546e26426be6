//! [`ResponseFuture`]: the way of a request, from [`Refresh`](crate::layer::Refresh)'s `call` to the
//! response. Nothing else in this crate knows the order of things.
//!
//! ```text
//!  call
//!   |
//!   +-- its origin gets no token, there is no credential for it,
//!   |   or it brings credentials of its own ----> Sent, untouched --> caller
//!   |
//!   +-- no token is at hand --> Gate      wait for a flight
//!   |                             |
//!   |                             v
//!   |                           Ready     make a service of its own ready
//!   |                             |   ^
//!   |                             v   |
//!   +-- a token is at hand ---> Sent  |   an attempt is under way
//!                                 |   |
//!      accepted, or nothing is    |   |
//!      said of the token, or  <---+   |
//!      no replay is possible:     |   |
//!      caller             refused |   |
//!                                 v   |
//!      no newer token: <------- Refused   wait for a flight
//!      caller                     |   |
//!                                 v   |
//!                               Drain |   read the refused response to its end
//!                                 |   |
//!                                 +---+   once: the replay
//! ```
//!
//! `Refused` is skipped if a newer token is there already, `Drain` if nothing is gained by it.
//!
//! [`start`](ResponseFuture::start) is what lies in `call`; [`poll`](Future::poll) does the
//! rest. The words of the middle column are [`State`]s. What is decided in a state is in
//! [`exchange`](super::exchange).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    attach::FIRST,
    cached::CachedToken,
    drain::Drain,
    exchange::{Action, Exchange, ReplayParts, keep_body, polled_after_completion},
    head::Head,
    origin::FirstOrigin,
    route::route,
    sharing::Shared,
    source::Source,
};
use crate::{
    body::{KeepBody, ReplayBody},
    error::BoxError,
    grpc::timeout,
    metrics,
    state::Wait,
};

pin_project! {
    /// The response of a [`Refresh`](crate::layer::Refresh): to the first attempt, or to the
    /// replay.
    ///
    /// Dropping it cancels the attempt under way; a refresh that it waits for goes on.
    ///
    /// # Panics
    ///
    /// If it is polled after its end.
    pub struct ResponseFuture<S, B, ResBody>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S::Future, ResBody>,
        // `None`: the response passes untouched.
        exchange: Option<Exchange<S, B>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, ResBody> {
        // What is rare is boxed, so that the future of nearly all requests is small.
        Gate { wait: Box<Wait> },
        Ready,
        Sent { #[pin] future: F },
        Refused { refused: Option<Box<Refused<ResBody>>> },
        Drain { drain: Drain<ResBody> },
        Over,
    }
}

/// A refusal that waits for a flight.
struct Refused<ResBody> {
    wait: Wait,
    response: Response<ResBody>,
}

impl<S, B, ResBody> ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// The part of the way that lies in `call`. `inner` is ready to be called. `slot` holds
    /// the token of the layer's one credential between the requests of a service, and
    /// `long_lived` says whether the service is expected to have many. `first` is where the call
    /// began that this request is part of.
    pub(super) fn start<K: KeepBody<B>>(
        inner: &mut S,
        (shared, keep): (&Arc<Shared<S>>, &K),
        (slot, long_lived): (&mut Option<CachedToken>, bool),
        first: &mut FirstOrigin,
        request: Request<B>,
    ) -> Self {
        let config = &shared.config;
        let (mut parts, body) = request.into_parts();

        // Which credential?
        let mut own_state = None;
        let state = match &config.source {
            _ if !config.allows(&parts.uri, first) => None,
            Source::One(state) => Some(state),
            Source::PerRequest(source) => {
                own_state = source.credential(&parts);
                own_state.as_ref().filter(|state| config.may_send(state))
            }
        };
        let Some(state) = state else {
            return Self::untouched(inner, parts, keep.send(body));
        };

        // Before a token is attached, which is not the predicates' business.
        let heeded = config.heeds(&parts);
        let may_replay = heeded && config.may_replay(&parts);
        let uri = config.wants_uri.then(|| Box::new(parts.uri.clone()));

        // A token, or a flight to wait for.
        let mut once = None;
        let (slot, long_lived) = match config.source {
            Source::One(_) => (slot, long_lived),
            Source::PerRequest(_) => (&mut once, false),
        };
        let attach = &config.attach;
        let admission = match CachedToken::usable(slot, attach, state, long_lived) {
            Some(token) => Ok((token, token.refusal())),
            // Asking the state may start a refresh, for which a request that brings
            // credentials of its own is no reason.
            None if attach.is_taken(&parts.headers) => {
                return Self::untouched(inner, parts, keep.send(body));
            }
            None => CachedToken::admit(slot, attach, state, long_lived),
        };
        // A request that brings credentials of its own is left alone, and not copied.
        if let Ok((token, _)) = &admission {
            if !attach.claim(&mut parts.headers, token.value.as_ref()) {
                return Self::untouched(inner, parts, keep.send(body));
            }
        }

        // The request is this layer's: it is copied, and sent or held.
        let head = if may_replay { Head::save(&parts, own_state.as_ref()) } else { None };
        // What is copied has the route as well.
        let route = match head {
            None if state.hears_all() => route(&parts.method, &parts.uri),
            _ => None,
        };
        let (body, handle) = keep_body(keep, config, head.is_some(), body);
        let replay = ReplayParts { head, body: handle };
        let shared = Arc::clone(shared);
        match admission {
            Ok((token, refused)) => {
                let (credential, generation) = (&token.credential, token.credential.generation());
                attach.complete(&mut parts, credential, token.value.as_ref());
                config.mark(&mut parts, credential, FIRST);
                let future = inner.call(Request::from_parts(parts, body));
                let exchange = Exchange::sent(
                    shared,
                    own_state,
                    replay,
                    generation,
                    refused,
                    (heeded, uri, route),
                );
                Self { state: State::Sent { future }, exchange: Some(exchange) }
            }
            Err(wait) => {
                tracing::debug!("waiting for a token");
                metrics::gate_wait();
                // A service that is ready may hold a permit, which must not wait for a token.
                *inner = shared.service();
                let deadline = timeout::deadline(&parts.headers);
                let request = Request::from_parts(parts, body);
                let heeded = (heeded, uri);
                let exchange =
                    Exchange::waiting(shared, own_state, replay, request, deadline, heeded);
                let wait = Box::new(wait.no_later_than(deadline));
                Self { state: State::Gate { wait }, exchange: Some(exchange) }
            }
        }
    }

    /// The request passes as it is. Neither its head nor its body is copied.
    fn untouched(inner: &mut S, parts: Parts, body: ReplayBody<B>) -> Self {
        let future = inner.call(Request::from_parts(parts, body));
        Self { state: State::Sent { future }, exchange: None }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone,
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (action, response) = match (this.state.as_mut().project(), &mut *this.exchange) {
                (StateProjection::Gate { wait }, Some(exchange)) => {
                    exchange.admitted(ready!(Pin::new(wait).poll(cx)));
                    this.state.set(State::Ready);
                    continue;
                }
                (StateProjection::Ready, Some(exchange)) => {
                    let future = ready!(exchange.poll_send(cx))?;
                    this.state.set(State::Sent { future });
                    continue;
                }
                (StateProjection::Sent { future }, exchange) => {
                    let mut response = ready!(future.poll(cx))?;
                    // Drops the attempt before anything follows from its response. It may hold
                    // the other end of the body, and a permit that waiting for a flight must
                    // not keep.
                    this.state.set(State::Over);
                    let Some(exchange) = exchange else { return Poll::Ready(Ok(response)) };
                    match exchange.judge(&mut response) {
                        // As nearly all: from here, so that the response is not moved about.
                        Action::Return => return Poll::Ready(Ok(response)),
                        action => (action, response),
                    }
                }
                (StateProjection::Refused { refused }, Some(exchange)) => {
                    let Some(waiting) = refused else { polled_after_completion() };
                    let outcome = ready!(Pin::new(&mut waiting.wait).poll(cx));
                    let Some(waited) = refused.take() else { polled_after_completion() };
                    let Refused { mut response, .. } = *waited;
                    this.state.set(State::Over);
                    (exchange.awaited(outcome, &mut response), response)
                }
                (StateProjection::Drain { drain }, _) => {
                    ready!(drain.poll(cx));
                    this.state.set(State::Ready);
                    continue;
                }
                (StateProjection::Over, _) | (_, None) => polled_after_completion(),
            };
            this.state.set(match action {
                Action::Return => return Poll::Ready(Ok(response)),
                Action::Wait(wait) => {
                    State::Refused { refused: Some(Box::new(Refused { wait, response })) }
                }
                Action::Replay { drain: true } => {
                    State::Drain { drain: Drain::new(response.into_body()) }
                }
                Action::Replay { drain: false } => State::Ready,
            });
        }
    }
}

impl<S, B, ResBody> fmt::Debug for ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
