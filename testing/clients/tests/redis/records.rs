//! Records: what is written, how long it is kept, and who can read it.

use std::{fs, path::Path};

use redis::Commands;
use tokio::task::JoinSet;
use tower_refresh::{
    Generation, Tokens,
    store::{Keyring, Leased, Record, RedisStores, SaveError, StoreError, TokenStore},
};

use super::{
    LEASE, NAME, RECORD, RedisServer, access, builder, lease, millis, open, record, sign_in, soon,
};

const DAY: i64 = 24 * 60 * 60;

fn seconds_left(connection: &mut redis::Connection) -> i64 {
    connection.ttl(RECORD).unwrap()
}

#[track_caller]
fn assert_about(seconds: i64, expected: i64) {
    assert!((expected - 60..=expected).contains(&seconds), "{seconds} s and not {expected} s");
}

fn reason(error: &StoreError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Each adds one to the generation, many times, over a connection of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_race_one_wins_each_generation() {
    let server = RedisServer::start();
    let mut racers = JoinSet::new();
    for _ in 0..8 {
        let store = open(&server);
        racers.spawn(async move {
            let mut won = 0;
            while won < 8 {
                let at = store.load().await.unwrap().generation;
                match store.save(at, record(at.get() + 1)).await {
                    Ok(()) => won += 1,
                    Err(error) => assert!(matches!(error, SaveError::Conflict), "{error:?}"),
                }
            }
        });
    }
    soon(racers.join_all()).await;
    assert_eq!(open(&server).load().await.unwrap().generation, Generation::new(64));
}

#[tokio::test]
async fn records_and_tombstones_are_kept_for_their_time() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);

    // A hash that has a number and nothing else.
    lease(&store, 0).await.release(None).await;
    assert!(!connection.exists::<_, bool>(RECORD).unwrap());
    sign_in(&store).await;
    let _: () = connection.expire(RECORD, 1000).unwrap();
    let mut holder = lease(&store, 1).await;
    assert_about(seconds_left(&mut connection), 1000);
    holder.save(Generation::new(1), record(2)).await.unwrap();
    holder.release(None).await;
    assert_about(seconds_left(&mut connection), 90 * DAY);
    store.delete().await.unwrap();
    assert_about(seconds_left(&mut connection), DAY);
    store.save(Generation::new(3), record(4)).await.unwrap();
    assert_about(seconds_left(&mut connection), 90 * DAY);

    let hour = std::time::Duration::from_secs(3600);
    let stores = builder(&server).ttl(2 * hour).tombstone_ttl(hour).build().unwrap();
    let store = stores.store(NAME);
    store.save(Generation::new(4), record(5)).await.unwrap();
    assert_about(seconds_left(&mut connection), 7200);
    store.delete().await.unwrap();
    assert_about(seconds_left(&mut connection), 3600);
}

#[tokio::test]
async fn no_late_write_brings_a_session_back() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    let deleted = open(&server).delete().await.unwrap();
    assert_eq!(deleted.generation, Generation::new(2));
    assert_eq!(access(&deleted.tokens), Some("access-1"));
    let late = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    let late = store.save(Generation::new(1), record(2)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    assert_eq!(store.load().await.unwrap(), Record::new(Generation::new(2), None));
    let fields: Vec<String> = connection.hkeys(RECORD).unwrap();
    assert!(!fields.contains(&"d".to_owned()), "the tokens are still there: {fields:?}");
}

/// It frees some.
#[tokio::test]
async fn a_sign_out_works_on_a_server_that_is_out_of_memory() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut connection).unwrap();
    let saved = store.save(Generation::new(1), record(2)).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    assert_eq!(access(&store.delete().await.unwrap().tokens), Some("access-1"));
    assert_eq!(store.load().await.unwrap(), Record::new(Generation::new(2), None));
    assert_about(seconds_left(&mut connection), DAY);
}

/// "What cannot be saved must not be minted": a server that has run out of memory since the lease
/// was taken would refuse the save. What frees memory, and the lease's end, it takes.
#[tokio::test]
async fn a_server_without_memory_refuses_the_intent() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut connection).unwrap();
    let noted = holder.intend(Generation::new(1)).await;
    assert!(noted.is_err(), "and the save would be refused");
    let line: Option<String> = connection.hget(RECORD, "i").unwrap();
    assert_eq!(line, None, "nothing was spent");
    let saved = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    holder.release(None).await;
    assert!(!connection.exists::<_, bool>(LEASE).unwrap(), "it is given back");
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut connection).unwrap();
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
}

/// Lua and JSON have numbers that are too short for them.
#[tokio::test]
async fn generations_are_exact_and_compared_as_numbers() {
    let server = RedisServer::start();
    let store = open(&server);
    let great = (1 << 60) + 1;
    // That of a clock, and the one after it.
    let clock = 1_800_000_000_999;
    let steps =
        [(0, 9), (9, 10), (10, clock), (clock, clock + 1), (clock + 1, great), (great, great + 1)];
    for (before, after) in steps {
        let (expected, record) = (Generation::new(before), record(after));
        store.save(expected, record.clone()).await.unwrap();
        let late = store.save(expected, record).await;
        assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
        match store.lease(expected).await.unwrap() {
            Leased::Newer(found) => assert_eq!(found.generation, Generation::new(after)),
            _ => panic!("{after} is newer than {before}"),
        }
        lease(&store, after).await.release(None).await;
    }
    let deleted = store.delete().await.unwrap();
    assert_eq!(deleted.generation, Generation::new(great + 2));
}

