//! [`ResponseFuture`]: the order of things. Nothing else in this crate knows it.
//!
//! ```text
//!  Gate -----> Ready -----> Sent -----> Refused -----> Drain
//!  wait for    poll the     the         wait for       read the first
//!  a token     service      attempt     the flight     response to its end
//!                ^                                         |
//!                +------------- once, the replay ----------+
//! ```
//!
//! A request whose token is at hand begins at `Sent`, called synchronously. `Sent`
//! is left for good by any response but a challenge, and by a challenge that cannot
//! be helped.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    body::ReplayBody,
    error::BoxError,
    layer::drain::Drain,
    layer::exchange::{Exchange, Later, Next, gone},
    state::Wait,
};

pin_project! {
    /// The response of a [`Refresh`](crate::Refresh): to the first attempt, or to the
    /// replay.
    ///
    /// Dropping it cancels the attempt under way; a refresh that it waits for goes on.
    pub struct ResponseFuture<S, B, ResBody>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S, S::Future, B, ResBody>,
        // `None`: the request is none of ours.
        exchange: Option<Exchange<S, B>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, B, ResBody> {
        Sent { #[pin] future: F },
        Refused { wait: Wait, response: Option<Response<ResBody>> },
        Slow { slow: Box<Slow<S, B, ResBody>> },
        Over,
    }
}

/// The states that few requests come to.
enum Slow<S, B, ResBody> {
    Gate {
        wait: Wait,
        later: Later<B>,
    },
    Drain {
        drain: Option<Drain<ResBody>>,
        later: Later<B>,
    },
    Ready {
        service: S,
        later: Later<B>,
    },
    /// Between two states.
    Left,
}

impl<S, B, ResBody> ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// The request passes as it is.
    pub(crate) fn untouched(future: S::Future) -> Self {
        Self { state: State::Sent { future }, exchange: None }
    }

    pub(crate) fn sent(future: S::Future, exchange: Exchange<S, B>) -> Self {
        Self { state: State::Sent { future }, exchange: Some(exchange) }
    }

    pub(crate) fn waiting(
        wait: Wait,
        request: Request<ReplayBody<B>>,
        deadline: Option<Instant>,
        exchange: Exchange<S, B>,
    ) -> Self {
        tracing::debug!("waiting for a token");
        let (wait, later) = (wait.no_later_than(deadline), Later { request, deadline });
        Self { state: State::slow(Slow::Gate { wait, later }), exchange: Some(exchange) }
    }
}

impl<S, F, B, ResBody> State<S, F, B, ResBody> {
    fn slow(slow: Slow<S, B, ResBody>) -> Self {
        Self::Slow { slow: Box::new(slow) }
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
            let next = match (this.state.as_mut().project(), &mut *this.exchange) {
                (StateProjection::Sent { future }, exchange) => {
                    let mut response = ready!(future.poll(cx))?;
                    match exchange {
                        Some(exchange) if exchange.is_challenge(&response) => {
                            exchange.challenged(response)
                        }
                        Some(exchange) => {
                            // First the attempt: it may hold the other end of the body.
                            this.state.set(State::Over);
                            exchange.finish(&mut response);
                            return Poll::Ready(Ok(response));
                        }
                        None => return Poll::Ready(Ok(response)),
                    }
                }
                (StateProjection::Refused { wait, response }, Some(exchange)) => {
                    let outcome = ready!(Pin::new(wait).poll(cx));
                    exchange.awaited(outcome, response.take().unwrap_or_else(|| gone()))
                }
                (StateProjection::Slow { slow }, Some(exchange)) => {
                    let future = ready!(slow.poll(cx, exchange))?;
                    this.state.set(State::Sent { future });
                    continue;
                }
                (StateProjection::Over, _) | (_, None) => gone(),
            };
            // Setting the state drops the first attempt's future: nothing of it is
            // held while a flight is awaited.
            match next {
                Next::Return(response) => return Poll::Ready(Ok(response)),
                Next::Wait(wait, response) => {
                    this.state.set(State::Refused { wait, response: Some(response) });
                }
                Next::Replay(later, drain) => {
                    this.state.set(State::slow(Slow::Drain { drain, later }));
                }
            }
        }
    }
}

impl<S, B, ResBody> Slow<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>> + Clone,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Goes on until the attempt is under way.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<S, B>,
    ) -> Poll<Result<S::Future, S::Error>> {
        loop {
            match self {
                Self::Gate { wait, .. } => {
                    let outcome = ready!(Pin::new(wait).poll(cx));
                    let Self::Gate { later, .. } = std::mem::replace(self, Self::Left) else {
                        gone()
                    };
                    // If there is no fresh token, it is sent with what there is.
                    if let Err(failure) = outcome {
                        exchange.refuse(failure);
                    }
                    *self = Self::Ready { service: exchange.service(), later };
                }
                Self::Drain { drain, .. } => {
                    if let Some(drain) = drain {
                        ready!(drain.poll(cx));
                    }
                    let Self::Drain { later, .. } = std::mem::replace(self, Self::Left) else {
                        gone()
                    };
                    *self = Self::Ready { service: exchange.service(), later };
                }
                Self::Ready { service, .. } => {
                    ready!(service.poll_ready(cx))?;
                    let Self::Ready { mut service, later } = std::mem::replace(self, Self::Left)
                    else {
                        gone()
                    };
                    return Poll::Ready(Ok(service.call(exchange.dress(later))));
                }
                Self::Left => gone(),
            }
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
