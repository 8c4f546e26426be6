//! Orders of events that are easily got wrong: each was once.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures_util::future::join_all;
use testing::{
    Auth, Gate, Op, Play, Store, builder, idle, kind, living, opened, secs, stored, tokens,
};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_refresh::{
    BoxFuture, FailureKind, Generation, RefreshError, RefreshState, Refresher, Tokens,
    refresher::RefreshRequest,
    store::{
        Deleted, Lease, Leased, MemoryStore, OpenRedeem, Record, SaveError, StoreError, TokenStore,
    },
};

const LIFE: u64 = 1000;

/// `drain`: "It waits for a lease that another process has only if there are tokens to be
/// saved." The flight's waker is in the list of waiters, and goes with the last waiter that
/// leaves it, or whose deadline has come.
#[tokio::test(start_paused = true)]
async fn drain_gives_up_a_lease_also_after_a_waiter_has_left() {
    let mut hangs = Vec::new();
    for by_deadline in [false, true] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = stored(&auth, &store).deadline(secs(10)).build();
        state.token().await.unwrap();
        let other = store.lease(Generation::new(9)).await.unwrap();
        match by_deadline {
            true => assert_eq!(kind(state.refresh().await), FailureKind::Deadline),
            false => {
                let mut caller = task::spawn(state.refresh());
                assert_pending!(caller.poll());
                idle().await;
                drop(caller);
            }
        }
        let drained = timeout(secs(600), state.drain()).await;
        hangs.extend(drained.is_err().then_some(by_deadline));
        drop(other);
    }
    assert!(hangs.is_empty(), "after 10 minutes it waits still; by deadline: {hangs:?}");
}

async fn ten_first_refreshes_redeem_once(stands: Tokens) {
    let (auth, store) = (Auth::new(), Store::with(stands));
    auth.gate.close();
    let states: Vec<_> = (0..10).map(|_| stored(&auth, &store).build()).collect();
    let all = tokio::spawn(async move {
        join_all(states.iter().map(|state| state.refresh())).await;
    });
    sleep(secs(1)).await;
    // All have begun by now.
    auth.gate.open();
    all.await.unwrap();
    auth.assert_sound();
    assert_eq!(auth.count(), 1, "{:?}", auth.asked());
}

/// `refresh`: "What another process has written to the store since this call is adopted
/// instead." a first `refresh()` redeems, "unless the store's record was written
/// after the call". Ten command lines do `auth refresh` at once.
#[tokio::test(start_paused = true)]
async fn first_refreshes_of_many_processes_adopt_what_the_first_has_written() {
    ten_first_refreshes_redeem_once(tokens(1)).await;
}

/// The same with one that redeems already when the other begins: the record is written after the
/// call, and spent at once.
#[tokio::test(start_paused = true)]
async fn a_first_refresh_adopts_what_was_written_while_it_waited_for_the_lease() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let first = opened(&auth, &store).await;
    auth.gate.close();
    let redeeming = tokio::spawn(async move { first.refresh().await });
    idle().await;
    let second = stored(&auth, &store).build();
    let waiting = tokio::spawn(async move { second.refresh().await });
    idle().await;
    auth.gate.open();
    redeeming.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1"]);
}

/// `keep_fresh` looks for sign-ins elsewhere; a request whose token works does not wait for
/// another process's lease meanwhile.
#[tokio::test(start_paused = true)]
async fn a_rejected_refresh_does_not_hold_requests_whose_token_works() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let store = Store::with(living(1, LIFE));
    let state = opened(&auth, &store).await;
    let _fresh = state.keep_fresh();
    sleep(secs(LIFE - 35)).await;
    assert_eq!(state.status().last_failure.unwrap().kind(), FailureKind::Rejected);
    let other = store.lease(Generation::new(9)).await.unwrap();
    sleep(secs(20)).await;
    let token = timeout(secs(1), state.token()).await.expect("it works for 15 s yet");
    assert_eq!(token.unwrap().access_token(), Some("access-1"));
    drop(other);
}

