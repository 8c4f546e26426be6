//! Waiting for a flight's outcome.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{RefreshState, machine::Ticket, policy, waiters::Place};
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
    place: Option<Place>,
}

impl Wait {
    pub(crate) fn new(state: Arc<RefreshState>, ticket: Ticket) -> Self {
        let deadline = policy::after(Instant::now(), state.deadline);
        Self { state, ticket, deadline, place: None }
    }
}

impl Future for Wait {
    type Output = Result<Credential, RefreshFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.state.signal() >> 1 > this.ticket.generation.get() {
            // Whoever published this has emptied the list before.
            this.place = None;
            let credential = this.state.current();
            return Poll::Ready(if credential.is_present() {
                Ok(credential)
            } else {
                Err(RefreshFailure::signed_out())
            });
        }
        let mut inner = this.state.lock();
        let outcome = match inner.machine.resolve(this.ticket) {
            Some(Ok(())) => Ok(inner.machine.credential().clone()),
            Some(Err(failure)) => Err(failure),
            None if Instant::now() >= this.deadline => {
                inner.machine.ran_out();
                Err(RefreshFailure::new(FailureKind::Deadline))
            }
            None => {
                let (place, stale) = inner.waiters.wait(this.place, this.deadline, cx.waker());
                this.place = Some(place);
                drop(inner);
                drop(stale);
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
