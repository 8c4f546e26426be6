//! [`Alarms`]: what has to happen later in a family of credentials. Waiters whose deadline has come
//! are woken, and credentials that are kept fresh are looked at.
//!
//! One task a runtime does it for all of a family, for as long as there is anything to come, so that
//! a flight costs no timer of its own, and a credential that is kept fresh no task.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::{Notify, Semaphore, SemaphorePermit},
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::{
    RefreshState,
    machine::{Machine, Upkeep},
};
use crate::time::{MAX_WAIT, Time, after};

/// However short the tokens' lives and the cool-down are, no credential is looked at sooner after the
/// time before.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// How long the wall clock is not looked at, at most, while a credential is kept fresh. tokio's clock
/// stands still while the machine sleeps.
const LOOK: Duration = Duration::from_secs(30);

/// By how much the clocks may have drifted apart before all credentials are looked at.
const DRIFT: Duration = Duration::from_secs(1);

/// After so many alarms the task lets others run.
const AT_ONCE: usize = 32;

/// The alarms of a family.
pub(super) struct Alarms {
    bells: Mutex<Vec<Arc<Bell>>>,
    /// The flights that may begin of which no request waits.
    background: Arc<Semaphore>,
}

/// The alarms of a family in one runtime.
pub(super) struct Bell {
    runtime: runtime::Id,
    list: Mutex<List>,
    /// The task is to look at the list again.
    changed: Notify,
    background: Arc<Semaphore>,
}

#[derive(Default)]
struct List {
    /// Flights, by the deadline of their first waiter.
    deadlines: BTreeMap<DeadlineKey, Weak<RefreshState>>,
    /// How many keys were given for them.
    deadlines_given: u64,
    /// Credentials that are kept fresh, by when they are looked at.
    looks: BTreeMap<(Instant, Address), Weak<RefreshState>>,
    kept: HashMap<Address, Kept>,
    /// A moment by both clocks, from which on the wall clock has gained less than [`DRIFT`].
    clocks: Option<Time>,
    /// Until when the task sleeps. `None`: there is none.
    sleeps: Option<Instant>,
}

/// With a number of its own: a flight may land late, when the next one of the same state has the same
/// deadline.
type DeadlineKey = (Instant, u64);

/// A state's address, while there is a `Weak` to it and no other state can have the same.
type Address = usize;

struct Kept {
    guards: u32,
    /// When it is looked at. `None`: it is looked at now.
    at: Option<Instant>,
    /// Not before that.
    earliest: Instant,
    /// It is to be looked at again.
    again: bool,
}

/// What the task does about a new alarm.
enum Task {
    /// It looks at the list in time.
    IsAwake,
    Sleeps,
    Missing,
}

/// What rings.
enum Ring {
    Deadline(Weak<RefreshState>),
    Look(Address, Weak<RefreshState>),
}

/// Wakes a flight's waiters at their deadlines, until it is dropped.
pub(super) struct DeadlineAlarm {
    bell: Arc<Bell>,
    key: DeadlineKey,
}

impl Alarms {
    pub(super) fn new(background: Arc<Semaphore>) -> Self {
        Self { bells: Mutex::default(), background }
    }

    /// Wakes the waiters of this state's flight from then on. `true`: the task has to run once, so
    /// that it knows of it.
    pub(super) fn wake_waiters(
        &self,
        state: &Arc<RefreshState>,
        from: Instant,
        runtime: &Handle,
    ) -> (DeadlineAlarm, bool) {
        let bell = self.bell(runtime);
        let mut list = bell.list();
        let key = list.add_deadline(from, state);
        let task = list.rings_at(from);
        drop(list);
        let is_news = bell.tell(task, runtime);
        (DeadlineAlarm { bell, key }, is_news)
    }

    /// Looks at this state now, and whenever it says.
    pub(super) fn keep(&self, state: &Arc<RefreshState>, runtime: &Handle) -> Arc<Bell> {
        let bell = self.bell(runtime);
        let (now, address) = (Instant::now(), address(state));
        let mut list = bell.list();
        let new = || Kept { guards: 0, at: None, earliest: now, again: false };
        let kept = list.kept.entry(address).or_insert_with(new);
        kept.guards += 1;
        if kept.guards > 1 {
            drop(list);
            return bell;
        }
        kept.at = Some(now);
        list.looks.insert((now, address), Arc::downgrade(state));
        let task = list.rings_at(now);
        drop(list);
        bell.tell(task, runtime);
        bell
    }

    /// Something has happened to this state, which may be kept fresh.
    pub(super) fn look_again(&self, state: &RefreshState) {
        for bell in &*self.bells() {
            bell.look_again(std::ptr::from_ref(state).addr());
        }
    }

