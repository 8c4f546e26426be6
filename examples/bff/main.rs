//! Browser sessions, whole: an application whose browsers hold one cookie while the tokens stay on the
//! server, and a page that shows what happens when a token runs out under a hundred requests.
//!
//! ```text
//! cargo run -p examples --example bff                    prints an address: open it in a browser
//! cargo run -p examples --example bff -- --check         the same without a browser
//! cargo run -p examples --example bff -- --help
//! ```
//!
//! To copy it, turn on the features `axum`, `oauth2-client`, `session`, and `file`, `redis` or
//! `postgres` for the stores of those names.
//!
//! | file | what is in it | |
//! |---|---|---|
//! | `app.rs` | the application: its routes, its sessions | to copy |
//! | `sign_in.rs` | the sign-in with OpenID Connect | to copy |
//! | `logout.rs` | the check that the provider has signed a logout token | to copy |
//! | `page.html` | the page, and its script | |
//! | `server.rs`, `signer.rs`, `api.rs` | an authorization server and an API, strict ones | |
//! | `timeline.rs` | what happens to requests, for the page | |
//! | `balancer.rs` | a round-robin proxy in front of several replicas | |
//! | `check.rs` | `--check`: a browser without a screen | |
//! | `options.rs` | the command line | |

mod api;
mod app;
mod balancer;
mod check;
mod logout;
mod options;
mod server;
mod sign_in;
mod signer;
mod timeline;

use std::{env, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use testing::{PostgresServer, RedisServer};
use tokio::{net::TcpListener, time::timeout};
use tower_refresh::{
    BoxError,
    seal::Keyring,
    session::Sessions,
    store::{FileStores, MemoryStores, PostgresStores, RedisStores, Stores},
};

use self::{
    app::{App, BACK_CHANNEL, Config},
    options::{Kind, Options},
    server::Server,
    timeline::Timeline,
};

/// How long the end waits for refreshes that are under way.
const DRAIN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options = match Options::read(&arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{}", options::HELP);
            return ExitCode::FAILURE;
        }
    };
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("failed: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool, BoxError> {
    // The port is known first: it is in the redirect URI and in the cookie's name.
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    let port = listener.local_addr()?.port();
    // By this name, since browsers take cookies that are `Secure` from it without TLS.
    let address = format!("http://localhost:{port}");

    let timeline = Timeline::default();
    let redirect_uri = format!("{address}/callback");
    let logout_uri = format!("{address}{BACK_CHANNEL}");
    let latency = if options.check { [20, 100] } else { [120, 500] }.map(Duration::from_millis);
    let uris = (redirect_uri.clone(), logout_uri);
    let server = Server::start(uris, options.life, latency[1], timeline.clone()).await?;
    let api = api::start(server.clone(), latency[0], timeline.clone()).await?;

    let place = Place::open(options.store).await?;
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let (mode, keys) = (options.mode, Keyring::new(key));
    let config = Config { mode, keys, port, redirect_uri, api: api.clone() };
    let mut replicas = Vec::new();
    for _ in 0..options.replicas {
        let stores = place.stores(&config.keys)?;
        replicas.push(App::new(&config, stores, server.clone(), timeline.clone()).await?);
    }
    let sessions: Vec<_> = replicas.iter().map(|app| app.sessions().clone()).collect();
    serve(listener, replicas).await?;

    let good = if options.check {
        check::run(&address, options, (&server, &api)).await?
    } else {
        println!("open {address} in a browser");
        tokio::signal::ctrl_c().await?;
        true
    };
    drain(sessions).await;
    Ok(good)
}

/// One replica listens itself. Several have ports of their own, and a proxy in front.
async fn serve(listener: TcpListener, replicas: Vec<App>) -> Result<(), BoxError> {
    let mut routers = Vec::new();
    for app in replicas {
        routers.push(app.router()?);
    }
    let front = match <[Router; 1]>::try_from(routers) {
        Ok([router]) => router,
        Err(routers) => {
            let mut addresses = Vec::new();
            for router in routers {
                let own = TcpListener::bind("127.0.0.1:0").await?;
                addresses.push(own.local_addr()?);
                tokio::spawn(async move { axum::serve(own, router).await });
            }
            balancer::router(addresses)
        }
    };
    tokio::spawn(async move { axum::serve(listener, front).await });
    Ok(())
}

/// What was minted is in the store before the process ends.
async fn drain(sessions: Vec<Sessions>) {
    for sessions in sessions {
        match timeout(DRAIN, sessions.drain()).await {
            Ok(drained) if !drained.unsaved => {}
            _ => eprintln!("a refresh was under way, and its tokens are not saved"),
        }
    }
}

/// Where the tokens are. Servers end with it.
struct Place {
    kind: Kind,
    memory: MemoryStores,
    folder: tempfile::TempDir,
    redis: Option<RedisServer>,
    postgres: Option<PostgresServer>,
}

impl Place {
    async fn open(kind: Kind) -> Result<Self, BoxError> {
        let place = Self {
            kind,
            memory: MemoryStores::new(),
            folder: tempfile::tempdir()?,
            redis: (kind == Kind::Redis).then(RedisServer::start),
            postgres: (kind == Kind::Postgres).then(PostgresServer::start),
        };
        if let Some(postgres) = &place.postgres {
            // The keys are not needed for it.
            let stores = PostgresStores::builder(postgres.url(), Keyring::new([0; 32])).build()?;
            stores.migrate().await?;
        }
        Ok(place)
    }

    /// The stores of one replica, with a connection of its own.
    fn stores(&self, keys: &Keyring) -> Result<Arc<dyn Stores>, BoxError> {
        Ok(match (self.kind, &self.redis, &self.postgres) {
            (_, Some(redis), _) => {
                Arc::new(RedisStores::builder(redis.url(), keys.clone()).build()?)
            }
            (_, _, Some(postgres)) => {
                Arc::new(PostgresStores::builder(postgres.url(), keys.clone()).build()?)
            }
            (Kind::File, ..) => {
                Arc::new(FileStores::open(self.folder.path())?.sealed(keys.clone()))
            }
            _ => Arc::new(self.memory.clone()),
        })
    }
}
