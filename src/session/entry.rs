//! One session, as this process has it: [`Entry`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    id::{Digested, SessionName},
    identity::Identity,
    record::SessionRecord,
    sealed::InBrowser,
};
use crate::{
    state::{RefreshState, Renewal},
    store::Record,
    time::{Due, Time},
};

/// A session that this process has loaded.
pub(super) struct Entry {
    pub(super) digest: Digested,
    pub(super) state: Arc<RefreshState>,
    pub(super) record: Arc<SessionRecord>,
    /// Where its cookies are, if its tokens are in them.
    pub(super) in_browser: Option<InBrowser>,
    pub(super) identity: Arc<Identity>,
    /// Never moves.
    pub(super) deadline: Due,
    /// It was loaded then; the other moments count from it.
    born: Instant,
    /// When the store was last looked at: the beginning of the look.
    looked: Moment,
    /// When the store was last told by this process to keep it for longer.
    touched: Moment,
    /// By a request that was served.
    used: Moment,
    /// The log and the metrics know that it has ended.
    is_told: AtomicBool,
}

/// Milliseconds since the entry was born. Zero: then.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn never() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    fn is_never(&self) -> bool {
        self.0.load(Ordering::Relaxed) == u64::MAX
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, since: Duration) {
        // No process lives for half a billion years.
        self.0.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Entry {
    /// Of what was read at this moment, or earlier.
    pub(super) fn new(
        digest: Digested,
        (renewal, record, in_browser): (&Renewal, Arc<SessionRecord>, Option<InBrowser>),
        stored: &Record,
        (identity, deadline): (Identity, SystemTime),
        time: Time,
    ) -> Arc<Self> {
        let left = deadline.duration_since(time.wall).unwrap_or_default();
        let identity = Arc::new(identity);
        record.keep(&identity, deadline);
        let heads = in_browser.as_ref().map(|it| it.copy.heads.clone());
        Arc::new(Self {
            digest,
            state: renewal.state_of(record.clone(), stored, heads),
            record,
            in_browser,
            identity,
            deadline: Due { wall: deadline, ..time.after(left) },
            born: time.now,
            looked: Moment::default(),
            touched: Moment::never(),
            used: Moment::never(),
            is_told: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> SessionName {
        SessionName::of(self.digest)
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Whether the store was looked at no longer ago than that. A look that has not begun yet does
    /// not count.
    pub(super) fn was_looked_at(&self, within: Duration, now: Instant) -> bool {
        !within.is_zero() && self.age(now).saturating_sub(self.looked.get()) < within
    }

    /// A look that has begun then has found it alive.
    pub(super) fn looked(&self, begun: Instant) {
        self.looked.set(self.age(begun));
    }

    /// Whether a request of this process has used it that recently.
    pub(super) fn was_used(&self, within: Duration, now: Instant) -> bool {
        !self.used.is_never() && self.age(now).saturating_sub(self.used.get()) < within
    }

    pub(super) fn use_now(&self, now: Instant) {
        self.used.set(self.age(now));
    }

    /// Whether the store has to be told again that it is used. If so, the caller tells it.
    pub(super) fn take_touch(&self, every: Duration, now: Instant) -> bool {
        let age = self.age(now);
        let is_due = self.touched.is_never() || age.saturating_sub(self.touched.get()) >= every;
        if is_due {
            self.touched.set(age);
        }
        is_due
    }

    /// That has failed: the next request tells it.
    pub(super) fn touch_failed(&self) {
        self.touched.set(Duration::MAX);
    }

    /// The store was told just now.
    pub(super) fn touched_at_birth(&self) {
        self.touched.set(Duration::ZERO);
    }

    /// `true` once.
    pub(super) fn tell(&self) -> bool {
        !self.is_told.swap(true, Ordering::AcqRel)
    }

    /// Whether nothing is lost with it, and only its caller has it.
    pub(super) fn is_idle(self: &Arc<Self>, now: Instant, since: Duration) -> bool {
        Arc::strong_count(self) == 1
            && self.age(now) >= since
            && !self.was_used(since, now)
            && self.state.is_at_rest()
    }
}
