//! What lives on at the server although nothing will use it, and who is told of it.

use std::{
    io,
    sync::{Arc, Mutex},
};

use testing::{Auth, Fault, Op, Play, Store, builder, idle, opened, secs, stored, tokens};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    RefreshState, Tokens,
    state::{Drained, RefreshStateBuilder, Revocation},
};

/// The refresh tokens that hooks were called with.
#[derive(Clone, Default)]
struct Revoked(Arc<Mutex<Vec<String>>>);

impl Revoked {
    /// A hook. `fails`: for the first time.
    fn hook(
        &self,
        fails: bool,
    ) -> impl Fn(Tokens) -> std::future::Ready<io::Result<()>> + Clone + Send + Sync + use<> {
        let list = Arc::clone(&self.0);
        move |tokens| {
            let mut list = list.lock().unwrap();
            list.push(tokens.refresh_token().unwrap_or_default().to_owned());
            std::future::ready(match fails && list.len() == 1 {
                true => Err(io::ErrorKind::NetworkUnreachable.into()),
                false => Ok(()),
            })
        }
    }

    fn list(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn left(drained: &Drained) -> Vec<Option<&str>> {
    drained.unrevoked.iter().map(Tokens::refresh_token).collect()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// What a redeem brings after `supersede`, and what `drain` has to say.
async fn comes_too_late(
    builder: RefreshStateBuilder,
    auth: &Auth,
    supersede: impl AsyncFnOnce(&Arc<RefreshState>),
) -> Drained {
    let state = builder.build();
    auth.gate.close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    auth.gate.arrived(1).await;
    supersede(&state).await;
    auth.gate.open();
    let _ = slow.await.unwrap();
    state.drain().await
}

/// The hook of the sign-out was called with the token that the redeem has spent; the pair that was
/// minted lives on.
#[tokio::test(start_paused = true)]
async fn drain_tells_of_a_pair_that_came_after_the_sign_out_and_that_no_hook_has_revoked() {
    let sign_out = async |state: &Arc<RefreshState>| drop(state.clear().await.unwrap());
    let (auth, revoked) = (Auth::new(), Revoked::default());
    let with_hook = builder(&auth).on_sign_out(revoked.hook(false));
    assert!(comes_too_late(with_hook, &auth, sign_out).await.is_clean());
    assert_eq!(revoked.list(), ["refresh-1", "refresh-2"]);

    let auth = Auth::new();
    let drained = comes_too_late(builder(&auth), &auth, sign_out).await;
    assert_eq!(left(&drained), [Some("refresh-2")]);

    // A sign-in that has followed it makes no difference.
    let (auth, revoked) = (Auth::new(), Revoked::default());
    let with_hook = builder(&auth).on_sign_out(revoked.hook(false));
    let drained = comes_too_late(with_hook, &auth, async |state| {
        state.clear().await.unwrap();
        state.set(tokens(9)).await.unwrap();
    });
    assert!(drained.await.is_clean());
    assert_eq!(revoked.list(), ["refresh-1", "refresh-2"]);
}

/// A sign-in alone is no sign-out, for which the hook was given.
#[tokio::test(start_paused = true)]
async fn drain_tells_of_a_pair_that_came_after_a_sign_in_and_that_no_hook_takes() {
    let sign_in = async |state: &Arc<RefreshState>| {
        state.set(tokens(9)).await.unwrap();
    };
    let (auth, revoked) = (Auth::new(), Revoked::default());
    let with_hook = builder(&auth).on_sign_out(revoked.hook(false));
    let drained = comes_too_late(with_hook, &auth, sign_in).await;
    assert_eq!(left(&drained), [Some("refresh-2")]);
    assert_eq!(revoked.list().len(), 0);

    // An access token ends by itself.
    let auth = Auth::new();
    auth.next(Play::Mint(Tokens::new("access-2")));
    assert!(comes_too_late(builder(&auth), &auth, sign_in).await.is_clean());
}

/// The hook of a sign-out waits for the network, and its runtime is shut down.
#[test]
fn drain_tells_of_a_revocation_whose_runtime_was_shut_down() {
    let auth = Auth::new();
    let state = builder(&auth).on_sign_out(|_: Tokens| std::future::pending::<()>()).build();
    let first = runtime();
    first.block_on(async {
        assert!(timeout(secs(1), state.clear()).await.is_err(), "the hook has not come back");
    });
    drop(first);
    assert_eq!(left(&runtime().block_on(state.drain())), [Some("refresh-1")]);
    // The same of a caller without a runtime, who goes away.
    let state = builder(&auth).on_sign_out(|_: Tokens| std::future::pending::<()>()).build();
    let mut clear = task::spawn(state.clear());
    assert_pending!(clear.poll());
    drop(clear);
    assert_eq!(left(&runtime().block_on(state.drain())), [Some("refresh-1")]);
}

/// A pair whose runtime is shut down during its save, and then a sign-out, or before that.
#[test]
fn drain_tells_of_a_pair_whose_session_has_ended_before_it_was_saved() {
    for signs_out_first in [false, true] {
        for with_hook in [false, true] {
            let (auth, store, revoked) = (Auth::new(), Store::with(tokens(1)), Revoked::default());
            let builder = stored(&auth, &store);
            let state = match with_hook {
                true => builder.on_discard(revoked.hook(false)).build(),
                false => builder.build(),
            };
            let first = runtime();
            first.block_on(async {
                state.token().await.unwrap();
                store.gate(Op::Save).close();
                assert_pending!(task::spawn(state.refresh()).poll());
                store.gate(Op::Save).arrived(1).await;
                if signs_out_first {
                    state.clear().await.unwrap();
                }
            });
            drop(first);
            store.gate(Op::Save).open();
            let drained = runtime().block_on(async {
                state.clear().await.unwrap();
                state.drain().await
            });
            let told = (left(&drained), revoked.list());
            // A runtime that is shut down calls no hook.
            let called = with_hook && !signs_out_first;
            let expected = match called {
                true => (vec![], vec!["refresh-2".to_owned()]),
                false => (vec![Some("refresh-2")], vec![]),
            };
            assert_eq!(told, expected, "{signs_out_first} {with_hook}");
        }
    }
}

/// Those to begin with, which were never put into the store.
#[tokio::test(start_paused = true)]
async fn a_sign_out_before_the_first_use_has_the_tokens_to_begin_with_revoked() {
    let revoked = Revoked::default();
    let auth = Auth::new();
    let builder = || stored(&auth, &Store::empty()).tokens(tokens(1));
    let state = builder().on_sign_out(revoked.hook(false)).build();
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Done);
    assert_eq!(revoked.list(), ["refresh-1"]);
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Nothing);
    assert_eq!(builder().build().clear().await.unwrap().revocation, Revocation::NotAsked);

    // What the store holds is what was in use.
    let state = stored(&auth, &Store::with(tokens(7))).tokens(tokens(1));
    let state = state.on_sign_out(revoked.hook(false)).build();
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Done);
    assert_eq!(revoked.list(), ["refresh-1", "refresh-7"]);
}

