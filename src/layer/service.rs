//! [`Refresh`]: the tower service. Decides synchronously whether a request can go
//! out now, and if so sends it; everything else is [`ResponseFuture`]'s.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Buf;
use http::{HeaderValue, Request, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    body::{KeepBody, NotReplayable, Replay, ReplayBody, Tee},
    credential::Credential,
    error::BoxError,
    grpc::timeout,
    layer::config::{Config, Own},
    layer::exchange::Exchange,
    layer::future::ResponseFuture,
    layer::head::Head,
    layer::source::Source,
    state::{Admission, RefreshFailure, RefreshState, Wait},
    tokens::Generation,
};

/// A service whose requests carry a token that is kept alive. Made by
/// [`RefreshLayer`](crate::RefreshLayer).
///
/// Clones share the credential and may be used from many tasks. A clone that is
/// kept and used again shares no counter with others on the hot path, but for the
/// budget that requests with a body are charged to.
pub struct Refresh<S, K = Tee> {
    inner: S,
    own: Arc<Own<S>>,
    pass: Option<Pass>,
    /// How this clone stands to the one it came from.
    kinship: Kinship,
    keep: PhantomData<fn() -> K>,
}

/// A clone that is used once, as most are, should cost nothing; one that stays
/// should not share reference counts with others. The second call tells.
#[derive(Clone, Copy, PartialEq)]
enum Kinship {
    New,
    UsedOnce,
    Settled,
}

/// A token as it is put on requests, good while the state's signal stays the same
/// and until `early`.
#[derive(Clone)]
struct Pass {
    signal: u64,
    early: Option<Instant>,
    credential: Credential,
    value: Option<HeaderValue>,
}

impl Pass {
    /// The state's current token, in memory of its own if it is to be `kept`.
    fn read(config: &Config, state: &RefreshState, kept: bool) -> Self {
        // The signal first: what changes after it is noticed the next time.
        let signal = state.gate_word();
        let credential = state.current();
        let value = config.attach.value(&credential, kept);
        Self { signal, early: credential.early(), credential, value }
    }

    fn holds(&self, state: &RefreshState) -> bool {
        self.signal == state.gate_word()
            && self.signal & 1 == 0
            && self.early.is_none_or(|early| Instant::now() < early)
    }

    /// The token, if it is good to send a request with.
    fn good<'a>(
        slot: &'a mut Option<Self>,
        config: &Config,
        state: &RefreshState,
        kept: bool,
    ) -> Option<&'a Self> {
        let pass = slot.get_or_insert_with(|| Self::read(config, state, kept));
        pass.holds(state).then_some(pass)
    }

    /// What to do without a good one: send with what there is, perhaps for a reason
    /// to be told, or wait.
    fn ask<'a>(
        slot: &'a mut Option<Self>,
        config: &Config,
        state: &Arc<RefreshState>,
        kept: bool,
    ) -> Result<(&'a Self, Option<Box<RefreshFailure>>), Wait> {
        let refused = match state.admit() {
            Admission::Proceed => None,
            Admission::Refuse(failure) => Some(Box::new(failure)),
            Admission::Wait(ticket) => return Err(Wait::new(Arc::clone(state), ticket)),
        };
        Ok((slot.insert(Self::read(config, state, kept)), refused))
    }
}

impl<S: Clone, K> Refresh<S, K> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        let own = Own::new(config, inner.clone());
        Self { inner, own, pass: None, kinship: Kinship::Settled, keep: PhantomData }
    }

    /// Stops sharing with the service that this one was cloned from.
    fn settle(&mut self) {
        match self.kinship {
            Kinship::Settled => {}
            Kinship::New => self.kinship = Kinship::UsedOnce,
            Kinship::UsedOnce => {
                self.kinship = Kinship::Settled;
                self.pass = None;
                self.own = Own::new(Arc::clone(&self.own.config), self.own.service());
            }
        }
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
        self.settle();
        let Self { inner, own, pass, kinship, .. } = self;
        let config = &own.config;
        let (mut parts, body) = request.into_parts();

        // Whose token? Perhaps nobody's: then the request passes as it is.
        let mut found = None;
        let state = match &config.source {
            _ if !config.allows(&parts.uri) => None,
            Source::One(state) => Some(state),
            Source::PerRequest(source) => {
                found = source.credential(&parts);
                found.as_ref()
            }
        };
        let Some(state) = state else {
            return untouched(inner, parts, body);
        };
        let mut once = None;
        let (slot, kept) = match config.source {
            Source::One(_) => (pass, *kinship == Kinship::Settled),
            Source::PerRequest(_) => (&mut once, false),
        };

        let head = if config.may_replay(&parts) { Head::save(&parts) } else { None };
        let keep = |body| match &head {
            Some(_) => K::keep(body, config.cap, &config.budget),
            None => (ReplayBody::plain(body), Replay::never(NotReplayable::Forbidden)),
        };
        let (pass, refused) = match Pass::good(slot, config, state, kept) {
            Some(pass) => (pass, None),
            // Asking may start a refresh, for which a request that does not want the
            // token is no reason.
            None if config.attach.is_taken(&parts.headers) => {
                return untouched(inner, parts, body);
            }
            None => match Pass::ask(slot, config, state, kept) {
                Ok(admitted) => admitted,
                Err(wait) => {
                    // Nobody waits for a token while holding a service that is ready.
                    *inner = own.service();
                    let deadline = timeout::deadline(&parts.headers);
                    let (body, replay) = keep(body);
                    let sent_with = (Generation::ZERO, None);
                    let exchange = Exchange::new(Arc::clone(own), found, head, replay, sent_with);
                    let request = Request::from_parts(parts, body);
                    return ResponseFuture::waiting(wait, request, deadline, exchange);
                }
            },
        };
        let (credential, value) = (&pass.credential, pass.value.as_ref());
        if !config.dress(&mut parts, credential, value, Exchange::<S, B>::FIRST) {
            return untouched(inner, parts, body);
        }
        let (body, replay) = keep(body);
        let future = inner.call(Request::from_parts(parts, body));
        let sent_with = (credential.generation(), refused);
        let exchange = Exchange::new(Arc::clone(own), found, head, replay, sent_with);
        ResponseFuture::sent(future, exchange)
    }
}

/// Sends a request as it is.
fn untouched<S, B, ResBody>(inner: &mut S, parts: Parts, body: B) -> ResponseFuture<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<ResBody>>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    ResponseFuture::untouched(inner.call(Request::from_parts(parts, ReplayBody::plain(body))))
}

impl<S: Clone, K> Clone for Refresh<S, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            own: Arc::clone(&self.own),
            pass: self.pass.clone(),
            kinship: Kinship::New,
            keep: PhantomData,
        }
    }
}

impl<S: fmt::Debug, K> fmt::Debug for Refresh<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").field("inner", &self.inner).finish_non_exhaustive()
    }
}
