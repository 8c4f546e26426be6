//! A Redis user with few rights: those that are given to most are enough, and for want of a
//! right nothing is spent that cannot be saved.

use std::{error::Error, time::Duration};

use redis::Commands;
use testing::{Auth, Logs, tokens};
use tower_refresh::{
    Generation, RefreshState,
    store::{Keyring, Leased, RedisStores, StoreError, TokenStore},
};

use super::{
    KEY, NAME, RECORD, RedisServer, access, calls, lease, listeners, listening, millis, open,
    record, sign_in, soon, until,
};

/// What the docs say.
pub(crate) const ENOUGH: &str =
    "+@read +@write +@scripting +@pubsub ~tower-refresh:* resetchannels &tower-refresh:*";

/// A URL with a user who has these rights and no more.
pub(crate) fn url(server: &RedisServer, rights: &str) -> String {
    give(&mut server.connection(), rights);
    server.url().replace("redis://", "redis://few:password@")
}

fn give(connection: &mut redis::Connection, rights: &str) {
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", "few", "reset", "on", ">password"]);
    command.arg(rights.split(' ').collect::<Vec<_>>()).exec(connection).unwrap();
}

fn stores(url: String) -> tower_refresh::store::RedisStoresBuilder {
    RedisStores::builder(url, Keyring::new(KEY)).timeout(millis(10_000))
}

/// What the server has refused. The client's library also tells its name and version, and goes
/// on where that is refused: it is left out.
fn refused(connection: &mut redis::Connection) -> Vec<String> {
    let log: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::cmd("ACL").arg("LOG").query(connection).unwrap();
    let objects = log.iter().map(|entry| redis::from_redis_value(entry["object"].clone()).unwrap());
    objects.filter(|object: &String| !object.starts_with("client")).collect()
}

#[tokio::test]
async fn the_rights_that_people_give_are_enough() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let brief = || stores(url(&server, ENOUGH)).lease(millis(1000)).intent(millis(2000));
    let hour = Duration::from_secs(3600);
    let (store, other) = (brief().build().unwrap(), brief().poll(hour).build().unwrap());
    let (store, other) = (store.store(NAME), other.store(NAME));
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    let waiter = tokio::spawn(async move { other.lease(Generation::new(1)).await.unwrap() });
    listening(&mut connection, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    let before = calls(&mut connection, "evalsha");
    until("renewed", || calls(&mut connection, "evalsha") > before + 2).await;
    assert!(holder.is_held());
    holder.save(Generation::new(1), record(2)).await.unwrap();
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Newer(_)));
    lease(&store, 2).await.release(None).await;
    // A stalled holder's lease is taken over.
    let mut stalled = lease(&store, 2).await;
    stalled.intend(Generation::new(2)).await.unwrap();
    drop(stalled);
    assert!(lease(&store, 2).await.open_redeem().is_some());
    assert_eq!(access(&store.delete().await.unwrap().tokens), Some("access-2"));
    assert_eq!(access(&store.load().await.unwrap().tokens), None);
    until("unsubscribed", || listeners(&mut connection) == 0).await;
    assert_eq!(refused(&mut connection), Vec::<String>::new());
}

/// A connection on which nothing comes for long is asked for a sign of life.
#[tokio::test]
async fn a_silent_connection_needs_no_further_right() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let hour = Duration::from_secs(3600);
    let holder = lease(&open(&server), 0).await;
    let store = stores(url(&server, ENOUGH)).poll(hour).timeout(hour).build().unwrap().store(NAME);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    listening(&mut connection, 1).await;
    let before = listener(&mut connection);
    tokio::time::pause();
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(11)).await;
        if calls(&mut connection, "unsubscribe") >= 3 {
            break;
        }
    }
    tokio::time::resume();
    assert!(calls(&mut connection, "unsubscribe") >= 3, "it is not asked");
    assert_eq!(listener(&mut connection), before, "it was given up");
    assert_eq!(refused(&mut connection), Vec::<String>::new());
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

/// The name of the connection that messages come on.
fn listener(connection: &mut redis::Connection) -> String {
    let mut command = redis::cmd("CLIENT");
    let list: String = command.arg(&["LIST", "TYPE", "pubsub"]).query(connection).unwrap();
    list.split(' ').next().unwrap().to_owned()
}

/// Everything that the error was caused by.
fn said(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        said = format!("{said}: {error}");
        next = error.source();
    }
    said
}

