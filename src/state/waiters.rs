//! Who waits: a first-in, first-out list of wakers with deadlines.
//!
//! All waiters of one state may wait equally long, so their deadlines are in the
//! order they came, and one timer, the flight's, serves them all; a waiter that may wait less
//! has a timer of its own, too. All are woken at once: no waiter hands a lock to the next.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

use tokio::{runtime, time::Instant};

#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// `None` while no flight has begun and no waiter is there: most of many credentials
    /// are so.
    list: Option<Box<List>>,
    /// The number of the list's first slot; grows for ever.
    first: u64,
}

#[derive(Debug, Default)]
struct List {
    /// The runtime that the flight runs in, as long as that is known.
    flight_runtime: Option<runtime::Id>,
    /// The flight itself, while it waits for its turn or its lease.
    flight: Option<Waker>,
    /// In the order they came. `None`: that waiter has left.
    waiters: VecDeque<Option<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    deadline: Instant,
    waker: Waker,
}

/// A slot in the list. Good for nothing once its waiter was woken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u64);

/// All who have waited, and the flight if it waits for its turn or its lease.
#[derive(Debug)]
pub(super) struct Everyone(Option<Box<List>>);

/// Wakes one. If its executor panics, the others hear all the same.
pub(super) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

impl Everyone {
    /// Outside the lock. Returns how many waiters there were.
    pub(super) fn wake(self) -> usize {
        let List { flight, waiters, .. } = self.0.map(|list| *list).unwrap_or_default();
        flight.into_iter().for_each(wake);
        let mut woken = 0;
        for waiter in waiters.into_iter().flatten() {
            wake(waiter.waker);
            woken += 1;
        }
        woken
    }
}

impl Waiters {
    /// A flight begins in this runtime. It wakes its waiters at their deadlines.
    pub(super) fn flight_begins(&mut self, runtime: Option<runtime::Id>) {
        self.list.get_or_insert_default().flight_runtime = runtime;
    }

    /// Whether anyone waits.
    pub(super) fn are_there(&self) -> bool {
        // Who has left at the front was taken away.
        self.list.as_ref().is_some_and(|list| !list.waiters.is_empty())
    }

    /// The flight, which has waited for its turn, and whose turn it is now that someone waits for it.
    /// To be woken outside the lock.
    pub(super) fn take_flight(&mut self) -> Option<Waker> {
        self.list.as_mut()?.flight.take()
    }

    /// The flight waits for its turn or its lease, and is woken with the waiters.
    pub(super) fn flight_waits(&mut self, waker: &Waker) -> Option<Waker> {
        self.list.get_or_insert_default().flight.replace(waker.clone())
    }

    /// The runtime that the flight runs in. `None`: it is not known any more, and a waiter
    /// needs a timer of its own.
    pub(super) fn flight_runtime(&self) -> Option<runtime::Id> {
        self.list.as_ref()?.flight_runtime
    }

    /// Waits at `slot` if that is still in the list, else at the list's end.
    ///
    /// A waker that is not needed any more is returned, here and below, and never
    /// dropped under the lock: dropping one may run code of the executor's or the user's.
    pub(super) fn wait(
        &mut self,
        slot: Option<Slot>,
        deadline: Instant,
        waker: &Waker,
    ) -> (Slot, Option<Waker>) {
        if let Some((slot, Some(waiter))) = slot.and_then(|slot| Some((slot, self.at(slot)?))) {
            let changed = !waiter.waker.will_wake(waker);
            return (slot, changed.then(|| std::mem::replace(&mut waiter.waker, waker.clone())));
        }
        let waiters = &mut self.list.get_or_insert_default().waiters;
        waiters.push_back(Some(Waiter { deadline, waker: waker.clone() }));
        (Slot(self.first + waiters.len() as u64 - 1), None)
    }

    pub(super) fn leave(&mut self, slot: Slot) -> Option<Waker> {
        let gone = self.at(slot).and_then(Option::take);
        while let Some(None) = self.front() {
            self.pop();
        }
        gone.map(|waiter| waiter.waker)
    }

    /// Everyone, to be woken outside the lock.
    pub(super) fn take_all(&mut self) -> Everyone {
        let list = self.list.take();
        self.first += list.as_ref().map_or(0, |list| list.waiters.len() as u64);
        Everyone(list)
    }

    /// Those whose deadline has come, to be woken outside the lock.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(front) = self.front() {
            if front.as_ref().is_some_and(|waiter| waiter.deadline > now) {
                break;
            }
            due.extend(self.pop().map(|waiter| waiter.waker));
        }
        due
    }

    /// When the next one has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.as_ref()?.waiters.iter().flatten().next().map(|waiter| waiter.deadline)
    }

    fn front(&self) -> Option<&Option<Waiter>> {
        self.list.as_ref()?.waiters.front()
    }

    /// Takes the first slot away, and its waiter if that has not left.
    fn pop(&mut self) -> Option<Waiter> {
        let waiters = &mut self.list.as_mut()?.waiters;
        let front = waiters.pop_front()?;
        if waiters.is_empty() && self.list.as_ref().is_some_and(|list| list.flight.is_none()) {
            self.list = None;
        }
        self.first += 1;
        front
    }

    fn at(&mut self, slot: Slot) -> Option<&mut Option<Waiter>> {
        let index = usize::try_from(slot.0.checked_sub(self.first)?).ok()?;
        self.list.as_mut()?.waiters.get_mut(index)
    }
}
