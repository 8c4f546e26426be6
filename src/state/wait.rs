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
    machine::{Ticket, after},
    waiters::Place,
};
use crate::{
    error::{FailureKind, RefreshFailure},
    tokens::Credential,
};

/// Resolves to what a flight brought: the new credential, or why there is none.
/// Dropping it leaves the list of waiters and nothing else.
#[derive(Debug)]
pub(crate) struct Wait {
    state: Arc<RefreshState>,
    ticket: Ticket,
    deadline: Instant,
    /// The deadline is earlier than the state's own would be.
    hasty: bool,
    place: Option<Place>,
    /// The flight keeps its waiters' deadlines, as long as its runtime runs, and those
    /// that are in the order they came. Whoever waits in another runtime, or is in more of
    /// a hurry than others, does not count on that.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    pub(crate) fn new(state: Arc<RefreshState>, ticket: Ticket) -> Self {
        let deadline = after(Instant::now(), state.deadline);
        Self { state, ticket, deadline, hasty: false, place: None, clock: None }
    }

    /// Waits until then at most.
    pub(crate) fn no_later_than(mut self, limit: Option<Instant>) -> Self {
        if let Some(limit) = limit.filter(|limit| *limit < self.deadline) {
            self.deadline = limit;
            self.hasty = true;
        }
        self
    }
}

impl Future for Wait {
    type Output = Result<Credential, RefreshFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.state.signal() >> 1 > this.ticket.generation.get() {
            // Whoever published this has emptied the list before.
            this.place = None;
            return Poll::Ready(this.state.current().present());
        }
        let mut inner = this.state.lock();
        let outcome = match inner.machine.resolve(this.ticket) {
            Some(news) => news,
            None if Instant::now() >= this.deadline => {
                inner.machine.ran_out();
                Err(RefreshFailure::new(FailureKind::Deadline))
            }
            None => {
                let (place, stale) = inner.waiters.wait(this.place, this.deadline, cx.waker());
                let home = inner.home;
                drop(inner);
                drop(stale);
                if this.place.replace(place).is_none() {
                    let here = Handle::try_current().ok().map(|handle| handle.id());
                    let alone = here.is_some() && (this.hasty || here != home);
                    this.clock = alone.then(|| Box::pin(sleep_until(this.deadline)));
                }
                let over = |clock: &mut Pin<Box<Sleep>>| clock.as_mut().poll(cx).is_ready();
                if this.clock.as_mut().is_some_and(over) {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        };
        let stale = this.place.take().and_then(|place| inner.waiters.leave(place));
        drop(inner);
        drop(stale);
        Poll::Ready(outcome)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let stale = self.state.lock().waiters.leave(place);
            drop(stale);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::{state::Answer, tokens::Tokens};

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_where_the_flight_runs_needs_no_clock() {
        let state = RefreshState::builder(async |_: Tokens| pending().await)
            .tokens(Tokens::new("refused"))
            .build();
        let Answer::Wait(ticket) = state.challenge(state.current().generation()) else {
            panic!("no flight")
        };
        let mut wait = task::spawn(Wait::new(Arc::clone(&state), ticket));
        assert_pending!(wait.poll());
        assert!(wait.clock.is_none());
    }
}