/// `keep_fresh`: "Once a credential was rejected or signed out, a store that was set is looked at
/// now and then". A sign-out that ends outside of a runtime is not heard of.
#[test]
fn keep_fresh_looks_for_a_sign_in_after_a_sign_out_outside_of_a_runtime() {
    let auth = Auth::new();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let store = Store::with(living(1, LIFE));
    let (state, _fresh) = runtime.block_on(async {
        let state = opened(&auth, &store).await;
        let fresh = state.keep_fresh();
        (state, fresh)
    });
    store.gate(Op::Delete).close();
    let mut clear = task::spawn(state.clear());
    assert_pending!(clear.poll());
    // It looks, and the sign-out is not over yet.
    runtime.block_on(async { sleep(secs(10)).await });
    store.gate(Op::Delete).open();
    assert_ready_ok!(clear.poll());
    runtime.block_on(async {
        store.overwrite(Some(living(7, 1_000_000))).await;
        sleep(secs(1000)).await;
    });
    assert_eq!(state.current().access_token(), Some("access-7"));
}

/// Invariant 7: "Every waiter gets its flight's outcome".
#[tokio::test(start_paused = true)]
async fn a_caller_whose_refresh_succeeds_is_not_told_that_it_was_braked() {
    let auth = Auth::new();
    let state = builder(&auth).brake(0, secs(10), secs(60)).build();
    let fresh = state.refresh().await.unwrap().generation();
    auth.gate.close();
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    let mut challenged = task::spawn(state.challenged(fresh));
    assert_pending!(challenged.poll());
    idle().await;
    auth.gate.open();
    assert_eq!(refresh.await.unwrap().unwrap().access_token(), Some("access-3"));
}

/// Invariant 16: a token that was accepted is known to be, whatever is heard of older ones after
/// the doubts are forgotten.
#[tokio::test(start_paused = true)]
async fn a_late_acceptance_of_an_older_token_does_not_make_the_newer_ones_forgotten() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let old = state.current().generation();
    state.accepted(old);
    // A doubt, and a refresh that has helped.
    let new = state.challenged(old).await.unwrap().generation();
    state.accepted(new);
    sleep(secs(600)).await;
    // A long answer begins at last.
    state.accepted(old);
    auth.gate.close();
    let mut doubt = task::spawn(state.challenged(new));
    assert_pending!(doubt.poll());
    idle().await;
    let token = timeout(secs(1), state.token()).await;
    assert!(token.is_ok(), "others are not held: this token was accepted");
    auth.gate.open();
}

/// "client credentials dead for the life of the process, where there is nothing to
/// set". Some servers give a refresh token with client credentials, which is not sent.
#[tokio::test(start_paused = true)]
async fn what_needs_no_tokens_does_not_die_of_a_rejection_though_it_was_given_a_refresh_token() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.minter()).build();
    state.token().await.unwrap();
    auth.next(Play::Reject);
    let told = kind(state.refresh().await);
    sleep(secs(3600)).await;
    let again = state.refresh().await;
    assert!(again.is_ok(), "{told}, and an hour later {again:?}");
    assert_eq!(auth.count(), 3);
}

/// `Lease::save`: after one that has worked "the flight asks nothing more of the lease but
/// `release`". A superseded flight that goes on drops the lease instead, as a crash does: the
/// next step waits until it runs out.
#[tokio::test(start_paused = true)]
async fn a_flight_that_goes_on_after_its_save_and_a_discard_gives_its_lease_back() {
    let auth = Auth::new();
    let store = Counting::default();
    let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
    state.set(tokens(1)).await.unwrap();
    store.0.answer.close();
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    store.0.answer.arrived(1).await;
    // It is saved, and the flight has not heard of it yet.
    state.set(tokens(50)).await.unwrap();
    refresh.await.unwrap().unwrap();
    let again = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    store.0.answer.open();
    again.await.unwrap().unwrap();
    state.drain().await;
    assert_eq!(auth.asked(), ["refresh-1", "refresh-50"]);
    assert_eq!(store.0.crashed.load(Relaxed), 0, "leases that were dropped and not released");
}

