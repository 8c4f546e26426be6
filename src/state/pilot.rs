//! Flies one flight: does what the machine says, in a task of its own that no
//! caller can cancel, and keeps the waiters' deadlines meanwhile.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, yield_now},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, Span, field};

use super::{
    RefreshState, Task,
    flight::{Flight, Outcome, Step},
    machine::Machine,
    policy::after,
    status::Trigger,
};
use crate::{
    error::{BoxError, SaveError},
    store::Lease,
    tokens::{Generation, Time, Tokens},
};

/// Holds the flight: if it is dropped before the landing (its runtime is shut
/// down, or there is none) everyone who waits is told.
pub(super) struct Pilot {
    state: Arc<RefreshState>,
    trigger: Trigger,
    base: Generation,
    failures: u64,
    span: Span,
    landed: bool,
    keeper: Option<AbortHandle>,
    _task: Task,
}

impl Pilot {
    /// Called under the state's lock.
    pub(super) fn new(state: Arc<RefreshState>, machine: &Machine, flight: &Flight) -> Self {
        let (base, failures) = (machine.credential().generation(), machine.failures());
        let _task = Task::begin(&state);
        let (trigger, span) = (flight.trigger(), Span::none());
        Self { state, trigger, base, failures, span, landed: false, keeper: None, _task }
    }

    pub(super) fn spawn(mut self) {
        // Without a runtime the pilot is dropped here, which tells the waiters.
        if let Ok(runtime) = Handle::try_current() {
            self.span = tracing::info_span!(
                "refresh_flight",
                trigger = self.trigger.as_str(),
                generation = self.base.get(),
                outcome = field::Empty,
                new_generation = field::Empty,
                duration_ms = field::Empty,
            );
            let span = self.span.clone();
            runtime.spawn(self.fly().instrument(span));
        }
    }

    async fn fly(mut self) {
        let begun = Instant::now();
        let clock = sleep_until(next_deadline(&self.state, begun));
        let keeper = tokio::spawn(keep_deadlines(Arc::clone(&self.state), clock));
        self.keeper = Some(keeper.abort_handle());
        // The keeper first: what was spawned last may have to wait for this task.
        yield_now().await;
        let mut lease = None;
        let mut step = Step::Lease;
        loop {
            tracing::debug!(step = step.name(), "flight");
            let outcome = self.work(step, &mut lease).await;
            let time = Time::now();
            step = self.state.with(|machine| machine.advance(outcome, time, fastrand::f64()));
            if let Step::Land = step {
                break;
            }
        }
        self.landed = true;
        self.report(begun);
        if let Some(lease) = lease {
            // What fails here is the lock's giving back, which its end does too.
            catch(lease.release()).await;
        }
    }

    /// Does one step. A panic in what the user wrote is an outcome like others. All
    /// of it runs in this one task: between a refresher's answer and the machine's
    /// knowing of it there is no moment at which a runtime could shut down.
    async fn work(&self, step: Step, lease: &mut Option<Box<dyn Lease>>) -> Outcome {
        let RefreshState { store, on_discard, .. } = &*self.state;
        match step {
            Step::Lease => match catch(async { store.lease().await }).await {
                Some(Ok(held)) => {
                    *lease = Some(held);
                    Outcome::Leased
                }
                Some(Err(error)) => Outcome::Failed(error.into()),
                None => Outcome::Failed(panicked()),
            },
            Step::Load => match catch(async { store.load().await }).await {
                Some(Ok(record)) => Outcome::Loaded(record),
                Some(Err(error)) => Outcome::Failed(error.into()),
                None => Outcome::Failed(panicked()),
            },
            Step::Redeem(tokens) => {
                let held = || lease.as_ref().is_some_and(|lease| lease.is_held());
                match catch_unwind(AssertUnwindSafe(held)) {
                    Ok(true) => self.redeem(tokens).await,
                    Ok(false) => Outcome::Failed("the lease was lost".into()),
                    Err(_) => Outcome::Failed(panicked()),
                }
            }
            Step::Save { expected, record } => {
                match catch(async { store.save(expected, record).await }).await {
                    Some(Ok(())) => Outcome::Saved,
                    Some(Err(SaveError::Conflict)) => Outcome::Conflict,
                    Some(Err(SaveError::Failed(error))) => Outcome::Failed(error.into()),
                    None => Outcome::Failed(panicked()),
                }
            }
            Step::Pause { wait, generation } => {
                let mut current = self.state.subscribe();
                let mut changed = pin!(current.wait_for(|now| now.generation() > generation));
                let mut over = pin!(sleep_until(after(Instant::now(), wait)));
                poll_fn(|cx| match changed.as_mut().poll(cx) {
                    Poll::Ready(_) => Poll::Ready(()),
                    Poll::Pending => over.as_mut().poll(cx),
                })
                .await;
                Outcome::Done
            }
            Step::Discard(tokens) => {
                if let Some(hook) = on_discard {
                    // In a task of its own: others wait for the flight and its lease.
                    let (task, hook) = (Task::begin(&self.state), Arc::clone(hook));
                    let work = async move {
                        catch(async { hook(tokens).await }).await;
                        drop(task);
                    };
                    tokio::spawn(work.instrument(Span::current()));
                }
                Outcome::Done
            }
            Step::Land => Outcome::Done,
        }
    }

    async fn redeem(&self, tokens: Option<Tokens>) -> Outcome {
        match catch(async { self.state.refresher.refresh(tokens).await }).await {
            Some(Ok(tokens)) => Outcome::Redeemed(tokens),
            Some(Err(error)) => Outcome::Refused(error),
            None => Outcome::Panicked,
        }
    }

    fn report(&self, begun: Instant) {
        let inner = self.state.lock();
        let generation = inner.machine.credential().generation();
        let outcome = match inner.machine.last_failure() {
            Some(failure) if inner.machine.failures() > self.failures => failure.kind().as_str(),
            _ if !inner.machine.credential().is_present() => "signed out",
            _ if generation > self.base => "renewed",
            _ => "nothing newer",
        };
        drop(inner);
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.span.record("outcome", outcome);
        self.span.record("new_generation", generation.get());
        self.span.record("duration_ms", duration_ms);
        tracing::info!(outcome, generation = generation.get(), duration_ms, "flight landed");
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        if !self.landed {
            self.state.with(Machine::aborted);
        }
    }
}

/// Wakes the waiters whose time is up, for as long as the flight goes on. In a task of
/// its own, for a refresher may block the flight's thread.
async fn keep_deadlines(state: Arc<RefreshState>, clock: Sleep) {
    let mut clock = pin!(clock);
    loop {
        clock.as_mut().await;
        let now = Instant::now();
        let due = state.lock().waiters.take_due(now);
        due.into_iter().for_each(|waker| waker.wake());
        // Those who come later have a later deadline than any that is set here, or a
        // clock of their own.
        clock.as_mut().reset(next_deadline(&state, now));
    }
}

fn next_deadline(state: &RefreshState, now: Instant) -> Instant {
    // Never quite now, or a deadline of zero would spin.
    let wait = state.deadline.max(Duration::from_millis(1));
    state.lock().waiters.next_deadline().unwrap_or_else(|| after(now, wait))
}

/// Runs a user's future. `None`: it panicked.
pub(super) async fn catch<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // What has panicked is not polled again, and shares nothing with us.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

fn panicked() -> BoxError {
    "the token store panicked".into()
}
