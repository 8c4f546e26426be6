//! Two processes' worth of states on one table: one redeem for each generation.

use std::sync::Arc;

use testing::Auth;
use tokio::{runtime::Builder, task::JoinSet};
use tower_refresh::{RefreshState, store::TokenStore};

use super::{NAME, Place, sign_in, soon};

#[test]
fn two_processes_redeem_each_token_once() {
    let watcher = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let place = watcher.block_on(Place::new());
    watcher.block_on(async { sign_in(&place.open()).await });
    let auth = Auth::new();
    let processes: Vec<_> = (0..2)
        .map(|_| {
            let runtime =
                Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            // Each with states of its own, which share nothing but a family.
            let stores = place.builder().build().unwrap();
            let states: Vec<_> = (0..4)
                .map(|_| RefreshState::builder(auth.refresher()).store(stores.store(NAME)).build())
                .collect();
            (runtime, states)
        })
        .collect();
    let rounds = 6;
    for _ in 0..rounds {
        let mut tasks = Vec::new();
        for (runtime, states) in &processes {
            for state in states {
                let state = Arc::clone(state);
                tasks.push(runtime.spawn(async move {
                    state.token().await.unwrap();
                    soon(state.refresh()).await.unwrap();
                }));
            }
        }
        for task in tasks {
            watcher.block_on(task).unwrap();
        }
    }
    auth.assert_sound();
    let found = watcher.block_on(place.open().load()).unwrap();
    assert_eq!(found.generation.get(), 1 + u64::try_from(auth.count()).unwrap());
    assert!(auth.count() >= rounds, "each round has refreshed");
}

/// Sign-ins, sign-outs, leases and ends of one name, all at once: no generation goes back, and the
/// row is as it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_never_goes_back() {
    let place = Place::new().await;
    sign_in(&place.open()).await;
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let store = place.patient();
        tasks.spawn(async move {
            let mut last = store.load().await.unwrap().generation;
            for turn in 0..12 {
                match (task + turn) % 4 {
                    0 => drop(store.delete().await.unwrap()),
                    1 => {
                        let record = tower_refresh::store::Record::new(
                            last.next(),
                            testing::tokens(last.next().get() * 100 + task),
                        );
                        drop(store.save(last, record).await);
                    }
                    2 => drop(
                        store.keep_until(std::time::SystemTime::now() + super::HOUR).await.unwrap(),
                    ),
                    _ => {
                        if let tower_refresh::store::Leased::Lease(held) =
                            soon(store.lease(last)).await.unwrap()
                        {
                            held.release(None).await;
                        }
                    }
                }
                let now = store.load().await.unwrap().generation;
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
    }
    soon(tasks.join_all()).await;
}