/// A store whose saves are answered late, and that counts the leases which were not given back.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    memory: MemoryStore,
    answer: Gate,
    crashed: AtomicUsize,
}

struct Counted {
    store: Counting,
    lease: Mutex<Option<Box<dyn Lease>>>,
}

impl TokenStore for Counting {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.0.memory.load()
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        self.0.memory.save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.0.memory.delete()
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            let Leased::Lease(lease) = self.0.memory.lease(known).await? else {
                panic!("a lease of memory")
            };
            let lease = Mutex::new(Some(lease));
            Ok(Leased::Lease(Box::new(Counted { store: self.clone(), lease })))
        })
    }
}

impl Lease for Counted {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.lease.lock().unwrap().as_ref()?.open_redeem()
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lease.get_mut().unwrap().as_mut().unwrap().intend(generation)
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.lease.get_mut().unwrap().as_mut().unwrap().save(expected, record).await?;
            self.store.0.answer.pass().await;
            Ok(())
        })
    }

    fn release(self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        self.lease.lock().unwrap().take().unwrap().release(left)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.lease.get_mut().unwrap().is_some() {
            self.store.0.crashed.fetch_add(1, Relaxed);
        }
    }
}

/// `refresh`: "What another process has written to the store since this call is adopted
/// instead", also where what it had held before has run out. Ten command lines do
/// `auth refresh` at once in the morning.
#[tokio::test(start_paused = true)]
async fn first_refreshes_of_many_processes_redeem_once_what_has_run_out() {
    ten_first_refreshes_redeem_once(living(1, 0)).await;
}

/// Invariant 7: nobody hangs. The flight ends at once, and its callers wait for their deadline:
/// a sign-in for another resource has come between.
#[tokio::test(start_paused = true)]
async fn a_caller_hears_at_once_that_the_store_holds_tokens_for_another_resource() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = |target| {
        let refresher = For { target, inner: Box::new(auth.refresher()) };
        RefreshState::builder(refresher).store(store.clone()).build()
    };
    let (a, b) = (state("a"), state("b"));
    a.token().await.unwrap();
    auth.gate.close();
    let refresh = tokio::spawn({
        let a = Arc::clone(&a);
        async move { a.refresh().await }
    });
    idle().await;
    b.set(tokens(50)).await.unwrap();
    auth.gate.open();
    let told = timeout(secs(5), refresh).await;
    assert!(told.is_ok(), "no flight is under way: {:?}", a.status().in_flight);
}

/// Tokens to begin with that were read from the store of another resource are what the user says
/// they are, as those of a sign-in.
#[tokio::test(start_paused = true)]
async fn tokens_to_begin_with_carry_no_mark_of_another_store() {
    let (auth, old) = (Auth::new(), Store::empty());
    let builder = |target| RefreshState::builder(For { target, inner: Box::new(auth.refresher()) });
    builder("b").store(old.clone()).tokens(tokens(1)).build().token().await.unwrap();
    let moved = old.record().await.tokens.unwrap();
    assert!(moved.extras().count() > 0, "it has no mark");
    let seed = || builder("a").tokens(moved.clone());
    for state in [seed().build(), seed().store(Store::empty()).build()] {
        let begun = state.token().await.unwrap();
        assert_eq!(begun.extra("tower_refresh.minted_for"), Some("a"));
    }
    let state = seed().build();
    assert_eq!(state.current().extra("tower_refresh.origin"), None);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}

struct For {
    target: &'static str,
    inner: Box<dyn Refresher>,
}

impl Refresher for For {
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        self.inner.refresh(request)
    }

    fn minted_for(&self) -> Option<String> {
        Some(self.target.to_owned())
    }
}
