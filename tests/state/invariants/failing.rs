//! Invariants 6, 9 and 14: failures, and how far they reach.

use std::sync::Arc;

use testing::{Api, Auth, Fault, Op, Play, Store, builder, get, idle, kind, secs, tokens};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_refresh::{FailureKind, FromExtensions, RefreshFailure, RefreshLayer, RefreshState};

#[tokio::test(start_paused = true)]
async fn i6_rejected_stays_failed_until_new_tokens_are_set() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let state = builder(&auth).build();
    let refused = state.current().generation();
    assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
    for _ in 0..3 {
        sleep(secs(3600)).await;
        assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
        assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    }
    assert_eq!(auth.count(), 1, "the dead token is not brought again");

    state.set(tokens(5)).await.unwrap();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-5"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1", "refresh-5"]);
}

/// The answer is known: a dead credential costs its requests nothing, and its store
/// neither.
#[tokio::test(start_paused = true)]
async fn i6_rejected_is_answered_at_once() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    let refused = state.token().await.unwrap().generation();
    assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
    let loads = store.count(Op::Load);
    for _ in 0..3 {
        let mut challenged = tokio_test::task::spawn(state.challenged(refused));
        assert_eq!(kind(tokio_test::assert_ready!(challenged.poll())), FailureKind::Rejected);
    }
    idle().await;
    assert_eq!(store.count(Op::Load), loads);
}

/// A sign-in in another process is found by a challenge here, and the store is not read
/// for each.
#[tokio::test(start_paused = true)]
async fn i6_a_dead_credential_looks_into_its_store_now_and_then() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    let refused = state.token().await.unwrap().generation();
    assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
    let loads = store.count(Op::Load);
    for (pause, looks) in [(1, 1), (1, 1), (1, 2), (4, 3), (7, 3), (1, 4)] {
        sleep(secs(pause)).await;
        for _ in 0..3 {
            assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
        }
        assert_eq!(store.count(Op::Load), loads + looks, "after another {pause} s");
    }
    store.overwrite(Some(tokens(7))).await;
    sleep(secs(60)).await;
    assert_eq!(state.challenged(refused).await.unwrap().access_token(), Some("access-7"));
    assert_eq!(auth.count(), 1, "the dead token is not brought again");

    // The next time it begins anew.
    auth.next(Play::Reject);
    let refused = state.current().generation();
    assert_eq!(kind(state.challenged(refused).await), FailureKind::Rejected);
    store.overwrite(Some(tokens(8))).await;
    sleep(secs(1)).await;
    assert_eq!(state.challenged(refused).await.unwrap().access_token(), Some("access-8"));
}

/// So does one that is signed out. A herd of challenges is one look.
#[tokio::test(start_paused = true)]
async fn i6_one_that_is_signed_out_looks_into_its_store_now_and_then() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    let refused = state.token().await.unwrap().generation();
    store.overwrite(None).await;
    assert_eq!(kind(state.challenged(refused).await), FailureKind::SignedOut);
    let nothing = state.current().generation();
    store.gate(Op::Load).close();
    let loads = store.count(Op::Load);
    let mut herd: Vec<_> =
        (0..9).map(|_| tokio_test::task::spawn(state.challenged(nothing))).collect();
    herd.iter_mut().for_each(|one| tokio_test::assert_pending!(one.poll()));
    store.gate(Op::Load).arrived(loads + 1).await;
    store.overwrite(Some(tokens(7))).await;
    store.gate(Op::Load).open();
    for one in herd {
        assert_eq!(one.await.unwrap().access_token(), Some("access-7"));
    }
    // One look; then it was adopted.
    assert_eq!(auth.count(), 0);

    // A sign-out of our own that the store has not heard of is final.
    store.fault(Op::Delete, Fault::Fail);
    assert!(state.clear().await.is_err());
    let loads = store.count(Op::Load);
    let nothing = state.current().generation();
    assert_eq!(kind(state.challenged(nothing).await), FailureKind::SignedOut);
    assert_eq!(store.count(Op::Load), loads);
    state.clear().await.unwrap();
    state.drain().await;
    assert_eq!(kind(state.challenged(nothing).await), FailureKind::SignedOut);
    assert_eq!(store.count(Op::Load), loads, "nor is it read while draining");
}

#[tokio::test(start_paused = true)]
async fn i6_rejected_adopts_what_another_has_stored_meanwhile() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    let refused = state.token().await.unwrap().generation();
    auth.gate.close();
    let mut challenged = tokio_test::task::spawn(state.challenged(refused));
    tokio_test::assert_pending!(challenged.poll());
    auth.gate.arrived(1).await;
    store.overwrite(Some(tokens(8))).await;
    auth.gate.open();

    assert_eq!(challenged.await.unwrap().access_token(), Some("access-8"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn i6_transient_cools_down_and_then_tries_again() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    let state = builder(&auth).cool_down(secs(1000), secs(1000)).build();
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Transient);
    let retry_at = failure.retry_at().expect("time helps here");
    assert_eq!(state.status().retry_in, Some(retry_at - Instant::now()));
    assert!(retry_at <= Instant::now() + secs(1000));

    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    assert_eq!(auth.count(), 1, "cooling down");
    tokio::time::sleep_until(retry_at).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1", "refresh-1"]);
}

