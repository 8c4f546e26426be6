//! Moments by two clocks: the monotonic one, which stands still while a machine sleeps, and the
//! wall clock, which is set.

#[cfg(feature = "session")]
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// One moment by both clocks, so that decisions need no clock of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Time {
    pub(crate) fn now() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    /// The same, where the wall clock is for moments that leave the process and come back to be compared:
    /// in a process it never goes back. If it is set back, it goes on by the monotonic clock.
    #[cfg(feature = "session")]
    pub(crate) fn never_back() -> Self {
        static START: OnceLock<Time> = OnceLock::new();
        let Self { now, wall } = Self::now();
        let start = START.get_or_init(|| Self { now, wall });
        let by_monotonic = start.wall.checked_add(now.saturating_duration_since(start.now));
        Self { now, wall: by_monotonic.map_or(wall, |by_monotonic| wall.max(by_monotonic)) }
    }

    /// So much later, but no later than [`MAX_WAIT`].
    pub(crate) fn after(self, wait: Duration) -> Due {
        let wall = self.wall.checked_add(wait.min(MAX_WAIT)).unwrap_or(self.wall);
        Due { now: after(self.now, wait), wall }
    }
}

/// As far away as a wait may be: a hundred years, so that sums stay in range.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `now + wait`, whatever a server says.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(MAX_WAIT)).unwrap_or(now)
}

/// A moment to come: the end of a life or of a wait. It has come as soon as either clock says
/// so, because the monotonic one stands still while a machine sleeps, and the wall clock is
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Due {
    #[must_use]
    pub(crate) fn has_come(self, time: Time) -> bool {
        self.now <= time.now || self.wall <= time.wall
    }

    /// For how long yet: by the wall clock if that says less. A second makes no difference:
    /// the clocks are not read at the same moment, and drift apart.
    pub(crate) fn left(self, time: Time) -> Duration {
        let by_wall = self.wall.duration_since(time.wall).unwrap_or_default();
        let left = self.now.saturating_duration_since(time.now);
        if left > by_wall + Duration::from_secs(1) { by_wall } else { left }
    }

    /// The moment at which both have come.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self { now: self.now.max(other.now), wall: self.wall.max(other.wall) }
    }

    /// The moment at which either has come.
    #[must_use]
    pub(crate) fn min(self, other: Self) -> Self {
        Self { now: self.now.min(other.now), wall: self.wall.min(other.wall) }
    }

    /// So much earlier.
    #[must_use]
    pub(crate) fn before(self, window: Duration) -> Self {
        Self {
            now: self.now.checked_sub(window).unwrap_or(self.now),
            wall: self.wall.checked_sub(window).unwrap_or(self.wall),
        }
    }
}
