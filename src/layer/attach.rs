//! How a token is put on a request, and what else an attempt carries.

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

/// Which try of a request this is: inner layers find it in the request's
/// extensions.
///
/// ```
/// use tower_refresh::Attempt;
///
/// fn log<B>(request: &http::Request<B>) {
///     if let Some(attempt) = request.extensions().get::<Attempt>() {
///         println!("try {} with token {}", attempt.number(), attempt.generation());
///     }
/// }
/// # log(&http::Request::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    number: u8,
    generation: Generation,
}

impl Attempt {
    pub(crate) fn new(number: u8, generation: Generation) -> Self {
        Self { number, generation }
    }

    /// 1 for the first try, 2 for the replay.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The generation of the credential it was sent with.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// Where the token goes.
#[derive(Clone)]
pub(crate) enum Attach {
    /// `AUTHORIZATION` has the prefix `Bearer `, any other name has none.
    Header {
        name: HeaderName,
        prefix: &'static str,
    },
    With(AttachFn),
}

pub(crate) type AttachFn = Arc<dyn Fn(&mut Parts, &Credential) + Send + Sync>;

impl Attach {
    pub(crate) const BEARER: Self = Self::Header { name: AUTHORIZATION, prefix: "Bearer " };

    /// The header's value for this credential. What is `kept` for many requests is
    /// in memory of its own, so that no reference count is shared between threads.
    /// `None` where there is no token, none that can stand in a header, or no fixed
    /// header.
    pub(crate) fn value(&self, credential: &Credential, kept: bool) -> Option<HeaderValue> {
        match self {
            Self::Header { name, .. } if *name == AUTHORIZATION && !kept => credential.bearer(),
            Self::Header { prefix, .. } => header(prefix, credential.access_token()?),
            Self::With(_) => None,
        }
    }

    /// Puts the token on a request; `value` is what [`value`](Self::value) said.
    /// `false`, and nothing done, if the request has brought credentials of its own.
    pub(crate) fn apply(
        &self,
        parts: &mut Parts,
        credential: &Credential,
        value: Option<&HeaderValue>,
    ) -> bool {
        match (self, value) {
            // One look at the map does both.
            (Self::Header { name, .. }, Some(value)) if *name == AUTHORIZATION => {
                match parts.headers.entry(AUTHORIZATION) {
                    Entry::Vacant(entry) => entry.insert(value.clone()),
                    Entry::Occupied(_) => return false,
                };
            }
            _ if self.is_taken(&parts.headers) => return false,
            (Self::Header { name, .. }, Some(value)) => {
                parts.headers.insert(name, value.clone());
            }
            (Self::Header { .. }, None) => {}
            (Self::With(attach), _) => attach(parts, credential),
        }
        true
    }

    /// Whether the request has brought credentials of its own.
    pub(crate) fn is_taken(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Header { name, .. } if *name != AUTHORIZATION => {
                headers.contains_key(name) || headers.contains_key(AUTHORIZATION)
            }
            _ => headers.contains_key(AUTHORIZATION),
        }
    }
}
