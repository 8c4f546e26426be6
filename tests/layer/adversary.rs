//! What a hostile peer, or a thread at the wrong moment, can do.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
    thread,
};

use testing::{Api, Auth, Gate, Play, answer, get, idle, kind, mock, post, secs, token_of, tokens};
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{
    BoxFuture, FailureKind, Generation, RefreshFailure, RefreshLayer, RefreshState,
    store::{Deleted, Leased, MemoryStore, Record, SaveError, StoreError, TokenStore},
};
use tracing::span;

/// Waiting for the inner service can take long: what a request carries is decided
/// when it is sent.
#[tokio::test(start_paused = true)]
async fn a_sign_out_while_a_request_waits_for_its_service_takes_its_token() {
    let auth = Auth::new();
    let state =
        RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(secs(0))).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    service.ready().await.unwrap();
    let mut response = task::spawn(service.call(get("/")));
    handle.allow(0);
    assert_pending!(response.poll());
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_pending!(response.poll());

    state.clear().await.unwrap();
    handle.allow(1);
    assert_pending!(response.poll());
    let (request, _) = handle.next_request().await.unwrap();
    assert_eq!(token_of(&request), None);
}

#[tokio::test(start_paused = true)]
async fn a_replay_carries_the_token_of_the_moment_it_is_sent() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    service.ready().await.unwrap();
    let mut response = task::spawn(service.call(get("/")));
    let (_, send) = handle.next_request().await.unwrap();
    handle.allow(0);
    send.send_response(answer(401));
    assert_pending!(response.poll());
    idle().await;
    assert_pending!(response.poll());

    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
    handle.allow(1);
    assert_pending!(response.poll());
    let (request, _) = handle.next_request().await.unwrap();
    assert_eq!(token_of(&request), Some("access-3"));
}

/// At the gate and after the 401 it is the same refresh that does not come.
#[tokio::test(start_paused = true)]
async fn one_caller_waits_for_one_refresh_no_longer_than_the_deadline() {
    let auth = Auth::new();
    auth.gate.close();
    let state =
        RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(secs(0))).build();
    let service = RefreshLayer::new(state).layer(Api::accepting("access-2"));
    let begun = Instant::now();
    let response = service.oneshot(post("hello")).await.unwrap();
    assert_eq!(response.status(), 401);
    let failure = response.extensions().get::<RefreshFailure>().unwrap();
    assert_eq!(failure.kind(), FailureKind::Deadline);
    assert!(begun.elapsed() < secs(31), "{:?}", begun.elapsed());
}

/// A subscriber's waker is other people's code.
#[test]
fn subscribers_are_woken_outside_of_the_lock() {
    struct Asks(Weak<RefreshState>);
    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            if let Some(state) = self.0.upgrade() {
                let _ = state.status();
            }
        }
    }
    let state = RefreshState::builder(Auth::new().refresher()).tokens(tokens(1)).build();
    let waker = Waker::from(Arc::new(Asks(Arc::downgrade(&state))));
    let mut receiver = state.subscribe();
    let mut changed = Box::pin(receiver.changed());
    assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    tokio_test::block_on(state.clear()).unwrap();
}

/// `println!("{:?} {:?}", receiver.borrow(), state.status())`
#[test]
fn a_borrow_does_not_lock_the_state() {
    let state = RefreshState::builder(Auth::new().refresher()).tokens(tokens(1)).build();
    let receiver = state.subscribe();
    let borrow = receiver.borrow();
    let other = Arc::clone(&state);
    let clear = thread::spawn(move || tokio_test::block_on(other.clear()));
    while state.status().signed_in {
        thread::yield_now();
    }
    drop(borrow);
    clear.join().unwrap().unwrap();
}

/// Its writes are there for other readers before the writer is told so.
struct SlowToTell(MemoryStore, Gate);

impl TokenStore for SlowToTell {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.0.load()
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let done = self.0.save(expected, record).await;
            self.1.pass().await;
            done
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.0.delete()
    }

    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        self.0.lease(seen)
    }
}

/// Sign-in with tokens of which only the refresh token is good.
#[tokio::test(start_paused = true)]
async fn a_sign_in_with_a_token_that_has_run_out_wins_over_a_flight_that_has_read_it() {
    let auth = Auth::new();
    let store = Arc::new(SlowToTell(MemoryStore::with_tokens(tokens(1)), Gate::new()));
    let state = RefreshState::builder(auth.refresher()).store(Arc::clone(&store)).build();
    state.token().await.unwrap();

    store.1.close();
    let mut set = task::spawn(state.set(tokens(60).with_expires_in(secs(0))));
    assert_pending!(set.poll());
    store.1.arrived(1).await;
    // It is written; a flight reads it before the sign-in says so, and fails.
    auth.next(Play::Fail);
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;
    assert_eq!(auth.asked(), ["refresh-60"]);
    store.1.open();
    set.await.unwrap();
    auth.gate.open();
    idle().await;
    assert_ne!(state.current().access_token(), Some("access-1"), "of whom was signed in before");
    // What the refresh brings in the end is the new one's.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    auth.assert_sound();
}

/// So is a log.
#[tokio::test(start_paused = true)]
async fn spans_are_made_outside_of_the_lock() {
    struct Asks(Arc<RefreshState>, AtomicBool);
    impl tracing::Subscriber for Asks {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            self.1.store(self.0.status().in_flight.is_some(), SeqCst);
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            let _ = self.0.status();
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }
    let state = RefreshState::builder(Auth::new().refresher()).tokens(tokens(1)).build();
    let asks = tracing::Dispatch::new(Asks(Arc::clone(&state), AtomicBool::new(false)));
    let _guard = testing::listen(&asks);
    state.refresh().await.unwrap();
    assert!(asks.downcast_ref::<Asks>().unwrap().1.load(SeqCst));
}

/// The brake counts what its documentation says it counts.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_accepted_now_and_then_does_not_release_the_brake() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .tokens(tokens(1))
        .brake(2, secs(30), secs(60))
        .build();
    let refused = async || state.challenged(state.current().generation()).await;
    for _ in 0..3 {
        refused().await.unwrap();
    }
    state.accepted(state.current().generation());
    refused().await.unwrap();
    // The refresh before this one did not help either: the next waits a moment.
    assert_eq!(kind(refused().await), FailureKind::Doubted);
    tokio::time::sleep(secs(1)).await;
    // The third within the window that was never accepted.
    assert_eq!(kind(refused().await), FailureKind::Braked);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_redeemed_after_a_drain_has_begun() {
    let auth = Auth::new();
    auth.gate.close();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    assert_pending!(task::spawn(state.refresh()).poll());
    auth.gate.arrived(1).await;
    state.set(tokens(60)).await.unwrap();
    let mut again = task::spawn(state.challenged(state.current().generation()));
    assert_pending!(again.poll());
    let mut drain = task::spawn(state.drain());
    assert_pending!(drain.poll());
    auth.gate.open();
    drain.await;
    assert_eq!(auth.count(), 1);
    assert_eq!(kind(again.await), FailureKind::Shutdown);
}
