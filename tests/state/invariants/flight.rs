//! Invariants 1, 2, 3 and 7: one flight, and every waiter hears of it. More of 3 and 7 is in
//! `cancellation`, of 1 in `shared`.

use std::sync::Arc;

use futures_util::future::join_all;
use testing::{
    Api, Auth, Fault, Op, Play, Store, answer, builder, idle, kind, mock, next, post, secs,
    token_of, tokens,
};
use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{FailureKind, Generation, RefreshLayer, RefreshState, layer::Attempt};

#[tokio::test(start_paused = true)]
async fn i1_a_hundred_challenges_at_once_redeem_once_and_replay_each() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let api = Api::accepting("access-2");
    api.gate().close();
    let service = RefreshLayer::new(Arc::clone(&state)).layer(api.clone());

    let calls: Vec<_> =
        (0..100).map(|_| tokio::spawn(service.clone().oneshot(post("hello")))).collect();
    api.gate().arrived(100).await;
    api.gate().open();
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }

    assert_eq!(auth.asked(), ["refresh-1"]);
    assert_eq!((api.count(401), api.count(200)), (100, 100));
    assert!(api.bodies(200).iter().all(|body| body == "hello"));
    assert_eq!(state.status().counts.replays, 100);
    assert_eq!(state.status().counts.refreshes, 1);
    assert_eq!(state.status().counts.joined, 99);
}

#[test]
fn i1_threads_that_ask_at_once_redeem_once_a_generation() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let auth = Auth::new();
    let state = builder(&auth).build();
    runtime.block_on(async {
        for round in 1..=50 {
            state.accepted(Generation::new(round)); // or the brake has its say
            let asked = (0..8).map(|_| {
                let state = Arc::clone(&state);
                let generation = Generation::new(round);
                tokio::spawn(async move { state.challenged(generation).await.unwrap() })
            });
            for credential in join_all(asked).await {
                assert_eq!(credential.unwrap().generation().get(), round + 1);
            }
        }
    });
    assert_eq!(auth.count(), 50);
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn i1_states_that_share_a_store_redeem_once() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let states: Vec<_> = (0..10)
        .map(|_| RefreshState::builder(auth.refresher()).store(store.clone()).build())
        .collect();
    for state in &states {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    }

    let refreshed = join_all(states.iter().map(|state| state.refresh())).await;

    for credential in refreshed {
        assert_eq!(credential.unwrap().access_token(), Some("access-2"));
    }
    assert_eq!(auth.asked(), ["refresh-1"]);
    auth.assert_sound();
}

/// A replica that waited for the lock must not redeem what it had read before.
#[tokio::test(start_paused = true)]
async fn i1_what_is_redeemed_is_read_under_the_lease() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();

    store.gate(Op::Lease).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    idle().await;
    store.overwrite(Some(tokens(7).with_expires_in(secs(0)))).await;
    store.gate(Op::Lease).open();

    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-7"]);
}

