//! When to look ahead without a request: what [`keep_fresh`](crate::RefreshState::keep_fresh)
//! asks.

use tokio::time::Instant;

use super::{Machine, Standing};

/// When whoever refreshes ahead of expiry looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// At this moment, which is to come; sooner if there is news.
    Until(Instant),
    /// When there is news: a flight has landed, or somebody has signed in.
    News,
    /// Never: no flight will start any more.
    Over,
}

impl Machine {
    /// Somebody looks whether it is time to refresh, without a request: starts what a
    /// request would start now.
    pub(crate) fn upkeep(&mut self, now: Instant) -> Upkeep {
        if self.draining {
            return Upkeep::Over;
        }
        if self.flight.is_none() {
            self.admit(now);
        }
        let due = match self.standing {
            Standing::Held => self.credential.early(),
            // It is being read, or will be when the failure is over.
            Standing::Unread => Some(now),
            Standing::SignedOut => None,
        };
        let allowed = match &self.trouble {
            Some(trouble) => trouble.retry_at(),
            None => Some(now),
        };
        match (due, allowed) {
            (Some(due), Some(allowed)) if self.flight.is_none() => Upkeep::Until(due.max(allowed)),
            _ => Upkeep::News,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::policy::Policy, *};
    use crate::error::{FailureKind, RefreshFailure};

    #[test]
    fn nobody_looks_before_the_cool_down_is_over() {
        let now = Instant::now();
        let over = now + Duration::from_secs(60);
        let mut machine = Machine::unread(Policy::default(), None);
        machine.trouble = Some(RefreshFailure::new(FailureKind::Store).with_retry_at(over));
        assert_eq!(machine.upkeep(now), Upkeep::Until(over));
        assert_eq!(machine.upkeep(over), Upkeep::News, "a flight is under way");
    }
}