/// The store has deleted, and its answer is lost. The second deletion finds nothing.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_was_lost_does_not_hide_the_token_that_lives_on() {
    for is_read in [true, false] {
        let (auth, store, revoked) = (Auth::new(), Store::with(tokens(1)), Revoked::default());
        let state = stored(&auth, &store).on_sign_out(revoked.hook(false)).build();
        if is_read {
            state.token().await.unwrap();
        }
        for _ in 0..2 {
            store.fault(Op::Delete, Fault::FailAfter);
            assert!(state.clear().await.is_err());
        }
        let signed_out = state.clear().await.unwrap();
        assert_eq!(signed_out.revocation, Revocation::Unknown);
        assert!(signed_out.lives_on() && revoked.list().is_empty());
        // It was told, and nothing was there since.
        assert_eq!(state.clear().await.unwrap().revocation, Revocation::Nothing);

        // A deletion that has failed before it has deleted anything hides nothing.
        state.set(tokens(2)).await.unwrap();
        store.fault(Op::Delete, Fault::Fail);
        assert!(state.clear().await.is_err());
        assert_eq!(state.clear().await.unwrap().revocation, Revocation::Done);
        assert_eq!(revoked.list(), ["refresh-2"]);
    }
}

/// What a sign-in ends is not told of the session after it.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_was_lost_is_not_told_of_the_next_session() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.fault(Op::Delete, Fault::FailAfter);
    assert!(state.clear().await.is_err());
    state.set(tokens(2)).await.unwrap();
    store.overwrite(None).await;
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Nothing);
}

/// The sign-out could not be told to the server, and the user signs in again with the same refresh
/// token (a server that does not rotate; a command line that reads it from its environment), in
/// this process or in another.
#[tokio::test(start_paused = true)]
async fn a_pending_revocation_spares_the_refresh_token_of_a_sign_in_since() {
    for elsewhere in [false, true] {
        let (auth, store, revoked) = (Auth::new(), Store::with(tokens(1)), Revoked::default());
        let state = stored(&auth, &store).on_sign_out(revoked.hook(true)).build();
        let other = stored(&auth, &store).build();
        assert_eq!(state.clear().await.unwrap().revocation, Revocation::Pending);
        let signs_in = if elsewhere { &other } else { &state };
        signs_in.set(tokens(1)).await.unwrap();
        assert_eq!(state.status().unrevoked, usize::from(elsewhere));
        sleep(secs(600)).await;
        assert_eq!(revoked.list(), ["refresh-1"], "it is in use again");
        assert!(state.drain().await.is_clean());
    }
}

/// Also one that the server has refused for good, and that is listed only.
#[tokio::test(start_paused = true)]
async fn what_a_sign_in_uses_again_is_not_told_as_left() {
    let auth = Auth::new();
    let state = builder(&auth).on_sign_out(|_| async { panic!("as told") }).build();
    for number in 1..4 {
        state.set(tokens(number)).await.unwrap();
        assert_eq!(state.clear().await.unwrap().revocation, Revocation::Failed);
    }
    state.set(tokens(2)).await.unwrap();
    idle().await;
    assert_eq!(left(&state.drain().await), [Some("refresh-1"), Some("refresh-3")]);
}
