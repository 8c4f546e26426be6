//! Holders that stall. Each process is a runtime here: one that is not run does not renew,
//! and does not hear anything, until it is run again.

use std::sync::Arc;

use testing::Auth;
use tokio::runtime::{Builder, Runtime};
use tower_refresh::{
    Generation, RefreshState,
    store::{Lease, Leased, OpenCause, OpenRedeem, SaveError, TokenStore},
};

use super::{NAME, Place, Sight, access, lease, millis, record, sign_in, soon, until};

fn process() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One that goes on by itself.
fn running() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn silent() -> Option<OpenRedeem> {
    Some(OpenRedeem::new(Generation::new(1), OpenCause::HolderSilent))
}

/// A process that has noted its intent, and stalls; and one that looks on.
fn stalls() -> (Place, Runtime, Sight, Runtime, Box<dyn Lease>) {
    let (watcher, stalled) = (running(), process());
    let place = watcher.block_on(Place::new());
    let sight = watcher.block_on(place.sight());
    let store = place.brief();
    let holder = stalled.block_on(async {
        sign_in(&store).await;
        let mut holder = lease(&store, 1).await;
        holder.intend(Generation::new(1)).await.unwrap();
        holder
    });
    (place, watcher, sight, stalled, holder)
}

async fn over(sight: &Sight) {
    sight.until("over", |row| !row.is_some_and(super::Row::is_leased)).await;
}

#[test]
fn a_holder_that_was_overtaken_cannot_write() {
    let (place, watcher, sight, stalled, mut late) = stalls();
    let store = place.brief();
    let mut next = watcher.block_on(lease(&store, 1));
    assert_eq!(next.open_redeem(), silent());
    assert!(!late.is_held(), "its time is over, by its own clock");
    stalled.block_on(async {
        let saved = late.save(Generation::new(1), record(2)).await;
        assert!(matches!(saved, Err(SaveError::LeaseLost)), "{saved:?}");
        assert!(late.intend(Generation::new(1)).await.is_err());
        late.release(None).await;
    });
    watcher.block_on(async {
        assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
        assert!(sight.is_leased().await, "it gave away another's lease");
        assert!(next.is_held());
        next.save(Generation::new(1), record(2)).await.unwrap();
    });
}

/// What it has left open stays, too: it knows nothing better than who came after it.
#[test]
fn a_holder_that_was_overtaken_says_nothing_of_the_token() {
    let (place, watcher, _sight, stalled, late) = stalls();
    watcher.block_on(async {
        let next = lease(&place.brief(), 1).await;
        let left = next.open_redeem();
        next.release(left).await;
    });
    stalled.block_on(late.release(None));
    assert_eq!(watcher.block_on(lease(&place.open(), 1)).open_redeem(), silent());
}

#[test]
fn a_holder_that_nobody_has_overtaken_saves_after_its_time() {
    let (place, watcher, sight, stalled, mut late) = stalls();
    watcher.block_on(over(&sight));
    assert!(!late.is_held());
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    stalled.block_on(late.release(None));
    assert_eq!(watcher.block_on(lease(&place.open(), 2)).open_redeem(), None);
}

/// The token is spent, but not lost: the next holder waits for the longer time.
#[test]
fn a_holder_that_comes_back_in_time_is_waited_for() {
    let (watcher, stalled) = (running(), process());
    let place = watcher.block_on(Place::new());
    let sight = watcher.block_on(place.sight());
    let stores = place.builder().lease(millis(100)).intent(millis(600_000)).build().unwrap();
    let mut holder = stalled.block_on(async {
        let store = stores.store(NAME);
        sign_in(&store).await;
        let mut holder = lease(&store, 1).await;
        holder.intend(Generation::new(1)).await.unwrap();
        holder
    });
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).store(place.patient()).build();
    let waiting = Arc::clone(&state);
    let waiter = watcher.spawn(async move {
        assert_eq!(waiting.token().await.unwrap().access_token(), Some("access-1"));
        soon(waiting.refresh()).await
    });
    watcher.block_on(sight.listening(1));
    stalled.block_on(holder.save(Generation::new(1), record(2))).unwrap();
    stalled.block_on(holder.release(None));
    let token = watcher.block_on(waiter).unwrap().unwrap();
    assert_eq!(token.access_token(), Some("access-2"));
    assert_eq!(auth.count(), 0, "it was waited for");
}

