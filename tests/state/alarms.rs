//! The one task of a family that wakes waiters and keeps credentials fresh: what may happen beside it,
//! and to it.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, SystemTime},
};

use testing::{Fault, Gate, Op, Store, idle, kind, secs};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    time::{Instant, advance, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::{
    FailureKind, RefreshError, RefreshState, Renewal, Tokens,
    state::{KeepFresh, RenewalBuilder},
    store::TokenStore,
};
use tracing::span;

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn expired(name: &str) -> Tokens {
    Tokens::new("old").with_refresh_token(name).with_expires_at(SystemTime::UNIX_EPOCH)
}

fn fresh(name: &str) -> Tokens {
    Tokens::new("new").with_refresh_token(name).with_expires_in(secs(3600))
}

/// A family whose server answers each credential but those of this name.
fn family_without(hangs: &'static str) -> RenewalBuilder {
    Renewal::builder(async move |spent: Tokens| match spent.refresh_token() {
        Some(name) if name == hangs => pending().await,
        name => Ok::<_, RefreshError>(fresh(name.unwrap())),
    })
    .early_spread(0)
}

fn refreshes(state: &RefreshState) -> u64 {
    state.status().counts.refreshes
}

/// Its lease is given back late, when the next flight has the same deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_although_the_flight_before_ends_late() {
    let store = Store::with(expired("first"));
    store.gate(Op::Release).close();
    let state = family_without("hangs").build().state(Arc::new(store.clone()));
    let mut waits = task::spawn(state.token());
    assert_pending!(waits.poll());
    idle().await;
    assert!(waits.is_woken(), "the flight has landed");
    // Before the waiter looks there is a sign-in with a refresh token alone.
    state.set(Tokens::new("").with_refresh_token("hangs")).await.unwrap();
    assert_pending!(waits.poll());
    idle().await;
    store.gate(Op::Release).open();
    sleep(secs(31)).await;
    assert!(waits.is_woken(), "its time is up");
    assert_eq!(kind(assert_ready!(waits.poll())), FailureKind::Deadline);
}

