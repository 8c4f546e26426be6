//! Why a body cannot be replayed ([`NotReplayable`]), and how the body of an attempt can fail
//! ([`BodyError`]).

use std::{error::Error, fmt};

use crate::error::BoxError;

/// Why a request cannot be sent a second time. If there are several reasons, it is the first.
///
/// The response to a request that was refused and not replayed has it in its extensions.
///
/// The page [`questions`](crate::guide::questions#why-did-my-call-fail) shows how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotReplayable {
    /// The body has more bytes than may be kept of one body
    /// ([`RefreshLayer::replay_cap`](crate::RefreshLayer::replay_cap)).
    TooLarge,
    /// The body did not fit into the [`Budget`](super::Budget) that requests share.
    OverBudget,
    /// The body ended in an error, or panicked, while the first attempt sent it.
    SourceFailed,
    /// What was kept of the body has been freed already.
    Released,
    /// The request may not be sent twice, whatever its body
    /// ([`RefreshLayer::replay_if`](crate::RefreshLayer::replay_if)); or the body has frames that are
    /// neither data nor trailers, which cannot be kept.
    Forbidden,
    /// The body cannot be cloned: the closure of
    /// [`RefreshLayer::try_clone_bodies`](crate::RefreshLayer::try_clone_bodies) returned `None`.
    Uncloneable,
    /// The server has carried the request out in part
    /// ([`Verdict::RefreshOnly`](crate::layer::Verdict::RefreshOnly)).
    CarriedOut,
}

impl NotReplayable {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::OverBudget => "over_budget",
            Self::SourceFailed => "source_failed",
            Self::Released => "released",
            Self::Forbidden => "forbidden",
            Self::Uncloneable => "uncloneable",
            Self::CarriedOut => "carried_out",
        }
    }
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is larger than the replay cap",
            Self::OverBudget => "the budget for kept request bodies is used up",
            Self::SourceFailed => "the request body failed while it was sent",
            Self::Released => "the kept part of the request body was freed already",
            Self::Forbidden => "the request may not be replayed",
            Self::Uncloneable => "the request body cannot be cloned",
            Self::CarriedOut => "the request was carried out in part",
        })
    }
}

impl Error for NotReplayable {}

/// The error of a [`ReplayBody`](super::ReplayBody).
///
/// Its text and its [`source`](Error::source) are those of the request's own body, if that failed.
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
    /// A replay has taken the rest of the body over. The layer has dropped the attempt that this
    /// body belongs to; only its connection still reads the body.
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
