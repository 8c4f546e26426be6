//! How a token goes on a request ([`Attach`]), and the mark that an attempt carries
//! ([`Attempt`]).

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, Entry},
    request::Parts,
};

use crate::{
    credential::{Credential, header},
    tokens::Generation,
};

/// Which attempt of a request this is. Services below the layer find it in the extensions of a
/// replay, and in those of a first attempt with
/// [`mark_attempts(true)`](crate::RefreshLayer::mark_attempts): three small allocations a request,
/// a quarter of what this layer costs.
///
/// ```
/// use tower_refresh::layer::Attempt;
///
/// fn log<B>(request: &http::Request<B>) {
///     if let Some(replay) = request.extensions().get::<Attempt>() {
///         println!("attempt {} with token {}", replay.number(), replay.generation());
///     }
/// }
/// # log(&http::Request::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    number: u8,
    generation: Generation,
}

/// The number of the first attempt.
pub(super) const FIRST: u8 = 1;

/// The number of the second attempt, which is the last.
pub(super) const REPLAY: u8 = 2;

impl Attempt {
    pub(super) fn new(number: u8, generation: Generation) -> Self {
        Self { number, generation }
    }

    pub(super) fn mark(self, parts: &mut Parts) {
        parts.extensions.insert(self);
    }

    /// 1 for the first attempt, 2 for the replay.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The generation of the credential that it carries.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// Where the token goes.
#[derive(Clone)]
pub(crate) enum Attach {
    /// Into this header. `AUTHORIZATION` has the prefix `Bearer `, any other name has none.
    Header { name: HeaderName, prefix: &'static str },
    /// Wherever this closure puts it.
    With(AttachFn),
}

pub(crate) type AttachFn = Arc<dyn Fn(&mut Parts, &Credential) + Send + Sync>;

impl Attach {
    pub(super) const BEARER: Self = Self::Header { name: AUTHORIZATION, prefix: "Bearer " };

    /// The header's value for this credential. With `own_memory` it is a copy, so that
    /// services on several threads share no reference count. `None` without a token, with
    /// one that cannot stand in a header, and where a closure attaches it.
    pub(super) fn value(&self, credential: &Credential, own_memory: bool) -> Option<HeaderValue> {
        match self {
            Self::Header { name, .. } if *name == AUTHORIZATION && !own_memory => {
                credential.bearer()
            }
            Self::Header { prefix, .. } => header(prefix, credential.access_token()?),
            Self::With(_) => None,
        }
    }

    /// Whether this credential's token has no way onto a request.
    pub(super) fn is_unsendable(
        &self,
        credential: &Credential,
        value: Option<&HeaderValue>,
    ) -> bool {
        matches!(self, Self::Header { .. }) && value.is_none() && credential.is_present()
    }

    /// Whether the request has brought credentials of its own.
    #[inline]
    pub(super) fn is_taken(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Header { name, .. } if *name != AUTHORIZATION => {
                headers.contains_key(name) || headers.contains_key(AUTHORIZATION)
            }
            _ => headers.contains_key(AUTHORIZATION),
        }
    }

    /// The first half of attaching: `false`, and nothing done, if the request has brought
    /// credentials of its own. A token for `Authorization` is put there at once, because one
    /// look at the map does both. `value` is what [`value`](Self::value) said.
    #[must_use]
    #[inline]
    pub(super) fn claim(&self, headers: &mut HeaderMap, value: Option<&HeaderValue>) -> bool {
        match (self, value) {
            (Self::Header { name, .. }, Some(value)) if *name == AUTHORIZATION => {
                match headers.entry(AUTHORIZATION) {
                    Entry::Vacant(entry) => entry.insert(value.clone()),
                    Entry::Occupied(_) => return false,
                };
                true
            }
            _ => !self.is_taken(headers),
        }
    }

    /// The second half: attaches the token, unless [`claim`](Self::claim) has.
    #[inline]
    pub(super) fn complete(
        &self,
        parts: &mut Parts,
        credential: &Credential,
        value: Option<&HeaderValue>,
    ) {
        match (self, value) {
            (Self::Header { name, .. }, Some(value)) if *name != AUTHORIZATION => {
                parts.headers.insert(name, value.clone());
            }
            (Self::Header { .. }, _) => {}
            (Self::With(attach), _) => attach(parts, credential),
        }
    }
}
