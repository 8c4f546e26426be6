//! Cookies that somebody makes up: how many a second, and that nothing is left of them.

use std::{convert::Infallible, fs::read_to_string, time::Duration};

use benches::time::now;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use testing::RedisServer;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{Layer, service_fn};
use tower_refresh::{
    session::{SessionId, SessionSlot, Sessions},
    store::{Keyring, MemoryStores, RedisStores},
};

use crate::{body, requests, sessions, sign_in};

/// From so many connections at once.
const CONNECTIONS: usize = 64;

/// In kibibytes: far less than a word for each cookie.
const GROWTH: u64 = 1024;

/// What somebody who tries ids can send a second.
const AT_LEAST: f64 = 10_000.0;

/// The resident memory, in kibibytes.
fn resident() -> u64 {
    let status = read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends so many, of which each names nothing.
async fn send(sessions: &Sessions, count: usize) {
    let app = sessions.layer().layer(service_fn(async |request: Request<Full<Bytes>>| {
        let slot = request.extensions().get::<SessionSlot>().expect("a slot");
        assert!(slot.session().is_none());
        Ok::<_, Infallible>(body(""))
    }));
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let app = app.clone();
        all.spawn(async move {
            for _ in 0..count / CONNECTIONS {
                let id = SessionId::random().expect("random bytes");
                requests(app.clone(), 1, &format!("__Host-Http-sid={}", id.expose())).await;
            }
        });
    }
    all.join_all().await;
}

/// How many a second. `kept`: how many names the store has.
fn rate(runtime: &Runtime, sessions: &Sessions, count: usize, kept: impl Fn() -> usize) -> f64 {
    runtime.block_on(async {
        // Somebody is signed in, and what is made once is made.
        sign_in(sessions, "alice").await;
        send(sessions, count / 10).await;
        let before = (sessions.status().loaded, kept());
        let memory = resident();
        let begun = now();
        send(sessions, count).await;
        let took = begun.elapsed();
        assert_eq!((sessions.status().loaded, kept()), before, "something is left of them");
        let grown = resident().saturating_sub(memory);
        assert!(grown < GROWTH, "{grown} KiB are left of {count} of them");
        let rate = count as f64 / took.as_secs_f64();
        assert!(rate > AT_LEAST, "{rate:.0} a second");
        rate
    })
}

pub(crate) fn print() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("cookies that name nothing, from {CONNECTIONS} connections, two workers\n");
    println!("| store | how many | a second | left of them |");
    println!("|---|--:|--:|--:|");
    let stores = MemoryStores::new();
    let all = sessions(stores.clone(), Duration::ZERO);
    let (count, kept) = (1_280_000, || stores.len());
    println!("| memory | {count} | {:.0} | nothing |", rate(&runtime, &all, count, kept));

    let server = RedisServer::start();
    let stores = RedisStores::builder(server.url(), Keyring::new([7; 32])).build();
    let all = sessions(stores.expect("stores"), Duration::ZERO);
    let kept = || -> usize {
        let mut connection = server.connection();
        ::redis::cmd("DBSIZE").query(&mut connection).expect("it answers")
    };
    let count = 320_000;
    println!("| Redis | {count} | {:.0} | nothing |\n", rate(&runtime, &all, count, kept));
}
