//! [`Exchange`]: what is known of a request from the moment it is this layer's until its
//! response is the caller's, and what follows from a response. When each thing happens is
//! [`future`](super::future)'s.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, Uri};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    attach::{FIRST, REPLAY},
    classify::{ResponseHead, Verdict},
    config::Config,
    error_on_refusal::Unhelped,
    head::Head,
    sharing::Shared,
    source::Source,
};
use crate::{
    body::{KeepBody, NotReplayable, Replay, ReplayBody},
    credential::Credential,
    error::BoxError,
    grpc::timeout,
    metrics,
    state::{Accepted, Admission, FailureKind, RefreshFailure, RefreshState, Route, Wait},
    tokens::Generation,
};

/// What is known of a request that is this layer's.
pub(super) struct Exchange<S, B> {
    shared: Arc<Shared<S>>,
    /// The request's own credential, where the layer has none for all.
    own_state: Option<Arc<RefreshState>>,
    replay: ReplayParts<B>,
    /// The number of the attempt that is pending or under way.
    attempt: u8,
    /// What that attempt is sent with.
    generation: Generation,
    /// Whether anything is concluded from the response.
    heeded: bool,
    /// The request's URI, if the classifier wants it.
    uri: Option<Box<Uri>>,
    /// The request's route, once it was challenged and it matters.
    route: Option<Route>,
    /// What it means if the attempt's token is accepted.
    accepted: Accepted,
    /// Why that attempt has no fresh token, if it has none.
    refused: Option<Box<RefreshFailure>>,
    /// Boxed because few requests have one: nearly all are sent by `call`.
    pending: Option<Box<PendingAttempt<S, B>>>,
}

/// What a replay is made of.
pub(super) struct ReplayParts<B> {
    /// `None`: the request may not be replayed, or is being replayed.
    pub(super) head: Option<Head>,
    pub(super) body: Replay<B>,
}

/// An attempt that could not be sent at once.
struct PendingAttempt<S, B> {
    request: Request<ReplayBody<B>>,
    /// Until when the request has time, by its `grpc-timeout`.
    deadline: Option<Instant>,
    /// Made when the attempt may be sent, so that a readied service is held for no longer
    /// than it takes to call it.
    service: Option<S>,
}

/// What follows from a response.
pub(super) enum Action {
    /// The response is the caller's.
    Return,
    /// Wait for a flight, and hold the response for the case that it fails.
    Wait(Wait),
    /// Send the pending attempt, which is the replay. If `drain`, read the response to its
    /// end before, so that its connection can be used again.
    Replay { drain: bool },
}

/// The body to send, which is kept while it is sent if there may be a replay, and its handle.
pub(super) fn keep_body<K: KeepBody<B>, B>(
    keep: &K,
    config: &Config,
    may_replay: bool,
    body: B,
) -> (ReplayBody<B>, Replay<B>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    if may_replay {
        keep.keep(body, config.cap, &config.budget)
    } else {
        (keep.send(body), Replay::never(NotReplayable::Forbidden))
    }
}

impl<B> ReplayParts<B> {
    fn deadline(&self) -> Option<Instant> {
        self.head.as_ref()?.deadline()
    }

    /// Frees what was kept.
    fn release(&mut self) {
        self.body = Replay::never(NotReplayable::Released);
    }
}

impl<S, B> Exchange<S, B> {
    /// Of a request whose first attempt is under way with the token of this generation, and
    /// why that is no fresh one, if it is not.
    pub(super) fn sent(
        shared: Arc<Shared<S>>,
        own_state: Option<Arc<RefreshState>>,
        replay: ReplayParts<B>,
        generation: Generation,
        refused: Option<Box<RefreshFailure>>,
        (heeded, uri, route): (bool, Option<Box<Uri>>, Option<Route>),
    ) -> Self {
        Self {
            shared,
            own_state,
            replay,
            attempt: FIRST,
            generation,
            heeded,
            uri,
            route,
            accepted: Accepted::Request,
            refused,
            pending: None,
        }
    }

    /// Of a request that waits at the gate, with its first attempt pending.
    pub(super) fn waiting(
        shared: Arc<Shared<S>>,
        own_state: Option<Arc<RefreshState>>,
        replay: ReplayParts<B>,
        request: Request<ReplayBody<B>>,
        deadline: Option<Instant>,
        (heeded, uri): (bool, Option<Box<Uri>>),
    ) -> Self {
        let pending = PendingAttempt { request, deadline, service: None };
        Self {
            shared,
            own_state,
            replay,
            attempt: FIRST,
            generation: Generation::ZERO,
            heeded,
            uri,
            route: None,
            accepted: Accepted::Request,
            refused: None,
            pending: Some(Box::new(pending)),
        }
    }

