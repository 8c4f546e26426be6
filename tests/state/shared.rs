//! Several states with one store: what processes and replicas see.

use std::sync::Arc;

use futures_util::future::join_all;
use testing::{Auth, Op, Store, idle, kind, secs, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshState,
    store::{MemoryStore, TokenStore},
};

async fn states(auth: &Auth, store: &Store, count: usize) -> Vec<Arc<RefreshState>> {
    let states: Vec<_> = (0..count)
        .map(|_| RefreshState::builder(auth.refresher()).store(store.clone()).build())
        .collect();
    for state in &states {
        state.token().await.unwrap();
    }
    states
}

#[tokio::test(start_paused = true)]
async fn one_memory_store_serves_two_states() {
    let auth = Auth::new();
    let store = Arc::new(MemoryStore::with_tokens(tokens(1)));
    let one = RefreshState::builder(auth.refresher()).store(Arc::clone(&store)).build();
    let erased: Arc<dyn TokenStore> = store;
    let two = RefreshState::builder(auth.refresher()).store(erased).build();
    one.token().await.unwrap();
    two.token().await.unwrap();
    let (one, two) = tokio::join!(one.refresh(), two.refresh());
    assert_eq!(one.unwrap().access_token(), Some("access-2"));
    assert_eq!(two.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// Each refreshes again and again, all at once: one redeem a generation, always
/// with the newest refresh token.
#[tokio::test(start_paused = true)]
async fn no_refresh_token_is_ever_spent_twice() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 5).await;
    for round in 1..=20 {
        for credential in join_all(states.iter().map(|state| state.refresh())).await {
            assert_eq!(credential.unwrap().access_token(), Some(&*format!("access-{}", round + 1)));
        }
        assert_eq!(auth.count(), round);
    }
    auth.assert_sound();
}

#[test]
fn no_refresh_token_is_spent_twice_across_runtimes() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    state.token().await.unwrap();
                    for _ in 0..50 {
                        state.refresh().await.unwrap();
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(auth.count() >= 50);
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_lock_adopts_what_the_other_has_stored() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 2).await;
    auth.gate.close();
    let mut first = task::spawn(states[0].refresh());
    assert_pending!(first.poll());
    auth.gate.arrived(1).await;
    let mut second = task::spawn(states[1].refresh());
    assert_pending!(second.poll());
    idle().await;
    assert_eq!(auth.count(), 1, "the lock is held");
    auth.gate.open();
    let first = first.await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(first.access_token(), second.access_token());
    assert_eq!(first.generation(), second.generation());
    assert_eq!(auth.count(), 1);
    assert_eq!(states[1].status().counts.refreshes, 0, "it minted nothing");
}

/// The lock is given back only when the new pair stands in the store.
#[tokio::test(start_paused = true)]
async fn the_lease_is_held_until_the_save_is_over() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 2).await;
    store.gate(Op::Save).close();
    let mut first = task::spawn(states[0].refresh());
    assert_pending!(first.poll());
    store.gate(Op::Save).arrived(1).await;
    let loads = store.count(Op::Load);
    let mut second = task::spawn(states[1].refresh());
    assert_pending!(second.poll());
    idle().await;
    assert_eq!(store.count(Op::Load), loads, "not even read before");
    store.gate(Op::Save).open();
    first.await.unwrap();
    assert_eq!(second.await.unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_elsewhere_is_learnt_with_the_next_refresh() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 2).await;
    states[0].clear().await.unwrap();
    assert_eq!(kind(states[1].refresh().await), FailureKind::SignedOut);
    assert_eq!(states[1].current().access_token(), None);
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_elsewhere_is_adopted_by_one_that_is_signed_out() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 2).await;
    states[0].clear().await.unwrap();
    assert_eq!(kind(states[1].refresh().await), FailureKind::SignedOut);
    states[0].set(tokens(9)).await.unwrap();
    assert_eq!(states[1].refresh().await.unwrap().access_token(), Some("access-9"));
    assert_eq!(auth.count(), 0);
}

/// What the other has stored has run out already: it is of use to be redeemed.
#[tokio::test(start_paused = true)]
async fn a_newer_record_that_has_run_out_is_redeemed_not_adopted() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 1).await;
    store.overwrite(Some(tokens(7).with_expires_in(secs(0)))).await;
    assert_eq!(states[0].refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-7"]);
}

#[tokio::test(start_paused = true)]
async fn two_that_sign_in_at_once_agree_in_the_end() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let states = states(&auth, &store, 2).await;
    let (one, two) = tokio::join!(states[0].set(tokens(10)), states[1].set(tokens(11)));
    assert_ne!(one.unwrap(), two.unwrap());
    let winner = store.refresh_token().await.unwrap();
    states[0].refresh().await.unwrap();
    states[1].refresh().await.unwrap();
    assert!(auth.asked().contains(&winner));
    auth.assert_sound();
}
