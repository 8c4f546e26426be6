//! One request on its way: what is known of it, and what becomes of its response ([`OneVisit`]).

use std::sync::Arc;

use http::{
    HeaderValue, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, SET_COOKIE},
    request::Parts,
};
use smallvec::SmallVec;

use super::{
    answer,
    body::SessionBody,
    csrf::{is_same_origin, is_withheld},
    ended::Ended,
    entry::Entry,
    layer::SessionLayer,
    place::Found,
    sealed::{Due, Shown},
    shared::{Claim, Shared, Visit, spawn},
    slot::SessionSlot,
    visitor::{Visitor, is_event_stream, take_mark},
};
use crate::{
    refresher::BoxFuture,
    state::{FailureKind, Health, OwedHead, RefreshFailure},
    store::StoreError,
};

/// What has become of the session, and which claim it was if it lives.
pub(super) type Finding = BoxFuture<'static, Result<(Visit, Option<Claim>), StoreError>>;

/// The cookies of a response.
pub(super) type Writing = BoxFuture<'static, Option<Vec<HeaderValue>>>;

/// The first that lives. Else the first that has ended, or may have a newer cookie.
pub(super) async fn find(
    shared: Arc<Shared>,
    claims: SmallVec<[Claim; 1]>,
    may_come_again: bool,
) -> Result<(Visit, Option<Claim>), StoreError> {
    let (mut found, mut failed) = (Visit::Unknown, None);
    let mut claims = claims.into_iter();
    while let Some(claim) = claims.next() {
        match (shared.visit(&claim, may_come_again).await, &found) {
            (Ok(lives @ Visit::Lives(_)), _) => {
                if claim.landing.is_some() {
                    spawn(async move { shared.replace(claims).await });
                }
                return Ok((lives, Some(claim)));
            }
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
pub(super) fn may_come_again(parts: &Parts) -> bool {
    parts.method.is_safe() || is_same_origin(parts)
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
pub(super) struct OneVisit {
    layer: SessionLayer,
    /// It was asked to come again, and has.
    pub(super) is_again: bool,
    pub(super) is_event_stream: bool,
    /// `None`: the layer above has one.
    pub(super) slot: Option<SessionSlot>,
    /// The response that can take new tokens to the browser, if they are kept there.
    owed: Option<OwedHead>,
    /// A user opens a page, and is to be taken to a sign-in if there is no session.
    page: Option<Box<(Visitor, Uri)>>,
}

impl OneVisit {
    /// Of this request, which has no mark any more.
    pub(super) fn new(layer: SessionLayer, parts: &mut Parts) -> Self {
        Self {
            layer,
            is_again: came_again(parts),
            is_event_stream: is_event_stream(&parts.headers),
            slot: None,
            owed: None,
            page: None,
        }
    }

    pub(super) fn required<R>(
        &self,
        parts: &Parts,
        ended: Option<Ended>,
    ) -> Response<SessionBody<R>> {
        answer::required(&self.layer.rules, &Visitor::of(parts), &parts.uri, ended)
    }

    /// The answer to a request that may not go on.
    pub(super) fn admit<R>(
        &mut self,
        parts: &mut Parts,
        found: Found,
        claim: Option<Claim>,
    ) -> Option<Response<SessionBody<R>>> {
        if matches!(found, Found::Visit(Visit::Again)) {
            if let Some(again) = answer::again(&parts.uri) {
                return Some(again);
            }
        }
        let shared = Arc::clone(&self.layer.shared);
        let is_blind =
            matches!(found, Found::NoCookie) && is_withheld(parts, shared.cookie.is_strict());
        let (shown, landing) = claim.map_or((None, None), |claim| (claim.shown, claim.landing));
        let slot = SessionSlot::new(shared, (found, shown), is_blind);
        if let Some(id) = landing {
            slot.0.set(vec![self.layer.shared.cookie.set(&id)]);
        }
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
            self.owed = entry.in_browser.as_ref().map(|browser| browser.copy.heads.owe());
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
    pub(super) fn writing(&self) -> Option<Writing> {
        let shared = &self.layer.shared;
        let sealed = shared.sealed.as_ref()?;
        let slot = self.slot.as_ref()?;
        let (entry, shown) = (slot.0.lives()?, slot.0.shown());
        let browser = entry.in_browser.as_ref()?;
        if entry.state.health().needs_sign_in() {
            return None;
        }
        sealed.due(browser, shown.as_deref(), shared.idle)?;
        let shared = Arc::clone(shared);
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
            // It may be something else by now.
            let due = sealed.due(browser, shown.as_deref(), shared.idle)?;
            if !matches!(due, Due::Clear(_)) && !shared.remember(&entry, browser).await {
                return None;
            }
            match sealed.write(&shared.cookie, browser, due) {
                Ok(cookies) => Some(cookies),
                Err(error) => {
                    tracing::warn!(session = %entry.name(), %error, "the browser keeps older tokens");
                    None
                }
            }
        }))
    }

    /// What the service below has answered.
    pub(super) fn finish<R>(self, response: Response<R>) -> Response<SessionBody<R>> {
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
