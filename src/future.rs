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
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    body::{NotReplayable, Replay, ReplayBody},
    classify::Verdict,
    config::Own,
    drain::Drain,
    error::{BoxError, FailureKind, RefreshFailure},
    grpc::timeout,
    head::Head,
    source::Source,
    state::{Answer, RefreshState, Wait},
    tokens::{Credential, Generation},
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
        drain: Drain<ResBody>,
        later: Later<B>,
    },
    Ready {
        service: S,
        later: Later<B>,
    },
    /// Between two states.
    Left,
}

/// A request that is sent later than its caller thinks.
struct Later<B> {
    request: Request<ReplayBody<B>>,
    /// Until when it has time, by its `grpc-timeout`.
    deadline: Option<Instant>,
}

/// What is kept of a request until its response is judged.
pub(crate) struct Exchange<S, B> {
    own: Arc<Own<S>>,
    /// The request's own credential, where the layer has none for all.
    state: Option<Arc<RefreshState>>,
    /// What the last attempt was sent with.
    generation: Generation,
    number: u8,
    head: Option<Head>,
    replay: Replay<B>,
    /// Why the token was not fresh when the request was sent.
    refused: Option<Box<RefreshFailure>>,
}

/// What follows from a response.
enum Next<S, B, ResBody> {
    Return(Response<ResBody>),
    Wait(Wait, Response<ResBody>),
    Replay(Box<Slow<S, B, ResBody>>),
}

impl<S, B> Exchange<S, B> {
    pub(crate) const FIRST: u8 = 1;
    const REPLAY: u8 = 2;

    /// `sent_with`: the generation, and why it was not fresh.
    pub(crate) fn new(
        own: Arc<Own<S>>,
        state: Option<Arc<RefreshState>>,
        head: Option<Head>,
        replay: Replay<B>,
        (generation, refused): (Generation, Option<Box<RefreshFailure>>),
    ) -> Self {
        Self { own, state, generation, number: Self::FIRST, head, replay, refused }
    }

    fn state(&self) -> &Arc<RefreshState> {
        match (&self.state, &self.own.config.source) {
            (Some(state), _) | (None, Source::One(state)) => state,
            // The service has put the request's own state here.
            (None, Source::PerRequest(_)) => gone(),
        }
    }
}

