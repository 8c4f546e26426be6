//! A save ends the lease: its holder may exit without another word.

use std::time::{Duration, SystemTime};

use redis::Commands;
use testing::{Auth, tokens};
use tokio::runtime::Builder;
use tower_refresh::{
    Generation, RefreshState,
    store::{RedisStore, SaveError, TokenStore},
};

use super::{
    LEASE, NAME, RECORD, RedisServer, builder, calls, lease, lease_is_there, looks, open, record,
    sign_in, soon,
};

/// A store whose lease, if it has to be waited for, keeps a test for an hour.
fn patient(server: &RedisServer) -> RedisStore {
    const HOUR: Duration = Duration::from_secs(3600);
    builder(server).lease(HOUR).intent(HOUR).poll(HOUR).build().unwrap().store(NAME)
}

#[tokio::test]
async fn holders_that_only_save_keep_no_other_waiting() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    sign_in(&open(&server)).await;
    let mut holders = Vec::new();
    for generation in 1..4 {
        let mut holder = lease(&patient(&server), generation).await;
        holder.intend(Generation::new(generation)).await.unwrap();
        holder.save(Generation::new(generation), record(generation + 1)).await.unwrap();
        assert!(!holder.is_held());
        assert!(!lease_is_there(&mut connection));
        // It is not released: its process may be gone.
        holders.push(holder);
    }
    assert_eq!(calls(&mut connection, "subscribe"), 0, "one of them had to wait");
}

/// Command lines: each refreshes once and exits as soon as it has the token.
#[test]
fn processes_that_exit_after_their_refresh_keep_no_other_waiting() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let auth = Auth::new();
    let seed = Builder::new_current_thread().enable_all().build().unwrap();
    seed.block_on(sign_in(&open(&server)));
    for turn in 1..4 {
        let process = Builder::new_current_thread().enable_all().build().unwrap();
        let state = RefreshState::builder(auth.refresher()).store(patient(&server)).build();
        process.block_on(soon(async {
            // The first refresh of a process may adopt what it finds.
            while auth.count() < turn {
                state.refresh().await.unwrap();
            }
        }));
        // Not drained.
        drop(process);
    }
    auth.assert_sound();
    assert_eq!(calls(&mut connection, "subscribe"), 0, "one of them had to wait");
    assert!(!lease_is_there(&mut connection));
}

/// Where the lease had run out, too, and a renewal was on its way.
#[tokio::test]
async fn a_renewal_that_comes_after_the_save_brings_no_lease_back() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    for run_out in [false, true] {
        let store = patient(&server);
        let known = store.load().await.unwrap().generation;
        let mut holder = lease(&store, known.get()).await;
        let owner: String = connection.get(LEASE).unwrap();
        let fence: u64 = connection.hget(RECORD, "f").unwrap();
        if run_out {
            let _: () = connection.del(LEASE).unwrap();
        }
        holder.save(known, record(known.next().get())).await.unwrap();
        assert!(!lease_is_there(&mut connection));
        let renew = redis::Script::new(include_str!("../../../../src/store/redis/renew.lua"));
        let mut renew = renew.key(RECORD);
        renew.key(LEASE).arg(owner).arg(fence).arg(60_000).arg(60_000);
        assert_eq!(renew.invoke::<String>(&mut connection).unwrap(), "lost");
        assert!(!lease_is_there(&mut connection));
        // Nor does the release say anything.
        let before = looks(&mut connection);
        holder.release(None).await;
        assert_eq!(looks(&mut connection), before);
    }
}

/// The next holder's lease and intent stay as they are.
#[tokio::test]
async fn a_holder_that_has_saved_can_do_no_more_under_its_lease() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let mut first = lease(&store, 1).await;
    first.save(Generation::new(1), record(2)).await.unwrap();
    let mut second = lease(&open(&server), 2).await;
    second.intend(Generation::new(2)).await.unwrap();

    assert!(first.intend(Generation::new(7)).await.is_err());
    let again = first.save(Generation::new(2), record(3)).await;
    assert!(matches!(again, Err(SaveError::LeaseLost)), "{again:?}");
    first.release(None).await;
    assert_eq!(connection.hget::<_, _, String>(RECORD, "i").unwrap(), "2 open");
    assert!(lease_is_there(&mut connection));
    assert!(second.is_held());
    second.save(Generation::new(2), record(3)).await.unwrap();
}

/// Tokens to begin with that have run out: they are saved first and redeemed after that.
#[tokio::test]
async fn a_flight_that_goes_on_after_a_save_takes_the_lease_anew() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .store(patient(&server))
        .tokens(tokens(1).with_expires_at(SystemTime::UNIX_EPOCH))
        .build();
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-2"));
    soon(state.drain()).await;
    auth.assert_sound();
    assert_eq!(auth.count(), 1);
    assert!(state.status().last_failure.is_none(), "{:?}", state.status());
    assert_eq!(calls(&mut connection, "subscribe"), 0, "it waited for itself");
    assert!(!lease_is_there(&mut connection));
}

/// A save that fails, or meets a conflict, leaves the lease to its holder.
#[tokio::test]
async fn only_a_save_that_has_worked_ends_the_lease() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    let conflict = holder.save(Generation::ZERO, record(2)).await;
    assert!(matches!(conflict, Err(SaveError::Conflict)), "{conflict:?}");
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut connection).unwrap();
    let failed = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(failed, Err(SaveError::Failed(_))), "{failed:?}");
    assert!(holder.is_held() && lease_is_there(&mut connection));
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut connection).unwrap();
    holder.save(Generation::new(1), record(2)).await.unwrap();
    assert!(!lease_is_there(&mut connection));
}
