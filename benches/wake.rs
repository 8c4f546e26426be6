//! How long after a save the last of those who wait for the lease has the new token.
//!
//! ```text
//! cargo bench -p benches --bench wake --features redis
//! ```
//!
//! One store holds the lease and saves; 1, 16 or 128 others, each with connections of its
//! own, wait, all in one process over one Redis that writes each change to the disk. Shown
//! are medians of the time from the save's answer until the last has the token, and their
//! ratio to a round trip (`PING`) in the same run. The other contestant only looks: every
//! 50 ms it tries to set the lock, and if another store has it, whether there is something newer.

use std::time::{Duration, Instant};

use benches::time::{median, now};
use redis::aio::ConnectionManager;
use testing::RedisServer;
use tokio::{task::JoinSet, time::sleep};
use tower_refresh::{
    Tokens,
    store::{Keyring, Leased, Record, RedisStore, RedisStores, TokenStore},
};

const WAITING: [usize; 3] = [1, 16, 128];
const ROUNDS: u64 = 21;
const EVERY: Duration = Duration::from_millis(50);
const NAME: &str = "wake";

fn main() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ping = ping(&server).await;
        println!("from a save until the last who waits has the token; a PING takes {ping:.3} ms\n");
        println!("| waiting | this store, ms | to a PING | looking every 50 ms | to a PING |");
        println!("|--:|--:|--:|--:|--:|");
        for waiting in WAITING {
            let woken = woken(&server, waiting).await;
            let looking = looking(&server, waiting).await;
            println!(
                "| {waiting} | {woken:.3} | {:.1} | {looking:.3} | {:.1} |",
                woken / ping,
                looking / ping
            );
        }
    });
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn connect(server: &RedisServer) -> ConnectionManager {
    let client = redis::Client::open(server.url()).expect("a URL");
    ConnectionManager::new(client).await.expect("a connection")
}

async fn ping(server: &RedisServer) -> f64 {
    let mut connection = connect(server).await;
    let mut times = Vec::new();
    for _ in 0..1000 {
        let begun = now();
        redis::cmd("PING").exec_async(&mut connection).await.expect("an answer");
        times.push(millis(begun.elapsed()));
    }
    median(times)
}

/// When the last of them was done, counted from then.
async fn last(waiters: JoinSet<Instant>, begun: Instant) -> f64 {
    let done = waiters.join_all().await.into_iter().max().expect("some store waits");
    millis(done.saturating_duration_since(begun))
}

fn open(server: &RedisServer) -> RedisStore {
    let stores = RedisStores::builder(server.url(), Keyring::new([7; 32]));
    // No store looks without having been told to.
    let hour = Duration::from_secs(3600);
    stores.lease(hour).poll(hour).build().expect("a URL").store(NAME)
}

async fn woken(server: &RedisServer, waiting: usize) -> f64 {
    let mut connection = connect(server).await;
    let holder = open(server);
    let mut seen = holder.load().await.expect("a record").generation;
    let stores: Vec<RedisStore> = (0..waiting).map(|_| open(server)).collect();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let Leased::Lease(mut lease) = holder.lease(seen).await.expect("the lease") else {
            panic!("nobody else saves");
        };
        let mut waiters = JoinSet::new();
        for store in &stores {
            let store = store.clone();
            waiters.spawn(async move {
                match store.lease(seen).await.expect("what is newer") {
                    Leased::Newer(_) => now(),
                    _ => panic!("two leases at once"),
                }
            });
        }
        listening(&mut connection, waiting).await;
        let record = Record::new(seen.next(), Tokens::new("access").with_refresh_token("refresh"));
        lease.save(seen, record).await.expect("a save");
        times.push(last(waiters, now()).await);
        lease.release(None).await;
        seen = seen.next();
        listening(&mut connection, 0).await;
    }
    median(times)
}

/// Waits until so many listen, and have looked once more since.
async fn listening(connection: &mut ConnectionManager, count: usize) {
    loop {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(format!("tower-refresh:{{{NAME}}}:wake"));
        let (_, listening): (String, usize) =
            command.query_async(connection).await.expect("an answer");
        sleep(Duration::from_millis(20)).await;
        if listening == count {
            return;
        }
    }
}

async fn looking(server: &RedisServer, waiting: usize) -> f64 {
    let mut holder = connect(server).await;
    let mut connections = Vec::new();
    for _ in 0..waiting {
        connections.push(connect(server).await);
    }
    let mut times = Vec::new();
    for seen in 0..ROUNDS {
        let mut save = redis::pipe();
        save.cmd("SET").arg("lock").arg("holder").cmd("SET").arg("generation").arg(seen);
        save.exec_async(&mut holder).await.expect("a save");
        let mut waiters = JoinSet::new();
        for connection in &connections {
            let mut connection = connection.clone();
            waiters.spawn(async move {
                // They have not begun at the same moment.
                sleep(EVERY.mul_f64(fastrand::f64())).await;
                loop {
                    let mut look = redis::pipe();
                    look.cmd("SET").arg("lock").arg("waiter").arg("NX").ignore();
                    look.cmd("GET").arg("generation");
                    let (found,): (u64,) =
                        look.query_async(&mut connection).await.expect("an answer");
                    if found > seen {
                        return now();
                    }
                    sleep(EVERY).await;
                }
            });
        }
        sleep(2 * EVERY + EVERY.mul_f64(fastrand::f64())).await;
        let mut save = redis::cmd("SET");
        save.arg("generation").arg(seen + 1).exec_async(&mut holder).await.expect("a save");
        times.push(last(waiters, now()).await);
    }
    median(times)
}
