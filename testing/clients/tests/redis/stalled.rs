//! Holders that stall. Each process is a runtime here: one that is not run does not renew,
//! and does not hear anything, until it is run again.

use std::sync::{Arc, Mutex};

use redis::Commands;
use testing::{Auth, tokens};
use tokio::runtime::{Builder, Runtime};
use tower_refresh::{
    Generation, RefreshState,
    store::{Lease, Leased, OpenCause, OpenRedeem, SaveError, TokenStore},
};

use super::{
    LEASE, NAME, RECORD, RedisServer, access, brief, builder, lease, lease_is_there, listening,
    millis, open, record, sign_in, soon, until,
};

fn process() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn silent() -> Option<OpenRedeem> {
    Some(OpenRedeem::new(Generation::new(1), OpenCause::HolderSilent))
}

/// A process that has noted its intent, and stalls.
fn stalls(server: &RedisServer) -> (Runtime, Box<dyn Lease>) {
    let process = process();
    let store = brief(server).build().unwrap().store(NAME);
    let holder = process.block_on(async {
        sign_in(&store).await;
        let mut holder = lease(&store, 1).await;
        holder.intend(Generation::new(1)).await.unwrap();
        holder
    });
    (process, holder)
}

#[test]
fn a_holder_that_was_overtaken_cannot_write() {
    let server = RedisServer::start();
    let (stalled, mut late) = stalls(&server);
    process().block_on(async {
        let store = brief(&server).build().unwrap().store(NAME);
        let mut next = lease(&store, 1).await;
        assert_eq!(next.open_redeem(), silent());
        assert!(!late.is_held(), "its time is over, by its own clock");
        let saved = tokio::task::spawn_blocking(move || {
            stalled.block_on(async {
                let saved = late.save(Generation::new(1), record(2)).await;
                assert!(late.intend(Generation::new(1)).await.is_err());
                late.release(None).await;
                saved
            })
        });
        let saved = saved.await.unwrap();
        assert!(matches!(saved, Err(SaveError::LeaseLost)), "{saved:?}");
        assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
        assert!(lease_is_there(&mut server.connection()), "it gave away another's lease");
        assert!(next.is_held());
        next.save(Generation::new(1), record(2)).await.unwrap();
    });
}

/// What it has left open stays, too: it knows nothing better than who came after it.
#[test]
fn a_holder_that_was_overtaken_says_nothing_of_the_token() {
    let server = RedisServer::start();
    let (stalled, late) = stalls(&server);
    process().block_on(async {
        let next = lease(&open(&server), 1).await;
        let left = next.open_redeem();
        next.release(left).await;
    });
    stalled.block_on(late.release(None));
    let other = process();
    let next = other.block_on(lease(&open(&server), 1));
    assert_eq!(next.open_redeem(), silent());
    drop(next);
}

#[test]
fn a_holder_that_nobody_has_overtaken_saves_after_its_time() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (stalled, mut late) = stalls(&server);
    process().block_on(until("over", || !lease_is_there(&mut connection)));
    assert!(!late.is_held());
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    stalled.block_on(late.release(None));
    process().block_on(async {
        let next = lease(&open(&server), 2).await;
        assert_eq!(next.open_redeem(), None);
    });
}

/// The token is spent, but not lost: the next holder waits for the longer time.
#[test]
fn a_holder_that_comes_back_in_time_is_waited_for() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let stores = builder(&server).lease(millis(100)).intent(millis(600_000)).build().unwrap();
    let stalled = process();
    let mut holder = stalled.block_on(async {
        let store = stores.store(NAME);
        sign_in(&store).await;
        let mut holder = lease(&store, 1).await;
        holder.intend(Generation::new(1)).await.unwrap();
        holder
    });
    assert!(connection.pttl::<_, i64>(LEASE).unwrap() > 100_000);

    let auth = Auth::new();
    let other = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let state = RefreshState::builder(auth.refresher()).store(open(&server)).build();
    let waiting = Arc::clone(&state);
    let waiter = other.spawn(async move {
        assert_eq!(waiting.token().await.unwrap().access_token(), Some("access-1"));
        soon(waiting.refresh()).await
    });
    other.block_on(listening(&mut connection, 1));
    stalled.block_on(holder.save(Generation::new(1), record(2))).unwrap();
    stalled.block_on(holder.release(None));
    let token = other.block_on(waiter).unwrap().unwrap();
    assert_eq!(token.access_token(), Some("access-2"));
    assert_eq!(auth.count(), 0, "it was waited for");
}

/// Its intent has run out, but it may be that the server was away: the next holder
/// waits for one lease more, and a holder that shows itself in that time has it back.
#[test]
fn a_holder_that_shows_itself_at_last_is_not_overtaken() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (stalled, mut late) = stalls(&server);
    process().block_on(until("over", || !lease_is_there(&mut connection)));
    let other = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let patient = builder(&server).lease(millis(600_000)).build().unwrap().store(NAME);
    let waiter = other.spawn(async move { soon(patient.lease(Generation::new(1))).await });
    other.block_on(until("waited for", || lease_is_there(&mut connection)));
    assert_eq!(connection.get::<_, String>(LEASE).unwrap(), "", "it is nobody's");

    stalled.block_on(until_held(&*late));
    assert_eq!(connection.hget::<_, _, String>(RECORD, "i").unwrap(), "1 open");
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    match other.block_on(waiter).unwrap().unwrap() {
        Leased::Newer(found) => assert_eq!(found.generation, Generation::new(2)),
        _ => panic!("it was overtaken"),
    }
    stalled.block_on(late.release(None));
    assert!(!lease_is_there(&mut connection));
}

