//! A request with a session that lives in Redis: what Redis is asked, and how long that takes.

use std::{collections::BTreeMap, convert::Infallible, hint::black_box, time::Duration};

use ::redis::Connection;
use benches::time::{least, now, process_cpu};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use testing::RedisServer;
use tokio::{runtime::Runtime, task::JoinSet};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_refresh::store::{Keyring, RedisStores};
use tower_sessions_0_14::{Expiry, Session, SessionManagerLayer, SessionStore, session::Record};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{Client, ClientLike, Config},
};

use crate::{ACCESS, REFRESH, body, requests, sessions, sign_in, time_from_now, whoami};

/// An application, and the cookie of a session that it has in Redis.
struct Contestant {
    name: &'static str,
    app: BoxCloneService<Request<Full<Bytes>>, (), Infallible>,
    cookie: String,
}

/// One connection each, and the same in the record: who it is, and both tokens.
async fn contestants(server: &RedisServer) -> Vec<Contestant> {
    let mut all = vec![tower_sessions(server).await];
    for (name, seconds) in [("this crate", 0), ("this crate, `trust_for`", 10)] {
        let stores = RedisStores::builder(server.url(), Keyring::new([7; 32]));
        let stores = stores.prefix(format!("{seconds}:")).build().expect("stores");
        let sessions = sessions(stores, Duration::from_secs(seconds));
        let cookie = sign_in(&sessions, "alice").await;
        let app = sessions.layer().layer(service_fn(whoami)).map_response(drop);
        all.push(Contestant { name, app: BoxCloneService::new(app), cookie });
    }
    all
}

async fn tower_sessions(server: &RedisServer) -> Contestant {
    let config = Config::from_url(&server.url()).expect("a URL");
    let client = Client::new(config, None, None, None);
    client.init().await.expect("a connection");
    let store = RedisStore::new(client);
    let mut record =
        Record { id: Default::default(), data: Default::default(), expiry_date: time_from_now() };
    for (name, value) in [("sub", "alice"), ("access", ACCESS), ("refresh", REFRESH)] {
        record.data.insert(name.to_owned(), value.into());
    }
    store.create(&mut record).await.expect("a store");
    let layer = SessionManagerLayer::new(store).with_expiry(Expiry::AtDateTime(record.expiry_date));
    let app = layer.layer(service_fn(async |request: Request<Full<Bytes>>| {
        let session = request.extensions().get::<Session>().expect("a session");
        let name = session.get::<String>("sub").await.expect("a store").expect("a name");
        black_box(session.get::<String>("access").await.expect("a store"));
        Ok::<_, Infallible>(body(&name))
    }));
    Contestant {
        name: "tower-sessions 0.14, its Redis store",
        app: BoxCloneService::new(app.map_response(drop)),
        cookie: format!("id={}", record.id),
    }
}

/// How often Redis has been sent each command, but for those that ask this.
fn commands(connection: &mut Connection) -> BTreeMap<String, u64> {
    let mut info = ::redis::cmd("INFO");
    let text: String = info.arg("commandstats").query(connection).expect("it answers");
    let lines = text.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
    let counts = lines.filter_map(|line| {
        let (name, rest) = line.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    counts.filter(|(name, _)| name != "info").collect()
}

/// Each command, and how often it comes a request.
fn asked(server: &RedisServer, runtime: &Runtime, contestant: &Contestant) -> String {
    const COUNT: usize = 1_000;
    let mut connection = server.connection();
    let before = commands(&mut connection);
    runtime.block_on(requests(contestant.app.clone(), COUNT, &contestant.cookie));
    let after = commands(&mut connection);
    let per_request = after.iter().filter_map(|(name, count)| {
        let count = count - before.get(name).unwrap_or(&0);
        (count > 0).then(|| format!("{:.2} {name}", count as f64 / COUNT as f64))
    });
    let per_request = per_request.collect::<Vec<_>>().join(", ");
    if per_request.is_empty() { "none".to_owned() } else { per_request }
}

/// So many tabs at once, with so many requests each.
async fn tabs(contestant: &Contestant, count: usize, each: usize) {
    let mut tabs = JoinSet::new();
    for _ in 0..count {
        let (app, cookie) = (contestant.app.clone(), contestant.cookie.clone());
        tabs.spawn(async move { requests(app, each, &cookie).await });
    }
    tabs.join_all().await;
}

pub(crate) fn print() {
    const ROUNDS: usize = 11;
    const REQUESTS: usize = 2_000;
    const TABS: usize = 40;
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let contestants = runtime.block_on(contestants(&server));
    let mut times = vec![[const { Vec::new() }; 3]; contestants.len()];
    for _ in 0..ROUNDS {
        for (contestant, times) in contestants.iter().zip(&mut times) {
            for (at, tabs) in [1, TABS].into_iter().enumerate() {
                let (begun, used) = (now(), process_cpu());
                runtime.block_on(self::tabs(contestant, tabs, REQUESTS / tabs));
                times[at].push(begun.elapsed().as_secs_f64());
                if tabs == 1 {
                    times[2].push((process_cpu() - used).as_secs_f64());
                }
            }
        }
    }
    let times: Vec<_> = times.into_iter().map(|times| times.map(least)).collect();
    println!("a request, the session in Redis: times are ratios to the first\n");
    println!("| contestant | commands a request | one at a time | {TABS} at once | CPU |");
    println!("|---|---|--:|--:|--:|");
    for (contestant, time) in contestants.iter().zip(&times) {
        let asked = asked(&server, &runtime, contestant);
        let [one, many, cpu] = [0, 1, 2].map(|at| time[at] / times[0][at]);
        println!("| {} | {asked} | {one:.2} | {many:.2} | {cpu:.2} |", contestant.name);
    }
    let micros = times[0][0] * 1e6 / REQUESTS as f64;
    println!("\none request of the first, one at a time, takes {micros:.0} µs\n");
}
