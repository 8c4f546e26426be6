//! What a program and its operator hear: the hook for failures, names, and the log.

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use testing::{Auth, Fault, Logs, Op, Play, Store, builder, idle, kind, secs, stored, tokens};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready_err, task};
use tower_refresh::{
    FailureKind, RefreshError, RefreshState, Renewal, Tokens,
    state::{FailureEvent, Health, RefreshStateBuilder},
};

/// What a hook was called with.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<FailureEvent>>>);

impl Told {
    fn hook(&self) -> impl Fn(FailureEvent) + Send + Sync + 'static {
        let this = self.clone();
        move |event| this.0.lock().unwrap().push(event)
    }

    /// What it was called with since the last time.
    fn take(&self) -> Vec<FailureEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn kinds(&self) -> Vec<FailureKind> {
        self.take().iter().map(FailureEvent::kind).collect()
    }
}

fn heard(builder: RefreshStateBuilder) -> (Arc<RefreshState>, Told) {
    let told = Told::default();
    (builder.name("alice").on_failure(told.hook()).build(), told)
}

/// A state whose refresher says no in this way.
fn failing(error: fn() -> RefreshError) -> (Arc<RefreshState>, Told) {
    let refresher = move |_: Tokens| async move { Err(error()) };
    let builder = RefreshState::builder(refresher).tokens(tokens(1));
    heard(builder)
}

#[tokio::test(start_paused = true)]
async fn the_hook_hears_of_every_kind_of_failure_with_its_cause_name_and_generation() {
    fn refused() -> RefreshError {
        RefreshError::transient(io::Error::from(io::ErrorKind::ConnectionRefused)).unspent()
    }
    type Case = (fn() -> RefreshError, FailureKind, Option<&'static str>);
    let cases: [Case; 5] = [
        (
            || RefreshError::rejected("no").with_code("invalid_grant"),
            FailureKind::Rejected,
            Some("invalid_grant"),
        ),
        (
            || RefreshError::client_refused("no").with_code("invalid_client"),
            FailureKind::ClientRefused,
            Some("invalid_client"),
        ),
        (|| RefreshError::transient("no"), FailureKind::Transient, None),
        (refused, FailureKind::Transient, Some("connection refused")),
        (|| panic!("as told"), FailureKind::Panicked, None),
    ];
    for (error, expected, code) in cases {
        let (state, told) = failing(error);
        let heard = state.refresh().await.unwrap_err();
        assert_eq!((heard.kind(), heard.code()), (expected, code));
        idle().await;
        let [event] = &told.take()[..] else { panic!("{expected:?}: not once") };
        assert_eq!((event.kind(), event.failure.code()), (expected, code));
        assert_eq!(event.name.as_deref(), Some("alice"));
        assert_eq!(event.generation, state.current().generation());
        assert!(event.at <= SystemTime::now() && !event.repeated);
        let panicked = expected == FailureKind::Panicked;
        assert_eq!(event.failure.source().is_none(), panicked, "the user's own error");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hook_hears_of_the_stores_failures_and_of_the_brake() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let (state, told) = heard(stored(&auth, &store).brake(1, secs(100), secs(100)));
    state.token().await.unwrap();
    store.fault(Op::Load, Fault::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Store);
    sleep(secs(60)).await;
    store.fault(Op::Save, Fault::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    sleep(secs(60)).await;
    assert_eq!(told.kinds(), [FailureKind::Store, FailureKind::Unsaved]);

    for _ in 0..3 {
        let _ = state.challenged(state.current().generation()).await;
    }
    idle().await;
    assert_eq!(told.kinds(), [FailureKind::Braked]);
    sleep(secs(100)).await;

    // Another process signs out, and signs in, and the store loses its record.
    store.overwrite(None).await;
    assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
    store.overwrite(Some(tokens(50))).await;
    state.refresh().await.unwrap();
    idle().await;
    let events = told.take();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind(), events[0].failure.code()), (FailureKind::SignedOut, None));
}

/// A challenge finds the record gone without a sign-out: that is not a sign-out.
#[tokio::test(start_paused = true)]
async fn a_session_whose_record_is_lost_is_told_apart_from_a_sign_out() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let (state, told) = heard(stored(&auth, &store));
    state.token().await.unwrap();
    store.lose().await;
    assert_eq!(kind(state.challenged(state.current().generation()).await), FailureKind::SignedOut);
    idle().await;
    let events = told.take();
    assert_eq!(events[0].failure.code(), Some("empty_store"));
    logs.assert_told(&["WARN", "session ended", "kind=\"signed_out\"", "cause=\"empty_store\""]);
}