    /// This state is dropped.
    pub(super) fn forget(&self, state: &RefreshState) {
        for bell in &*self.bells() {
            bell.forget(std::ptr::from_ref(state).addr());
        }
    }

    fn bell(&self, runtime: &Handle) -> Arc<Bell> {
        let mut bells = self.bells();
        if let Some(bell) = bells.iter().find(|bell| bell.runtime == runtime.id()) {
            return Arc::clone(bell);
        }
        // Of runtimes that are gone.
        bells.retain(|bell| Arc::strong_count(bell) > 1 || bell.list().sleeps.is_some());
        let bell = Arc::new(Bell {
            runtime: runtime.id(),
            list: Mutex::default(),
            changed: Notify::new(),
            background: Arc::clone(&self.background),
        });
        bells.push(Arc::clone(&bell));
        bell
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Arc<Bell>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn add_deadline(&mut self, at: Instant, state: &Arc<RefreshState>) -> DeadlineKey {
        self.deadlines_given += 1;
        let key = (at, self.deadlines_given);
        self.deadlines.insert(key, Arc::downgrade(state));
        key
    }

    /// There is an alarm at that moment, and the task will be awake by then.
    fn rings_at(&mut self, at: Instant) -> Task {
        match self.sleeps {
            Some(until) if until <= at => Task::IsAwake,
            sleeps => {
                self.sleeps = Some(at);
                if sleeps.is_some() { Task::Sleeps } else { Task::Missing }
            }
        }
    }
}

impl Bell {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Outside the lock, which a runtime that is shut down takes to drop the task. `true`: the task
    /// has to run once.
    fn tell(self: &Arc<Self>, task: Task, runtime: &Handle) -> bool {
        match task {
            Task::IsAwake => return false,
            Task::Sleeps => self.changed.notify_one(),
            Task::Missing => {
                drop(runtime.spawn(ring(Ringing { bell: Arc::clone(self), is_over: false })))
            }
        }
        true
    }

    fn look_again(&self, address: Address) {
        let now = Instant::now();
        let mut list = self.list();
        let List { looks, kept, sleeps, .. } = &mut *list;
        let Some(kept) = kept.get_mut(&address) else { return };
        kept.again = true;
        let next = now.max(kept.earliest);
        let Some(at) = kept.at.filter(|at| *at > next) else { return };
        if let Some(state) = looks.remove(&(at, address)) {
            kept.at = Some(next);
            looks.insert((next, address), state);
        }
        if sleeps.is_some_and(|until| until > next) {
            self.changed.notify_one();
        }
    }

    /// A guard of this state is gone.
    pub(super) fn release(&self, state: &Weak<RefreshState>) {
        let address = state.as_ptr().addr();
        let mut list = self.list();
        let Some(kept) = list.kept.get_mut(&address) else { return };
        kept.guards -= 1;
        let is_last = kept.guards == 0;
        drop(list);
        if is_last {
            self.forget(address);
        }
    }

    fn forget(&self, address: Address) {
        let mut list = self.list();
        let Some(kept) = list.kept.remove(&address) else { return };
        if let Some(at) = kept.at {
            list.looks.remove(&(at, address));
        }
        self.notice_end(&list);
    }

    /// The task ends as soon as there is nothing to come.
    fn notice_end(&self, list: &List) {
        if list.kept.is_empty() && list.deadlines.is_empty() && list.sleeps.is_some() {
            self.changed.notify_one();
        }
    }

    /// What rings now. `may_look`: a flight may begin.
    fn next(&self, now: Instant, may_look: bool) -> Option<Ring> {
        let mut list = self.list();
        if let Some(first) = list.deadlines.first_entry().filter(|first| first.key().0 <= now) {
            return Some(Ring::Deadline(first.remove()));
        }
        let first = list.looks.first_entry().filter(|first| may_look && first.key().0 <= now)?;
        let ((_, address), state) = first.remove_entry();
        if let Some(kept) = list.kept.get_mut(&address) {
            kept.at = None;
            kept.again = false;
            kept.earliest = after(now, MIN_PAUSE);
        }
        Some(Ring::Look(address, state))
    }

    /// Until when nothing rings. `None`: nothing will.
    fn sleep(&self, now: Instant, may_look: bool) -> Option<Instant> {
        let mut list = self.list();
        let deadline = list.deadlines.first_key_value().map(|first| first.0.0);
        let look = list.looks.first_key_value().map(|first| first.0.0).map(|at| match may_look {
            true => at.min(after(now, LOOK)),
            false => after(now, LOOK),
        });
        list.sleeps = deadline.into_iter().chain(look).min();
        list.sleeps
    }