/// Whichever it is: it can be done without, or the error says which it is, and no refresh token
/// is spent whose successor cannot be saved.
#[tokio::test]
async fn without_a_right_nothing_is_spent_and_the_error_names_the_command() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let whole = open(&server);
    sign_in(&whole).await;
    let spared = ["publish", "subscribe", "unsubscribe", "exists", "del", "time", "script", "ping"];
    let needed = ["evalsha", "eval", "get", "set", "hget", "hmget", "hset", "hdel", "hincrby"];
    let all = spared.iter().chain(&needed).chain(&["pttl", "pexpire"]);
    for command in all {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
        let store = stores(url(&server, &format!("{ENOUGH} -{command}"))).build().unwrap();
        let store = store.store(NAME);
        let before = whole.load().await.unwrap();
        let auth = Auth::new();
        let state = RefreshState::builder(auth.refresher()).store(store.clone()).build();
        let mut outcome = Ok(());
        while auth.count() == 0 && outcome.is_ok() {
            outcome = soon(state.refresh()).await.map(drop);
        }
        soon(state.drain()).await;
        let after = whole.load().await.unwrap();
        let moved = after.generation > before.generation;
        assert_eq!((auth.count() == 1, outcome.is_ok()), (moved, moved), "{command}");
        // What a sign-out is refused, it has not half done.
        let deleted = store.delete().await;
        let errors =
            [outcome.as_ref().err().map(|e| said(e)), deleted.as_ref().err().map(|e| said(e))];
        for said in errors.into_iter().flatten() {
            let named = said.contains(&format!("may not run {command}"));
            assert!(named || said.contains(&format!(" or {command}")), "{command}: {said}");
            assert!(said.contains(ENOUGH), "{command}: {said}");
        }
        assert!(!(spared.contains(command) && (outcome.is_err() || deleted.is_err())), "{command}");
        give(&mut connection, ENOUGH);
        if deleted.is_err() {
            let left = whole.load().await.unwrap();
            assert_eq!(left, after, "{command}");
        }
        let _: () = connection.del(&[RECORD, super::LEASE]).unwrap();
        sign_in(&whole).await;
    }
}

fn source(error: &StoreError) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn keys_of_another_prefix_are_named() {
    let server = RedisServer::start();
    let rights = ENOUGH.replace("tower-refresh", "another");
    let store = stores(url(&server, &rights)).build().unwrap().store(NAME);
    for error in [
        store.load().await.unwrap_err(),
        store.lease(Generation::ZERO).await.map(drop).unwrap_err(),
    ] {
        let said = source(&error);
        assert!(said.contains("keys") && said.contains("~tower-refresh:*"), "{said}");
    }
    let own = stores(url(&server, &rights)).prefix("another").build().unwrap().store(NAME);
    sign_in(&own).await;
    let refused = stores(url(&server, ENOUGH)).prefix("another").build().unwrap().store(NAME);
    let said = source(&refused.load().await.unwrap_err());
    assert!(said.contains("~another:*") && said.contains("&another:*"), "{said}");
}

/// Waiters look instead; the operator is told once.
#[tokio::test]
async fn wake_up_calls_that_are_refused_are_warned_of() {
    let (logs, _guard) = Logs::capture();
    let server = RedisServer::start();
    let mut connection = server.connection();
    let at = format!("{}1", url(&server, &format!("{ENOUGH} +select")));
    let store = stores(at).poll(millis(50)).build().unwrap().store(NAME);
    let holder = lease(&store, 0).await;
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    listening(&mut connection, 1).await;
    give(&mut connection, ENOUGH);
    let attempts = |connection: &mut redis::Connection| {
        let log: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("ACL").arg("LOG").query(connection).unwrap();
        log.iter().any(|entry| entry["count"] == redis::Value::Int(3))
    };
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).exec(&mut connection).unwrap();
    until("refused", || attempts(&mut connection)).await;
    assert_eq!(logs.count(&["WARN", "may not run select", "+select"]), 1, "{}", logs.text());
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

/// What else a URL asks for is a right more.
#[tokio::test]
async fn a_database_of_another_number_needs_the_right_to_select() {
    let server = RedisServer::start();
    let at = |rights: &str| format!("{}1", url(&server, rights));
    let store = stores(at(ENOUGH)).build().unwrap().store(NAME);
    let said = source(&store.load().await.unwrap_err());
    assert!(said.contains("may not run select") && said.ends_with("+select"), "{said}");
    let store = stores(at(&format!("{ENOUGH} +select"))).build().unwrap().store(NAME);
    sign_in(&store).await;
}

#[tokio::test]
async fn a_cluster_needs_the_rights_to_ask_where_keys_are() {
    let server = RedisServer::start_cluster();
    let rights = format!("{ENOUGH} +cluster|slots +readonly +ping");
    let stores = RedisStores::cluster([url(&server, &rights)], Keyring::new(KEY));
    let store = stores.timeout(millis(5000)).build().unwrap().store(NAME);
    sign_in(&store).await;
    lease(&store, 1).await.save(Generation::new(1), record(2)).await.unwrap();
    assert_eq!(access(&store.delete().await.unwrap().tokens), Some("access-2"));
    assert_eq!(refused(&mut server.connection()), Vec::<String>::new());
}

/// Tokens that were there before a right was taken away go on being used.
#[tokio::test]
async fn a_right_that_is_taken_away_costs_no_token() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = stores(url(&server, ENOUGH)).build().unwrap().store(NAME);
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .tokens(tokens(1))
        .cool_down(millis(10), millis(50))
        .build();
    state.token().await.unwrap();
    auth.gate.close();
    let refreshing = std::sync::Arc::clone(&state);
    tokio::spawn(async move { refreshing.refresh().await });
    auth.gate.arrived(1).await;
    give(&mut connection, &ENOUGH.replace("+@write", "-@write"));
    auth.gate.open();
    let failure = soon(state.refresh()).await.unwrap_err();
    assert!(said(&failure).contains("may not run hset"), "{}", said(&failure));
    assert_eq!(state.current().access_token(), Some("access-1"));
    give(&mut connection, ENOUGH);
    let mut current = state.subscribe();
    let published = current.wait_for(|now| now.access_token() == Some("access-2"));
    soon(published).await.unwrap();
    soon(state.drain()).await;
    auth.assert_sound();
    assert_eq!(auth.count(), 1);
}