#[tokio::test(start_paused = true)]
async fn the_hook_is_called_once_a_flight_and_not_once_a_waiter() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    auth.gate.close();
    let (state, told) = heard(builder(&auth));
    let mut waiters: Vec<_> = (0..100).map(|_| task::spawn(state.refresh())).collect();
    waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
    auth.gate.open();
    for failed in join_all(waiters).await {
        assert_eq!(kind(failed), FailureKind::Transient);
    }
    // Those that come during the pause are told, and nothing has failed anew.
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    idle().await;
    assert_eq!(told.kinds(), [FailureKind::Transient]);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_again_is_said_to_be_a_repetition() {
    let auth = Auth::new();
    for _ in 0..2 {
        auth.next(Play::Fail);
    }
    let (state, told) = heard(builder(&auth));
    for _ in 0..2 {
        assert_eq!(kind(state.refresh().await), FailureKind::Transient);
        sleep(secs(60)).await;
    }
    state.refresh().await.unwrap();
    auth.next(Play::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    sleep(secs(60)).await;
    // An answer was lost before: it is tried once more.
    auth.next(Play::Reject).next(Play::Reject);
    for _ in 0..3 {
        assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    }
    idle().await;
    let repeated: Vec<_> = told.take().iter().map(|event| event.repeated).collect();
    assert_eq!(repeated, [false, true, false, false, true, true]);
}

/// The store is out of reach for a moment; then it has lost the refresh token for good, which needs
/// a sign-in.
#[tokio::test(start_paused = true)]
async fn another_cause_is_not_a_repetition() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1).with_expires_in(secs(1000))));
    let (state, told) = heard(stored(&auth, &store));
    state.token().await.unwrap();
    store.fault(Op::Load, Fault::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Store);
    sleep(secs(60)).await;
    store.lose().await;
    assert_eq!(kind(state.refresh().await), FailureKind::Store);
    idle().await;
    let told = told.take();
    let codes: Vec<_> = told.iter().map(|event| (event.failure.code(), event.repeated)).collect();
    assert_eq!(codes, [(None, false), (Some("record_lost"), false)]);
}

/// It may ask for anything but to be waited for.
#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_calls_the_state_harms_nothing() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    let state = builder(&auth).on_failure(|_| panic!("the hook panics, as told")).build();
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    sleep(secs(60)).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    state.drain().await;

    let (own, set) = (Arc::new(Mutex::new(None::<Arc<RefreshState>>)), Arc::new(Mutex::new(0)));
    let (of_hook, counted) = (Arc::clone(&own), Arc::clone(&set));
    let auth = Auth::new();
    auth.next(Play::Reject);
    let state = builder(&auth)
        .on_failure(move |event| {
            let state = of_hook.lock().unwrap().clone().unwrap();
            assert_eq!((event.kind(), state.health()), (FailureKind::Rejected, Health::Rejected));
            assert_eq!(state.status().generation, event.generation);
            assert_eq!(*state.subscribe_health().borrow(), Health::Rejected);
            *counted.lock().unwrap() += 1;
            tokio::spawn(async move { state.set(tokens(9)).await.unwrap() });
        })
        .build();
    *own.lock().unwrap() = Some(Arc::clone(&state));
    // The caller may hear of the sign-in already.
    let _ = state.refresh().await;
    idle().await;
    assert_eq!(*set.lock().unwrap(), 1);
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-9"));
    own.lock().unwrap().take();
}

#[test]
fn a_hook_that_panics_where_it_has_no_task_harms_no_caller() {
    let state = builder(&Auth::new()).on_failure(|_| panic!("the hook panics, as told")).build();
    assert_ready_err!(task::spawn(state.refresh()).poll());
}

/// It holds up the thread that it blocks, and neither the waiters, nor the lease, nor the next
/// flight.
#[test]
fn a_hook_that_blocks_holds_up_no_flight() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let auth = Auth::new();
    auth.next(Play::Fail);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let state = builder(&auth)
        .cool_down(Duration::ZERO, Duration::ZERO)
        .on_failure(move |_| {
            let _ = blocked.lock().unwrap().recv();
        })
        .build();
    runtime.block_on(async {
        let refresh = async {
            assert_eq!(kind(state.refresh().await), FailureKind::Transient);
            state.refresh().await.unwrap()
        };
        let next = timeout(secs(60), refresh).await.expect("the hook holds them up");
        assert_eq!(next.access_token(), Some("access-2"));
        let mut drain = task::spawn(state.drain());
        assert_pending!(drain.poll(), "it waits for the hook");
        drop(release);
        timeout(secs(60), drain).await.expect("the hook has ended");
    });
}

