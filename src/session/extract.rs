//! axum's extractors (feature `axum`).

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL, request::Parts};

use super::{answer::SESSION_ENDED, ended::Ended, session::Session, slot::SessionSlot};

/// Why a request has no session for a handler that takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSession {
    /// The browser is not signed in: 401. If it was, and the reason is known, this is why its session
    /// ended.
    SignedOut(Option<Ended>),
    /// There is no [`SessionLayer`](super::SessionLayer) around the route: 500.
    NoLayer,
}

impl std::fmt::Display for NoSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SignedOut(_) => "not signed in",
            Self::NoLayer => "the route has no SessionLayer: put `sessions.layer()` around it",
        })
    }
}

impl std::error::Error for NoSession {}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        match self {
            Self::SignedOut(ended) => {
                let no_store = [(CACHE_CONTROL, "private, no-store")];
                let ended = ended.map(|ended| [(SESSION_ENDED, ended.as_str())]);
                match ended {
                    Some(ended) => (StatusCode::UNAUTHORIZED, no_store, ended).into_response(),
                    None => (StatusCode::UNAUTHORIZED, no_store).into_response(),
                }
            }
            Self::NoLayer => (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response(),
        }
    }
}

/// Of a route behind a [`SessionLayer`](super::SessionLayer).
impl<S: Sync> FromRequestParts<S> for SessionSlot {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoSession> {
        let slot = parts.extensions.get::<Self>().cloned().ok_or(NoSession::NoLayer)?;
        slot.0.ask();
        Ok(slot)
    }
}

/// Of a browser that is signed in. `Option<Session>`: of one that may be.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, NoSession> {
        let slot = SessionSlot::from_request_parts(parts, state).await?;
        slot.session().ok_or_else(|| NoSession::SignedOut(slot.ended()))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, NoSession> {
        Ok(SessionSlot::from_request_parts(parts, state).await?.session())
    }
}
