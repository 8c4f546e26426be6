//! Drives one flight: executes the steps that the machine says, in a task of its own that no
//! caller can cancel, and keeps the waiters' deadlines meanwhile. It decides nothing.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, task::yield_now, time::Instant};
use tracing::{Instrument, Span, field};

use super::{
    RefreshState, Running,
    alarms::DeadlineAlarm,
    clock::sleep_until_due,
    machine::{Departure, Landing, Outcome, Step, Ticket},
    waiters::wake,
};
use crate::{
    error::BoxError,
    metrics,
    state::failure::{FailureKind, RefreshFailure},
    store::{Lease, Leased, SaveError, StoreError},
    time::{Time, after},
    tokens::Generation,
};

/// Drives one flight. If it is dropped before the landing (its runtime is shut down, or
/// there is none) every waiter is told.
pub(super) struct FlightDriver {
    running: Running,
    departure: Departure,
    begun: Instant,
    span: Span,
    /// There is a runtime for it.
    runs: bool,
    landed: bool,
    /// How many sign-outs there were when it began to redeem.
    sign_outs: u32,
    deadlines: Option<DeadlineAlarm>,
    /// That no request waits for it, it has its turn.
    turn: Option<OwnedSemaphorePermit>,
}

impl FlightDriver {
    /// Called under the state's lock. Boxed, because an async function keeps what it is given twice,
    /// and a task of more than a thousand bytes is of a size that is slow to allocate.
    pub(super) fn new(running: Running, departure: Departure) -> Box<Self> {
        let (begun, span) = (Instant::now(), Span::none());
        Box::new(Self {
            running,
            departure,
            begun,
            span,
            runs: false,
            landed: false,
            sign_outs: 0,
            deadlines: None,
            turn: None,
        })
    }

    pub(super) fn spawn(mut self: Box<Self>) {
        // Without a runtime the driver is dropped here, which tells the waiters.
        let runtime = Handle::try_current().ok();
        self.runs = runtime.is_some();
        if self.departure.in_background {
            // At once, so that it is known how many more may begin.
            self.turn =
                Arc::clone(self.state().renewal.alarms().background()).try_acquire_owned().ok();
        }
        if let Some(runtime) = runtime {
            let name = self.state().name();
            self.span = tracing::info_span!(
                "refresh_flight",
                trigger = self.departure.trigger.as_str(),
                generation = self.departure.ticket.generation.get(),
                name = name.as_deref(),
                outcome = field::Empty,
                new_generation = field::Empty,
                duration_ms = field::Empty,
            );
            let span = self.span.clone();
            runtime.spawn(self.run().instrument(span));
        }
    }

    fn state(&self) -> &Arc<RefreshState> {
        &self.running.0
    }

    async fn run(mut self: Box<Self>) {
        let state = self.state();
        let from = state.first_deadline(Instant::now());
        let alarms = state.renewal.alarms();
        let (alarm, is_news) = alarms.wake_waiters(state, from, &Handle::current());
        self.deadlines = Some(alarm);
        if is_news {
            // Lets the alarms' task run once before the first step: tokio polls a task that was just
            // woken or spawned after the current one, and a refresher that blocks its thread would
            // leave every deadline unset.
            yield_now().await;
        }
        let (mut lease, mut saved, mut landing) = (None, false, Landing::Nothing);
        let mut step = self.departure.step.clone();
        let open_redeem = loop {
            tracing::debug!(step = step.name(), "flight");
            if let Step::Land { open_redeem } = step {
                break open_redeem;
            }
            if let Step::Redeem(_) = step {
                let sign_outs = self.state().lock().machine.sign_outs();
                self.sign_outs = sign_outs;
            }
            let name = step.name();
            let outcome = self.execute(step, &mut lease, saved).await;
            saved = match outcome {
                Outcome::Saved => true,
                Outcome::Leased(_) => false,
                _ => saved,
            };
            let failed = matches!(outcome, Outcome::Failed(_));
            let found = match outcome {
                Outcome::Leased(found) => found,
                _ => None,
            };
            // Kept until the machine is done with it: see `RefreshState::with`.
            let _error = outcome.error();
            (step, landing) = self.state().with(|machine, at| {
                let step = machine.advance(outcome, at);
                (step, machine.landing())
            });
            // A redeem that fails like this was none: the lease was lost before.
            if failed && name != "redeem" {
                metrics::store_error(name);
            }
            if let Some(open) = found {
                metrics::open_redeem(open.cause.as_str());
            }
        };
        self.landed = true;
        self.report(landing);
        if let Some(lease) = lease {
            // A failed release needs no answer: the lease ends by itself, too.
            catch(lease.release(open_redeem)).await;
        }
    }