#[test]
fn the_hook_hears_of_a_flight_that_its_runtime_has_taken_along() {
    let auth = Auth::new();
    auth.gate.close();
    let (state, told) = heard(builder(&auth));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_pending!(task::spawn(state.refresh()).poll());
        auth.gate.arrived(1).await;
    });
    assert!(told.take().is_empty());
    drop(runtime);
    assert_eq!(told.kinds(), [FailureKind::Shutdown]);

    // And of one that had no runtime to begin in.
    assert_ready_err!(task::spawn(state.refresh()).poll());
    assert_eq!(told.kinds(), [FailureKind::NoRuntime]);
}

/// Each kind of failure has its last time and generation, also after other kinds.
#[tokio::test(start_paused = true)]
async fn each_kind_of_failure_is_told_with_its_last_time_and_generation() {
    let auth = Auth::new();
    let before = SystemTime::now();
    let state = builder(&auth).deadline(secs(5)).build();
    auth.next(Play::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    let first = state.current().generation();
    sleep(secs(60)).await;
    state.refresh().await.unwrap();
    auth.gate.close();
    assert_eq!(kind(state.refresh().await), FailureKind::Deadline);
    auth.next(Play::Panic);
    auth.gate.open();
    idle().await;

    let counts = state.status().counts;
    for (kind, generation) in [
        (FailureKind::Transient, first),
        (FailureKind::Deadline, first.next()),
        (FailureKind::Panicked, first.next()),
    ] {
        let past = counts.last(kind).unwrap_or_else(|| panic!("no {kind:?}"));
        assert_eq!((past.kind, past.count, past.generation), (kind, 1, generation));
        assert!(before <= past.last_at && past.last_at <= SystemTime::now());
    }
    assert_eq!(counts.all_failures().count(), 3);
    assert_eq!(counts.last(FailureKind::Rejected), None);
}

#[tokio::test(start_paused = true)]
async fn a_name_stands_in_the_log_the_status_and_the_events() {
    let (logs, _guard) = Logs::capture();
    let told = Told::default();
    let refuse = async |_: Tokens| Err(RefreshError::rejected("no").with_code("invalid_grant"));
    let renewal = Renewal::builder(refuse).on_failure(told.hook()).build();
    let (alice, nameless) =
        (renewal.in_memory(tokens(1)).named("alice"), renewal.in_memory(tokens(2)));
    for state in [&alice, &nameless] {
        assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    }
    idle().await;
    assert_eq!(alice.status().name.as_deref(), Some("alice"));
    assert_eq!((nameless.name(), nameless.status().name), (None, None));
    let names: Vec<_> = told.take().into_iter().map(|event| event.name).collect();
    assert_eq!(names, [Some("alice".into()), None]);
    logs.assert_told(&["refresh_flight{", "name=\"alice\"", "flight landed"]);
    assert_eq!(logs.count(&["flight landed"]), 2);
    assert_eq!(logs.count(&["flight landed", "name="]), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_a_warning_with_its_cause_and_name_once() {
    let (logs, _guard) = Logs::capture();
    let (state, _) = failing(|| RefreshError::rejected("SECRET").with_code("invalid_grant"));
    for _ in 0..3 {
        assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    }
    let said = [
        "session ended",
        "kind=\"rejected\"",
        "cause=\"invalid_grant\"",
        "name=\"alice\"",
        "generation=1",
    ];
    assert_eq!(logs.count(&[&["WARN"][..], &said].concat()), 1);
    assert_eq!(logs.count(&[&["DEBUG"][..], &said].concat()), 2);
    logs.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_warnings_and_what_was_asked_for_is_not() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    auth.next(Play::Fail);
    let (state, _) = heard(builder(&auth));
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    logs.assert_told(&["WARN", "refresh failed", "kind=\"transient\"", "name=\"alice\""]);

    let store = Store::with(tokens(1));
    let (state, _) = heard(stored(&auth, &store));
    state.token().await.unwrap();
    store.overwrite(None).await;
    assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
    logs.assert_told(&["INFO", "session ended", "kind=\"signed_out\""]);
    assert_eq!(logs.count(&["WARN"]), 1);
}
