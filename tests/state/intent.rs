//! A redeem is announced before it begins: the next lease holder after one that was
//! interrupted knows that the refresh token may be spent.

use std::{error::Error as _, future::pending, sync::Arc};

use testing::{Auth, Fault, Gate, Op, Play, Store, idle, kind, opened, secs, stored, tokens};
use tokio::runtime;
use tokio_test::{assert_pending, task};
use tower_refresh::{
    BoxFuture, FailureKind, Generation, RefreshError, RefreshFailure, RefreshState, Tokens,
    store::{Deleted, Leased, MemoryStore, OpenCause, Record, SaveError, StoreError, TokenStore},
};

#[tokio::test(start_paused = true)]
async fn nothing_is_spent_before_the_intent_is_noted() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.gate(Op::Intend).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Intend).arrived(1).await;
    idle().await;
    assert_eq!(auth.count(), 0);
    store.gate(Op::Intend).open();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn without_an_intent_nothing_is_spent() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::Panic] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        store.fault(Op::Intend, fault);
        let failure = state.refresh().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Store);
        assert!(failure.source().is_some());
        assert_eq!(auth.count(), 0);

        // What may have been noted was taken back: nothing was spent.
        auth.next(Play::Reject);
        let other = opened(&auth, &store).await;
        assert_eq!(other.refresh().await.unwrap_err().open_redeem(), None, "{fault:?}");
    }
}

/// What has no refresh token has nothing to announce.
#[tokio::test(start_paused = true)]
async fn client_credentials_need_no_intent() {
    let (auth, store) = (Auth::new(), Store::empty());
    let state = RefreshState::builder(auth.minter()).store(store.clone()).build();
    state.token().await.unwrap();
    assert_eq!(store.count(Op::Intend), 0);
}

async fn rejected(state: &Arc<RefreshState>) -> RefreshFailure {
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    failure
}

/// A runtime whose clock is paused.
fn paused() -> runtime::Runtime {
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

/// A process ends between the server's commit and its save. The next one tries the same
/// token, once more after a second, and says what it has met.
#[test]
fn a_holder_that_ended_is_known_to_the_next() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let build = paused;
    let process = build();
    store.gate(Op::Save).close();
    process.block_on(async {
        let state = opened(&auth, &store).await;
        let mut refresh = task::spawn(state.refresh());
        assert_pending!(refresh.poll());
        store.gate(Op::Save).arrived(1).await;
    });
    drop(process);
    store.gate(Op::Save).open();
    assert_eq!(auth.count(), 1);

    build().block_on(async {
        let state = opened(&auth, &store).await;
        let failure = rejected(&state).await;
        assert_eq!(failure.open_redeem(), Some(OpenCause::HolderEnded));
        assert_eq!(
            failure.to_string(),
            "the refresh token was rejected; an earlier refresh may have spent the refresh token: the \
             process that began it ended before it could save"
        );
        assert!(failure.source().is_some(), "the server's own words");
        assert_eq!(auth.asked(), ["refresh-1", "refresh-1", "refresh-1"]);

        // Not again, and not forgotten: it still holds for others.
        assert_eq!(rejected(&state).await.open_redeem(), Some(OpenCause::HolderEnded));
        assert_eq!(auth.count(), 3);
        let other = opened(&auth, &store).await;
        assert_eq!(rejected(&other).await.open_redeem(), Some(OpenCause::HolderEnded));

        // New tokens have nothing to do with it.
        state.set(tokens(7)).await.unwrap();
        auth.next(Play::Reject);
        assert_eq!(rejected(&state).await.open_redeem(), None);
    });
}

/// A server with a grace period gives the same pair again: nothing is lost.
#[test]
fn within_a_grace_period_nothing_is_lost() {
    let store = Store::with(tokens(1));
    let build = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redeem = async |spent: Tokens| {
        assert_eq!(spent.refresh_token(), Some("refresh-1"));
        Ok(tokens(2))
    };
    let process = build();
    store.gate(Op::Save).close();
    process.block_on(async {
        let state = RefreshState::builder(redeem).store(store.clone()).build();
        state.token().await.unwrap();
        let mut refresh = task::spawn(state.refresh());
        assert_pending!(refresh.poll());
        store.gate(Op::Save).arrived(1).await;
    });
    drop(process);
    store.gate(Op::Save).open();
    build().block_on(async {
        let state = RefreshState::builder(redeem).store(store.clone()).build();
        state.token().await.unwrap();
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    });
}

/// What the first try came to, and what the failure of the second says of it.
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_known_to_the_next_try() {
    let lost = Some(OpenCause::AnswerLost);
    for (unspent, panics, expected) in
        [(false, false, lost), (false, true, lost), (true, false, None)]
    {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = RefreshState::builder(move |_: Tokens| async move {
            assert!(!panics, "the refresher panics, as told");
            let error = RefreshError::transient("reset by peer");
            Err(if unspent { error.unspent() } else { error })
        });
        let state = state.store(store.clone()).build();
        state.token().await.unwrap();
        let failure = state.refresh().await.unwrap_err();
        assert_eq!(failure.open_redeem(), None, "nothing was interrupted before it");

        auth.next(Play::Reject).next(Play::Reject);
        let other = opened(&auth, &store).await;
        assert_eq!(rejected(&other).await.open_redeem(), expected);
        assert_eq!(other.status().last_failure.unwrap().open_redeem(), expected);
    }
}

