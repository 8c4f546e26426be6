//! What other processes do to the store, and what is found of it: a first look, a sign-in
//! elsewhere, a store that has lost its data, a lease that another process has.

use std::{sync::Arc, time::SystemTime};

use futures_util::future::join_all;
use testing::{Auth, Op, Store, idle, kind, secs, stored, tokens};
use tokio::time::sleep;
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, Generation, RefreshState,
    store::{Record, TokenStore},
};

fn state(auth: &Auth, store: &Store) -> Arc<RefreshState> {
    stored(auth, store).build()
}

/// As a command line's `auth refresh` does.
#[tokio::test(start_paused = true)]
async fn a_first_refresh_redeems_what_the_store_holds() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let refreshed = state(&auth, &store).refresh().await.unwrap();
    assert_eq!(refreshed.access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_refresh_redeems_once_what_had_run_out() {
    let auth = Auth::new();
    let store = Store::with(tokens(1).with_expires_in(secs(0)));
    let refreshed = state(&auth, &store).refresh().await.unwrap();
    assert_eq!(refreshed.access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_refresh_waits_no_longer_than_the_deadline() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = stored(&auth, &store).deadline(secs(10)).build();
    auth.gate.close();
    let begun = tokio::time::Instant::now();
    assert_eq!(kind(state.refresh().await), FailureKind::Deadline);
    assert_eq!(begun.elapsed(), secs(10));
    auth.gate.open();
}

#[tokio::test(start_paused = true)]
async fn a_first_refresh_goes_on_without_its_caller() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = state(&auth, &store);
    assert_pending!(task::spawn(state.refresh()).poll());
    idle().await;
    assert_eq!(auth.asked(), ["refresh-1"]);
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_first_refresh_redeems_the_tokens_to_begin_with() {
    let auth = Auth::new();
    let state = stored(&auth, &Store::empty()).tokens(tokens(1)).build();
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1"]);
}

#[tokio::test(start_paused = true)]
async fn first_refreshes_of_many_callers_redeem_once() {
    let auth = Auth::new();
    let state = state(&auth, &Store::with(tokens(1)));
    for refreshed in join_all((0..100).map(|_| state.refresh())).await {
        assert_eq!(refreshed.unwrap().access_token(), Some("access-2"));
    }
    assert_eq!(auth.asked(), ["refresh-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_leaves_a_token_that_works() {
    let auth = Auth::new();
    let store = Store::with(tokens(1).with_expires_in(secs(1000)));
    let state = state(&auth, &store);
    state.token().await.unwrap();
    store.lose().await;
    assert_eq!(kind(state.refresh().await), FailureKind::Store);
    // Another replica that begins now can use it, too.
    let offered = store.record().await;
    assert!(offered.generation > Generation::new(1));
    let other = stored(&auth, &store).build();
    for state in [&state, &other] {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    }
    // A sign-in is found.
    store.overwrite(Some(tokens(5))).await;
    sleep(secs(2)).await;
    let generation = state.current().generation();
    assert_eq!(state.challenged(generation).await.unwrap().access_token(), Some("access-5"));
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_ends_a_session_that_it_is() {
    let auth = Auth::new();
    let store = Store::with(tokens(1).with_expires_in(secs(1000)));
    let state = stored(&auth, &store).empty_store_ends(true).build();
    state.token().await.unwrap();
    store.lose().await;
    assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
    assert_eq!(store.record().await, Record::default());
}

/// Another process signs in after the loss: its number is greater than any that is remembered.
#[tokio::test(start_paused = true)]
async fn what_is_written_after_a_loss_is_found() {
    let auth = Auth::new();
    let store = Store::empty();
    let remembers = state(&auth, &store);
    remembers.set(tokens(100)).await.unwrap();
    for _ in 0..3 {
        remembers.refresh().await.unwrap();
    }
    for (challenged, round) in [(true, 200), (false, 300)] {
        store.lose().await;
        // The clock that numbers are taken from moves in milliseconds.
        let begun = SystemTime::now();
        while begun.elapsed().is_ok_and(|passed| passed.as_millis() < 5) {
            std::hint::spin_loop();
        }
        state(&auth, &store).set(tokens(round)).await.unwrap();
        let found = match challenged {
            true => remembers.challenged(remembers.current().generation()).await,
            false => remembers.refresh().await,
        };
        let access = format!("access-{round}");
        assert_eq!(found.unwrap().access_token(), Some(&*access));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_elsewhere_is_found_without_a_request() {
    for ends in ["signs out", "is rejected"] {
        for kept in [true, false] {
            let auth = Auth::new();
            let store = Store::with(tokens(1).with_expires_in(secs(50)));
            let state = state(&auth, &store);
            state.token().await.unwrap();
            match ends {
                "signs out" => drop(state.clear().await.unwrap()),
                _ => {
                    auth.next(testing::Play::Reject);
                    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
                    sleep(secs(60)).await;
                }
            }
            let fresh = kept.then(|| state.keep_fresh());
            idle().await;
            let looks = store.count(Op::Load);
            for _ in 0..100 {
                if !kept {
                    state.token().await.unwrap_err();
                }
                sleep(secs(6)).await;
            }
            let looks = store.count(Op::Load) - looks;
            assert!((9..=20).contains(&looks), "{looks} looks in ten minutes");
            store.overwrite(Some(tokens(7))).await;
            sleep(secs(60)).await;
            match kept {
                true => assert_eq!(state.current().access_token(), Some("access-7"), "{ends}"),
                false => {
                    assert_eq!(state.token().await.unwrap().access_token(), Some("access-7"));
                }
            }
            drop(fresh);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn drain_does_not_wait_for_a_lease_in_which_nothing_is_to_be_saved() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = state(&auth, &store);
    state.token().await.unwrap();
    let other = store.lease(Generation::new(9)).await.unwrap();
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    state.drain().await;
    assert_eq!(kind(refresh.await.unwrap()), FailureKind::Shutdown);
    assert_eq!(auth.count(), 0);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_that_another_process_has_the_lease() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = state(&auth, &store);
    state.token().await.unwrap();
    let other = store.lease(Generation::new(9)).await.unwrap();
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadline);
    assert!(failure.awaits_lease() && failure.to_string().contains("another process"));
    drop(other);
    state.refresh().await.unwrap();

    auth.gate.close();
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadline);
    assert!(!failure.awaits_lease(), "it is the token endpoint that takes so long");
    auth.gate.open();
}