    /// Does one step. A panic in what the user wrote is an outcome like others. All
    /// of it runs in this one task: between a refresher's answer and the machine's
    /// knowing of it there is no moment at which a runtime could shut down.
    async fn execute(
        &mut self,
        step: Step,
        lease: &mut Option<Box<dyn Lease>>,
        saved: bool,
    ) -> Outcome {
        let state = Arc::clone(self.state());
        let RefreshState { store, renewal, .. } = &*state;
        match step {
            Step::Lease(known) => {
                // One that was lost is worth nothing, and would be waited for. One that a save
                // may have given back is given back.
                if let Some(old) = lease.take().filter(|_| saved) {
                    catch(old.release(None)).await;
                }
                match self.lease(known).await {
                    Err(None) => Outcome::Done,
                    Ok(Leased::Lease(held)) => {
                        let found = catch_unwind(AssertUnwindSafe(|| held.open_redeem()));
                        *lease = Some(held);
                        found.map_or_else(|_| Outcome::failed(PANICKED), Outcome::Leased)
                    }
                    Ok(Leased::Newer(record)) => Outcome::Newer(record),
                    Err(Some(error)) => Outcome::failed(error),
                }
            }
            Step::Load => match catch_store(async { store.load().await }).await {
                Ok(record) => Outcome::Loaded(record),
                Err(error) => Outcome::failed(error),
            },
            Step::Intend(generation) => match held(lease) {
                Ok(lease) => match catch_store(async { lease.intend(generation).await }).await {
                    Ok(()) => Outcome::Intended,
                    Err(error) => Outcome::failed(error),
                },
                Err(lost) => Outcome::failed(lost),
            },
            Step::Redeem(request) => match held(lease) {
                Ok(_) => match catch(async { renewal.redeem(request).await }).await {
                    Some(Ok(tokens)) => Outcome::Redeemed(tokens),
                    Some(Err(error)) => Outcome::Refused(error),
                    None => Outcome::Panicked,
                },
                Err(lost) => Outcome::failed(lost),
            },
            Step::Save { expected, record } => {
                let Some(lease) = lease else {
                    return Outcome::LeaseLost;
                };
                match catch(async { lease.save(expected, record).await }).await {
                    Some(Ok(())) => Outcome::Saved,
                    Some(Err(SaveError::Conflict)) => Outcome::Conflict,
                    Some(Err(SaveError::LeaseLost)) => Outcome::LeaseLost,
                    Some(Err(SaveError::Failed(error))) => Outcome::failed(error),
                    None => Outcome::failed(PANICKED),
                }
            }
            Step::Pause { wait, generation } => Box::pin(self.pause(wait, generation)).await,
            Step::Yield { open_redeem, wait, generation } => {
                if let Some(lease) = lease.take() {
                    catch(lease.release(open_redeem)).await;
                }
                Box::pin(self.pause(wait, generation)).await
            }
            Step::Discard(tokens) => {
                self.state().discard(tokens, self.sign_outs);
                Outcome::Done
            }
            Step::Land { .. } => Outcome::Done,
        }
    }

