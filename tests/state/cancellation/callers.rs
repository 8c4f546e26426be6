//! Callers that go away: leader, waiter, all of them, at every moment (I3).

use std::sync::Arc;

use testing::{
    Api, Auth, Op, Store, answer, builder, idle, mock, next, post, secs, token_of, tokens,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState};

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
/// spawned by the challenge, not by its waiter.
#[tokio::test(start_paused = true)]
async fn a_leader_dropped_right_after_its_challenge_has_started_the_flight() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (_, respond) = next(&mut handle).await;
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
    let (_, respond) = next(&mut handle).await;
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    let (replay, respond) = next(&mut handle).await;
    drop(call);
    drop(replay);
    respond.send_response(answer(200));

    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(post("next")));
    let (next, respond) = next(&mut handle).await;
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
    let (_, respond) = next(&mut handle).await;
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    drop(call);
    handle.allow(1);
    service.ready().await.unwrap();
    let later = tokio::spawn(service.call(post("next")));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(token_of(&request), Some("access-2"));
    respond.send_response(answer(200));
    later.await.unwrap().unwrap();
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
