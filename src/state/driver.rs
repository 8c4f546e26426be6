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
    machine::{Flight, Machine, Outcome, Step, after},
    status::Trigger,
};
use crate::{
    error::{BoxError, SaveError},
    store::{Lease, Leased, OpenCause, OpenRedeem},
    tokens::{Generation, Time, Tokens},
};

/// The lease, and what the next holder is to find in it.
struct Held {
    lease: Box<dyn Lease>,
    left: Option<OpenRedeem>,
}

/// Holds the flight: if it is dropped before the landing (its runtime is shut
/// down, or there is none) everyone who waits is told.
pub(super) struct Pilot {
    state: Arc<RefreshState>,
    trigger: Trigger,
    base: Generation,
    failures: u64,
    seen: Generation,
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
        let (trigger, seen, span) = (flight.trigger(), machine.stored(), Span::none());
        Self { state, trigger, base, failures, seen, span, landed: false, keeper: None, _task }
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
        let mut held = None;
        let mut step = Step::Lease(self.seen);
        loop {
            tracing::debug!(step = step.name(), "flight");
            let outcome = self.work(step, &mut held).await;
            let time = Time::now();
            step = self.state.with(|machine| machine.advance(outcome, time, fastrand::f64()));
            if let Step::Land = step {
                break;
            }
        }
        self.landed = true;
        self.report(begun);
        if let Some(Held { lease, left }) = held {
            // What fails here is the lock's giving back, which its end does too.
            catch(lease.release(left)).await;
        }
    }

    /// Does one step. A panic in what the user wrote is an outcome like others. All
    /// of it runs in this one task: between a refresher's answer and the machine's
    /// knowing of it there is no moment at which a runtime could shut down.
    async fn work(&self, step: Step, held: &mut Option<Held>) -> Outcome {
        let RefreshState { store, on_discard, .. } = &*self.state;
        match step {
            Step::Lease(seen) => {
                // One that was lost is worth nothing, and would be waited for.
                *held = None;
                match catch(async { store.lease(seen).await }).await {
                    Some(Ok(Leased::Lease(lease))) => {
                        match catch_unwind(AssertUnwindSafe(|| lease.open_redeem())) {
                            Ok(left) => {
                                *held = Some(Held { lease, left });
                                Outcome::Leased(left)
                            }
                            Err(_) => Outcome::Failed(panicked()),
                        }
                    }
                    Some(Ok(Leased::Newer(record))) => Outcome::Newer(record),
                    Some(Err(error)) => Outcome::Failed(error.into()),
                    None => Outcome::Failed(panicked()),
                }
            }
            Step::Load => match catch(async { store.load().await }).await {
                Some(Ok(record)) => Outcome::Loaded(record),
                Some(Err(error)) => Outcome::Failed(error.into()),
                None => Outcome::Failed(panicked()),
            },
            Step::Redeem(from, tokens) => match held {
                Some(held) => self.redeem(held, from, tokens).await,
                None => Outcome::Failed(LOST.into()),
            },
            Step::Save { expected, record } => {
                let Some(Held { lease, left }) = held else {
                    return Outcome::LeaseLost;
                };
                match catch(async { lease.save(expected, record).await }).await {
                    Some(Ok(())) => {
                        *left = None;
                        Outcome::Saved
                    }
                    Some(Err(SaveError::Conflict)) => Outcome::Conflict,
                    Some(Err(SaveError::LeaseLost)) => Outcome::LeaseLost,
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

    /// Spends the refresh token, if the lease is still held, and not before that is noted
    /// in it: whoever comes after a crash is to know.
    async fn redeem(
        &self,
        Held { lease, left }: &mut Held,
        from: Generation,
        tokens: Option<Tokens>,
    ) -> Outcome {
        let spends = tokens.as_ref().is_some_and(|tokens| tokens.refresh_token().is_some());
        if let Err(error) = prepare(&mut **lease, spends.then_some(from)).await {
            return Outcome::Failed(error);
        }
        let outcome = match catch(async { self.state.refresher.refresh(tokens).await }).await {
            Some(Ok(tokens)) => Outcome::Redeemed(tokens),
            Some(Err(error)) => Outcome::Refused(error),
            None => Outcome::Panicked,
        };
        // After an answer with tokens, too: only the save ends the intent.
        let unspent = matches!(&outcome, Outcome::Refused(error) if error.unspent);
        if spends && !unspent {
            *left = Some(OpenRedeem::new(from, OpenCause::AnswerLost));
        }
        outcome
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

/// Makes sure of the lease, and notes in it whose refresh token is about to be spent.
async fn prepare(lease: &mut dyn Lease, spends: Option<Generation>) -> Result<(), BoxError> {
    let held = |lease: &dyn Lease| match catch_unwind(AssertUnwindSafe(|| lease.is_held())) {
        Ok(true) => Ok(()),
        Ok(false) => Err(LOST.into()),
        Err(_) => Err(panicked()),
    };
    held(lease)?;
    let Some(generation) = spends else {
        return Ok(());
    };
    catch(async { lease.intend(generation).await }).await.ok_or_else(panicked)??;
    held(lease)
}

const LOST: &str = "the lease was lost";

fn panicked() -> BoxError {
    "the token store panicked".into()
}
