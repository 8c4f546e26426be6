//! The API, first use, and being signed out.

use std::sync::Arc;

use futures_util::future::join_all;
use testing::{Auth, Fault, Op, Play, Store, idle, kind, secs, tokens};
use tokio::time::{sleep, timeout};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, Generation, RefreshState, Tokens, refresher::Trigger, refresher_fn,
};

#[tokio::test(start_paused = true)]
async fn token_refresh_set_and_clear() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let first = state.token().await.unwrap();
    assert_eq!((first.access_token(), first.generation().get()), (Some("access-1"), 1));
    let second = state.refresh().await.unwrap();
    assert_eq!((second.access_token(), second.generation().get()), (Some("access-2"), 2));
    assert_eq!(state.set(tokens(30)).await.unwrap().get(), 3);
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-30"));
    state.clear().await.unwrap();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    assert_eq!(state.current().access_token(), None);
    assert_eq!(state.current().bearer(), None);
    assert!(state.current().generation() > Generation::new(3));
}

#[tokio::test(start_paused = true)]
async fn challenged_refreshes_once_and_then_knows_the_newer() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let first = state.token().await.unwrap().generation();
    assert_eq!(state.challenged(first).await.unwrap().access_token(), Some("access-2"));
    assert_eq!(state.challenged(first).await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// Their futures borrow from what they have captured, which is no clone for each call to write out.
#[tokio::test(start_paused = true)]
async fn async_closures_use_what_they_own() {
    let auth = Auth::new();
    let (revoked, mut told) = tokio::sync::mpsc::unbounded_channel();
    let redeems = auth.clone();
    let state = RefreshState::builder(async move |spent| redeems.redeem(Some(spent)).await)
        .tokens(tokens(1))
        .on_sign_out(async move |tokens| revoked.send(tokens))
        .build();
    state.refresh().await.unwrap();
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
    state.clear().await.unwrap();
    assert_eq!(told.recv().await.unwrap().refresh_token(), Some("refresh-3"));

    let mints = auth.clone();
    let state = RefreshState::builder(refresher_fn(async move || mints.redeem(None).await)).build();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-4"));
}

#[tokio::test(start_paused = true)]
async fn subscribers_see_every_change() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let mut changes = state.subscribe();
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-1"));
    state.refresh().await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-2"));
    state.set(tokens(9)).await.unwrap();
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-9"));
    state.clear().await.unwrap();
    assert_eq!(changes.borrow_and_update().access_token(), None);
    assert!(!changes.has_changed().unwrap());
    // What changes nothing signals nothing.
    let _ = state.refresh().await;
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn status_says_what_happens_and_what_has_happened() {
    let auth = Auth::new();
    let expiring = tokens(1).with_expires_in(secs(1000));
    let state = RefreshState::builder(auth.refresher()).tokens(expiring).build();
    let status = state.status();
    assert_eq!(status.generation.get(), 1);
    assert!(status.signed_in && status.expires_in == Some(secs(1000)));
    assert!(status.in_flight.is_none() && status.last_failure.is_none());
    assert_eq!(status.counts, Default::default());

    auth.gate.close();
    auth.next(Play::RetryAfter(secs(90)));
    let mut one = task::spawn(state.challenged(status.generation));
    let mut two = task::spawn(state.refresh());
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    assert_eq!(state.status().in_flight, Some(Trigger::Challenge));
    assert_eq!(state.status().counts.joined, 1);
    auth.gate.open();
    assert_eq!(kind(one.await), FailureKind::Transient);
    assert_eq!(kind(two.await), FailureKind::Transient);
    let status = state.status();
    assert_eq!(status.counts.failures(FailureKind::Transient), 1, "once a flight");
    assert_eq!(status.last_failure.unwrap().kind(), FailureKind::Transient);
    assert!(status.retry_in.unwrap() >= secs(89));
    assert_eq!(status.in_flight, None);

    sleep(secs(91)).await;
    assert_eq!(state.status().retry_in, None);
    state.refresh().await.unwrap();
    let status = state.status();
    assert_eq!(status.counts.refreshes, 1);
    assert_eq!(status.generation.get(), 2);
    assert_eq!(status.last_failure.unwrap().kind(), FailureKind::Transient, "still told");
    state.clear().await.unwrap();
    assert!(!state.status().signed_in);
}

#[tokio::test(start_paused = true)]
async fn every_trigger_is_told() {
    let auth = Auth::new();
    auth.gate.close();
    let asked = |state: &Arc<RefreshState>| state.status().in_flight;

    let state = RefreshState::builder(auth.minter()).build();
    assert_pending!(task::spawn(state.token()).poll());
    assert_eq!(asked(&state), Some(Trigger::FirstUse));

    let short = tokens(1).with_expires_in(secs(100));
    let state = RefreshState::builder(auth.refresher()).tokens(short.clone()).build();
    sleep(secs(99)).await;
    state.token().await.unwrap();
    assert_eq!(asked(&state), Some(Trigger::Early));

    let state = RefreshState::builder(auth.refresher()).tokens(short).build();
    sleep(secs(100)).await;
    assert_pending!(task::spawn(state.token()).poll());
    assert_eq!(asked(&state), Some(Trigger::Expired));

    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    assert_pending!(task::spawn(state.refresh()).poll());
    assert_eq!(asked(&state), Some(Trigger::Requested));
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_needs_no_tokens_is_asked_once_on_first_use() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.minter()).build();
    idle().await;
    assert_eq!(auth.count(), 0, "not before anybody asks");

    auth.gate.close();
    let mut first: Vec<_> = (0..10).map(|_| task::spawn(state.token())).collect();
    for waits in &mut first {
        assert_pending!(waits.poll());
    }
    auth.gate.arrived(1).await;
    auth.gate.open();
    for token in join_all(first).await {
        assert_eq!(token.unwrap().access_token(), Some("access-2"));
    }
    assert_eq!(auth.count(), 1);
    state.refresh().await.unwrap();
    assert_eq!(auth.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_first_use_that_fails_is_tried_again_after_the_cool_down() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    let state = RefreshState::builder(auth.minter()).build();
    assert_eq!(kind(state.token().await), FailureKind::Transient);
    sleep(secs(2)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
}

/// A signed-out credential stays so, even where the refresher could mint anew.
#[tokio::test(start_paused = true)]
async fn signed_out_stays_signed_out() {
    let auth = Auth::new();
    for state in [
        RefreshState::builder(auth.minter()).build(),
        RefreshState::builder(auth.refresher()).tokens(tokens(1)).build(),
    ] {
        state.token().await.unwrap();
        state.clear().await.unwrap();
        let before = auth.count();
        for _ in 0..3 {
            assert_eq!(kind(state.token().await), FailureKind::SignedOut);
            assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
            let generation = state.current().generation();
            assert_eq!(kind(state.challenged(generation).await), FailureKind::SignedOut);
            assert_eq!(kind(state.challenged(Generation::new(1)).await), FailureKind::SignedOut);
            sleep(secs(100)).await;
        }
        assert_eq!(auth.count(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn without_tokens_it_is_signed_out_until_somebody_signs_in() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).build();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    assert_eq!(auth.count(), 0);
    state.set(tokens(1)).await.unwrap();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
}

#[tokio::test(start_paused = true)]
async fn a_stores_record_wins_over_the_initial_tokens() {
    let auth = Auth::new();
    let store = Store::with(tokens(8));
    let state =
        RefreshState::builder(auth.refresher()).store(store.clone()).tokens(tokens(1)).build();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-8"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-8"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_gets_the_initial_tokens() {
    let auth = Auth::new();
    let store = Store::empty();
    let state =
        RefreshState::builder(auth.refresher()).store(store.clone()).tokens(tokens(1)).build();
    assert_eq!(store.count(Op::Load), 0, "nothing is read before the first use");
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-1"));
    state.refresh().await.unwrap();
    assert_eq!(auth.asked(), ["refresh-1"]);
}

/// Signed out in an earlier life: the initial tokens do not sign it in again.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_signed_out_stays_so() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    store.overwrite(None).await;
    let state =
        RefreshState::builder(auth.refresher()).store(store.clone()).tokens(tokens(1)).build();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    assert_eq!(store.refresh_token().await, None);
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn initial_tokens_that_have_run_out_are_redeemed_on_first_use() {
    let auth = Auth::new();
    for store in [None, Some(Store::empty())] {
        let mut builder = RefreshState::builder(auth.refresher())
            .tokens(tokens(auth.count() as u64 + 1).with_expires_in(secs(0)));
        if let Some(store) = &store {
            builder = builder.store(store.clone());
        }
        let token = builder.build().token().await.unwrap();
        assert_eq!(token.access_token(), Some(&*format!("access-{}", auth.count() + 1)));
    }
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_keeps_the_extra_fields_and_takes_the_new_ones() {
    let auth = Auth::new();
    auth.next(Play::Mint(tokens(2).with_extra("id_token", "new")));
    let first = tokens(1).with_extra("id_token", "old").with_extra("scope", "all");
    let state = RefreshState::builder(auth.refresher()).tokens(first).build();
    let second = state.refresh().await.unwrap();
    assert_eq!(second.extra("id_token"), Some("new"));
    assert_eq!(second.extra("scope"), Some("all"));
    assert_eq!(second.extra("other"), None);
}

/// It is stored, since its refresh token counts, and requests go without it.
#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_stand_in_a_header_is_kept() {
    let auth = Auth::new();
    auth.next(Play::Mint(Tokens::new("line\nbreak").with_refresh_token("refresh-2")));
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let second = state.refresh().await.unwrap();
    assert_eq!(second.access_token(), Some("line\nbreak"));
    assert_eq!(second.bearer(), None);
    state.refresh().await.unwrap();
    assert_eq!(auth.asked(), ["refresh-1", "refresh-2"]);
}

#[tokio::test(start_paused = true)]
async fn set_reports_a_store_that_cannot_write_and_changes_nothing() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::Fail);
    state.set(tokens(5)).await.unwrap_err();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-1"));
}

#[tokio::test(start_paused = true)]
async fn clear_takes_effect_here_even_if_the_store_cannot_delete() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.token().await.unwrap();
    store.fault(Op::Delete, Fault::Fail);
    state.clear().await.unwrap_err();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    state.clear().await.unwrap();
    assert_eq!(store.refresh_token().await, None);
}

/// The last one begun is the one that stays, whatever the store's pace.
#[tokio::test(start_paused = true)]
async fn sign_in_and_sign_out_take_effect_in_order() {
    for sign_out_last in [true, false] {
        let auth = Auth::new();
        let store = Store::with(tokens(1));
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        state.token().await.unwrap();
        store.gate(Op::Save).close();
        store.gate(Op::Delete).close();
        let mut set = task::spawn(state.set(tokens(5)));
        let mut clear = task::spawn(state.clear());
        if sign_out_last {
            assert_pending!(set.poll());
            assert_pending!(clear.poll());
        } else {
            assert_pending!(clear.poll());
            assert_pending!(set.poll());
        }
        assert_eq!(state.current().access_token(), None, "at once");
        idle().await;
        store.gate(Op::Save).open();
        idle().await;
        store.gate(Op::Delete).open();
        set.await.unwrap();
        clear.await.unwrap();
        let (access, refresh) =
            if sign_out_last { (None, None) } else { (Some("access-5"), Some("refresh-5")) };
        assert_eq!(state.current().access_token(), access);
        assert_eq!(store.refresh_token().await.as_deref(), refresh);
    }
}

/// Tasks of several threads may run in any order; what was begun first counts.
#[test]
fn sign_in_and_sign_out_take_effect_in_order_on_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    runtime.block_on(async {
        for round in 0..500 {
            let set = || state.set(tokens(5));
            let signed_in = if round % 2 == 0 {
                tokio::join!(biased; set(), state.clear()).1.unwrap();
                false
            } else {
                tokio::join!(biased; state.clear(), set()).1.unwrap();
                true
            };
            assert_eq!(state.current().access_token().is_some(), signed_in, "round {round}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn drain_without_anything_under_way_ends_at_once() {
    let state = RefreshState::builder(Auth::new().refresher()).tokens(tokens(1)).build();
    timeout(secs(1), state.drain()).await.unwrap();
    timeout(secs(1), state.drain()).await.unwrap();
}

/// Signing in or out is no refresh.
#[tokio::test(start_paused = true)]
async fn a_drained_state_can_still_sign_out() {
    let state = RefreshState::builder(Auth::new().refresher()).tokens(tokens(1)).build();
    state.drain().await;
    state.clear().await.unwrap();
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
}

/// A caller that starts a flight has not joined it, nor if the flight only looks into the store.
#[tokio::test(start_paused = true)]
async fn only_those_who_join_are_counted_as_joined() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    for _ in 0..2 {
        assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    }
    state.clear().await.unwrap();
    assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
    assert_eq!(state.status().counts.joined, 0);
}