#[tokio::test(start_paused = true)]
async fn i6_retry_after_is_honoured() {
    let auth = Auth::new();
    auth.next(Play::RetryAfter(secs(120)));
    let state = builder(&auth).build();
    let begun = Instant::now();
    let retry_at = state.refresh().await.unwrap_err().retry_at().unwrap();
    assert!(retry_at >= begun + secs(120), "longer than any cool-down");
    sleep(secs(119)).await;
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    assert_eq!(auth.count(), 1);
    sleep(secs(2)).await;
    state.refresh().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn i6_a_failed_early_refresh_leaves_the_working_token() {
    for play in [Play::Fail, Play::Reject, Play::Panic] {
        let auth = Auth::new();
        auth.next(play);
        let state = RefreshState::builder(auth.refresher())
            .tokens(tokens(1).with_expires_in(secs(1000)))
            .build();
        sleep(secs(990)).await;
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        idle().await;
        assert_eq!(auth.count(), 1, "the early refresh was tried");
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        assert!(state.status().last_failure.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn i9_refused_brand_new_tokens_brake() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let mut braked = None;
    for _ in 0..100 {
        if let Err(failure) = state.challenged(state.current().generation()).await {
            braked = Some(failure);
            break;
        }
    }
    let braked = braked.expect("a loop that goes on for ever");
    assert_eq!(braked.kind(), FailureKind::Braked);
    assert_eq!(braked.retry_at(), Some(Instant::now() + secs(60)));
    assert_eq!(auth.count(), 6, "the sixth of its tokens was refused: more than 5");

    sleep(secs(61)).await;
    state.challenged(state.current().generation()).await.unwrap();
    assert_eq!(auth.count(), 7);
}

#[tokio::test(start_paused = true)]
async fn i9_the_layer_does_not_loop() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let api = Api::accepting("nothing");
    let service = RefreshLayer::new(state).layer(api.clone());
    for _ in 0..100 {
        let response = service.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), 401);
    }
    assert_eq!(auth.count(), 1, "it did not help a moment ago");
    assert_eq!(api.count(401), 101);

    for second in 1..100 {
        sleep(secs(1)).await;
        let response = service.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), 401);
        let most = 6 * (1 + second / 61);
        assert!(auth.count() <= most, "{} in {second} s", auth.count());
    }
    assert!(auth.count() >= 6, "it may help after a while");
}

#[tokio::test(start_paused = true)]
async fn i9_tokens_that_were_accepted_do_not_brake() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    for _ in 0..100 {
        let generation = state.current().generation();
        state.accepted(generation);
        state.challenged(generation).await.unwrap();
    }
    assert_eq!(auth.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn i14_a_credential_that_fails_leaves_the_other_alone() {
    let (bad, good) = (Auth::new(), Auth::new());
    bad.next(Play::Reject);
    let (theirs, ours) = (builder(&bad).build(), builder(&good).build());
    let api = Api::accepting("access-2");
    let service = RefreshLayer::per_request(FromExtensions).layer(api.clone());
    let send = |state: &Arc<RefreshState>| {
        let mut request = get("/");
        request.extensions_mut().insert(Arc::clone(state));
        service.clone().oneshot(request)
    };

    let (failed, worked) = tokio::join!(send(&theirs), send(&ours));

    let failed = failed.unwrap();
    assert_eq!(failed.status(), 401);
    let reason = failed.extensions().get::<RefreshFailure>().unwrap();
    assert_eq!(reason.kind(), FailureKind::Rejected);
    assert_eq!(worked.unwrap().status(), 200);
    assert_eq!(theirs.current().access_token(), Some("access-1"));
    assert_eq!(ours.current().access_token(), Some("access-2"));
    assert!(ours.status().last_failure.is_none());
    assert_eq!(send(&ours).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn i14_a_flight_or_cool_down_of_one_does_not_hold_the_other() {
    let (slow, fast) = (Auth::new(), Auth::new());
    slow.gate.close();
    let (theirs, ours) = (builder(&slow).build(), builder(&fast).build());
    let mut waits = tokio_test::task::spawn(theirs.refresh());
    tokio_test::assert_pending!(waits.poll());
    slow.gate.arrived(1).await;
    assert_eq!(ours.refresh().await.unwrap().access_token(), Some("access-2"));

    slow.next(Play::Fail);
    slow.gate.open();
    assert_eq!(kind(waits.await), FailureKind::Transient);
    assert_eq!(ours.refresh().await.unwrap().access_token(), Some("access-3"));
}
