//! Invariants 4, 5 and 15: minted tokens are never lost, and never resurrect a session. More
//! of 4 is in `unsaved`, of 5 in `fence`.

use std::sync::{Arc, Mutex};

use testing::{Auth, Fault, Op, Store, idle, kind, opened, secs, stored, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshState, Tokens,
    state::{RefreshStateBuilder, WhileUnsaved},
    store::MemoryStore,
};

#[tokio::test(start_paused = true)]
async fn i4_nothing_is_published_before_it_is_saved() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    idle().await;

    assert_pending!(refresh.poll());
    assert_eq!(state.current().access_token(), Some("access-1"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-1"));

    store.gate(Op::Save).open();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
}

#[tokio::test(start_paused = true)]
async fn i4_a_failed_save_is_saved_again_and_never_redeemed_again() {
    for fault in [Fault::Fail, Fault::Panic, Fault::FailAfter] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        store.fault(Op::Save, fault).fault(Op::Save, fault).fault(Op::Save, fault);

        assert_eq!(kind(state.refresh().await), FailureKind::Unsaved, "{fault:?}");
        tokio::time::sleep(secs(600)).await;

        assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"), "{fault:?}");
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
        assert_eq!(auth.asked(), ["refresh-1"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i4_while_unsaved_refuse_gives_nobody_what_the_store_does_not_know() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    let generation = state.current().generation();
    store.fault(Op::Save, Fault::Fail);
    store.fault(Op::Save, Fault::Fail);

    for _ in 0..3 {
        assert_eq!(kind(state.challenged(generation).await), FailureKind::Unsaved);
        assert_eq!(state.current().access_token(), Some("access-1"));
    }
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn i4_while_unsaved_serve_gives_the_new_token_and_goes_on_saving() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = stored(&auth, &store).while_unsaved(WhileUnsaved::Serve).build();
    let generation = state.token().await.unwrap().generation();
    store.fault(Op::Save, Fault::Fail);

    assert_eq!(state.challenged(generation).await.unwrap().access_token(), Some("access-2"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-1"));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// The generation is the store's version: a write in between is noticed.
#[tokio::test(start_paused = true)]
async fn i4_the_save_compares_and_swaps() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    store.overwrite(Some(tokens(9))).await;
    store.gate(Op::Save).open();

    assert_eq!(refresh.await.unwrap().access_token(), Some("access-9"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-9"));
}

#[tokio::test(start_paused = true)]
async fn i4_an_answer_without_a_refresh_token_keeps_the_stored_one() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1).with_extra("scope", "all")));
    auth.next(testing::Play::Mint(Tokens::new("access-2")));
    let state = opened(&auth, &store).await;
    state.refresh().await.unwrap();
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-1"));
    assert_eq!(state.current().extra("scope"), Some("all"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1", "refresh-1"]);
}

/// The discarded tokens, as the hook was given them.
fn discards(builder: RefreshStateBuilder) -> (RefreshStateBuilder, Arc<Mutex<Vec<Tokens>>>) {
    let discarded = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&discarded);
    let builder = builder.on_discard(move |tokens| {
        list.lock().unwrap().push(tokens);
        async {}
    });
    (builder, discarded)
}

#[tokio::test(start_paused = true)]
async fn i5_sign_out_during_a_redeem_wins_and_the_result_is_discarded() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let (builder, discarded) = discards(stored(&auth, &store));
    let state = builder.build();
    state.token().await.unwrap();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;

    state.clear().await.unwrap();
    assert_eq!(kind(refresh.await), FailureKind::SignedOut);
    auth.gate.open();
    idle().await;

    assert_eq!(state.current().access_token(), None);
    assert_eq!(store.refresh_token().await, None);
    assert_eq!(*discarded.lock().unwrap(), [tokens(2)]);
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
}

#[tokio::test(start_paused = true)]
async fn i5_sign_in_during_a_redeem_wins_and_the_result_is_discarded() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let (builder, discarded) = discards(stored(&auth, &store));
    let state = builder.build();
    state.token().await.unwrap();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;

    state.set(tokens(50)).await.unwrap();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-50"));
    auth.gate.open();
    idle().await;

    assert_eq!(state.current().access_token(), Some("access-50"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-50"));
    assert_eq!(*discarded.lock().unwrap(), [tokens(2)]);
}

#[tokio::test(start_paused = true)]
async fn i5_the_generation_never_goes_back() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    let mut last = state.current().generation();
    for round in 0..4 {
        match round % 4 {
            0 => drop(state.refresh().await.unwrap()),
            1 => drop(state.clear().await.unwrap()),
            2 => drop(state.set(tokens(round)).await.unwrap()),
            _ => drop(state.refresh().await.unwrap()),
        }
        assert!(state.current().generation() > last);
        last = state.current().generation();
    }
}

#[tokio::test(start_paused = true)]
async fn i15_drain_waits_for_the_flight_and_its_save() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    auth.gate.close();
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    let mut drain = task::spawn(state.drain());
    assert_pending!(drain.poll());

    auth.gate.arrived(1).await;
    auth.gate.open();
    store.gate(Op::Save).arrived(1).await;
    idle().await;
    assert_pending!(drain.poll());

    store.gate(Op::Save).open();
    drain.await;
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn i15_drain_waits_for_sign_in_and_sign_out() {
    for op in [Op::Save, Op::Delete] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        store.gate(op).close();
        {
            let mut set = task::spawn(state.set(tokens(5)));
            let mut clear = task::spawn(state.clear());
            match op {
                Op::Save => assert_pending!(set.poll()),
                _ => assert_pending!(clear.poll()),
            }
        }
        let mut drain = task::spawn(state.drain());
        assert_pending!(drain.poll());
        idle().await;
        assert_pending!(drain.poll());
        store.gate(op).open();
        drain.await;
        let left = if op == Op::Save { Some("refresh-5") } else { None };
        assert_eq!(store.refresh_token().await.as_deref(), left, "its caller was gone");
    }
}

#[tokio::test(start_paused = true)]
async fn i15_a_drained_state_starts_no_flight() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    state.drain().await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(kind(state.refresh().await), FailureKind::Shutdown);
    assert_eq!(kind(state.challenged(state.current().generation()).await), FailureKind::Shutdown);
    assert_eq!(auth.count(), 0);
}

/// A process that is killed here finds the spent token in its store, and nothing
/// can be done; one whose runtime goes away does not.
#[test]
fn i15_what_was_minted_survives_its_runtime() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = stored(&auth, &store).build();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    runtime().block_on(async {
        state.token().await.unwrap();
        store.gate(Op::Save).close();
        let mut refresh = task::spawn(state.refresh());
        assert_pending!(refresh.poll());
        store.gate(Op::Save).arrived(1).await;
    });
    store.gate(Op::Save).open();
    runtime().block_on(async {
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    });
    assert_eq!(auth.asked(), ["refresh-1"]);
    auth.assert_sound();
}

#[tokio::test]
async fn i4_the_default_store_goes_the_same_way() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).store(MemoryStore::with_tokens(tokens(1)));
    let state = state.build();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}
