//! [`Alarms`]: what has to happen later in a family of credentials. Waiters whose deadline has come
//! are woken, and credentials that are kept fresh are looked at.
//!
//! One task a runtime does it for all of a family, for as long as there is anything to come, so that
//! a flight costs no timer of its own, and a credential that is kept fresh no task.

mod list;

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
};

use tokio::{
    runtime::{self, Handle},
    sync::{Notify, Semaphore, SemaphorePermit},
    task::yield_now,
    time::{Instant, sleep_until},
};

use self::list::{Address, DeadlineKey, List, Ring, Task};
use super::{
    RefreshState,
    clock::LOOK,
    machine::{Machine, Upkeep},
};
use crate::time::Time;

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

/// Wakes a flight's waiters at their deadlines, until it is dropped.
pub(super) struct DeadlineAlarm {
    bell: Arc<Bell>,
    key: DeadlineKey,
}

impl Alarms {
    /// With so many flights at once of which no request waits.
    pub(super) fn new(background_refreshes: usize) -> Self {
        let background = Arc::new(Semaphore::new(background_refreshes));
        Self { bells: Mutex::default(), background }
    }

    /// The flights that may begin of which no request waits.
    pub(super) fn background(&self) -> &Arc<Semaphore> {
        &self.background
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
        let (bell, now) = (self.bell(runtime), Instant::now());
        let mut list = bell.list();
        let task = list.keep(state, now).then(|| list.rings_at(now));
        drop(list);
        task.map(|task| bell.tell(task, runtime));
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
        bells.retain(|bell| Arc::strong_count(bell) > 1 || bell.list().has_task());
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
        if self.list().look_again(address, Instant::now()) {
            self.changed.notify_one();
        }
    }

    /// A guard of this state is gone.
    pub(super) fn release(&self, state: &Weak<RefreshState>) {
        self.change(|list| list.release(state.as_ptr().addr()));
    }

    fn forget(&self, address: Address) {
        self.change(|list| list.forget(address));
    }

    /// Takes something out of the list. The task ends as soon as there is nothing to come.
    fn change(&self, change: impl FnOnce(&mut List)) {
        let mut list = self.list();
        change(&mut list);
        if list.is_over() {
            self.changed.notify_one();
        }
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
    fn look(&self, address: Address, weak: Weak<RefreshState>) {
        let ask = || Some(weak.upgrade()?.with(Machine::upkeep));
        let upkeep = match catch_unwind(AssertUnwindSafe(ask)) {
            Ok(Some(upkeep)) => upkeep,
            Ok(None) => return self.forget(address),
            Err(_) => Upkeep::Until(Time::now().after(LOOK)),
        };
        self.list().looked(address, weak, upkeep, Time::now());
    }

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
        bell.list().notice_clocks(Time::now());
        for _ in 0..AT_ONCE {
            let now = Instant::now();
            let may_look = turn.is_some() || bell.background.available_permits() > 0;
            let next = bell.list().next(now, may_look);
            match next {
                Some(Ring::Deadline(state)) => bell.wake_waiters(&state),
                Some(Ring::Look(address, state)) => {
                    // The flight that may begin has it, or waits in the queue for it.
                    drop(turn.take());
                    bell.look(address, state);
                }
                None => {
                    let until = bell.list().sleep(now, may_look);
                    let Some(until) = until else {
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

impl Drop for DeadlineAlarm {
    fn drop(&mut self) {
        // One that has rung is in the list at a later moment. It is the last of this flight, and
        // wakes no task.
        self.bell.change(|list| list.remove_deadline(self.key));
    }
}
