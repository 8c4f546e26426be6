//! A Redis that has lost everything: numbers begin anew, and what is written then is found.

use std::time::SystemTime;

use redis::Commands;
use testing::tokens;
use tower_refresh::{
    Generation,
    store::{Leased, Record, SaveError, TokenStore},
};

use super::{RECORD, RedisServer, access, lease, open, record, sign_in, soon};

fn lose_all(server: &RedisServer) {
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
}

/// A process that remembers a number asks for what is later.
async fn found(store: &impl TokenStore, known: Generation) -> Record {
    match soon(store.lease(known)).await.unwrap() {
        Leased::Newer(record) => record,
        leased => panic!("{leased:?}, and nothing later than {known}"),
    }
}

/// Counted from one, and begun with a clock that stood a little earlier.
fn remembered() -> [Generation; 3] {
    let clock = Generation::ZERO.next_at(SystemTime::now());
    [Generation::new(1), Generation::new(1_000_000), Generation::new(clock.get() - 1)]
}

#[tokio::test]
async fn a_sign_in_after_all_data_was_lost_is_found() {
    let server = RedisServer::start();
    let store = open(&server);
    for known in remembered() {
        store.save(Generation::ZERO, Record::new(known, tokens(1))).await.unwrap();
        lose_all(&server);
        let other = open(&server);
        let first = other.load().await.unwrap().generation.next_at(SystemTime::now());
        other.save(Generation::ZERO, Record::new(first, tokens(2))).await.unwrap();
        let record = found(&store, known).await;
        assert_eq!((record.generation, access(&record.tokens)), (first, Some("access-2")));
        lose_all(&server);
    }
}

#[tokio::test]
async fn a_sign_out_after_all_data_was_lost_is_found() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    for known in remembered() {
        store.save(Generation::ZERO, Record::new(known, tokens(1))).await.unwrap();
        lose_all(&server);
        let deleted = open(&server).delete().await.unwrap();
        assert_eq!(deleted.tokens, None);
        assert_eq!(found(&store, known).await, Record::new(deleted.generation, None));
        // What was under way does not bring the session back.
        let late = store.save(Generation::ZERO, record(1)).await;
        assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
        // From here on one by one, and to the digit.
        let again = open(&server).delete().await.unwrap();
        assert_eq!(again.generation, deleted.generation.next());
        let next = again.generation.next();
        store.save(again.generation, Record::new(next, tokens(3))).await.unwrap();
        let mut holder = lease(&store, next.get()).await;
        holder.intend(next).await.unwrap();
        let noted: String = connection.hget(RECORD, "i").unwrap();
        assert_eq!(noted, format!("{next} open"));
        holder.save(next, Record::new(next.next(), tokens(4))).await.unwrap();
        assert_eq!(store.load().await.unwrap().generation, next.next());
        lose_all(&server);
    }
}

/// The same as a loss, for this name.
#[tokio::test]
async fn a_sign_out_after_the_trace_of_one_ran_out_is_found() {
    let server = RedisServer::start();
    let store = open(&server);
    sign_in(&store).await;
    let known = store.delete().await.unwrap().generation;
    let _: () = server.connection().del(RECORD).unwrap();
    let deleted = open(&server).delete().await.unwrap();
    assert_eq!(found(&store, known).await, Record::new(deleted.generation, None));
}

/// A name that only has a lease was never written either.
#[tokio::test]
async fn a_sign_out_under_another_s_lease_begins_with_the_clock() {
    let server = RedisServer::start();
    let store = open(&server);
    let mut holder = lease(&store, 0).await;
    let deleted = open(&server).delete().await.unwrap();
    assert!(deleted.generation > Generation::new(1_700_000_000_000), "{}", deleted.generation);
    let late = holder.save(Generation::ZERO, record(1)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    holder.release(None).await;
    assert_eq!(found(&store, Generation::ZERO).await.generation, deleted.generation);
}
