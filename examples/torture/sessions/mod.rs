//! Browser sessions by torture: tabs of many users send requests to replicas that are killed and
//! stopped, over a store that is killed and started again, while users sign out in the middle of
//! refreshes and tabs are closed in the middle of requests.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | the parent: starts everything, breaks it, reads the books |
//! | `server.rs` | the authorization server and the API, for many users |
//! | `worker.rs` | a replica of the application |
//! | `browser.rs` | a user's tabs, and what they may not see |

mod browser;
mod server;
pub(crate) mod worker;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use rustix::process::Signal;
use testing::{PostgresServer, RedisServer};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower_refresh::{
    BoxError,
    store::{FileStores, Keyring, PostgresStores, RedisStores, Stores},
};

use self::{browser::Seen, server::Server};
use crate::{SETTLE, children::Child};

/// The time limits of a lease and of its intent: short, so that they run out now and then. After a
/// restart of PostgreSQL a replica has one lease time to come back with the tokens that it was given.
const LEASE: Duration = Duration::from_millis(1000);
const INTENT: Duration = Duration::from_millis(2000);

/// For how long a response is on its way at most: so short that sealed sessions' tokens are forgotten
/// now and then.
const TRANSIT: Duration = Duration::from_secs(5);

pub(crate) const HELP: &str = "\
usage: torture sessions [OPTIONS]

Browsers with several tabs, replicas of an application that are killed and stopped, and a store that
is killed and started again. Ends with a table and
  sessions=... requests=... redeems=... token_reuse=... sessions_lost=... unavoidable=... back=... mixed_up=...
and exits with 1 if a refresh token came twice or a session was lost without need, if one that was
signed out came back, or if a tab was served as another user.

  --mode opaque|sealed         where the tokens are              [opaque]
  --store file|redis|postgres  what the replicas share           [file]
  --replicas N         how many replicas                         [3]
  --sessions N         how many users                            [50]
  --tabs N             how many tabs each has                    [4]
  --seconds N          how long                                  [60]
  --seed N             for the same faults in the same order     [at random]
";

struct Options {
    mode: String,
    store: String,
    replicas: usize,
    sessions: usize,
    tabs: usize,
    time: Duration,
    seed: u64,
}

impl Options {
    /// `None`: help was asked for.
    fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            mode: "opaque".to_owned(),
            store: "file".to_owned(),
            replicas: 3,
            sessions: 50,
            tabs: 4,
            time: Duration::from_secs(60),
            seed: fastrand::u64(..1_000_000),
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{value} is no number"));
            match name.as_str() {
                "--mode" if ["opaque", "sealed"].contains(&value.as_str()) => {
                    options.mode.clone_from(value);
                }
                "--mode" => return Err(format!("there is no mode {value}")),
                "--store" if ["file", "redis", "postgres"].contains(&value.as_str()) => {
                    options.store.clone_from(value);
                }
                "--store" => return Err(format!("there is no store {value}")),
                "--replicas" => options.replicas = number()?.clamp(1, 16) as usize,
                "--sessions" => options.sessions = number()?.clamp(1, 1000) as usize,
                "--tabs" => options.tabs = number()?.clamp(1, 64) as usize,
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        Ok(Some(options))
    }
}

fn keys() -> Keyring {
    Keyring::new(*b"a key that only this example has")
}

/// The stores that `file:<path>` or the URL of a server names, as all replicas see them.
fn open(place: &str) -> Result<Arc<dyn Stores>, BoxError> {
    let keys = keys();
    let limit = Duration::from_millis(250);
    if let Some(path) = place.strip_prefix("file:") {
        return Ok(Arc::new(FileStores::open(path)?.sealed(keys)));
    }
    if place.starts_with("redis") {
        let stores = RedisStores::builder(place, keys).lease(LEASE).intent(INTENT);
        return Ok(Arc::new(stores.timeout(limit).build()?));
    }
    let stores = PostgresStores::builder(place, keys).lease(LEASE).intent(INTENT);
    Ok(Arc::new(stores.timeout(limit).build()?))
}

