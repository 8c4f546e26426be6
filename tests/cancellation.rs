//! Every point at which somebody can go away: callers, runtimes, and user code that
//! panics. Afterwards nobody hangs, and later callers work.

mod support;

use std::{
    sync::{Arc, Mutex},
    thread,
};

use http::{HeaderMap, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{
    FailureKind, Generation, RefreshLayer, RefreshState, RefreshStateBuilder, Verdict, WhileUnsaved,
};

use support::{
    Api, Auth, Fault, Op, Play, Store, answer, get, idle, kind, mock, post, secs, token_of, tokens,
};

fn builder(auth: &Auth) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).tokens(tokens(1))
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

// Callers that go away.

#[tokio::test(start_paused = true)]
async fn a_dropped_leader_leaves_the_flight_to_the_others() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let mut leader = task::spawn(state.refresh());
    let mut waiter = task::spawn(state.refresh());
    assert_pending!(leader.poll());
    assert_pending!(waiter.poll());
    drop(leader);
    auth.gate.arrived(1).await;
    auth.gate.open();
    assert_eq!(waiter.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// Not even a first poll has happened when the leader is dropped: the flight is
/// spawned by the challenge, not by whoever waits.
#[tokio::test(start_paused = true)]
async fn a_leader_dropped_right_after_its_challenge_has_started_the_flight() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    drop(call);
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn dropped_waiters_leave_the_others_their_places() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let mut waiters: Vec<_> = (0..10)
        .map(|_| {
            let mut waiter = task::spawn(state.refresh());
            assert_pending!(waiter.poll());
            Some(waiter)
        })
        .collect();
    // The first, the last and some between, so that places move.
    for gone in [0, 4, 9, 1, 5] {
        waiters[gone] = None;
    }
    auth.gate.arrived(1).await;
    auth.gate.open();
    idle().await;
    for mut waiter in waiters.into_iter().flatten() {
        assert!(waiter.is_woken());
        assert_eq!(assert_ready!(waiter.poll()).unwrap().access_token(), Some("access-2"));
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_dropped_the_next_one_joins_the_same_flight() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    for _ in 0..5 {
        assert_pending!(task::spawn(state.refresh()).poll());
    }
    let mut next = task::spawn(state.refresh());
    assert_pending!(next.poll());
    auth.gate.arrived(1).await;
    auth.gate.open();
    assert_eq!(next.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_during_the_save_the_save_goes_on() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    drop(refresh);
    store.gate(Op::Save).open();
    idle().await;
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn dropped_during_the_replay_harms_nobody() {
    let auth = Auth::new();
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    let (replay, respond) = handle.next_request().await.unwrap();
    drop(call);
    drop(replay);
    respond.send_response(answer(200));

    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(post("next")));
    let (next, respond) = handle.next_request().await.unwrap();
    assert_eq!(token_of(&next), Some("access-2"));
    respond.send_response(answer(200));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(auth.count(), 1);
}

/// Dropped while it waits for the service to become ready once more.
#[tokio::test(start_paused = true)]
async fn dropped_before_the_replay_holds_no_service() {
    let auth = Auth::new();
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    handle.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    drop(call);
    handle.allow(1);
    service.ready().await.unwrap();
    let next = tokio::spawn(service.call(post("next")));
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(token_of(&request), Some("access-2"));
    respond.send_response(answer(200));
    next.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_parked_waiter_is_woken_by_the_waker_it_was_last_polled_with() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let mut refresh = Box::pin(state.refresh());
    let mut first = task::spawn(std::future::poll_fn(|cx| refresh.as_mut().poll(cx)));
    assert_pending!(first.poll());
    // Moves on to another task, as in `select!` or a `FuturesUnordered`.
    drop(first);
    let mut second = task::spawn(std::future::poll_fn(|cx| refresh.as_mut().poll(cx)));
    assert_pending!(second.poll());
    auth.gate.arrived(1).await;
    auth.gate.open();
    idle().await;
    assert!(second.is_woken());
    assert_eq!(assert_ready!(second.poll()).unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_request_waiting_at_the_gate_is_woken_by_its_latest_waker() {
    let auth = Auth::new();
    auth.gate.close();
    let expired = tokens(1).with_expires_in(secs(1));
    let state = RefreshState::builder(auth.refresher()).tokens(expired).build();
    tokio::time::sleep(secs(2)).await;
    let service = RefreshLayer::new(state).layer(Api::accepting("access-2"));
    let mut call = Box::pin(service.oneshot(post("hello")));
    assert_pending!(task::spawn(std::future::poll_fn(|cx| call.as_mut().poll(cx))).poll());
    let mut moved = task::spawn(call);
    assert_pending!(moved.poll());
    auth.gate.open();
    idle().await;
    assert!(moved.is_woken());
    assert_eq!(moved.await.unwrap().status(), 200);
}

// Runtimes that go away.

#[test]
fn a_waiter_in_another_runtime_hears_of_the_shutdown_and_the_next_flight_works() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let (here, there) = (current_thread(), current_thread());
    there.block_on(async {
        assert_pending!(task::spawn(state.refresh()).poll());
        auth.gate.arrived(1).await;
    });
    let blocked = thread::spawn({
        let state = Arc::clone(&state);
        move || current_thread().block_on(state.refresh())
    });
    let mut waiter = task::spawn(state.refresh());
    assert_pending!(waiter.poll());
    while state.status().counts.joined < 2 {
        thread::yield_now();
    }
    drop(there);

    assert_eq!(kind(blocked.join().unwrap()), FailureKind::Shutdown);
    assert_eq!(kind(here.block_on(waiter)), FailureKind::Shutdown);
    auth.gate.open();
    assert_eq!(here.block_on(state.refresh()).unwrap().access_token(), Some("access-2"));
}

/// Shut down while the save is under way: before the store was written, and after.
#[test]
fn minted_tokens_that_were_not_saved_are_saved_by_the_next_flight() {
    for fault in [None, Some(Fault::HangAfter)] {
        let auth = Auth::new();
        let store = Store::with(tokens(1));
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        current_thread().block_on(async {
            state.token().await.unwrap();
            match fault {
                None => store.gate(Op::Save).close(),
                Some(fault) => drop(store.fault(Op::Save, fault)),
            }
            assert_pending!(task::spawn(state.refresh()).poll());
            store.gate(Op::Save).arrived(1).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(state.status().in_flight, None);
        assert_eq!(state.current().access_token(), Some("access-1"));
        store.gate(Op::Save).open();

        let credential = current_thread().block_on(state.refresh()).unwrap();
        assert_eq!(credential.access_token(), Some("access-2"), "{fault:?}");
        assert_eq!(auth.asked(), ["refresh-1"], "{fault:?}");
        let stored = current_thread().block_on(store.refresh_token());
        assert_eq!(stored.as_deref(), Some("refresh-2"), "{fault:?}");
        auth.assert_sound();
    }
}

/// Requests use the new token already, and no store knows it yet: whoever asks for
/// another gets it, with the new refresh token.
#[test]
fn minted_tokens_that_were_served_unsaved_are_saved_by_the_next_flight() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher())
        .store(store.clone())
        .while_unsaved(WhileUnsaved::Serve)
        .build();
    current_thread().block_on(async {
        state.token().await.unwrap();
        store.fault(Op::Save, Fault::Fail);
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    });
    assert_eq!(state.status().in_flight, None);
    current_thread().block_on(async {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-3"));
    });
    assert_eq!(auth.asked(), ["refresh-1", "refresh-2"]);
    auth.assert_sound();
}

#[test]
fn a_sign_out_after_the_shutdown_discards_what_was_not_saved() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    current_thread().block_on(async {
        state.token().await.unwrap();
        store.gate(Op::Save).close();
        assert_pending!(task::spawn(state.refresh()).poll());
        store.gate(Op::Save).arrived(1).await;
    });
    store.gate(Op::Save).open();
    current_thread().block_on(async {
        state.clear().await.unwrap();
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
        assert_eq!(store.refresh_token().await, None);
    });
}

// User code that panics.

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_refresher_is_a_failure_like_any_other() {
    let auth = Auth::new();
    auth.next(Play::Panic);
    let state = builder(&auth).build();
    assert_eq!(kind(state.refresh().await), FailureKind::Panicked);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}

/// Not in the future it returns, but in the call that makes it.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_of_the_refresher_is_a_failure_too() {
    let auth = Auth::new();
    let first = Mutex::new(true);
    let state = {
        let auth = auth.clone();
        RefreshState::builder(move |current| {
            let first = std::mem::take(&mut *first.lock().unwrap());
            assert!(!first, "as told");
            let auth = auth.clone();
            async move { auth.redeem(Some(current)).await }
        })
        .tokens(tokens(1))
        .build()
    };
    assert_eq!(kind(state.refresh().await), FailureKind::Panicked);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_store_is_a_failure_of_the_store() {
    for op in [Op::Lease, Op::Load] {
        let auth = Auth::new();
        let store = Store::with(tokens(1));
        store.fault(op, Fault::Panic);
        let state = RefreshState::builder(auth.refresher()).store(store).build();
        assert_eq!(kind(state.token().await), FailureKind::Store, "{op:?}");
        tokio::time::sleep(secs(2)).await;
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"), "{op:?}");
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"), "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_save_keeps_what_was_minted() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::Panic);
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_store_during_sign_in_or_sign_out_is_an_error() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    store.fault(Op::Load, Fault::Panic);
    state.set(tokens(4)).await.unwrap_err();
    store.fault(Op::Save, Fault::Panic);
    state.set(tokens(4)).await.unwrap_err();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));

    store.fault(Op::Delete, Fault::Panic);
    state.clear().await.unwrap_err();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    state.clear().await.unwrap();
    assert_eq!(store.refresh_token().await, None);
    state.set(tokens(5)).await.unwrap();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-5"));
    state.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_discard_hook_ends_the_flight() {
    let auth = Auth::new();
    let state = builder(&auth).on_discard(|_| async { panic!("as told") }).build();
    auth.gate.close();
    assert_pending!(task::spawn(state.refresh()).poll());
    auth.gate.arrived(1).await;
    state.set(tokens(10)).await.unwrap();
    auth.gate.open();
    idle().await;
    assert_eq!(state.status().in_flight, None);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
}

/// Panics the first time and on the replay: the caller alone pays.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_attacher_goes_to_its_caller_alone() {
    for bad in [Generation::new(1), Generation::new(2)] {
        let auth = Auth::new();
        let state = builder(&auth).build();
        let panics = Mutex::new(true);
        let layer = RefreshLayer::new(state).attach_with(move |parts, credential| {
            if credential.generation() == bad {
                let now = std::mem::take(&mut *panics.lock().unwrap());
                assert!(!now, "as told");
            }
            parts.headers.insert("authorization", credential.bearer().unwrap());
        });
        let api = Api::accepting("access-2");
        let service = layer.layer(api.clone());
        let call = tokio::spawn(service.clone().oneshot(post("hello")));
        assert!(call.await.unwrap_err().is_panic());
        let response = service.oneshot(post("hello")).await.unwrap();
        assert_eq!(response.status(), 200, "{bad}");
        assert_eq!(auth.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_classifier_goes_to_its_caller_alone() {
    let auth = Auth::new();
    let panics = Mutex::new(true);
    let classify = move |status: StatusCode, headers: &HeaderMap| -> Verdict {
        let now = std::mem::take(&mut *panics.lock().unwrap());
        assert!(!now, "as told");
        tower_refresh::classify(status, headers)
    };
    let api = Api::accepting("access-2");
    let service = RefreshLayer::new(builder(&auth).build()).classify(classify).layer(api);
    assert!(tokio::spawn(service.clone().oneshot(get("/"))).await.unwrap_err().is_panic());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
}
