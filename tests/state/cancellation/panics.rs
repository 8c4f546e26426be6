//! User code that panics: refresher, store, attacher, classifier, hook (I7).

use std::sync::{Arc, Mutex};

use testing::{Api, Auth, Fault, Op, Play, Store, builder, get, idle, kind, post, secs, tokens};
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceExt};
use tower_refresh::{
    FailureKind, Generation, RefreshLayer, RefreshState,
    layer::{ResponseHead, Verdict},
};

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
    let first = Arc::new(Mutex::new(true));
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

/// Asked on the flight's own task, and given back there.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_lease_leaves_nobody_waiting() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();
    store.fault(Op::Lease, Fault::LostLoudly);
    assert_eq!(kind(state.refresh().await), FailureKind::Store);
    assert_eq!(auth.count(), 0);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));

    // In the giving back, with nothing to redeem: the store is only read.
    store.overwrite(Some(tokens(5))).await;
    store.fault(Op::Lease, Fault::LostLoudly);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-5"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
    state.drain().await;
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
    let classify = move |head: &ResponseHead<'_>| -> Verdict {
        let now = std::mem::take(&mut *panics.lock().unwrap());
        assert!(!now, "as told");
        tower_refresh::layer::classify(head)
    };
    let api = Api::accepting("access-2");
    let service = RefreshLayer::new(builder(&auth).build()).classify(classify).layer(api);
    assert!(tokio::spawn(service.clone().oneshot(get("/"))).await.unwrap_err().is_panic());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
}