enum StoreServer {
    None,
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl StoreServer {
    async fn restart(&mut self, pause: Duration) {
        match self {
            Self::None => {}
            Self::Redis(redis) => {
                redis.kill();
                sleep(pause).await;
                redis.start_again();
            }
            Self::Postgres(postgres) => {
                postgres.kill();
                sleep(pause).await;
                postgres.start_again();
            }
        }
    }
}

/// Where the replicas are now. Browsers go from one to the next.
#[derive(Clone, Default)]
pub(crate) struct Replicas(Arc<Mutex<Vec<String>>>);

impl Replicas {
    fn set(&self, at: usize, address: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(at) {
            Some(known) => *known = address,
            None => all.push(address),
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn any(&self) -> String {
        let all = self.all();
        all[fastrand::usize(..all.len())].clone()
    }
}

struct Torture {
    random: Rng,
    server: Server,
    mode: String,
    place: String,
    store: StoreServer,
    workers: Vec<Child>,
    started: u64,
    replicas: Replicas,
    kills: u64,
    stops: u64,
    restarts: u64,
}

impl Torture {
    async fn start_worker(&mut self, at: usize) -> Result<(), BoxError> {
        self.started += 1;
        let id = self.started.to_string();
        let arguments = ["session-worker", &id, self.server.address(), &self.mode, &self.place];
        let mut worker = Child::start(self.started, &arguments)?;
        self.replicas.set(at, timeout(SETTLE, worker.first_line()).await??);
        worker.follow();
        match self.workers.get_mut(at) {
            Some(known) => *known = worker,
            None => self.workers.push(worker),
        }
        Ok(())
    }

    /// A pause, and then one of the faults.
    async fn next(&mut self) -> Result<(), BoxError> {
        sleep(Duration::from_millis(self.random.u64(300..900))).await;
        let at = self.random.usize(..self.workers.len());
        let id = self.workers[at].id;
        match self.random.u32(..4) {
            0 => {
                self.kills += 1;
                self.server.killed(id);
                self.workers[at].killed().await?;
                self.start_worker(at).await?;
            }
            1 => {
                self.stops += 1;
                self.server.stopped(id);
                self.workers[at].signal(Signal::STOP)?;
                let longest = 2 * (LEASE + INTENT).as_millis() as u64;
                sleep(Duration::from_millis(self.random.u64(100..longest))).await;
                self.workers[at].signal(Signal::CONT)?;
                self.server.continued(id);
            }
            2 => {
                let pause = Duration::from_millis(self.random.u64(20..250));
                self.restarts += u64::from(!matches!(self.store, StoreServer::None));
                self.store.restart(pause).await;
            }
            _ => self.server.busy_for(Duration::from_millis(self.random.u64(50..400))),
        }
        Ok(())
    }
}

/// Runs it. `true`: nothing was lost.
pub(crate) async fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let options = match Options::read(arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return Ok(true);
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return Ok(false);
        }
    };
    let folder = tempfile::tempdir()?;
    let (store, place) = match &*options.store {
        "redis" => {
            let server = RedisServer::start();
            let url = server.url();
            (StoreServer::Redis(server), url)
        }
        "postgres" => {
            let server = PostgresServer::start();
            let url = server.url();
            PostgresStores::builder(&url, keys()).build()?.migrate().await?;
            (StoreServer::Postgres(server), url)
        }
        _ => (StoreServer::None, format!("file:{}", folder.path().join("sessions").display())),
    };
    let waits = matches!(store, StoreServer::None);
    let server = Server::start((!waits).then_some(INTENT)).await?;
    let mut torture = Torture {
        random: Rng::with_seed(options.seed),
        server: server.clone(),
        mode: options.mode.clone(),
        place,
        store,
        workers: Vec::new(),
        started: 0,
        replicas: Replicas::default(),
        kills: 0,
        stops: 0,
        restarts: 0,
    };
    for at in 0..options.replicas {
        torture.start_worker(at).await?;
    }
    println!(
        "torture: {} replicas, {} users x {} tabs, {} s, {} over {}, seed {}",
        options.replicas,
        options.sessions,
        options.tabs,
        options.time.as_secs(),
        options.mode,
        options.store,
        options.seed
    );

    let (stop, stopped) = watch::channel(false);
    let seen = Arc::new(Seen::default());
    let mut users = JoinSet::new();
    for user in 0..options.sessions {
        let (replicas, server, seen) = (torture.replicas.clone(), server.clone(), seen.clone());
        let world = (replicas, server, seen, stopped.clone());
        users.spawn(browser::run(format!("user{user}"), options.tabs, world));
    }
    let end = Instant::now() + options.time;
    while Instant::now() < end {
        torture.next().await?;
    }
    // No more faults: everybody comes to rest, and is served.
    stop.send_replace(true);
    let mut settled = true;
    while let Some(user) = timeout(3 * SETTLE, users.join_next()).await? {
        settled &= user?;
    }
    for worker in &mut torture.workers {
        if !timeout(SETTLE, worker.leave()).await?? {
            return Err("a replica has failed".into());
        }
    }
    println!();
    for (count, what) in [
        (torture.kills, "replicas killed"),
        (torture.stops, "replicas stopped for a while"),
        (torture.restarts, "restarts of the store"),
    ] {
        println!("{count:>10}  {what}");
    }
    Ok(seen.report(&server, settled))
}
