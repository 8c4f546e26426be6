//! The hook that a sign-out calls with what it has deleted.

use std::sync::{Arc, Mutex};

use testing::{Auth, Fault, Gate, Op, Store, idle, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::RefreshState;

struct Scene {
    store: Store,
    state: Arc<RefreshState>,
    /// The refresh tokens that the hook was called with.
    told: Arc<Mutex<Vec<String>>>,
    /// The hook comes by here.
    gate: Gate,
}

fn scene() -> Scene {
    let store = Store::with(tokens(1));
    let (told, gate) = (Arc::<Mutex<Vec<String>>>::default(), Gate::new());
    let (noted, passed) = (Arc::clone(&told), gate.clone());
    let state = RefreshState::builder(Auth::new().refresher())
        .store(store.clone())
        .on_sign_out(move |tokens| {
            noted.lock().unwrap().push(tokens.refresh_token().unwrap().to_owned());
            let gate = passed.clone();
            async move { gate.pass().await }
        })
        .build();
    Scene { store, state, told, gate }
}

/// The store's tokens, not those that this process has seen last.
#[tokio::test(start_paused = true)]
async fn it_gets_what_was_deleted() {
    let Scene { store, state, told, .. } = scene();
    state.token().await.unwrap();
    store.overwrite(Some(tokens(7))).await;
    state.clear().await.unwrap();
    assert_eq!(*told.lock().unwrap(), ["refresh-7"]);
    state.clear().await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_called_if_nothing_was_deleted() {
    let Scene { store, state, told, .. } = scene();
    store.fault(Op::Delete, Fault::Fail);
    state.clear().await.unwrap_err();
    assert_eq!(told.lock().unwrap().len(), 0);
    state.clear().await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
}

/// `clear` waits for it and `drain` does; it outlives them both, and a sign-in does not
/// wait.
#[tokio::test(start_paused = true)]
async fn who_waits_for_it() {
    let Scene { state, gate, .. } = scene();
    gate.close();
    let mut clear = task::spawn(state.clear());
    assert_pending!(clear.poll());
    gate.arrived(1).await;
    idle().await;
    assert_pending!(clear.poll());
    state.set(tokens(2)).await.unwrap();
    assert_eq!(state.current().access_token(), Some("access-2"));

    drop(clear);
    let mut drain = task::spawn(state.drain());
    assert_pending!(drain.poll());
    gate.open();
    drain.await;
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn its_panic_is_its_own() {
    let state = RefreshState::builder(Auth::new().refresher())
        .tokens(tokens(1))
        .on_sign_out(|_| async { panic!("the hook panics, as told") })
        .build();
    state.clear().await.unwrap();
    assert_eq!(state.current().access_token(), None);
    state.set(tokens(2)).await.unwrap();
}