#[tokio::test(start_paused = true)]
async fn i1_a_lost_lease_redeems_nothing() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    store.fault(Op::Lease, Fault::Lost).fault(Op::Lease, Fault::Lost);
    let state = RefreshState::builder(auth.refresher()).store(store).build();
    // Reading takes no more than the record.
    let generation = state.token().await.unwrap().generation();

    assert_eq!(kind(state.challenged(generation).await), FailureKind::Store);
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn i2_a_late_challenge_is_replayed_at_once_and_refreshes_nothing() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));

    service.ready().await.unwrap();
    let mut late = task::spawn(service.call(post("late")));
    assert_pending!(late.poll());
    let (first, respond) = next(&mut handle).await;
    state.refresh().await.unwrap();
    respond.send_response(answer(401));
    drop(first);

    // No flight, no wait: the replay is sent by this very poll.
    assert_pending!(late.poll());
    let (replay, respond) = next(&mut handle).await;
    assert_eq!(token_of(&replay), Some("access-2"));
    assert_eq!(replay.extensions().get::<Attempt>().unwrap().generation().get(), 2);
    respond.send_response(answer(200));
    assert_eq!(assert_ready!(late.poll()).unwrap().status(), 200);
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn i2_a_challenge_for_an_old_token_during_a_flight_waits_for_it() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    state.refresh().await.unwrap();
    auth.gate.close();
    let mut new = task::spawn(state.challenged(Generation::new(2)));
    let mut old = task::spawn(state.challenged(Generation::new(1)));
    assert_pending!(new.poll());
    assert_pending!(old.poll());
    auth.gate.open();
    assert_eq!(new.await.unwrap().access_token(), Some("access-3"));
    assert_eq!(old.await.unwrap().access_token(), Some("access-3"));
    assert_eq!(auth.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn i3_the_flight_lands_when_every_caller_has_gone() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let mut caller = task::spawn(state.refresh());
            assert_pending!(caller.poll());
            caller
        })
        .collect();
    auth.gate.arrived(1).await;
    drop(callers);
    auth.gate.open();
    idle().await;

    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn i3_a_result_that_comes_after_the_deadline_is_saved_and_published() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state =
        RefreshState::builder(auth.refresher()).store(store.clone()).deadline(secs(5)).build();
    let generation = state.token().await.unwrap().generation();
    auth.gate.close();
    assert_eq!(kind(state.challenged(generation).await), FailureKind::Deadline);

    // A challenge that comes now joins the old flight.
    let mut join = task::spawn(state.challenged(generation));
    assert_pending!(join.poll());
    idle().await;
    auth.gate.open();
    assert_eq!(join.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn i7_every_waiter_hears_of_success() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let all = join_all((0..100).map(|_| state.refresh())).await;
    assert!(all.into_iter().all(|one| one.unwrap().access_token() == Some("access-2")));
}

#[tokio::test(start_paused = true)]
async fn i7_every_waiter_hears_of_failure_and_of_panic() {
    for (play, expected) in [
        (Play::Fail, FailureKind::Transient),
        (Play::Reject, FailureKind::Rejected),
        (Play::Panic, FailureKind::Panicked),
    ] {
        let auth = Auth::new();
        auth.next(play);
        let state = builder(&auth).build();
        let all = join_all((0..100).map(|_| state.refresh())).await;
        assert!(all.into_iter().all(|one| kind(one) == expected), "{expected}");
        assert_eq!(auth.count(), 1);
    }
}

/// Each waiter has its own deadline, and is told nothing before it.
#[tokio::test(start_paused = true)]
async fn i7_every_waiter_has_a_deadline() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let begun = Instant::now();
    let waiters = join_all((0..10).map(|n| {
        let state = Arc::clone(&state);
        async move {
            tokio::time::sleep(secs(n)).await;
            let begun = Instant::now();
            (kind(state.refresh().await), begun.elapsed())
        }
    }));
    let waiters = timeout(secs(60), waiters).await.expect("nobody hangs");
    for (kind, waited) in waiters {
        assert_eq!(kind, FailureKind::Deadline);
        assert!(waited >= secs(30) && waited < secs(31), "{waited:?}");
    }
    assert!(begun.elapsed() < secs(41));
    assert_eq!(state.status().counts.failures(FailureKind::Deadline), 10);
    assert_eq!(auth.count(), 1);
}

#[test]
fn i7_shutdown_of_the_runtime_is_heard() {
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let auth = Auth::new();
    auth.gate.close();
    let state = builder(&auth).build();
    let leader = other.spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    here.block_on(auth.gate.arrived(1));
    let mut waiter = task::spawn(state.refresh());
    assert_pending!(waiter.poll());

    other.shutdown_background();
    // What hangs must fail instead.
    let heard = here.block_on(async { timeout(secs(60), waiter).await.expect("it hangs") });
    assert_eq!(kind(heard), FailureKind::Shutdown);
    assert!(here.block_on(leader).is_err(), "its task is gone");
}

#[test]
fn i7_without_a_runtime_there_is_an_answer() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let mut refresh = task::spawn(state.refresh());
    assert_eq!(kind(assert_ready!(refresh.poll())), FailureKind::NoRuntime);
}