#[tokio::test]
async fn a_record_opens_under_its_own_name_and_generation_only() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let stores = builder(&server).build().unwrap();
    let (alice, bob) = (stores.store(NAME), stores.store("bob"));
    sign_in(&alice).await;
    bob.save(Generation::ZERO, Record::new(Generation::new(1), Tokens::new("bob"))).await.unwrap();

    let theirs: Vec<u8> = connection.hget("tower-refresh:{bob}", "d").unwrap();
    let own: Vec<u8> = connection.hget(RECORD, "d").unwrap();
    let _: () = connection.hset(RECORD, "d", &theirs).unwrap();
    let swapped = alice.load().await.unwrap_err();
    assert!(reason(&swapped).contains("no key opens the record"), "{}", reason(&swapped));
    assert!(lease(&alice, 1).await.is_held(), "the lock does not depend on what is locked");

    let _: () = connection.hset_multiple(RECORD, &[("d", &*own), ("g", b"2")]).unwrap();
    let moved = alice.load().await.unwrap_err();
    assert!(reason(&moved).contains("two generations"), "{}", reason(&moved));
    let other = String::from_utf8(own).unwrap().replace(r#""generation":1"#, r#""generation":2"#);
    let _: () = connection.hset(RECORD, "d", other).unwrap();
    let forged = alice.load().await.unwrap_err();
    assert!(reason(&forged).contains("no key opens the record"), "{}", reason(&forged));

    let plain = r#"{"version":1,"generation":2,"tokens":{"access_token":"forged"}}"#;
    let _: () = connection.hset(RECORD, "d", plain).unwrap();
    let plain = alice.load().await.unwrap_err();
    assert!(reason(&plain).contains("not sealed"), "{}", reason(&plain));
    // A sign-out works whatever is there.
    let deleted = alice.delete().await.unwrap();
    assert_eq!((deleted.generation, deleted.tokens), (Generation::new(3), None));
}

#[tokio::test]
async fn keys_are_changed_without_losing_a_record() {
    let server = RedisServer::start();
    let with = |keys| RedisStores::builder(server.url(), keys).build().unwrap().store(NAME);
    let (old, new) = ([1; 32], [2; 32]);
    let before = with(Keyring::new(old));
    let during = with(Keyring::new(new).also_opens(old));
    let after = with(Keyring::new(new));
    sign_in(&before).await;
    assert!(after.load().await.is_err(), "it opens with the wrong key");
    assert_eq!(access(&during.load().await.unwrap().tokens), Some("access-1"));
    during.save(Generation::new(1), record(2)).await.unwrap();
    assert_eq!(access(&after.load().await.unwrap().tokens), Some("access-2"));
    assert!(before.load().await.is_err(), "the first key seals");
}

/// Neither in any key nor in any file of the server's.
#[tokio::test]
async fn no_token_is_anywhere_in_the_clear() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    let secret = |generation| {
        let tokens = Tokens::new("SECRET-access").with_refresh_token("SECRET-refresh");
        Record::new(Generation::new(generation), tokens.with_extra("id_token", "SECRET-extra"))
    };
    store.save(Generation::ZERO, secret(1)).await.unwrap();
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    holder.save(Generation::new(1), secret(2)).await.unwrap();
    let mut holder = lease(&store, 2).await;
    holder.intend(Generation::new(2)).await.unwrap();

    let keys: Vec<String> = connection.keys("*").unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let fields: Vec<(String, Vec<u8>)> = connection.hgetall(RECORD).unwrap();
    assert!(fields.iter().any(|(field, _)| field == "d"), "{fields:?}");
    for (field, value) in fields {
        let value = String::from_utf8_lossy(&value).into_owned();
        assert!(!value.contains("SECRET"), "{field}: {value}");
    }
    let files = search(server.folder());
    assert!(files > 0, "there is no file to be searched");
    holder.release(None).await;
}

fn search(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += search(&path);
        } else {
            files += 1;
            let bytes = fs::read(&path).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("SECRET"), "{path:?}");
        }
    }
    files
}

#[tokio::test]
async fn keys_that_hold_something_else_are_an_error() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    let _: () = connection.set(RECORD, "text").unwrap();
    assert!(store.load().await.is_err());
    assert!(store.delete().await.is_err());
    assert!(store.lease(Generation::ZERO).await.is_err());
    let saved = store.save(Generation::ZERO, record(1)).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    assert_eq!(connection.get::<_, String>(RECORD).unwrap(), "text");

    let _: () = connection.del(RECORD).unwrap();
    for (field, value) in [("g", "one"), ("g", "-1"), ("g", "")] {
        let _: () = connection.hset(RECORD, field, value).unwrap();
        let error = store.load().await.unwrap_err();
        assert!(reason(&error).contains("not understood"), "{}", reason(&error));
    }
    let _: () = connection.hset_multiple(RECORD, &[("g", "1"), ("d", "{\"vers")]).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(reason(&error).contains("truncated"), "{}", reason(&error));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let with = || RedisStores::builder("redis://127.0.0.1/", Keyring::new(super::KEY));
    assert!(with().build().is_ok(), "it asks for no runtime and for no server");
    assert!(with().prefix("a{b").build().is_err());
    assert!(with().lease(millis(99)).build().is_err());
    assert!(with().ttl(millis(0)).build().is_err());
    assert!(with().poll(millis(0)).build().is_err());
    let other = |url| RedisStores::builder(url, Keyring::new(super::KEY)).build();
    assert!(other("http://127.0.0.1/").is_err());
    assert!(other("127.0.0.1").is_err());
}
