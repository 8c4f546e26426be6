//! `RedisStore` against a real server, of which each test has its own.

mod cluster;
mod config;
mod conformance;
mod ends;
mod leases;
mod leftovers;
mod names;
mod outages;
mod records;
mod replicas;
mod restarts;
mod rights;
mod saves;
mod scripts;
mod secrets;
mod sentinel;
mod stalled;
mod tls;
mod waiting;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use redis::Commands;
use testing::RedisServer;
use tokio::{task::yield_now, time::timeout};
use tower_refresh::{
    Generation, Tokens,
    store::{
        Keyring, Lease, Leased, Record, RedisStore, RedisStores, RedisStoresBuilder, TokenStore,
    },
};

const KEY: [u8; 32] = [7; 32];
/// The name of the record, where there is one only, and its keys.
const NAME: &str = "alice";
const RECORD: &str = "tower-refresh:{alice}";
const LEASE: &str = "tower-refresh:{alice}:lease";

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// With time enough for a command on a machine that has other things to do.
fn builder(server: &RedisServer) -> RedisStoresBuilder {
    RedisStores::builder(server.url(), Keyring::new(KEY)).timeout(millis(10_000))
}

/// With times that are short enough to be waited for.
fn brief(server: &RedisServer) -> RedisStoresBuilder {
    builder(server).lease(millis(1000)).intent(millis(2000)).poll(millis(50))
}

/// A store with connections of its own, as another process has.
fn open(server: &RedisServer) -> RedisStore {
    builder(server).build().unwrap().store(NAME)
}

fn record(generation: u64) -> Record {
    Record::new(Generation::new(generation), testing::tokens(generation))
}

async fn sign_in(store: &impl TokenStore) {
    store.save(Generation::ZERO, record(1)).await.unwrap();
}

/// The lease of a record that is no newer than that.
async fn lease(store: &impl TokenStore, seen: u64) -> Box<dyn Lease> {
    match soon(store.lease(Generation::new(seen))).await.unwrap() {
        Leased::Lease(lease) => lease,
        leased => panic!("{leased:?} is newer than {seen}"),
    }
}

/// What has to come comes within a time that no machine needs.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("it never comes")
}

/// Watches until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    #[allow(clippy::disallowed_methods, reason = "real processes know no paused clock")]
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never {what}");
        yield_now().await;
    }
}

/// Waits until that many connections listen to the record's channel.
async fn listening(connection: &mut redis::Connection, count: usize) {
    until("enough that listen", || listeners(connection) >= count).await;
}

fn listeners(connection: &mut redis::Connection) -> usize {
    let mut command = redis::cmd("PUBSUB");
    command.arg("NUMSUB").arg("tower-refresh:{alice}:wake");
    let (_, count): (String, usize) = command.query(connection).unwrap();
    count
}

/// Waits until there were so many scripts: a waiter that listens has looked once more since, and
/// finds nothing without being told.
async fn looked(connection: &mut redis::Connection, count: usize) {
    until("enough that look", || looks(connection) >= count).await;
}

/// How many scripts were run, or were asked for before the server knew them.
fn looks(connection: &mut redis::Connection) -> usize {
    calls(connection, "evalsha") + calls(connection, "eval")
}

/// How often a command was called.
fn calls(connection: &mut redis::Connection, command: &str) -> usize {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("commandstats").query(connection).unwrap();
    let name = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

fn lease_is_there(connection: &mut redis::Connection) -> bool {
    connection.exists(LEASE).unwrap()
}

fn access(tokens: &Option<Tokens>) -> Option<&str> {
    tokens.as_ref().map(Tokens::access_token)
}
