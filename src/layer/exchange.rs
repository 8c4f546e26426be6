//! [`Exchange`]: what is kept of a request until its response is judged, and what follows
//! from the response. When what happens is [`future`](super::future)'s.

use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use crate::{
    body::{NotReplayable, Replay, ReplayBody},
    credential::Credential,
    error::BoxError,
    grpc::timeout,
    layer::classify::{FromOtherOrigin, Verdict},
    layer::config::Own,
    layer::drain::Drain,
    layer::head::Head,
    layer::source::Source,
    state::{Admission, FailureKind, RefreshFailure, RefreshState, Wait},
    tokens::Generation,
};

/// A request that is sent later than its caller thinks.
pub(crate) struct Later<B> {
    pub(crate) request: Request<ReplayBody<B>>,
    /// Until when it has time, by its `grpc-timeout`.
    pub(crate) deadline: Option<Instant>,
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
pub(crate) enum Next<B, ResBody> {
    Return(Response<ResBody>),
    Wait(Wait, Response<ResBody>),
    /// Send this, when what is there to be drained is.
    Replay(Later<B>, Option<Drain<ResBody>>),
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

    /// A service of the request's own, not ready yet.
    pub(crate) fn service(&self) -> S
    where
        S: Clone,
    {
        self.own.service()
    }

    /// The token was not to be had.
    pub(crate) fn refuse(&mut self, failure: RefreshFailure) {
        self.refused = Some(Box::new(failure));
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
    pub(crate) fn is_challenge<ResBody>(&self, response: &Response<ResBody>) -> bool {
        match self.own.config.judge(response.status(), response.headers()) {
            Verdict::Accept => {
                self.state().accepted(self.generation);
                false
            }
            Verdict::NotOurs => false,
            Verdict::Challenge => {
                self.number == Self::FIRST
                    && response.extensions().get::<FromOtherOrigin>().is_none()
            }
        }
    }

    /// The first attempt's token was refused.
    pub(crate) fn challenged<ResBody: Body>(
        &mut self,
        response: Response<ResBody>,
    ) -> Next<B, ResBody> {
        let answer = self.state().challenge(self.generation);
        if let Admission::Refuse(failure) = &answer {
            self.refuse(failure.clone());
        }
        // The flight has begun, if there had to be one; whether this request can
        // profit from it is another question.
        match (answer, self.replay.replayable()) {
            (_, Err(reason)) => self.give_up(response, Some(reason)),
            (Admission::Refuse(_), Ok(())) => self.give_up(response, None),
            (Admission::Proceed, Ok(())) => self.again(response),
            // At the gate it has waited for this refresh already, as long as it may.
            (Admission::Wait(_), Ok(())) if self.has_run_out() => self.give_up(response, None),
            (Admission::Wait(ticket), Ok(())) => {
                let wait = Wait::new(Arc::clone(self.state()), ticket);
                Next::Wait(wait.no_later_than(self.deadline()), response)
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.head.as_ref()?.deadline()
    }

    fn has_run_out(&self) -> bool {
        self.refused.as_ref().is_some_and(|failure| failure.kind() == FailureKind::Deadline)
    }

    /// The flight that a refused request has waited for is over.
    pub(crate) fn awaited<ResBody: Body>(
        &mut self,
        outcome: Result<Credential, RefreshFailure>,
        response: Response<ResBody>,
    ) -> Next<B, ResBody> {
        match outcome {
            Ok(_) => self.again(response),
            Err(failure) => {
                self.refuse(failure);
                self.give_up(response, None)
            }
        }
    }

    /// Sends the request once more, unless its time is up or its body is not to be had
    /// any more.
    fn again<ResBody: Body>(&mut self, response: Response<ResBody>) -> Next<B, ResBody> {
        let deadline = self.deadline();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.refuse(RefreshFailure::new(FailureKind::Deadline));
            return self.give_up(response, None);
        }
        // While the upload still runs its connection is lost anyway.
        let reusable = self.replay.is_sent() && !response.body().is_end_stream();
        let replay = std::mem::replace(&mut self.replay, Replay::never(NotReplayable::Released));
        let (body, head) = match (replay.into_replay(), self.head.take()) {
            (Ok(body), Some(head)) => (body, head),
            (Ok(_), None) => return self.give_up(response, Some(NotReplayable::Released)),
            (Err(reason), _) => return self.give_up(response, Some(reason)),
        };
        self.number = Self::REPLAY;
        self.refused = None;
        let later = Later { request: Request::from_parts(head.restore(), body), deadline };
        Next::Replay(later, reusable.then(|| Drain::new(response.into_body())))
    }

    /// What an attempt carries is decided when it is sent: its service may have taken
    /// long to be ready.
    pub(crate) fn dress(&mut self, later: Later<B>) -> Request<ReplayBody<B>> {
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
    ) -> Next<B, ResBody> {
        self.finish(&mut response);
        if let Some(reason) = reason {
            tracing::debug!(generation = self.generation.get(), %reason, "not replayed");
            response.extensions_mut().insert(reason);
        }
        Next::Return(response)
    }

    /// Frees what was kept, and says if the token could not be refreshed.
    pub(crate) fn finish<ResBody>(&mut self, response: &mut Response<ResBody>) {
        self.replay = Replay::never(NotReplayable::Released);
        if let Some(failure) = self.refused.take() {
            let (generation, reason) = (self.generation.get(), failure.kind().as_str());
            tracing::debug!(generation, reason, "not refreshed");
            response.extensions_mut().insert(*failure);
        }
    }
}

/// Only a future that has ended, or has panicked, comes here.
pub(crate) fn gone() -> ! {
    panic!("ResponseFuture polled after its end")
}