    fn state(&self) -> &Arc<RefreshState> {
        match (&self.own_state, &self.shared.config.source) {
            (Some(state), _) | (None, Source::One(state)) => state,
            // Without a credential of its own such a request has no exchange.
            (None, Source::PerRequest(_)) => polled_after_completion(),
        }
    }

    /// There is no fresh token for this attempt.
    fn refuse(&mut self, failure: RefreshFailure) {
        self.refused = Some(Box::new(failure));
    }

    /// The flight that a request at the gate has waited for is over. Without a fresh token it
    /// is sent with what there is.
    pub(super) fn admitted(&mut self, outcome: Result<Credential, RefreshFailure>) {
        if let Err(failure) = outcome {
            self.refuse(failure);
        }
    }
}

impl<S, B> Exchange<S, B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// What follows from the response to the attempt that was under way. The attempt itself
    /// must have been dropped: it may hold the other end of the body.
    pub(super) fn judge<ResBody: Body>(&mut self, response: &mut Response<ResBody>) -> Action {
        if response.status().is_redirection() {
            self.shared.has_redirected();
        }
        if !self.heeded {
            return self.finish(response, None);
        }
        let mut head = ResponseHead::of(response);
        if let Some(uri) = &self.uri {
            head = head.with_uri(uri);
        }
        match self.shared.config.judge(&head) {
            Verdict::Challenge if self.attempt == FIRST => return self.challenged(response),
            Verdict::RefreshOnly if self.attempt == FIRST => {
                self.replay.body = Replay::never(NotReplayable::CarriedOut);
                return self.challenged(response);
            }
            // A replay that is refused, too, is the caller's.
            Verdict::Challenge | Verdict::RefreshOnly => {
                self.state().refused_again(self.generation, self.route);
            }
            Verdict::Accept => {
                self.state().accepted_on(self.generation, self.accepted, || self.route());
            }
            Verdict::Ignore => {}
        }
        self.finish(response, None)
    }

    fn route(&self) -> Option<Route> {
        self.route.or_else(|| self.replay.head.as_ref()?.route())
    }

    /// The first attempt's token was refused.
    fn challenged<ResBody: Body>(&mut self, response: &mut Response<ResBody>) -> Action {
        let mut route = None;
        let admission = self.state().challenge(self.generation, || {
            route = self.route();
            route
        });
        self.route = self.route.or(route);
        if matches!(admission, Admission::Wait(ticket) if ticket.before_redeem) {
            self.accepted = Accepted::HelpedReplay;
        }
        if let Admission::Refuse(failure) = &admission {
            self.refuse(failure.clone());
        }
        // The state knows of the challenge now, and has started a flight if one was due, even
        // if this request cannot be replayed itself.
        match (admission, self.replay.body.replayable()) {
            (_, Err(NotReplayable::CarriedOut)) => {
                self.finish(response, Some(NotReplayable::CarriedOut))
            }
            (_, Err(reason)) => self.give_up(response, Some(reason)),
            (Admission::Refuse(_), Ok(())) => self.give_up(response, None),
            (Admission::Proceed, Ok(())) => self.replay(response),
            // It has waited for this flight at the gate already, as long as it may.
            (Admission::Wait(_), Ok(())) if self.has_run_out() => self.give_up(response, None),
            (Admission::Wait(ticket), Ok(())) => {
                let wait = Wait::new(Arc::clone(self.state()), ticket);
                Action::Wait(wait.no_later_than(self.replay.deadline()))
            }
        }
    }

    fn has_run_out(&self) -> bool {
        self.refused.as_ref().is_some_and(|failure| failure.kind() == FailureKind::Deadline)
    }

    /// The flight that a refused request has waited for is over.
    pub(super) fn awaited<ResBody: Body>(
        &mut self,
        outcome: Result<Credential, RefreshFailure>,
        response: &mut Response<ResBody>,
    ) -> Action {
        match outcome {
            Ok(_) => self.replay(response),
            Err(failure) => {
                self.refuse(failure);
                self.give_up(response, None)
            }
        }
    }

    /// Makes the replay the pending attempt, unless the request's time is up or its body
    /// cannot be replayed any more.
    fn replay<ResBody: Body>(&mut self, response: &mut Response<ResBody>) -> Action {
        let deadline = self.replay.deadline();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.refuse(RefreshFailure::new(FailureKind::Deadline));
            return self.give_up(response, None);
        }
        // A replay cuts off an upload that still runs, and its connection with it: there is
        // nothing to drain the response for.
        let drain = self.replay.body.is_sent() && !response.body().is_end_stream();
        let body = mem::replace(&mut self.replay.body, Replay::never(NotReplayable::Released));
        let head = self.replay.head.take();
        let (body, head) = match (body.into_replay(), head) {
            (Ok(body), Some(head)) => (body, head),
            (Ok(_), None) => return self.give_up(response, Some(NotReplayable::Released)),
            (Err(reason), _) => return self.give_up(response, Some(reason)),
        };
        self.attempt = REPLAY;
        self.refused = None;
        let request = Request::from_parts(head.restore(self.own_state.as_ref()), body);
        self.pending = Some(Box::new(PendingAttempt { request, deadline, service: None }));
        Action::Replay { drain }
    }

    /// The refusal is the caller's.
    fn give_up<ResBody>(
        &mut self,
        response: &mut Response<ResBody>,
        not_replayed: Option<NotReplayable>,
    ) -> Action {
        response.extensions_mut().insert(Unhelped);
        self.finish(response, not_replayed)
    }

    /// The response is the caller's: frees what was kept.
    fn finish<ResBody>(
        &mut self,
        response: &mut Response<ResBody>,
        not_replayed: Option<NotReplayable>,
    ) -> Action {
        self.replay.release();
        if self.refused.is_some() || not_replayed.is_some() {
            self.explain(response, not_replayed);
        }
        Action::Return
    }

    /// Says in the response's extensions why the request was not helped.
    #[cold]
    fn explain<ResBody>(
        &mut self,
        response: &mut Response<ResBody>,
        not_replayed: Option<NotReplayable>,
    ) {
        let generation = self.generation.get();
        let kind = self.refused.as_ref().map(|failure| failure.kind().as_str());
        if let Some(word) = not_replayed.map(NotReplayable::as_str).or(kind) {
            metrics::not_replayed(word);
        }
        if let Some(failure) = self.refused.take() {
            tracing::debug!(generation, reason = failure.kind().as_str(), "not refreshed");
            response.extensions_mut().insert(*failure);
        }
        if let Some(reason) = not_replayed {
            tracing::debug!(generation, %reason, "not replayed");
            response.extensions_mut().insert(reason);
        }
    }

    /// Sends the pending attempt as soon as a service of its own is ready.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Future, S::Error>>
    where
        S: Service<Request<ReplayBody<B>>> + Clone,
    {
        let Some(pending) = &mut self.pending else { polled_after_completion() };
        let service = pending.service.get_or_insert_with(|| self.shared.service());
        ready!(service.poll_ready(cx))?;
        match self.pending.take().map(|pending| *pending) {
            Some(PendingAttempt { request, deadline, service: Some(mut service) }) => {
                Poll::Ready(Ok(service.call(self.prepare_attempt(request, deadline))))
            }
            _ => polled_after_completion(),
        }
    }

    /// What an attempt carries is decided at the moment it is sent: it may have taken its
    /// service long to become ready.
    fn prepare_attempt(
        &mut self,
        request: Request<ReplayBody<B>>,
        deadline: Option<Instant>,
    ) -> Request<ReplayBody<B>> {
        let credential = self.state().current();
        self.generation = credential.generation();
        if self.attempt == REPLAY {
            self.state().replayed();
            tracing::debug!(generation = self.generation.get(), "replaying");
        }
        let config = &self.shared.config;
        let value = config.attach.value(&credential, false);
        if config.attach.is_unsendable(&credential, value.as_ref()) {
            let unsendable = || Box::new(RefreshFailure::new(FailureKind::Unsendable));
            self.refused.get_or_insert_with(unsendable);
        }
        let (mut parts, body) = request.into_parts();
        if let Some(deadline) = deadline {
            parts.headers.insert(&timeout::TIMEOUT, timeout::until(deadline));
        }
        if config.attach.claim(&mut parts.headers, value.as_ref()) {
            config.attach.complete(&mut parts, &credential, value.as_ref());
            config.mark(&mut parts, &credential, self.attempt);
        }
        Request::from_parts(parts, body)
    }
}

/// Only a future that has ended, or has panicked, comes here.
pub(super) fn polled_after_completion() -> ! {
    panic!("ResponseFuture polled after its end")
}