/// The same, and it comes with its save before it has renewed anything.
#[test]
fn a_lease_that_is_nobodys_is_given_back_by_who_had_it() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (stalled, mut late) = stalls(&server);
    suspected(&server, &mut connection, 600_000);
    stalled.block_on(late.save(Generation::new(1), record(2))).unwrap();
    stalled.block_on(late.release(None));
    assert!(!lease_is_there(&mut connection));
}

/// Waits until there is a lease without an owner, and does no more.
fn suspected(server: &RedisServer, connection: &mut redis::Connection, lease: u64) {
    process().block_on(until("over", || !lease_is_there(connection)));
    let store = builder(server).lease(millis(lease)).build().unwrap().store(NAME);
    process().block_on(async {
        let waiting = store.lease(Generation::new(1));
        let seen = until("waited for", || lease_is_there(connection));
        tokio::select! {
            _ = waiting => panic!("it was overtaken"),
            () = seen => {}
        }
    });
}

/// A sign-in has ended its intent: there is none to hold again.
#[test]
fn a_lease_that_is_nobodys_is_taken_back_after_a_sign_in() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let _stalled = stalls(&server);
    let owner: String = connection.get(LEASE).unwrap();
    let number: u64 = connection.hget(RECORD, "f").unwrap();
    suspected(&server, &mut connection, 600_000);
    process().block_on(async { open(&server).save(Generation::new(1), record(2)).await.unwrap() });
    let renew = redis::Script::new(include_str!("../../../../src/store/redis/renew.lua"));
    let mut renew = renew.key(RECORD);
    renew.key(LEASE).arg(&owner).arg(number).arg(60_000).arg(60_000);
    assert_eq!(renew.invoke::<String>(&mut connection).unwrap(), "held");
    assert_eq!(connection.get::<_, String>(LEASE).unwrap(), owner);
    assert_eq!(connection.hget::<_, _, Option<String>>(RECORD, "i").unwrap(), None);
}

/// The waiter that would have taken over did not: the next one has to wait as long.
#[test]
fn an_intent_holds_again_after_a_lease_that_was_nobodys_has_run_out() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (stalled, late) = stalls(&server);
    suspected(&server, &mut connection, 1000);
    assert_eq!(connection.hget::<_, _, String>(RECORD, "i").unwrap(), "1 open silent");
    process().block_on(until("over", || !lease_is_there(&mut connection)));
    stalled.block_on(until_held(&*late));
    assert_eq!(connection.hget::<_, _, String>(RECORD, "i").unwrap(), "1 open");
}

async fn until_held(lease: &dyn Lease) {
    until("held again", || lease.is_held()).await;
}

/// A state that stalls in its redeem, until it is overtaken.
fn overtaken(server: &RedisServer) -> (Runtime, Arc<RefreshState>, Auth, Discarded) {
    let auth = Auth::new();
    let stalled = process();
    let discarded = Discarded::default();
    let sink = Arc::clone(&discarded);
    process().block_on(async { sign_in(&open(server)).await });
    let state = RefreshState::builder(auth.refresher())
        .store(brief(server).build().unwrap().store(NAME))
        .cool_down(millis(10), millis(50))
        .on_discard(move |tokens| {
            sink.lock().unwrap().push(tokens.access_token().to_owned());
            async {}
        })
        .build();
    auth.gate.close();
    stalled.block_on(async {
        state.token().await.unwrap();
        let refreshing = Arc::clone(&state);
        tokio::spawn(async move { refreshing.refresh().await });
        auth.gate.arrived(1).await;
    });
    auth.gate.open();
    (stalled, state, auth, discarded)
}

type Discarded = Arc<Mutex<Vec<String>>>;

#[test]
fn a_state_that_was_overtaken_saves_under_a_new_lease() {
    let server = RedisServer::start();
    let (stalled, state, auth, discarded) = overtaken(&server);
    process().block_on(async {
        let next = lease(&open(&server), 1).await;
        assert_eq!(next.open_redeem(), silent());
        // It has died, or has been told that the token is spent.
        let left = next.open_redeem();
        next.release(left).await;
    });
    let token = stalled.block_on(soon(state.refresh())).unwrap();
    assert_eq!(token.access_token(), Some("access-2"));
    stalled.block_on(state.drain());
    assert_eq!((auth.count(), discarded.lock().unwrap().len()), (1, 0));
    process().block_on(async {
        let store = open(&server);
        let saved = store.load().await.unwrap();
        assert_eq!(saved.generation, Generation::new(2));
        assert_eq!(access(&saved.tokens), Some("access-2"));
        assert_eq!(lease(&store, 2).await.open_redeem(), None);
    });
}

#[test]
fn a_state_that_was_overtaken_discards_what_comes_too_late() {
    let server = RedisServer::start();
    let (stalled, state, auth, discarded) = overtaken(&server);
    process().block_on(async {
        let mut next = lease(&open(&server), 1).await;
        let record = tower_refresh::store::Record::new(Generation::new(2), tokens(7));
        next.save(Generation::new(1), record).await.unwrap();
        next.release(None).await;
    });
    let token = stalled.block_on(soon(state.refresh())).unwrap();
    assert_eq!(token.access_token(), Some("access-7"));
    stalled.block_on(state.drain());
    assert_eq!(auth.count(), 1);
    assert_eq!(*discarded.lock().unwrap(), ["access-2"]);
}