    async fn pause(&self, wait: Duration, generation: Generation) -> Outcome {
        let mut current = self.state().subscribe();
        let mut changed = pin!(current.wait_for(|now| now.generation() > generation));
        let mut over = pin!(sleep_until_due(Time::now().after(wait)));
        poll_fn(|cx| match changed.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => over.as_mut().poll(cx),
        })
        .await;
        Outcome::Done
    }

    /// Waits until one less of those is under way that no request waits for, or until one waits for
    /// it. `false`: until it was not worth waiting for any more.
    async fn await_turn(&mut self) -> bool {
        if self.turn.is_some() {
            return true;
        }
        let state = self.state();
        let mut turn = pin!(Arc::clone(state.renewal.alarms().background()).acquire_owned());
        let turn = poll_fn(|cx| {
            if let Poll::Ready(turn) = turn.as_mut().poll(cx) {
                return Poll::Ready(Ok(turn.ok()));
            }
            let mut inner = state.lock();
            // What a flight whose runtime went away has left is saved at once.
            if inner.waiters.are_there() || inner.machine.has_left_unsaved() {
                return Poll::Ready(Ok(None));
            }
            if inner.machine.gives_up_lease() {
                return Poll::Ready(Err(()));
            }
            let stale = inner.waiters.flight_waits(cx.waker());
            drop(inner);
            drop(stale);
            Poll::Pending
        })
        .await;
        self.departure.in_background = false;
        turn.map(|turn| self.turn = turn).is_ok()
    }

    /// Waits for the lease. `Err(None)`: until it was not worth waiting for any more.
    async fn lease(&mut self, known: Generation) -> Result<Leased, Option<BoxError>> {
        if self.departure.in_background && !Box::pin(self.await_turn()).await {
            return Err(None);
        }
        let state = self.state();
        let mut leasing = pin!(catch_store(async { state.store.lease(known).await }));
        poll_fn(|cx| {
            if let Poll::Ready(leased) = leasing.as_mut().poll(cx) {
                return Poll::Ready(leased.map_err(Some));
            }
            let mut inner = state.lock();
            if inner.machine.gives_up_lease() {
                return Poll::Ready(Err(None));
            }
            let stale = inner.waiters.flight_waits(cx.waker());
            drop(inner);
            drop(stale);
            Poll::Pending
        })
        .await
    }

    fn report(&self, landing: Landing) {
        let Ticket { failures, .. } = self.departure.ticket;
        let inner = self.state().lock();
        let generation = inner.machine.credential().generation();
        let outcome = match inner.machine.last_failure() {
            // Even if it has told of a failure to save before.
            _ if matches!(landing, Landing::Renewed | Landing::Superseded) => landing.as_str(),
            Some(failure) if inner.machine.failures() != failures => failure.kind().as_str(),
            _ if !inner.machine.credential().is_present() => FailureKind::SignedOut.as_str(),
            _ => landing.as_str(),
        };
        drop(inner);
        let took = self.begun.elapsed();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.span.record("outcome", outcome);
        self.span.record("new_generation", generation.get());
        self.span.record("duration_ms", duration_ms);
        tracing::info!(outcome, generation = generation.get(), duration_ms, "flight landed");
        metrics::refreshed(self.departure.trigger, outcome, took);
    }
}

impl Drop for FlightDriver {
    fn drop(&mut self) {
        if !self.landed {
            let kind = if self.runs { FailureKind::Shutdown } else { FailureKind::NoRuntime };
            self.state().with(|machine, _| machine.aborted(RefreshFailure::new(kind)));
            let took = self.begun.elapsed();
            metrics::refreshed(self.departure.trigger, kind.as_str(), took);
        }
    }
}

impl RefreshState {
    /// Wakes the waiters whose time is up. When the next ones' is, while the flight goes on.
    pub(super) fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.lock();
        let due = inner.waiters.take_due(now);
        let is_in_flight = inner.machine.in_flight().is_some();
        drop(inner);
        due.into_iter().for_each(wake);
        // A waiter that comes later has a later deadline than any that is set here, or a timer of its
        // own.
        is_in_flight.then(|| self.first_deadline(now))
    }

    fn first_deadline(&self, now: Instant) -> Instant {
        // Never quite now, or a deadline of zero would spin.
        let wait = self.renewal.deadline().max(Duration::from_millis(1));
        self.lock().waiters.next_deadline().unwrap_or_else(|| after(now, wait))
    }
}

/// Runs a user's future. `None`: it panicked.
pub(super) fn catch<F: Future>(future: F) -> Catch<F> {
    Catch { future }
}

pin_project! {
    pub(super) struct Catch<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Catch<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let future = self.project().future;
        // What has panicked is not polled again, and shares nothing with us.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

/// Runs a store's future. That it panicked is an error like others.
async fn catch_store<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, BoxError> {
    Ok(catch(work).await.ok_or(PANICKED)??)
}

/// The lease, if it is held as far as can be told without asking anyone.
fn held(lease: &mut Option<Box<dyn Lease>>) -> Result<&mut Box<dyn Lease>, BoxError> {
    let lease = lease.as_mut().ok_or(LOST)?;
    match catch_unwind(AssertUnwindSafe(|| lease.is_held())) {
        Ok(true) => Ok(lease),
        Ok(false) => Err(LOST.into()),
        Err(_) => Err(PANICKED.into()),
    }
}

const LOST: &str = "the lease was lost";
pub(super) const PANICKED: &str = "the token store panicked";