    /// A flight's waiters are woken whose time has come.
    fn wake_waiters(&self, state: &Weak<RefreshState>) {
        let Some(state) = state.upgrade() else { return };
        let now = Instant::now();
        if let Some(next) = state.wake_due(now) {
            self.list().add_deadline(next, &state);
        }
    }

    /// Looks at a credential. Code of the user's may run in that, as of who listens to the log: its
    /// panic is no other credential's matter.
    fn look(&self, address: Address, weak: Weak<RefreshState>, now: Instant) {
        let ask = || Some(weak.upgrade()?.with(Machine::upkeep));
        let upkeep = match catch_unwind(AssertUnwindSafe(ask)) {
            Ok(Some(upkeep)) => upkeep,
            Ok(None) => return self.forget(address),
            Err(_) => Upkeep::Until(Time::now().after(LOOK)),
        };
        let mut list = self.list();
        let List { looks, kept: all, .. } = &mut *list;
        // If it has a moment already, it was let go and is kept anew since.
        let Some(kept) = all.get_mut(&address).filter(|kept| kept.at.is_none()) else { return };
        let next = match upkeep {
            _ if kept.again => now,
            // By the wall clock if that says less: the machine may have slept.
            Upkeep::Until(due) => after(now, due.left(Time::now())),
            Upkeep::News => after(now, MAX_WAIT),
            Upkeep::Over => {
                all.remove(&address);
                return;
            }
        };
        let next = next.max(kept.earliest);
        kept.at = Some(next);
        looks.insert((next, address), weak);
    }

    /// Looks at every credential if the machine has slept, or the wall clock was set forward.
    fn notice_clocks(&self) {
        let time = Time::now();
        let mut list = self.list();
        let List { looks, kept, clocks, .. } = &mut *list;
        let before = *clocks.get_or_insert(time);
        let by_wall = time.wall.duration_since(before.wall).unwrap_or_default();
        let passed = time.now.saturating_duration_since(before.now);
        if by_wall < passed {
            *clocks = Some(time);
        }
        if by_wall < passed + DRIFT {
            return;
        }
        *clocks = Some(time);
        for ((_, address), state) in std::mem::take(looks) {
            if let Some(kept) = kept.get_mut(&address) {
                let at = time.now.max(kept.earliest);
                kept.at = Some(at);
                looks.insert((at, address), state);
            }
        }
    }
}

/// The task's hold on its bell.
struct Ringing {
    bell: Arc<Bell>,
    is_over: bool,
}

impl Drop for Ringing {
    fn drop(&mut self) {
        if !self.is_over {
            // Its runtime is shut down, and what is in the list ends with it.
            let list = std::mem::take(&mut *self.bell.list());
            drop(list);
        }
    }
}

/// Ends when there is nothing to come.
async fn ring(mut ringing: Ringing) {
    let bell = Arc::clone(&ringing.bell);
    // One that was waited for. Given back right before it is used: by then no other has taken it.
    let mut turn = None;
    loop {
        bell.notice_clocks();
        for _ in 0..AT_ONCE {
            let now = Instant::now();
            let may_look = turn.is_some() || bell.background.available_permits() > 0;
            match bell.next(now, may_look) {
                Some(Ring::Deadline(state)) => bell.wake_waiters(&state),
                Some(Ring::Look(address, state)) => {
                    // The flight that may begin has it, or waits in the queue for it.
                    drop(turn.take());
                    bell.look(address, state, now);
                }
                None => {
                    let Some(until) = bell.sleep(now, may_look) else {
                        ringing.is_over = true;
                        return;
                    };
                    drop(turn.take());
                    turn = bell.rest(until, may_look).await;
                    break;
                }
            }
        }
        yield_now().await;
    }
}

impl Bell {
    /// Until then, or there is something new, or a flight may begin that had to wait: it has its
    /// turn then.
    async fn rest(&self, until: Instant, may_look: bool) -> Option<SemaphorePermit<'_>> {
        let mut over = pin!(sleep_until(until));
        let mut changed = pin!(self.changed.notified());
        let mut free = pin!(self.background.acquire());
        poll_fn(|cx| {
            if !may_look {
                if let Poll::Ready(turn) = free.as_mut().poll(cx) {
                    return Poll::Ready(turn.ok());
                }
            }
            let ends = over.as_mut().poll(cx).is_ready() || changed.as_mut().poll(cx).is_ready();
            if ends { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

impl Drop for DeadlineAlarm {
    fn drop(&mut self) {
        // One that has rung is in the list at a later moment. It is the last of this flight, and
        // wakes nobody.
        let mut list = self.bell.list();
        list.deadlines.remove(&self.key);
        self.bell.notice_end(&list);
    }
}

fn address(state: &Arc<RefreshState>) -> Address {
    Arc::as_ptr(state).addr()
}