/// `drain` wakes the flight that waits for its lease, and no waiter: those that queue again stand in
/// another order than their deadlines.
#[tokio::test(start_paused = true)]
async fn a_waiter_hears_of_its_deadline_during_drain() {
    let renewal = family_without("hangs").deadline(secs(30)).build();
    let state = renewal.in_memory(expired("hangs"));
    let begun = Instant::now();
    let mut first = task::spawn(state.token());
    assert_pending!(first.poll());
    sleep(secs(20)).await;
    let mut second = task::spawn(state.token());
    assert_pending!(second.poll());
    let mut drain = task::spawn(state.drain());
    assert_pending!(drain.poll());
    assert_pending!(second.poll());
    assert_pending!(first.poll());
    assert!(timeout(secs(300), &mut first).await.unwrap().is_err());
    assert_eq!(begun.elapsed().as_secs(), 30);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("as told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_harms_no_other() {
    let renewal = family_without("hangs").deadline(secs(30)).build();
    let good = renewal.in_memory(fresh("good"));
    let _guard = good.keep_fresh();
    let bad = renewal.in_memory(expired("hangs"));
    let waker = Waker::from(Arc::new(Panics));
    let mut panics = pin!(bad.token());
    assert!(panics.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // In the same list, behind it.
    let mut waits = task::spawn(bad.token());
    assert_pending!(waits.poll());
    sleep(secs(31)).await;
    assert!(waits.is_woken());
    sleep(secs(3600)).await;
    assert_eq!(refreshes(&good), 1);
}

/// And none of its own, of which a flight tells.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_leaves_no_waiter_asleep() {
    let gate = Gate::new();
    gate.close();
    let passes = gate.clone();
    let state = RefreshState::builder(async move |_: Tokens| {
        passes.pass().await;
        Ok(fresh("next"))
    });
    let state = state.tokens(expired("first")).build();
    let waker = Waker::from(Arc::new(Panics));
    let mut panics = pin!(state.token());
    assert!(panics.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut waits = task::spawn(state.token());
    assert_pending!(waits.poll());
    gate.open();
    idle().await;
    assert!(waits.is_woken());
    assert_eq!(assert_ready!(waits.poll()).unwrap().access_token(), Some("new"));
}

/// Tokens that were minted, by a flight whose runtime is gone, are saved whoever has the last turn.
#[test]
fn drain_saves_what_was_minted_although_another_credentials_refresh_hangs() {
    let renewal = family_without("hangs").background_refreshes(1).build();
    let life = Tokens::new("old").with_refresh_token("good").with_expires_in(secs(3600));
    let store = Store::with(life);
    let state = renewal.state(Arc::new(store.clone()));
    let first = paused();
    first.block_on(async {
        state.token().await.unwrap();
        sleep(secs(3590)).await;
        store.fault(Op::Save, Fault::Fail);
        store.gate(Op::Save).close();
        state.token().await.unwrap();
        sleep(secs(1)).await;
    });
    drop(first);
    store.gate(Op::Save).open();
    paused().block_on(async {
        // The clock of this runtime has begun anew.
        sleep(secs(3590)).await;
        let hangs = renewal.in_memory(expired("hangs"));
        let _guard = hangs.keep_fresh();
        idle().await;
        let _ = state.token().await;
        idle().await;
        timeout(secs(3600), state.drain()).await.expect("it is saved");
        assert_eq!(store.load().await.unwrap().tokens.unwrap().access_token(), "new");
    });
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_has_its_turn_among_early_refreshes() {
    let life = |name: &str| Tokens::new("t").with_refresh_token(name).with_expires_in(secs(10));
    let renewal = Renewal::builder(async move |spent: Tokens| {
        sleep(secs(1)).await;
        Ok::<_, RefreshError>(life(spent.refresh_token().unwrap()))
    })
    .background_refreshes(1)
    .early_refresh(secs(8))
    .early_fraction(1)
    .build();
    let busy: Vec<_> = (0..20).map(|n| renewal.in_memory(life(&format!("r{n}")))).collect();
    let unused = renewal.in_memory(expired("unused"));
    // Each begins a refresh, and waits for none.
    let use_all = || busy.iter().for_each(|state| drop(task::spawn(state.token()).poll()));
    sleep(secs(9)).await;
    use_all();
    let _guard = unused.keep_fresh();
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        use_all();
    }
    assert!(refreshes(&unused) > 0);
}

#[test]
fn two_runtimes_do_not_pass_the_only_turn_to_each_other_for_ever() {
    let gate = Gate::new();
    gate.close();
    let passes = gate.clone();
    let renewal = Renewal::builder(async move |spent: Tokens| {
        passes.pass().await;
        Ok::<_, RefreshError>(fresh(spent.refresh_token().unwrap()))
    })
    .background_refreshes(1)
    .build();
    let states: Vec<_> = (0..3).map(|n| renewal.in_memory(expired(&format!("r{n}")))).collect();
    let (here, there) = (paused(), paused());
    let keep = |runtime: &Runtime, n: usize| {
        runtime.block_on(async {
            let guard = states[n].keep_fresh();
            idle().await;
            guard
        })
    };
    let _guards = (keep(&here, 0), keep(&here, 1), keep(&there, 2));
    assert_eq!(gate.count(), 1);
    gate.open();
    for _ in 0..100 {
        here.block_on(idle());
        there.block_on(idle());
    }
    assert_eq!(states.iter().map(|state| refreshes(state)).collect::<Vec<_>>(), [1, 1, 1]);
}

/// A runtime that is shut down before its task was polled for the first time, too.
#[test]
fn runtimes_that_are_gone_leave_nothing_behind() {
    let renewal = family_without("hangs").build();
    let state = renewal.in_memory(fresh("r"));
    let allocated = allocation_counter::measure(|| {
        for is_run in [true, false].repeat(100) {
            let runtime = paused();
            let guard = {
                let _here = runtime.enter();
                state.keep_fresh()
            };
            if is_run {
                runtime.block_on(idle());
            }
            drop(runtime);
            drop(guard);
        }
    });
    assert!(allocated.bytes_current < 10_000, "{} bytes", allocated.bytes_current);
}

/// Runs once, in the span of the first flight.
struct OnFlight {
    has_run: AtomicBool,
    run: Box<dyn Fn() + Send + Sync>,
}

impl tracing::Subscriber for OnFlight {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        if span.metadata().name() == "refresh_flight" && !self.has_run.swap(true, SeqCst) {
            (self.run)();
        }
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// With a clock that goes on, so that the two moments are not the same.
#[test]
fn a_guard_that_is_made_anew_during_a_look_leaves_no_task() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let state = family_without("hangs").build().in_memory(expired("r"));
    let guard = Arc::new(Mutex::new(None::<KeepFresh>));
    let (slot, kept) = (Arc::clone(&guard), Arc::clone(&state));
    let run = move || {
        drop(slot.lock().unwrap().take());
        *slot.lock().unwrap() = Some(kept.keep_fresh());
    };
    let subscriber = OnFlight { has_run: AtomicBool::new(false), run: Box::new(run) };
    let _default = tracing::subscriber::set_default(subscriber);
    runtime.block_on(async {
        let mut changes = state.subscribe();
        *guard.lock().unwrap() = Some(state.keep_fresh());
        changes.changed().await.unwrap();
        idle().await;
        drop(guard.lock().unwrap().take());
        // It ends: otherwise this would not.
        while Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

/// The machine sleeps for a part of the token's life. What sleeps here is this test's thread: tokio's
/// clock stands still for so long.
#[tokio::test(start_paused = true)]
async fn keep_fresh_counts_the_time_that_the_machine_has_slept() {
    let short = Tokens::new("t").with_refresh_token("r").with_expires_in(secs(2));
    let state = family_without("hangs").early_refresh(Duration::ZERO).build().in_memory(short);
    thread::sleep(Duration::from_millis(1_200));
    let _guard = state.keep_fresh();
    idle().await;
    assert_eq!(refreshes(&state), 0);
    thread::sleep(Duration::from_millis(900));
    advance(Duration::from_millis(900)).await;
    idle().await;
    assert_eq!(refreshes(&state), 1);
}

#[tokio::test(start_paused = true)]
async fn extreme_numbers_do_no_harm() {
    let lives = [0, 1, 50_000_000].map(Duration::from_nanos);
    let lives = lives.into_iter().chain([secs(3600), secs(200 * 365 * 24 * 3600), Duration::MAX]);
    for life in lives {
        for early in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for most in [0, 1, usize::MAX] {
                for percent in [0, 90, u32::MAX] {
                    let renewal = Renewal::builder(async move |_: Tokens| {
                        Ok::<_, RefreshError>(fresh("r").with_expires_in(life))
                    })
                    .early_spread(percent)
                    .background_refreshes(most)
                    .early_refresh(early)
                    .early_fraction(u32::from(most > 0))
                    .brake(usize::MAX, secs(1), secs(1))
                    .build();
                    let state = renewal.in_memory(expired("r"));
                    let _guard = state.keep_fresh();
                    sleep(secs(2)).await;
                    let count = refreshes(&state);
                    assert!((1..=21).contains(&count), "{life:?} {early:?}: {count}");
                    if life == secs(3600) {
                        sleep(secs(3700)).await;
                        assert!(refreshes(&state) > 1, "{early:?} {most} {percent}");
                    }
                }
            }
        }
    }
}
