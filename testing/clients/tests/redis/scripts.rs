//! The scripts by hand: what they do when they come twice, late, or in an order that is
//! hard to bring about.

use redis::{Commands, Connection, FromRedisValue, Script};

use super::{LEASE, RECORD, RedisServer};

const ACQUIRE: &str = include_str!("../../../../src/store/redis/acquire.lua");
const INTEND: &str = include_str!("../../../../src/store/redis/intend.lua");
const RENEW: &str = include_str!("../../../../src/store/redis/renew.lua");
const RELEASE: &str = include_str!("../../../../src/store/redis/release.lua");
const SAVE: &str = include_str!("../../../../src/store/redis/save.lua");
const DELETE: &str = include_str!("../../../../src/store/redis/delete.lua");

/// Milliseconds that no test takes.
const LONG: &str = "600000";

fn run<T: FromRedisValue>(connection: &mut Connection, script: &str, arguments: &[&str]) -> T {
    let script = Script::new(script);
    let mut call = script.key(RECORD);
    call.key(LEASE);
    for argument in arguments {
        call.arg(*argument);
    }
    call.invoke(connection).unwrap()
}

/// Takes the lease, and says under which number.
fn acquire(connection: &mut Connection, owner: &str) -> String {
    acquire_at(connection, owner, "1")
}

/// The same, of a record that is no newer than that.
fn acquire_at(connection: &mut Connection, owner: &str, known: &str) -> String {
    let (word, fence, _): (String, String, Option<String>) =
        run(connection, ACQUIRE, &[known, owner, LONG, LONG, "1"]);
    assert_eq!(word, "held");
    fence
}

fn sign_in(connection: &mut Connection, expected: &str, generation: &str) -> String {
    run(connection, SAVE, &["", expected, generation, generation, LONG, "wake"])
}

#[test]
fn a_command_that_comes_twice_is_done_once() {
    let server = RedisServer::start();
    let connection = &mut server.connection();
    assert_eq!(sign_in(connection, "0", "1"), "saved");
    assert_eq!(sign_in(connection, "0", "1"), "saved", "its answer was lost");
    let fence = acquire(connection, "one");
    assert_eq!(acquire(connection, "one"), fence, "its answer was lost");
    let others: (String, i64) = run(connection, ACQUIRE, &["1", "two", LONG, LONG, "1"]);
    assert_eq!(others.0, "wait");
    let save = [&*fence, "1", "2", "2", LONG, "wake"];
    assert_eq!(run::<String>(connection, SAVE, &save), "saved");
    assert_eq!(run::<String>(connection, SAVE, &save), "saved", "its answer was lost");
    // It does not end the next holder's lease.
    let next = acquire_at(connection, "two", "2");
    assert_eq!(run::<String>(connection, SAVE, &save), "saved", "its answer was lost");
    assert_eq!(connection.get::<_, String>(LEASE).unwrap(), "two");
    let save = [&*next, "2", "3", "3", LONG, "wake"];
    assert_eq!(run::<String>(connection, SAVE, &save), "saved");
}

#[test]
fn a_renewal_never_shortens_and_always_ends() {
    let server = RedisServer::start();
    let connection = &mut server.connection();
    let fence = acquire(connection, "one");
    let renewed: String = run(connection, RENEW, &["one", &fence, "1000", LONG]);
    assert_eq!(renewed, "held");
    assert!(connection.pttl::<_, i64>(LEASE).unwrap() > 100_000);
    let _: () = connection.del(LEASE).unwrap();
    let renewed: String = run(connection, RENEW, &["one", &fence, LONG, LONG]);
    assert_eq!(renewed, "held");
    assert!(connection.pttl::<_, i64>(LEASE).unwrap() > 100_000, "it is held for ever");
}

#[test]
fn what_is_written_ends_the_intent() {
    let server = RedisServer::start();
    let connection = &mut server.connection();
    assert_eq!(sign_in(connection, "0", "1"), "saved");
    let intends = |connection: &mut Connection, fence: &str, intent: &str| {
        let held: String = run(connection, INTEND, &["one", fence, intent, LONG, LONG]);
        assert_eq!(held, "held");
        assert!(connection.hexists::<_, _, bool>(RECORD, "i").unwrap());
    };
    let is_open =
        |connection: &mut Connection| -> bool { connection.hexists(RECORD, "i").unwrap() };
    let fence = acquire(connection, "one");
    intends(connection, &fence, "1 open");
    assert_eq!(sign_in(connection, "1", "2"), "saved");
    assert!(!is_open(connection));
    intends(connection, &fence, "2 open");
    let (generation, document): (String, Option<String>) =
        run(connection, DELETE, &[LONG, "wake", "1"]);
    assert_eq!((&*generation, document.as_deref()), ("3", Some("2")));
    assert!(!is_open(connection));
    intends(connection, &fence, "3 open");
    let arguments = [&*fence, "3", "4", "", LONG, "wake"];
    assert_eq!(run::<String>(connection, SAVE, &arguments), "saved");
    assert!(!is_open(connection));
}

/// Saved as signed out, rather than deleted.
#[test]
fn a_record_without_tokens_leaves_none() {
    let server = RedisServer::start();
    let connection = &mut server.connection();
    assert_eq!(sign_in(connection, "0", "1"), "saved");
    let saved: String = run(connection, SAVE, &["", "1", "2", "", LONG, "wake"]);
    assert_eq!(saved, "saved");
    assert!(!connection.hexists::<_, _, bool>(RECORD, "d").unwrap());
}

/// A lease without an owner waits for its last holder, and for no other.
#[test]
fn who_was_overtaken_does_not_give_away_what_is_nobodys() {
    let server = RedisServer::start();
    let connection = &mut server.connection();
    let first = acquire(connection, "one");
    let _: () = connection.del(LEASE).unwrap();
    let second = acquire(connection, "two");
    let held: String = run(connection, INTEND, &["two", &second, "1 open", LONG, LONG]);
    assert_eq!(held, "held");
    let _: () = connection.del(LEASE).unwrap();
    let (word, _): (String, i64) = run(connection, ACQUIRE, &["1", "three", LONG, LONG, "1"]);
    assert_eq!(word, "wait");
    for script in [RELEASE, RENEW] {
        let late: String = run(connection, script, &["one", &first, LONG, "wake"]);
        assert_eq!(late, "lost");
        assert_eq!(connection.get::<_, String>(LEASE).unwrap(), "");
    }
    let back: String = run(connection, RENEW, &["two", &second, LONG, LONG]);
    assert_eq!(back, "held");
}