/// Waits until there is a lease that is nobody's, and does no more.
async fn suspected(place: &Place, sight: &Sight, time: u64) {
    over(sight).await;
    let store = place.builder().lease(millis(time)).build().unwrap().store(NAME);
    let seen = sight.until("waited for", |row| row.is_some_and(super::Row::is_leased));
    tokio::select! {
        _ = store.lease(Generation::new(1)) => panic!("it was overtaken"),
        () = seen => {}
    }
    let row = sight.row().await.unwrap();
    assert_eq!((row.owner, row.redeem.as_deref()), (None, Some("1 open silent")));
}

/// Its intent has run out, but it may be that the server was away: the next holder
/// waits for one lease more, and a holder that shows itself in that time has it back.
#[test]
fn a_holder_that_shows_itself_at_last_is_not_overtaken() {
    let (place, watcher, sight, stalled, mut late) = stalls();
    watcher.block_on(over(&sight));
    let patient = place.patient();
    let waiter = watcher.spawn(async move { soon(patient.lease(Generation::new(1))).await });
    watcher.block_on(
        sight.until("waited for", |row| {
            row.is_some_and(|row| row.is_leased() && row.owner.is_none())
        }),
    );
    stalled.block_on(until("held again", async || late.is_held()));
    assert_eq!(watcher.block_on(sight.redeem()).as_deref(), Some("1 open"));
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    match watcher.block_on(waiter).unwrap().unwrap() {
        Leased::Newer(found) => assert_eq!(found.generation, Generation::new(2)),
        _ => panic!("it was overtaken"),
    }
    stalled.block_on(late.release(None));
    assert!(!watcher.block_on(sight.is_leased()));
}

/// The same, and it comes with its save before it has renewed anything.
#[test]
fn a_lease_that_is_nobodys_is_given_back_by_who_had_it() {
    let (place, watcher, sight, stalled, mut late) = stalls();
    watcher.block_on(suspected(&place, &sight, 600_000));
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    assert!(!watcher.block_on(sight.is_leased()));
}

/// A sign-in has ended its intent: there is none to hold again.
#[test]
fn a_lease_that_is_nobodys_is_taken_back_after_a_sign_in() {
    let (place, watcher, sight, stalled, late) = stalls();
    watcher.block_on(async {
        suspected(&place, &sight, 600_000).await;
        place.open().save(Generation::new(1), record(2)).await.unwrap();
    });
    stalled.block_on(until("held again", async || late.is_held()));
    let row = watcher.block_on(sight.row()).unwrap();
    assert!(row.owner.is_some());
    assert_eq!(row.redeem, None);
}

/// The waiter that would have taken over did not: the next one has to wait as long.
#[test]
fn an_intent_holds_again_after_a_lease_that_was_nobodys_has_run_out() {
    let (place, watcher, sight, stalled, late) = stalls();
    watcher.block_on(async {
        suspected(&place, &sight, 1000).await;
        over(&sight).await;
    });
    stalled.block_on(until("held again", async || late.is_held()));
    assert_eq!(watcher.block_on(sight.redeem()).as_deref(), Some("1 open"));
}

/// A process that is killed in its redeem, and the next one.
#[test]
fn a_killed_holder_is_followed_after_its_time() {
    let watcher = running();
    let place = watcher.block_on(Place::new());
    watcher.block_on(async { sign_in(&place.open()).await });
    let (killed, auth) = (process(), Auth::new());
    auth.gate.close();
    let state = RefreshState::builder(auth.refresher()).store(place.brief()).build();
    killed.block_on(async {
        state.token().await.unwrap();
        let refreshing = Arc::clone(&state);
        tokio::spawn(async move { refreshing.refresh().await });
        auth.gate.arrived(1).await;
    });
    drop(killed);
    let next = watcher.block_on(lease(&place.brief(), 1));
    assert_eq!(next.open_redeem(), silent());
    let loaded = watcher.block_on(place.open().load()).unwrap();
    assert_eq!(access(&loaded.tokens), Some("access-1"));
}
