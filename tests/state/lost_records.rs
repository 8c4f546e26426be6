//! A store that has lost what it held.

use std::sync::Arc;

use testing::{Auth, Op, Play, Store, idle, kind, living, opened, secs, stored, tokens};
use tokio::time::sleep;
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::{FailureKind, store::Record};

const LIFE: u64 = 1000;

/// "It never loses a rotated refresh token." B is redeeming; the store loses its data (FLUSHALL);
/// A, which knows an access token only, offers that, and it gives way to B's pair.
#[tokio::test(start_paused = true)]
async fn a_minted_pair_outlives_a_store_that_was_emptied_and_an_offer() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    auth.gate.close();
    let redeeming = tokio::spawn({
        let b = Arc::clone(&b);
        async move { b.refresh().await }
    });
    idle().await;
    assert_eq!(auth.count(), 1);
    store.lose().await;
    assert_eq!(kind(a.refresh().await), FailureKind::Store);
    auth.gate.open();
    let _ = redeeming.await.unwrap();
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"), "the one that lives");
}

/// "It never loses a rotated refresh token." B is redeeming; the store loses its data, and a
/// process begins whose tokens to begin with were spent long ago: it puts them there, and they give
/// way to B's pair.
#[tokio::test(start_paused = true)]
async fn a_minted_pair_outlives_a_store_that_was_emptied_and_tokens_to_begin_with() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let b = opened(&auth, &store).await;
    auth.gate.close();
    let redeeming = tokio::spawn(async move { b.refresh().await });
    idle().await;
    store.lose().await;
    let begins = stored(&auth, &store).tokens(living(1, LIFE)).build();
    begins.token().await.unwrap();
    auth.gate.open();
    let _ = redeeming.await.unwrap();
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"), "the one that lives");
}

/// Invariant 6: an empty store does not displace "an access token that still works". A offers
/// its older one, and B, whose token lives longer, goes on with its own.
#[tokio::test(start_paused = true)]
async fn an_offer_does_not_displace_the_token_of_another_process_that_lives_longer() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    auth.next(Play::Mint(living(2, 5 * LIFE)));
    b.refresh().await.unwrap();
    assert_eq!(a.current().access_token(), Some("access-1"), "it has not heard of it");
    store.lose().await;
    assert_eq!(kind(a.refresh().await), FailureKind::Store);
    let _ = b.refresh().await;
    assert_eq!(b.current().access_token(), Some("access-2"));
}

/// Invariant 6: "re-read the store, adopt if it moved". The store was emptied; A has put a token
/// there that lives for long, B goes on with its own. When that has run out, B takes A's, which is
/// in the store and works.
#[tokio::test(start_paused = true)]
async fn what_another_process_has_offered_is_adopted_when_our_own_token_has_run_out() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    auth.next(Play::Mint(living(2, 5 * LIFE)));
    a.refresh().await.unwrap();
    store.lose().await;
    assert_eq!(kind(a.refresh().await), FailureKind::Store);
    assert_eq!(kind(b.refresh().await), FailureKind::Store);
    assert_eq!(b.current().access_token(), Some("access-1"));
    sleep(secs(LIFE + 1)).await;
    // It is the grant's way to say that there is nothing to redeem.
    auth.next(Play::Reject);
    let token = b.token().await;
    assert_eq!(token.unwrap().access_token(), Some("access-2"));
}

/// Invariant 6: the same through the shell. Nothing speaks against the token: a request begins
/// the early refresh, a caller's `refresh()` joins it, and the store is empty.
#[tokio::test(start_paused = true)]
async fn a_token_that_works_outlives_an_empty_store_though_refresh_joined_an_early_flight() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let state = opened(&auth, &store).await;
    sleep(secs(LIFE - 30)).await;
    store.gate(Op::Lease).close();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    store.lose().await;
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    store.gate(Op::Lease).open();
    let _ = refresh.await.unwrap();
    assert_eq!(state.current().access_token(), Some("access-1"));
}

/// Invariant 5: "a signed-out credential is never resurrected." A redeem is slow; the user signs
/// out, which is over; the store loses its data, and the trace of the sign-out with them; the
/// redeem ends. Its pair is not put into the store, by which the next process would be signed in.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_emptied_after_a_sign_out_stays_empty() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    auth.gate.close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    state.clear().await.unwrap();
    store.lose().await;
    auth.gate.open();
    let _ = slow.await.unwrap();
    state.drain().await;
    assert_eq!(store.refresh_token().await, None, "the session that has ended");
    let next = stored(&auth, &store).build();
    assert_eq!(kind(next.token().await), FailureKind::SignedOut);
}

/// Invariant 5: "a signed-out credential is never resurrected", but by a sign-in. A signs out; the
/// store loses its data, and the trace of that with them; B, which has not heard of it, offers its
/// access token to the store. An offer says that it is one and no sign-in, and A leaves it alone.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_signed_out_takes_up_no_offer() {
    let (auth, store) = (Auth::new(), Store::with(living(1, LIFE)));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    a.clear().await.unwrap();
    store.lose().await;
    assert_eq!(kind(b.refresh().await), FailureKind::Store, "it has offered");
    sleep(secs(10)).await;
    let token = a.token().await.map(|token| token.access_token().map(str::to_owned));
    assert!(token.is_err(), "{token:?}");
}

/// Where the record is the session, a record that is gone while its token is redeemed was a session
/// that has ended: what was minted is handed to the hook, and not saved.
#[tokio::test(start_paused = true)]
async fn a_session_whose_record_is_gone_does_not_come_back() {
    for ends in [true, false] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let (unused, mut discarded) = tokio::sync::mpsc::unbounded_channel();
        let state = stored(&auth, &store)
            .empty_store_ends(ends)
            .on_discard(async move |tokens| unused.send(tokens))
            .build();
        state.token().await.unwrap();
        auth.gate.close();
        let mut refresh = task::spawn(state.refresh());
        assert_pending!(refresh.poll());
        idle().await;
        assert_eq!(auth.gate.count(), 1);
        store.lose().await;
        auth.gate.open();
        sleep(secs(60)).await;
        let outcome = assert_ready!(refresh.poll());
        if ends {
            assert_eq!(kind(outcome), FailureKind::SignedOut);
            assert_eq!(state.status().last_failure.unwrap().code(), Some("empty_store"));
            assert_eq!(store.record().await, Record::default());
            assert_eq!(discarded.try_recv().unwrap().refresh_token(), Some("refresh-2"));
            assert!(!state.status().signed_in);
        } else {
            assert_eq!(outcome.unwrap().access_token(), Some("access-2"));
            assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
        }
    }
}
