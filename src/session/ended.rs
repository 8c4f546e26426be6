//! Why a session has ended: [`Ended`].

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::state::RefreshFailure;

/// Why a session has ended.
///
/// A page asks [`SessionSlot::ended`](super::SessionSlot::ended), and a stream awaits
/// [`Session::ended`](super::Session::ended). A fetch that is refused finds
/// [`as_str`](Self::as_str) in the header `Session-Ended`. The log and the counter
/// `tower_refresh_sessions_ended_total` have the same word. The reason is known for ten minutes; after
/// that the session is as unknown as one that never was.
///
/// ```
/// use tower_refresh::session::{Ended, SessionSlot};
///
/// fn greeting(slot: &SessionSlot) -> &'static str {
///     match (slot.session(), slot.ended()) {
///         (Some(_), _) => "welcome back",
///         (None, Some(Ended::Idle)) => "you were away for too long: sign in again",
///         (None, _) => "sign in",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// The user signed out in this session ([`Session::sign_out`](super::Session::sign_out)).
    SignedOut,
    /// Another session of the user or the provider ended it
    /// ([`Sessions::end_all`](super::Sessions::end_all)), or another program deleted its record.
    SignedOutElsewhere,
    /// The same browser has signed in anew.
    Replaced,
    /// No request used it for the time of [`idle`](super::SessionsBuilder::idle), or its record was
    /// evicted.
    Idle,
    /// The time of [`max_age`](super::SessionsBuilder::max_age) is over.
    Deadline,
    /// The authorization server refused the refresh token.
    Refused,
    /// The authorization server refused the refresh token because it was spent before: another
    /// program has a copy.
    Reused,
    /// The authorization server refused the refresh token, and an earlier refresh had been broken off
    /// between the redeem and the save, as when its process was killed. The tokens of that refresh are
    /// lost.
    Interrupted,
}

pub(super) const ALL: [Ended; 8] = [
    Ended::SignedOut,
    Ended::SignedOutElsewhere,
    Ended::Replaced,
    Ended::Idle,
    Ended::Deadline,
    Ended::Refused,
    Ended::Reused,
    Ended::Interrupted,
];

impl Ended {
    /// A stable word for it, for metrics, logs and pages: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::SignedOutElsewhere => "signed_out_elsewhere",
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::Deadline => "deadline",
            Self::Refused => "refused",
            Self::Reused => "reused",
            Self::Interrupted => "interrupted",
        }
    }

    /// Where it stands in [`ALL`].
    pub(super) const fn position(self) -> usize {
        self as usize
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        ALL.into_iter().find(|ended| ended.as_str() == word)
    }

    /// Of a session whose refresh token was rejected.
    pub(super) fn rejected(failure: Option<&RefreshFailure>) -> Self {
        let is_reuse =
            |code: &str| matches!(code, "refresh_token_already_used" | "refresh_token_reused");
        match failure {
            Some(failure) if failure.code().is_some_and(is_reuse) => Self::Reused,
            Some(failure) if failure.open_redeem().is_some() => Self::Interrupted,
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a session has ended, once it has: what is told first stays.
#[derive(Debug, Default)]
pub(super) struct EndedCell(AtomicU8);

impl EndedCell {
    pub(super) fn get(&self) -> Option<Ended> {
        ALL.get(usize::from(self.0.load(Ordering::Acquire)).checked_sub(1)?).copied()
    }

    /// Returns what holds from now on.
    pub(super) fn set(&self, ended: Ended) -> Ended {
        let number = ended as u8 + 1;
        let _ = self.0.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
        self.get().unwrap_or(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_what_it_was_written_for() {
        for ended in ALL {
            assert_eq!(ALL[ended.position()], ended);
            assert_eq!(Ended::parse(ended.as_str()), Some(ended));
        }
        assert_eq!(Ended::parse("unheard_of"), None);
    }

    #[test]
    fn what_is_told_first_stays() {
        let cell = EndedCell::default();
        assert_eq!(cell.get(), None);
        for ended in ALL {
            assert_eq!(EndedCell::default().set(ended), ended);
            assert_eq!(cell.set(ended), Ended::SignedOut);
        }
    }
}
