//! Runtimes that go away while a flight runs (I7, I15).

use std::{error::Error, sync::Arc, thread, time::Duration};

use testing::{Auth, Fault, Op, Store, builder, kind, secs, tokens};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, task};
use tower_refresh::{FailureKind, RefreshState, Tokens, state::WhileUnsaved, store::StoreError};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Its result. What hangs must fail instead.
fn or_hangs<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(secs(60), future).await.expect("it hangs") })
}

#[test]
fn a_waiter_in_another_runtime_hears_of_the_shutdown_and_the_next_flight_works() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let (here, there) = (current_thread(), current_thread());
    there.block_on(async {
        assert_pending!(task::spawn(state.refresh()).poll());
        auth.gate.arrived(1).await;
    });
    let blocked = thread::spawn({
        let state = Arc::clone(&state);
        move || or_hangs(&current_thread(), state.refresh())
    });
    let mut waiter = task::spawn(state.refresh());
    assert_pending!(waiter.poll());
    while state.status().counts.joined < 2 {
        thread::yield_now();
    }
    drop(there);

    assert_eq!(kind(blocked.join().unwrap()), FailureKind::Shutdown);
    assert_eq!(kind(or_hangs(&here, waiter)), FailureKind::Shutdown);
    auth.gate.open();
    assert_eq!(here.block_on(state.refresh()).unwrap().access_token(), Some("access-2"));
}

/// A flight stands still with a runtime that no thread drives, or whose only thread is
/// blocked.
#[test]
fn a_waiter_has_its_deadline_though_the_flights_runtime_stands_still() {
    let auth = Auth::new();
    auth.gate.close();
    let state = builder(&auth).build();
    let still = current_thread();
    still.block_on(async {
        assert_pending!(task::spawn(state.refresh()).poll());
        auth.gate.arrived(1).await;
    });
    let here = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    here.block_on(async {
        let mut waits = task::spawn(state.refresh());
        assert_pending!(waits.poll());
        sleep(secs(31)).await;
        assert!(waits.is_woken(), "it hangs");
        assert_eq!(kind(waits.await), FailureKind::Deadline);
    });
}

/// A refresher that blocks its thread, as a synchronous client does, on a runtime that
/// has other threads.
#[test]
fn a_waiter_has_its_deadline_though_the_refresher_blocks_its_thread() {
    let (done, blocks) = std::sync::mpsc::channel::<()>();
    let blocks = Arc::new(std::sync::Mutex::new(blocks));
    let state = RefreshState::builder(move |_: Tokens| {
        let blocks = Arc::clone(&blocks);
        async move {
            let _ = blocks.lock().unwrap().recv();
            Ok(tokens(2))
        }
    })
    .tokens(tokens(1))
    .deadline(Duration::from_millis(1))
    .build();
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let refused = or_hangs(&runtime, state.refresh());
    assert_eq!(kind(refused), FailureKind::Deadline);
    // What comes late is published all the same.
    done.send(()).unwrap();
    let published = runtime.block_on(async {
        let mut changes = state.subscribe();
        timeout(secs(60), changes.wait_for(|now| now.generation().get() == 2)).await.is_ok()
    });
    assert!(published);
}

/// Shut down while the save is under way: before the store was written, and after.
#[test]
fn minted_tokens_that_were_not_saved_are_saved_by_the_next_flight() {
    for fault in [None, Some(Fault::HangAfter)] {
        let auth = Auth::new();
        let store = Store::with(tokens(1));
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        current_thread().block_on(async {
            state.token().await.unwrap();
            match fault {
                None => store.gate(Op::Save).close(),
                Some(fault) => drop(store.fault(Op::Save, fault)),
            }
            assert_pending!(task::spawn(state.refresh()).poll());
            store.gate(Op::Save).arrived(1).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(state.status().in_flight, None);
        assert_eq!(state.current().access_token(), Some("access-1"));
        store.gate(Op::Save).open();

        let credential = current_thread().block_on(state.refresh()).unwrap();
        assert_eq!(credential.access_token(), Some("access-2"), "{fault:?}");
        assert_eq!(auth.asked(), ["refresh-1"], "{fault:?}");
        let stored = current_thread().block_on(store.refresh_token());
        assert_eq!(stored.as_deref(), Some("refresh-2"), "{fault:?}");
        auth.assert_sound();
    }
}

/// Requests use the new token already, and no store knows it yet: a caller that asks
/// for another one gets it, with the new refresh token.
#[test]
fn minted_tokens_that_were_served_unsaved_are_saved_by_the_next_flight() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher())
        .store(store.clone())
        .while_unsaved(WhileUnsaved::Serve)
        .build();
    current_thread().block_on(async {
        state.token().await.unwrap();
        store.fault(Op::Save, Fault::Fail);
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    });
    assert_eq!(state.status().in_flight, None);
    current_thread().block_on(async {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-3"));
    });
    assert_eq!(auth.asked(), ["refresh-1", "refresh-2"]);
    auth.assert_sound();
}

/// A caller on another runtime that waits for the sign-in or sign-out hears that, and can try
/// again.
#[test]
fn a_sign_in_and_a_sign_out_whose_runtime_goes_away_say_so() {
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(Auth::new().refresher()).store(store.clone()).build();
    store.gate(Op::Load).close();
    store.gate(Op::Delete).close();
    let (mut sign_in, mut sign_out) =
        (task::spawn(state.set(tokens(7))), task::spawn(state.clear()));
    current_thread().block_on(async {
        assert_pending!(sign_in.poll());
        store.gate(Op::Load).arrived(1).await;
        assert_pending!(sign_out.poll());
    });
    let reason = |error: StoreError| error.source().unwrap().to_string();
    let here = current_thread();
    assert_eq!(reason(or_hangs(&here, sign_in).unwrap_err()), "the runtime is gone");
    assert_eq!(reason(or_hangs(&here, sign_out).unwrap_err()), "the runtime is gone");

    store.gate(Op::Load).open();
    store.gate(Op::Delete).open();
    here.block_on(async {
        state.clear().await.unwrap();
        state.set(tokens(7)).await.unwrap();
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-7"));
    });
}

#[test]
fn a_sign_out_after_the_shutdown_discards_what_was_not_saved() {
    let auth = Auth::new();
    let store = Store::with(tokens(1));
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    current_thread().block_on(async {
        state.token().await.unwrap();
        store.gate(Op::Save).close();
        assert_pending!(task::spawn(state.refresh()).poll());
        store.gate(Op::Save).arrived(1).await;
    });
    store.gate(Op::Save).open();
    current_thread().block_on(async {
        state.clear().await.unwrap();
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
        assert_eq!(store.refresh_token().await, None);
    });
}
