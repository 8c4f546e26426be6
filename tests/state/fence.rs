//! Sign-in and sign-out at every step of a flight (I5; its promise is in
//! `invariants::saving`).

use std::sync::{Arc, Mutex};

use testing::{Auth, Fault, Gate, Op, Play, Store, idle, kind, opened, secs, stored, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::{FailureKind, RefreshState, Tokens};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Lease,
    Load,
    Redeem,
    Save,
    /// The save has failed once and is about to be tried again.
    Retry,
}

const STEPS: [Held; 5] = [Held::Lease, Held::Load, Held::Redeem, Held::Save, Held::Retry];

struct Scene {
    auth: Auth,
    store: Store,
    state: Arc<RefreshState>,
    discarded: Arc<Mutex<Vec<Tokens>>>,
}

impl Scene {
    /// A state that has read its store.
    async fn set() -> Self {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let discarded = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&discarded);
        let state = RefreshState::builder(auth.refresher())
            .store(store.clone())
            .cool_down(secs(5), secs(5))
            .on_discard(move |tokens| {
                list.lock().unwrap().push(tokens);
                async {}
            })
            .build();
        state.token().await.unwrap();
        Self { auth, store, state, discarded }
    }

    fn gate(&self, held: Held) -> &Gate {
        match held {
            Held::Lease => self.store.gate(Op::Lease),
            Held::Load => self.store.gate(Op::Load),
            Held::Redeem => &self.auth.gate,
            Held::Save | Held::Retry => self.store.gate(Op::Save),
        }
    }

    /// A flight that is held at this step.
    async fn hold(&self, held: Held) {
        let gate = self.gate(held);
        if held == Held::Retry {
            self.store.fault(Op::Save, Fault::Fail);
            assert_eq!(kind(self.state.refresh().await), FailureKind::Unsaved);
            return;
        }
        gate.close();
        let before = gate.count();
        assert_pending!(task::spawn(self.state.refresh()).poll());
        gate.arrived(before + 1).await;
    }

    /// Only what was minted is there to be discarded.
    #[track_caller]
    fn assert_discarded(&self, held: Held) {
        let discarded = self.discarded.lock().unwrap();
        match held {
            Held::Lease | Held::Load => {
                assert_eq!(self.auth.count(), 0, "{held:?}: nothing is redeemed any more");
                assert!(discarded.is_empty());
            }
            _ => assert_eq!(*discarded, [tokens(2)], "{held:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sign_out_wins_at_every_step() {
    for held in STEPS {
        let scene = Scene::set().await;
        scene.hold(held).await;
        // The deletion may need the gate that holds the flight; its effect here
        // does not wait for it.
        let mut clear = task::spawn(scene.state.clear());
        assert_pending!(clear.poll());
        assert_eq!(scene.state.current().access_token(), None, "{held:?}");
        assert_eq!(kind(scene.state.token().await), FailureKind::SignedOut, "{held:?}");
        idle().await;
        scene.gate(held).open();
        clear.await.unwrap();
        tokio::time::sleep(secs(60)).await;

        assert_eq!(scene.state.current().access_token(), None, "{held:?}");
        assert_eq!(scene.store.refresh_token().await, None, "{held:?}");
        assert_eq!(scene.state.status().in_flight, None, "{held:?}");
        scene.assert_discarded(held);
        assert_eq!(kind(scene.state.refresh().await), FailureKind::SignedOut, "{held:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sign_in_wins_at_every_step() {
    for held in STEPS {
        let scene = Scene::set().await;
        scene.hold(held).await;
        let mut set = task::spawn(scene.state.set(tokens(60)));
        assert_pending!(set.poll());
        if matches!(held, Held::Load | Held::Save) {
            // It goes through the same gate; which of the two is first must not
            // matter to who wins.
            idle().await;
            scene.gate(held).open();
        }
        set.await.unwrap();
        assert_eq!(scene.state.current().access_token(), Some("access-60"), "{held:?}");
        scene.gate(held).open();
        tokio::time::sleep(secs(60)).await;

        assert_eq!(scene.state.current().access_token(), Some("access-60"), "{held:?}");
        assert_eq!(scene.store.refresh_token().await.as_deref(), Some("refresh-60"), "{held:?}");
        assert_eq!(scene.state.status().in_flight, None, "{held:?}");
        scene.auth.assert_sound();
        // And it is alive: the next refresh spends its refresh token.
        scene.state.refresh().await.unwrap();
        assert_eq!(scene.auth.asked().pop().as_deref(), Some("refresh-60"), "{held:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sign_out_then_sign_in_during_a_flight() {
    for held in [Held::Lease, Held::Redeem] {
        let scene = Scene::set().await;
        scene.hold(held).await;
        scene.state.clear().await.unwrap();
        scene.state.set(tokens(60)).await.unwrap();
        scene.gate(held).open();
        idle().await;
        assert_eq!(scene.state.current().access_token(), Some("access-60"), "{held:?}");
        assert_eq!(scene.store.refresh_token().await.as_deref(), Some("refresh-60"));
        scene.assert_discarded(held);
    }
}

/// The new token is refused while the old flight has not ended: it is refreshed
/// when that has.
#[tokio::test(start_paused = true)]
async fn a_challenge_to_the_new_token_waits_for_a_flight_of_its_own() {
    let scene = Scene::set().await;
    scene.hold(Held::Redeem).await;
    let generation = scene.state.set(tokens(60)).await.unwrap();
    let mut refused = task::spawn(scene.state.challenged(generation));
    assert_pending!(refused.poll());
    scene.auth.gate.open();
    let refreshed = tokio::time::timeout(secs(600), refused).await.expect("it hangs");
    assert_eq!(refreshed.unwrap().access_token(), Some("access-3"));
    assert_eq!(scene.auth.asked(), ["refresh-1", "refresh-60"]);
    scene.auth.assert_sound();
}

/// A rejection that belongs to the old token says nothing of the new one.
#[tokio::test(start_paused = true)]
async fn the_failure_of_a_superseded_flight_does_not_touch_the_new_token() {
    use testing::Play;
    for play in [Play::Reject, Play::Fail, Play::Panic] {
        let scene = Scene::set().await;
        scene.auth.next(play);
        scene.hold(Held::Redeem).await;
        scene.state.set(tokens(60)).await.unwrap();
        scene.auth.gate.open();
        idle().await;
        assert!(scene.state.status().last_failure.is_none());
        assert_eq!(scene.state.status().retry_in, None);
        assert_eq!(scene.state.refresh().await.unwrap().access_token(), Some("access-2"));
    }
}

#[tokio::test(start_paused = true)]
async fn everyone_who_waits_hears_of_the_sign_out_at_once() {
    let scene = Scene::set().await;
    scene.hold(Held::Redeem).await;
    let mut waits = task::spawn(scene.state.refresh());
    assert_pending!(waits.poll());
    scene.state.clear().await.unwrap();
    assert!(waits.is_woken());
    assert_eq!(kind(waits.await), FailureKind::SignedOut);
}

/// The store forgets slowly, or not at all: this process is signed out from the
/// first moment on, and asking for a refresh does not read the old tokens again.
#[tokio::test(start_paused = true)]
async fn a_sign_out_that_the_store_has_not_done_yet_is_not_undone_by_a_refresh() {
    // What the store holds is newer than what this process knows, or all new to it.
    for read in [true, false] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        if read {
            state.token().await.unwrap();
            store.overwrite(Some(tokens(2))).await;
        }
        store.gate(Op::Delete).close();
        store.fault(Op::Delete, Fault::Fail);
        let mut clear = task::spawn(state.clear());
        assert_pending!(clear.poll());
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut, "under way");
        store.gate(Op::Delete).open();
        clear.await.unwrap_err();
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut, "failed");
        assert_eq!(state.current().access_token(), None);

        state.clear().await.unwrap();
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
        assert_eq!(auth.count(), 0);
        state.set(tokens(3)).await.unwrap();
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-3"));
    }
}

/// A sign-in was begun before, and its write comes to an end after: the sign-out
/// is the later of the two, and no request gets a token in between.
#[tokio::test(start_paused = true)]
async fn a_sign_in_that_ends_after_a_sign_out_was_begun_gives_nobody_a_token() {
    for delete_fails in [false, true] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        state.token().await.unwrap();
        store.gate(Op::Save).close();
        store.gate(Op::Delete).close();
        if delete_fails {
            store.fault(Op::Delete, Fault::Fail);
        }
        let mut set = task::spawn(state.set(tokens(5)));
        assert_pending!(set.poll());
        store.gate(Op::Save).arrived(1).await;
        let mut clear = task::spawn(state.clear());
        assert_pending!(clear.poll());
        store.gate(Op::Save).open();
        set.await.unwrap();
        store.gate(Op::Delete).arrived(1).await;
        assert_eq!(state.current().access_token(), None);
        store.gate(Op::Delete).open();
        assert_eq!(clear.await.is_err(), delete_fails);
        assert_eq!(state.current().access_token(), None);
        assert_eq!(kind(state.token().await), FailureKind::SignedOut);
    }
}

/// The store is written in the order in which writes were begun: or else the sign-in
/// would be written over the sign-out.
#[tokio::test(start_paused = true)]
async fn a_sign_out_waits_for_the_sign_in_that_was_begun_before() {
    let scene = Scene::set().await;
    scene.store.gate(Op::Save).close();
    let mut set = task::spawn(scene.state.set(tokens(5)));
    assert_pending!(set.poll());
    scene.store.gate(Op::Save).arrived(1).await;
    let mut clear = task::spawn(scene.state.clear());
    assert_pending!(clear.poll());
    idle().await;
    assert_eq!(scene.store.count(Op::Delete), 0);
    scene.store.gate(Op::Save).open();
    set.await.unwrap();
    clear.await.unwrap();
    assert_eq!(scene.store.record().await.tokens, None);
    assert_eq!(kind(scene.state.token().await), FailureKind::SignedOut);
}

/// A server that does not rotate: the refresh token that was spent is still in use by the
/// sign-in that won, and a server may end the session by the access token that is left over, too. That
/// one is left to run out.
#[tokio::test(start_paused = true)]
async fn what_was_minted_without_a_rotation_is_not_discarded_while_the_session_lives() {
    for (minted, other) in [
        (Tokens::new("access-2"), false),
        (Tokens::new("access-2").with_refresh_token("refresh-1"), false),
        (Tokens::new("access-2"), true),
    ] {
        let scene = Scene::set().await;
        scene.auth.next(Play::Mint(minted));
        scene.hold(Held::Redeem).await;
        let winner = Tokens::new("access-60").with_refresh_token("refresh-1");
        if other {
            // Another process has taken the lease from this one.
            let theirs = RefreshState::builder(scene.auth.refresher()).store(scene.store.clone());
            theirs.build().set(winner).await.unwrap();
        } else {
            scene.state.set(winner).await.unwrap();
        }
        scene.gate(Held::Redeem).open();
        scene.state.drain().await;
        assert_eq!(scene.state.current().access_token(), Some("access-60"));
        assert_eq!(*scene.discarded.lock().unwrap(), []);
    }
}

/// The user who has signed in meanwhile is not held up by the hook, nor is another process by
/// the lease.
#[tokio::test(start_paused = true)]
async fn nobody_but_drain_waits_for_the_discard_hook() {
    let (auth, store, gate) = (Auth::new(), Store::with(tokens(1)), Gate::new());
    let passed = gate.clone();
    let state = RefreshState::builder(auth.refresher())
        .store(store.clone())
        .on_discard(move |_| {
            let gate = passed.clone();
            async move { gate.pass().await }
        })
        .build();
    state.token().await.unwrap();
    gate.close();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;
    state.set(tokens(60)).await.unwrap();
    auth.gate.open();
    gate.arrived(1).await;

    let other = RefreshState::builder(auth.refresher()).store(store).build();
    assert_eq!(other.token().await.unwrap().access_token(), Some("access-60"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
    let mut drain = task::spawn(state.drain());
    idle().await;
    assert_pending!(drain.poll());
    gate.open();
    drain.await;
}

/// Invariant 5: "Sign-in or sign-out during a flight wins." Tokens that were read from a store are
/// signed in with (a move to another store, or a copy of the account): if they were put there to
/// begin with, they carry a mark, which a sign-in takes off: a refresh under way elsewhere would win
/// over it.
#[tokio::test(start_paused = true)]
async fn a_sign_in_with_tokens_that_were_read_from_a_store_wins() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    // What another store was begun with.
    let old = Store::empty();
    stored(&auth, &old).tokens(tokens(70)).build().token().await.unwrap();
    let moved = old.record().await.tokens.unwrap();
    auth.gate.close();
    let slow = tokio::spawn(async move { b.refresh().await });
    idle().await;
    a.set(moved).await.unwrap();
    auth.gate.open();
    let _ = slow.await.unwrap();
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-70"));
}