impl<S, B> Exchange<S, B>
where
    S: Clone,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Whether this response is one to refresh and replay for.
    fn is_challenge<ResBody>(&self, response: &Response<ResBody>) -> bool {
        match self.own.config.judge(response.status(), response.headers()) {
            Verdict::Accept => {
                self.state().accepted(self.generation);
                false
            }
            Verdict::NotOurs => false,
            Verdict::Challenge => self.number == Self::FIRST,
        }
    }

    /// The first attempt's token was refused.
    fn challenged<ResBody: Body>(&mut self, response: Response<ResBody>) -> Next<S, B, ResBody> {
        let answer = self.state().challenge(self.generation);
        if let Answer::Refuse(failure) = &answer {
            self.refused = Some(Box::new(failure.clone()));
        }
        // The flight has begun, if there had to be one; whether this request can
        // profit from it is another question.
        match (answer, self.replay.replayable()) {
            (_, Err(reason)) => self.give_up(response, Some(reason)),
            (Answer::Refuse(_), Ok(())) => self.give_up(response, None),
            (Answer::Go, Ok(())) => self.again(response),
            // At the gate it has waited for this refresh already, as long as it may.
            (Answer::Wait(_), Ok(())) if self.has_run_out() => self.give_up(response, None),
            (Answer::Wait(ticket), Ok(())) => {
                let deadline = self.head.as_ref().and_then(Head::deadline);
                let wait = Wait::new(Arc::clone(self.state()), ticket);
                Next::Wait(wait.no_later_than(deadline), response)
            }
        }
    }

    fn has_run_out(&self) -> bool {
        self.refused.as_ref().is_some_and(|failure| failure.kind() == FailureKind::Deadline)
    }

    /// The flight that a refused request has waited for is over.
    fn awaited<ResBody: Body>(
        &mut self,
        outcome: Result<Credential, RefreshFailure>,
        response: Response<ResBody>,
    ) -> Next<S, B, ResBody> {
        match outcome {
            Ok(_) => self.again(response),
            Err(failure) => {
                self.refused = Some(Box::new(failure));
                self.give_up(response, None)
            }
        }
    }

    /// Sends the request once more, if there is time and its body is to be had.
    fn again<ResBody: Body>(&mut self, response: Response<ResBody>) -> Next<S, B, ResBody> {
        let deadline = self.head.as_ref().and_then(Head::deadline);
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.refused = Some(Box::new(RefreshFailure::new(FailureKind::Deadline)));
            return self.give_up(response, None);
        }
        // While the upload still runs its connection is lost anyway.
        let reusable = self.replay.is_sent() && !response.body().is_end_stream();
        let replay = mem::replace(&mut self.replay, Replay::never(NotReplayable::Released));
        let (body, head) = match (replay.into_replay(), self.head.take()) {
            (Ok(body), Some(head)) => (body, head),
            (Ok(_), None) => return self.give_up(response, Some(NotReplayable::Released)),
            (Err(reason), _) => return self.give_up(response, Some(reason)),
        };
        self.number = Self::REPLAY;
        self.refused = None;
        let later = Later { request: Request::from_parts(head.restore(), body), deadline };
        Next::Replay(Box::new(if reusable {
            Slow::Drain { drain: Drain::new(response.into_body()), later }
        } else {
            Slow::Ready { service: self.own.service(), later }
        }))
    }

    /// What an attempt carries is decided when it is sent: its service may have taken
    /// long to be ready.
    fn dress(&mut self, later: Later<B>) -> Request<ReplayBody<B>> {
        let credential = self.state().current();
        self.generation = credential.generation();
        if self.number == Self::REPLAY {
            self.state().replayed();
            tracing::debug!(generation = self.generation.get(), "replaying");
        }
        let config = &self.own.config;
        let value = config.attach.value(&credential, false);
        let (mut parts, body) = later.request.into_parts();
        if let Some(deadline) = later.deadline {
            parts.headers.insert(&timeout::TIMEOUT, timeout::until(deadline));
        }
        config.dress(&mut parts, &credential, value.as_ref(), self.number);
        Request::from_parts(parts, body)
    }

    /// The response is the caller's, with the reasons why nothing was done.
    fn give_up<ResBody>(
        &mut self,
        mut response: Response<ResBody>,
        reason: Option<NotReplayable>,
    ) -> Next<S, B, ResBody> {
        self.finish(&mut response);
        if let Some(reason) = reason {
            tracing::debug!(generation = self.generation.get(), %reason, "not replayed");
            response.extensions_mut().insert(reason);
        }
        Next::Return(response)
    }

    /// Frees what was kept, and says if the token could not be refreshed.
    fn finish<ResBody>(&mut self, response: &mut Response<ResBody>) {
        self.replay = Replay::never(NotReplayable::Released);
        if let Some(failure) = self.refused.take() {
            let (generation, reason) = (self.generation.get(), failure.kind().as_str());
            tracing::debug!(generation, reason, "not refreshed");
            response.extensions_mut().insert(*failure);
        }
    }
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
        let slow = Box::new(Slow::Gate { wait, later });
        Self { state: State::Slow { slow }, exchange: Some(exchange) }
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
                Next::Replay(slow) => this.state.set(State::Slow { slow }),
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
                    let Self::Gate { later, .. } = mem::replace(self, Self::Left) else { gone() };
                    // If there is no fresh token, it is sent with what there is.
                    exchange.refused = outcome.err().map(Box::new);
                    *self = Self::Ready { service: exchange.own.service(), later };
                }
                Self::Drain { drain, .. } => {
                    ready!(drain.poll(cx));
                    let Self::Drain { later, .. } = mem::replace(self, Self::Left) else { gone() };
                    *self = Self::Ready { service: exchange.own.service(), later };
                }
                Self::Ready { service, .. } => {
                    ready!(service.poll_ready(cx))?;
                    let Self::Ready { mut service, later } = mem::replace(self, Self::Left) else {
                        gone()
                    };
                    return Poll::Ready(Ok(service.call(exchange.dress(later))));
                }
                Self::Left => gone(),
            }
        }
    }
}

/// Only a future that has ended, or has panicked, comes here.
fn gone() -> ! {
    panic!("ResponseFuture polled after its end")
}

impl<S, B, ResBody> fmt::Debug for ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
