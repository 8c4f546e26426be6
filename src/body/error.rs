//! Why a body cannot be replayed, and how the body of an attempt can fail.

use std::{error::Error, fmt};

use crate::error::BoxError;

/// Why a request's body cannot be sent a second time.
///
/// The first reason met is the one reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotReplayable {
    /// The body has more bytes than may be kept of one body.
    TooLarge,
    /// Keeping it would have passed the [`Budget`](super::Budget) that all requests share.
    OverBudget,
    /// The body ended in an error, or panicked, while it was first sent.
    SourceFailed,
    /// What was kept has been freed: the response was accepted.
    Released,
    /// The request must not be sent twice, whatever its body; also said of a body with frames that
    /// are neither data nor trailers, which cannot be kept.
    Forbidden,
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is larger than may be kept for a replay",
            Self::OverBudget => "too much is kept already of request bodies that may be replayed",
            Self::SourceFailed => "the request body failed while it was sent",
            Self::Released => "what was kept of the request body has been freed",
            Self::Forbidden => "the request may not be replayed",
        })
    }
}

impl Error for NotReplayable {}

/// What a [`ReplayBody`](super::ReplayBody) fails with.
#[derive(Debug)]
pub struct BodyError(Repr);

#[derive(Debug)]
enum Repr {
    Source(BoxError),
    Superseded,
}

/// The kinds of [`BodyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyErrorKind {
    /// The request's own body failed; [`source`](Error::source) is its error.
    Source,
    /// A replay took the rest of the body over. Nobody waits for this attempt any more.
    Superseded,
}

impl BodyError {
    /// What went wrong.
    pub fn kind(&self) -> BodyErrorKind {
        match self.0 {
            Repr::Source(_) => BodyErrorKind::Source,
            Repr::Superseded => BodyErrorKind::Superseded,
        }
    }

    pub(super) fn source_failed(error: impl Into<BoxError>) -> Self {
        Self(Repr::Source(error.into()))
    }

    pub(super) fn superseded() -> Self {
        Self(Repr::Superseded)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Source(error) => error.fmt(f),
            Repr::Superseded => f.write_str("a replay took the rest of the request body over"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Repr::Source(error) => Some(&**error),
            Repr::Superseded => None,
        }
    }
}
