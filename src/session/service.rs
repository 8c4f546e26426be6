//! [`SessionService`]: the tower service, and [`SessionFuture`]: the order of things.
//!
//! ```text
//! call        forged? -> cookies -> strip -> known for sure? --------.
//! Finding                                     look at the store      |
//! admit       came with an old cookie? -> a session required? <------'
//! Readying    the service below, if it was let go for the look
//! Calling     the service below -> its response
//! Writing     cookies that hold the tokens, if the browser's are older -> the response, finished
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, SET_COOKIE},
    request::Parts,
};
use http_body::Body;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    answer,
    body::SessionBody,
    ended::Ended,
    entry::Entry,
    layer::SessionLayer,
    place::Found,
    sealed::Shown,
    shared::{Claim, Shared, Visit, spawn},
    slot::SessionSlot,
    visitor::{Visitor, is_event_stream, take_mark},
};
use crate::{
    refresher::BoxFuture,
    state::{FailureKind, Health, OwedHead, RefreshFailure},
    store::StoreError,
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
        let mut visit = OneVisit {
            layer: self.layer.clone(),
            is_again: came_again(&mut parts),
            is_event_stream: is_event_stream(&parts.headers),
            slot: None,
            owed: None,
            page: None,
        };
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
        let shown = |claim: Option<Claim>| claim.and_then(|claim| claim.shown);
        match known {
            Some(found) => match visit.admit(&mut parts, found, shown(claims.pop())) {
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

/// What has become of the session, and which claim it was.
type Finding = BoxFuture<'static, Result<(Visit, Option<Arc<Shown>>), StoreError>>;

/// The cookies of a response.
type Writing = BoxFuture<'static, Option<Vec<HeaderValue>>>;

/// The first that lives. Else the first that has ended, or may have a newer cookie.
async fn find(
    shared: Arc<Shared>,
    claims: SmallVec<[Claim; 1]>,
    may_come_again: bool,
) -> Result<(Visit, Option<Arc<Shown>>), StoreError> {
    let (mut found, mut failed) = (Visit::Unknown, None);
    for claim in claims {
        match (shared.visit(&claim, may_come_again).await, &found) {
            (Ok(lives @ Visit::Lives(_)), _) => return Ok((lives, claim.shown)),
            (Ok(other @ (Visit::Ended(_) | Visit::Again)), Visit::Unknown) => found = other,
            (Ok(_), _) => {}
            // A stale twin that cannot be read shadows no other.
            (Err(error), _) => failed = Some(error),
        }
    }
    match failed {
        None => Ok((found, None)),
        Some(error) => Err(error),
    }
}

/// Whether the browser may be told to send this request once more.
fn may_come_again(parts: &Parts) -> bool {
    let visitor = Visitor::of(parts);
    visitor.is_same_origin || parts.method.is_safe()
}

/// Whether the request was asked to come again, by this layer or by one of other sessions.
fn came_again(parts: &mut Parts) -> bool {
    #[derive(Clone)]
    struct CameAgain;

    if take_mark(&mut parts.uri) {
        parts.extensions.insert(CameAgain);
    }
    parts.extensions.get::<CameAgain>().is_some()
}

/// One request, and what is known of it.
struct OneVisit {
    layer: SessionLayer,
    /// It was asked to come again, and has.
    is_again: bool,
    is_event_stream: bool,
    /// `None`: the layer above has one.
    slot: Option<SessionSlot>,
    /// The response that can take new tokens to the browser, if they are kept there.
    owed: Option<OwedHead>,
    /// A user opens a page, and is to be taken to a sign-in if there is no session.
    page: Option<Box<(Visitor, Uri)>>,
}

impl OneVisit {
    fn required<R>(&self, parts: &Parts, ended: Option<Ended>) -> Response<SessionBody<R>> {
        answer::required(&self.layer.rules, &Visitor::of(parts), &parts.uri, ended)
    }

    /// The answer to a request that may not go on.
    fn admit<R>(
        &mut self,
        parts: &mut Parts,
        found: Found,
        shown: Option<Arc<Shown>>,
    ) -> Option<Response<SessionBody<R>>> {
        if matches!(found, Found::Visit(Visit::Again)) {
            if let Some(again) = answer::again(&parts.uri) {
                return Some(again);
            }
        }
        let slot = SessionSlot::new(Arc::clone(&self.layer.shared), found, shown);
        let ended = slot.0.ended();
        let may_come_again = ended == Some(Ended::Replaced) && !self.is_again;
        if may_come_again && Visitor::of(parts).is_same_origin {
            if let Some(again) = answer::again(&parts.uri) {
                return Some(again);
            }
        }
        let entry = slot.0.lives();
        if self.layer.rules.requires(&parts.uri) {
            slot.0.ask();
            if entry.is_none() {
                return Some(self.required(parts, ended));
            }
        }
        if let Some(entry) = entry {
            parts.extensions.insert(Arc::clone(&entry.state));
            self.owed = entry.in_browser.as_ref().map(|browser| browser.heads.owe());
        }
        if self.layer.rules.sign_in_at.is_some() {
            let visitor = Visitor::of(parts);
            self.page = visitor.is_navigation.then(|| Box::new((visitor, parts.uri.clone())));
        }
        parts.extensions.insert(slot.clone());
        self.slot = Some(slot);
        None
    }

    /// The session has ended in the middle of the request.
    fn has_ended<R>(
        &self,
        entry: &Entry,
        health: Health,
        failure: Option<&RefreshFailure>,
    ) -> Response<SessionBody<R>> {
        let ended = entry.record.ended.get().unwrap_or_else(|| match health {
            // Its record is gone.
            Health::SignedOut => Ended::Idle,
            _ => Ended::rejected(failure),
        });
        match self.page.as_deref() {
            Some((visitor, uri)) => answer::required(&self.layer.rules, visitor, uri, Some(ended)),
            None => answer::unauthorized(Some(ended)),
        }
    }

    /// The cookies that the response has to set, if they hold the tokens and the browser has older ones.
    fn writing(&self) -> Option<Writing> {
        let slot = self.slot.as_ref()?;
        let entry = slot.0.lives()?;
        let shown = slot.0.shown();
        let shared = Arc::clone(&self.layer.shared);
        let (sealed, browser) = (shared.sealed.as_ref()?, entry.in_browser.as_ref()?);
        if entry.state.health().needs_sign_in() {
            return None;
        }
        if !sealed.is_due(browser, shown.as_deref(), shared.idle) {
            return None;
        }
        Some(Box::pin(async move {
            let (sealed, browser) = (shared.sealed.as_ref()?, entry.in_browser.as_ref()?);
            // Another replica may have refreshed since. If that cannot be told, only what is newer than
            // the browser's is written.
            let is_sure = entry.state.look().await.is_ok();
            let is_newer = |shown: &Shown| shown.generation() < browser.copy.newest();
            if !is_sure && !shown.as_deref().is_none_or(is_newer) {
                return None;
            }
            // What only the browser has is newer than anything here.
            if entry.state.health().needs_sign_in() || browser.copy.is_stale() {
                return None;
            }
            shared.remember(&entry, browser).await;
            match sealed.write(&shared.cookie, browser, shown.is_none()) {
                Ok(cookies) => Some(cookies),
                Err(error) => {
                    tracing::warn!(session = %entry.name(), %error, "the browser keeps older tokens");
                    None
                }
            }
        }))
    }

    /// What the service below has answered.
    fn finish<R>(self, response: Response<R>) -> Response<SessionBody<R>> {
        let Some(slot) = &self.slot else { return response.map(SessionBody::whole) };
        let shared = &self.layer.shared;
        let entry = slot.0.lives();
        let (mut parts, body) = response.into_parts();
        if let Some(entry) = &entry {
            let is_refused = parts.status == StatusCode::UNAUTHORIZED;
            let failure = parts.extensions.get::<RefreshFailure>().filter(|_| is_refused);
            let health = entry.state.health();
            if health == Health::Rejected {
                // If that fails it is tried again with the next request.
                let ending = shared.end_rejected(entry);
                spawn(async move { drop(ending.await) });
            }
            let answer = match failure.map(RefreshFailure::kind) {
                // The server behind refuses it for reasons of its own, or it is not our token's.
                None | Some(FailureKind::Doubted | FailureKind::Unsendable) => None,
                Some(_) if health == Health::Fresh => None,
                Some(_) if health.needs_sign_in() => Some(self.has_ended(entry, health, failure)),
                Some(_) => Some(answer::unavailable(self.is_event_stream)),
            };
            if let Some(mut answer) = answer {
                // Who has set a cookie below counts on it, and a sign-in of the same request counts, too.
                for cookie in parts.headers.get_all(SET_COOKIE) {
                    answer.headers_mut().append(SET_COOKIE, cookie.clone());
                }
                answer::finish(&shared.cookie, &slot.0, answer.headers_mut());
                return answer;
            }
        }
        answer::finish(&shared.cookie, &slot.0, &mut parts.headers);
        let is_stream = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        });
        let body = match slot.session_unasked().filter(|_| is_stream) {
            Some(session) => {
                SessionBody::stream(body, Box::pin(async move { session.ended().await }))
            }
            None => SessionBody::whole(body),
        };
        Response::from_parts(parts, body)
    }
}

pin_project! {
    /// The future of a [`SessionService`].
    pub struct SessionFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        #[pin]
        state: State<S, B, R, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    #[project_replace = StateTaken]
    enum State<S, B, R, F> {
        Finding {
            finding: Finding,
            request: Option<(Parts, B)>,
            inner: Option<S>,
            visit: Option<OneVisit>,
        },
        Readying { inner: S, request: Option<Request<B>>, visit: Option<OneVisit> },
        Calling { #[pin] future: F, visit: OneVisit },
        Writing { writing: Writing, response: Option<Response<R>>, visit: Option<OneVisit> },
        Answered { response: Option<Response<SessionBody<R>>> },
        Done,
    }
}

impl<S, B, R> SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    fn answered(answer: Response<SessionBody<R>>) -> Self {
        Self { state: State::Answered { response: Some(answer) } }
    }
}

impl<S, B, R> Future for SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<SessionBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Finding { finding, request, inner, visit } => {
                    let found = ready!(finding.as_mut().poll(cx));
                    // Taken once: the state is another one after this.
                    let taken = (request.take(), inner.take(), visit.take());
                    let (Some((mut parts, body)), Some(inner), Some(mut visit)) = taken else {
                        panic!("{POLLED_AGAIN}");
                    };
                    let answer = match found {
                        Ok((visited, shown)) => {
                            visit.admit(&mut parts, Found::Visit(visited), shown)
                        }
                        Err(_) => Some(answer::unavailable(visit.is_event_stream)),
                    };
                    match answer {
                        None => {
                            let request = Some(Request::from_parts(parts, body));
                            State::Readying { inner, request, visit: Some(visit) }
                        }
                        response => State::Answered { response },
                    }
                }
                StateProject::Readying { inner, request, visit } => {
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let (Some(request), Some(visit)) = (request.take(), visit.take()) else {
                        panic!("{POLLED_AGAIN}");
                    };
                    State::Calling { future: inner.call(request), visit }
                }
                StateProject::Calling { future, .. } => {
                    let response = ready!(future.poll(cx));
                    let taken = state.as_mut().project_replace(State::Done);
                    let StateTaken::Calling { visit, .. } = taken else { unreachable!() };
                    match (response, visit.writing()) {
                        (Ok(response), Some(writing)) => {
                            let (response, visit) = (Some(response), Some(visit));
                            State::Writing { writing, response, visit }
                        }
                        (response, _) => {
                            return Poll::Ready(response.map(|response| visit.finish(response)));
                        }
                    }
                }
                StateProject::Writing { writing, response, visit } => {
                    let cookies = ready!(writing.as_mut().poll(cx));
                    // Taken once: the state is another one after this.
                    let (Some(response), Some(visit)) = (response.take(), visit.take()) else {
                        panic!("{POLLED_AGAIN}");
                    };
                    if let (Some(cookies), Some(slot)) = (cookies, &visit.slot) {
                        slot.0.set(cookies);
                    }
                    State::Answered { response: Some(visit.finish(response)) }
                }
                StateProject::Answered { response } => {
                    let response = response.take();
                    return Poll::Ready(Ok(response.expect(POLLED_AGAIN)));
                }
                StateProject::Done => panic!("{POLLED_AGAIN}"),
            };
            state.set(next);
        }
    }
}

/// As futures may say that are polled after their end.
const POLLED_AGAIN: &str = "the future has ended, and is polled again";

impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, B, R> fmt::Debug for SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}
