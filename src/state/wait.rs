//! Waiting for a flight's outcome.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    RefreshState,
    machine::{Admission, Ticket},
    waiters::{Slot, wake},
};
use crate::{
    credential::Credential,
    metrics,
    state::failure::{FailureKind, RefreshFailure, present},
    time::{Time, after},
};

/// Resolves to what a flight brought: the new credential, or why there is none.
/// Dropping it leaves the list of waiters and nothing else.
#[derive(Debug)]
pub(crate) struct Wait {
    state: Arc<RefreshState>,
    ticket: Ticket,
    deadline: Instant,
    /// The deadline is earlier than the state's own would be.
    own_deadline: bool,
    slot: Option<Slot>,
    /// The driver wakes waiters at their deadlines, as long as its runtime runs and the
    /// deadlines are in the order the waiters came. A waiter in another runtime, or with a
    /// deadline of its own, has a timer of its own.
    own_timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    pub(crate) fn new(state: Arc<RefreshState>, ticket: Ticket) -> Self {
        let deadline = after(Instant::now(), state.renewal.deadline());
        Self { state, ticket, deadline, own_deadline: false, slot: None, own_timer: None }
    }

    /// Waits until then at most.
    pub(crate) fn no_later_than(mut self, limit: Option<Instant>) -> Self {
        if let Some(limit) = limit.filter(|limit| *limit < self.deadline) {
            self.deadline = limit;
            self.own_deadline = true;
        }
        self
    }
}

impl Future for Wait {
    type Output = Result<Credential, RefreshFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.state.gate_word() >> 1 > this.ticket.generation.get() {
                // The publisher has emptied the list of waiters before.
                this.slot = None;
                let news = this.state.current();
                if !news.has_run_out_now() {
                    return Poll::Ready(present(news));
                }
                // A sign-in with a refresh token alone, or with tokens that are old: it is
                // redeemed first.
                match this.state.admit() {
                    Admission::Wait(ticket) => this.ticket = ticket,
                    Admission::Refuse(failure) => return Poll::Ready(Err(failure)),
                    Admission::Proceed => return Poll::Ready(present(this.state.current())),
                }
            }
            let mut inner = this.state.lock();
            let mut ran_out = false;
            let outcome = match inner.machine.resolve(this.ticket) {
                // It came this moment.
                Some(Ok(_)) => continue,
                Some(news) => news,
                None if Instant::now() >= this.deadline => {
                    ran_out = true;
                    inner.count(FailureKind::Deadline, Time::now().wall);
                    Err(inner.machine.ran_out())
                }
                None => {
                    let (slot, stale) = inner.waiters.wait(this.slot, this.deadline, cx.waker());
                    let flight_runtime = inner.waiters.flight_runtime();
                    let flight = match this.slot {
                        None => inner.waiters.take_flight(),
                        Some(_) => None,
                    };
                    drop(inner);
                    drop(stale);
                    flight.into_iter().for_each(wake);
                    if this.slot.replace(slot).is_none() {
                        let here = Handle::try_current().ok().map(|handle| handle.id());
                        let alone = here.is_some() && (this.own_deadline || here != flight_runtime);
                        this.own_timer = alone.then(|| Box::pin(sleep_until(this.deadline)));
                    }
                    let over = |timer: &mut Pin<Box<Sleep>>| timer.as_mut().poll(cx).is_ready();
                    if this.own_timer.as_mut().is_some_and(over) {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            };
            let stale = this.slot.take().and_then(|slot| inner.waiters.leave(slot));
            drop(inner);
            drop(stale);
            if ran_out {
                metrics::failed(FailureKind::Deadline.as_str());
            }
            return Poll::Ready(outcome);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let stale = self.state.lock().waiters.leave(slot);
            drop(stale);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::tokens::Tokens;

    #[tokio::test(start_paused = true)]
    async fn a_waiter_in_the_flights_runtime_needs_no_timer() {
        let state = RefreshState::builder(async |_: Tokens| pending().await)
            .tokens(Tokens::new("refused"))
            .build();
        let Admission::Wait(ticket) = state.challenge(state.current().generation(), || None) else {
            panic!("no flight")
        };
        let mut wait = task::spawn(Wait::new(Arc::clone(&state), ticket));
        assert_pending!(wait.poll());
        assert!(wait.own_timer.is_none());
    }
}