/// One that certainly spent nothing does not take back what earlier lease holders have left open.
#[tokio::test(start_paused = true)]
async fn what_is_left_open_stays_so_until_it_is_known() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    auth.next(Play::Fail);
    let state = opened(&auth, &store).await;
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    let unreachable = RefreshState::builder(async |_: Tokens| {
        Err(RefreshError::transient("connection refused").unspent())
    });
    let unreachable = unreachable.store(store.clone()).build();
    unreachable.token().await.unwrap();
    assert_eq!(kind(unreachable.refresh().await), FailureKind::Transient);
    auth.next(Play::Reject).next(Play::Reject);
    let other = opened(&auth, &store).await;
    assert_eq!(rejected(&other).await.open_redeem(), Some(OpenCause::AnswerLost));
}

/// With the save all is known.
#[tokio::test(start_paused = true)]
async fn after_a_save_nothing_is_open() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    auth.next(Play::Fail);
    let state = opened(&auth, &store).await;
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    tokio::time::sleep(secs(61)).await;
    state.refresh().await.unwrap();
    auth.next(Play::Reject);
    let other = opened(&auth, &store).await;
    assert_eq!(rejected(&other).await.open_redeem(), None);
}

/// A holder that was stalled past its lease: the save is refused, and done under a lease
/// that is taken anew.
#[tokio::test(start_paused = true)]
async fn a_save_without_the_lease_is_done_under_a_new_one() {
    for losses in [1, 3] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        for _ in 0..losses {
            store.fault(Op::Save, Fault::Lost);
        }
        let taken = store.count(Op::Lease);
        let refreshed = state.refresh().await;
        if losses == 1 {
            assert_eq!(refreshed.unwrap().access_token(), Some("access-2"));
        } else {
            // It goes on, with pauses.
            assert_eq!(kind(refreshed), FailureKind::Unsaved);
            assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        }
        state.drain().await;
        assert_eq!(state.current().access_token(), Some("access-2"));
        assert_eq!(store.count(Op::Lease), taken + 1 + losses);
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
        auth.assert_sound();
    }
}

/// The same, and the user has signed in elsewhere meanwhile: that wins.
#[tokio::test(start_paused = true)]
async fn a_save_that_comes_too_late_is_discarded() {
    let (auth, store, discarded) = (Auth::new(), Store::with(tokens(1)), Gate::new());
    let hook = discarded.clone();
    let state = stored(&auth, &store).on_discard(move |tokens| {
        assert_eq!(tokens.refresh_token(), Some("refresh-2"));
        let hook = hook.clone();
        async move { hook.pass().await }
    });
    let state = state.build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::Lost).gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    store.overwrite(Some(tokens(60))).await;
    store.gate(Op::Save).open();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-60"));
    state.drain().await;
    assert_eq!(discarded.count(), 1);
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-60"));
}

/// A store that gives a waiter for the lease what was saved meanwhile.
struct Newsagent {
    memory: Arc<MemoryStore>,
    gate: Gate,
}

impl TokenStore for Newsagent {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.memory.load()
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        self.memory.save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.memory.delete()
    }

    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            self.gate.pass().await;
            let record = self.load().await?;
            if record.generation > seen { Ok(Leased::Newer(record)) } else { pending().await }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_lease_adopts_what_is_newer_without_it() {
    let (auth, gate) = (Auth::new(), Gate::new());
    let memory = Arc::new(MemoryStore::with_tokens(tokens(1)));
    let store = Newsagent { memory: Arc::clone(&memory), gate: gate.clone() };
    let state = RefreshState::builder(auth.refresher()).store(store).build();
    // First use, too: what is there is enough.
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    gate.arrived(2).await;
    let record = Record::new(Generation::new(2), tokens(2));
    memory.save(Generation::new(1), record).await.unwrap();
    gate.open();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 0);

    // What is newer and has run out is no answer: it has to be redeemed, under the lease.
    gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    gate.arrived(3).await;
    let record = Record::new(Generation::new(3), tokens(3).with_expires_in(secs(0)));
    memory.save(Generation::new(2), record).await.unwrap();
    gate.open();
    idle().await;
    assert_pending!(refresh.poll());
    assert_eq!((auth.count(), gate.count()), (0, 4), "it waits for the lease anew");
}

/// The server has given both the same pair, within its grace period, and the other was the
/// first to save it. It is the session.
#[tokio::test(start_paused = true)]
async fn a_pair_that_is_in_use_elsewhere_is_not_discarded() {
    let (auth, store, discarded) = (Auth::new(), Store::with(tokens(1)), Gate::new());
    let hook = discarded.clone();
    let state = stored(&auth, &store).on_discard(move |_| {
        let hook = hook.clone();
        async move { hook.pass().await }
    });
    let state = state.build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::Lost).gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    // As another generation, for that one counts another way.
    store.overwrite(None).await;
    store.overwrite(Some(tokens(2))).await;
    store.gate(Op::Save).open();
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-2"));
    state.drain().await;
    assert_eq!(discarded.count(), 0, "it was given to the hook");
}
