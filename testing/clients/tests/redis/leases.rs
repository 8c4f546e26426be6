//! The lease: which store holds it, for how long, and what is left behind.

use redis::Commands;
use tower_refresh::{
    Generation,
    store::{OpenCause, OpenRedeem, SaveError, TokenStore},
};

use super::{
    LEASE, NAME, RECORD, RedisServer, brief, builder, lease, lease_is_there, millis, open, record,
    sign_in, until,
};

fn left(connection: &mut redis::Connection) -> Option<String> {
    connection.hget(RECORD, "i").unwrap()
}

fn time_left(connection: &mut redis::Connection) -> i64 {
    connection.pttl(LEASE).unwrap()
}

fn fence(connection: &mut redis::Connection) -> u64 {
    connection.hget(RECORD, "f").unwrap()
}

#[tokio::test]
async fn a_holder_that_ends_before_its_intent_leaves_nothing() {
    let server = RedisServer::start();
    let store = brief(&server).build().unwrap().store(NAME);
    sign_in(&store).await;
    drop(lease(&store, 1).await);
    let next = lease(&brief(&server).build().unwrap().store(NAME), 1).await;
    assert_eq!(next.open_redeem(), None);
}

#[tokio::test]
async fn a_holder_that_ends_after_its_intent_is_told_to_be_silent() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    assert_eq!(left(&mut connection).as_deref(), Some("1 open"));
    assert!(time_left(&mut connection) > 1000, "an intent has a longer time");
    drop(holder);
    assert!(lease_is_there(&mut connection), "others have to wait");
    let next = lease(&brief(&server).build().unwrap().store(NAME), 1).await;
    let silent = OpenRedeem::new(Generation::new(1), OpenCause::HolderSilent);
    assert_eq!(next.open_redeem(), Some(silent));
}

#[tokio::test]
async fn what_is_left_open_is_written_as_told() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let lost = OpenRedeem::new(Generation::new(1), OpenCause::AnswerLost);
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    holder.release(Some(lost)).await;
    assert_eq!(left(&mut connection).as_deref(), Some("1 unanswered"));
    assert!(!lease_is_there(&mut connection));

    // Even where the lock has run out already.
    let mut holder = lease(&store, 1).await;
    assert_eq!(holder.open_redeem(), Some(lost));
    holder.intend(Generation::new(1)).await.unwrap();
    let _: () = connection.del(LEASE).unwrap();
    holder.release(None).await;
    assert_eq!(left(&mut connection), None);
}

#[tokio::test]
async fn a_living_holder_renews_its_lease_and_its_intent() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    let mut holder = lease(&store, 0).await;
    for longest in [1000, 2000] {
        let (mut renewals, mut before) = (0, time_left(&mut connection));
        until("renewed", || {
            let now = time_left(&mut connection);
            assert!((1..=longest).contains(&now), "{now} ms are left of {longest}");
            renewals += usize::from(now > before);
            before = now;
            renewals == 3
        })
        .await;
        assert!(holder.is_held());
        if longest == 1000 {
            holder.intend(Generation::ZERO).await.unwrap();
            assert!(time_left(&mut connection) > 1000);
        }
    }
    holder.release(None).await;
    assert!(!lease_is_there(&mut connection));
}

#[tokio::test]
async fn another_owner_s_lease_is_neither_renewed_nor_released() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    let mut holder = lease(&store, 0).await;
    let _: () = connection.set(LEASE, "another").unwrap();
    until("lost", || !holder.is_held()).await;
    assert_eq!(time_left(&mut connection), -1, "it was given a time");
    assert!(holder.intend(Generation::ZERO).await.is_err());
    assert_eq!(left(&mut connection), None);
    holder.release(Some(OpenRedeem::new(Generation::ZERO, OpenCause::AnswerLost))).await;
    assert_eq!(connection.get::<_, String>(LEASE).unwrap(), "another");
    assert_eq!(left(&mut connection), None);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_taken_back_if_nobody_came_between() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    let holder = lease(&store, 0).await;
    let owner: String = connection.get(LEASE).unwrap();
    let _: () = connection.del(LEASE).unwrap();
    until("taken back", || lease_is_there(&mut connection)).await;
    assert_eq!(connection.get::<_, String>(LEASE).unwrap(), owner);
    assert!(holder.is_held());

    // With a number between, another holder came.
    let mut pipeline = redis::pipe();
    pipeline.atomic().hincr(RECORD, "f", 1).ignore().del(LEASE).ignore();
    pipeline.exec(&mut connection).unwrap();
    until("lost", || !holder.is_held()).await;
    assert!(!lease_is_there(&mut connection));
}

/// However long, up to all that there is.
#[tokio::test]
async fn a_time_may_be_of_any_length() {
    let server = RedisServer::start();
    let long = std::time::Duration::MAX;
    let stores = builder(&server).lease(long).intent(long).ttl(long).tombstone_ttl(long);
    let store = stores.poll(long).timeout(long).build().unwrap().store(NAME);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    assert!(holder.is_held());
    holder.save(Generation::new(1), record(2)).await.unwrap();
    store.delete().await.unwrap();
}

/// A program may seed the generator that libraries share, and a fork or a snapshot copies it.
#[tokio::test]
async fn an_owner_comes_from_no_generator_that_can_be_seeded_or_copied() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let mut owners = std::collections::HashSet::new();
    for _ in 0..8 {
        fastrand::seed(7);
        let holder = lease(&open(&server), 0).await;
        let owner: String = connection.get(LEASE).unwrap();
        assert_eq!(owner.len(), 32, "{owner}");
        assert!(owners.insert(owner), "two holders have one name");
        holder.release(None).await;
    }
}

fn script(text: &str) -> redis::Script {
    redis::Script::new(text)
}

/// It was on its way when the connection was given up for another.
#[tokio::test]
async fn a_renewal_that_comes_late_brings_no_lease_back() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let holder = lease(&open(&server), 0).await;
    let owner: String = connection.get(LEASE).unwrap();
    let number = fence(&mut connection);
    holder.release(None).await;
    let renew = script(include_str!("../../../../src/store/redis/renew.lua"));
    let mut renew = renew.key(RECORD);
    renew.key(LEASE).arg(owner).arg(number).arg(60_000).arg(60_000);
    assert_eq!(renew.invoke::<String>(&mut connection).unwrap(), "lost");
    assert!(!lease_is_there(&mut connection));
}

#[tokio::test]
async fn each_lease_has_a_greater_number_even_after_all_data_was_lost() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    let mut lost = lease(&store, 0).await;
    let first = fence(&mut connection);
    let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    let next = lease(&store, 0).await;
    let second = fence(&mut connection);
    assert!(second > first, "{second} follows {first}");
    next.release(None).await;
    let third = lease(&store, 0).await;
    assert!(fence(&mut connection) > second);
    third.release(None).await;

    // The number is what counts, not the lock.
    let late = lost.save(Generation::ZERO, record(1)).await;
    assert!(matches!(late, Err(SaveError::LeaseLost)), "{late:?}");
    assert_eq!(store.load().await.unwrap().generation, Generation::ZERO);
}

#[tokio::test]
async fn an_intent_is_never_shorter_than_the_lease() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let stores = builder(&server).lease(millis(60_000)).intent(millis(1)).build().unwrap();
    let mut holder = lease(&stores.store(NAME), 0).await;
    holder.intend(Generation::ZERO).await.unwrap();
    assert!(time_left(&mut connection) > 1_000);
    assert!(holder.is_held());
}
