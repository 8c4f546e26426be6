//! The numbers that decisions are made by. Plain data and arithmetic: no clock,
//! no randomness of its own.

use std::time::Duration;

use crate::{
    time::MAX_WAIT,
    tokens::{RESERVED_MINTED_FOR, RESERVED_ORIGIN, Tokens},
};

/// What requests get while new tokens are minted but could not be saved.
///
/// Either way the minted pair is kept, saving it is tried again until it works,
/// and the spent refresh token is not redeemed a second time.
///
/// ```
/// use tower_refresh::{RefreshState, Tokens, state::WhileUnsaved};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
///     .while_unsaved(WhileUnsaved::Serve)
///     .build();
/// # let _ = state;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhileUnsaved {
    /// They fail with [`FailureKind::Unsaved`](crate::FailureKind::Unsaved) as soon
    /// as the old token does not do. If the process dies now, no request
    /// has used tokens that the store does not know.
    #[default]
    Refuse,
    /// They get the new token at once. If the process dies before the save, the
    /// session is lost.
    Serve,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The refresher must have tokens to redeem.
    pub(crate) needs_tokens: bool,
    /// What the refresher has tokens minted for, if it says so.
    pub(crate) minted_for: Option<String>,
    /// An empty store means that the session has ended, as after a sign-out.
    pub(crate) absent_ends: bool,
    pub(crate) early: Duration,
    pub(crate) early_fraction: u32,
    pub(crate) early_spread: u32,
    pub(crate) cool_down: Duration,
    pub(crate) cool_down_max: Duration,
    pub(crate) client_cool_down: Duration,
    pub(crate) brake_after: usize,
    pub(crate) brake_window: Duration,
    pub(crate) brake_pause: Duration,
    pub(crate) deadline: Duration,
    pub(crate) while_unsaved: WhileUnsaved,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            needs_tokens: true,
            minted_for: None,
            absent_ends: false,
            early: Duration::from_secs(60),
            early_fraction: 5,
            early_spread: 0,
            cool_down: Duration::from_secs(1),
            cool_down_max: Duration::from_secs(60),
            client_cool_down: Duration::from_secs(300),
            brake_after: 5,
            brake_window: Duration::from_secs(30),
            brake_pause: Duration::from_secs(60),
            deadline: Duration::from_secs(30),
            while_unsaved: WhileUnsaved::default(),
        }
    }
}

/// A server's `Retry-After` counts up to here. Some are not what was meant: a moment
/// where seconds should be is half a century.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl Policy {
    /// Notes in tokens what they were minted for, and nothing of where they are from: tokens that
    /// were read from a store, and are signed in with, say what they were there.
    pub(crate) fn stamp(&self, tokens: Tokens) -> Tokens {
        let tokens = tokens.without_extra(RESERVED_ORIGIN);
        match &self.minted_for {
            Some(target) => tokens.with_extra(RESERVED_MINTED_FOR, target),
            None => tokens.without_extra(RESERVED_MINTED_FOR),
        }
    }

    /// Whether these tokens were minted for what this refresher asks for, as far as is known.
    pub(crate) fn accepts(&self, tokens: &Tokens) -> bool {
        match (&self.minted_for, tokens.extra(RESERVED_MINTED_FOR)) {
            (Some(asked), Some(minted)) => asked == minted,
            _ => true,
        }
    }

    /// How long before its end a token of this life is renewed. `jitter` (0 to 1) places it between
    /// the last quarter of the early window and the beginning of the spread, so that replicas, and
    /// credentials whose tokens were minted together, do not all renew in the same second.
    pub(crate) fn early_window(&self, life: Duration, jitter: f64) -> Duration {
        let window = self.early.min(life / self.early_fraction);
        if window.is_zero() {
            return window;
        }
        let spread = (life - window).mul_f64(f64::from(self.early_spread) / 100.0);
        window - (window / 4).mul_f64(1.0 - jitter) + spread.mul_f64(jitter)
    }

    /// How long to cool down after the given number of failures in a row: doubled
    /// each time up to the limit, of which `jitter` (0 to 1) is the part waited.
    pub(crate) fn backoff(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.cool_down.saturating_mul(1 << doublings);
        full.min(self.cool_down_max).min(MAX_WAIT).mul_f64(jitter)
    }
}
