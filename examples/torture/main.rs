//! Proof by torture: processes that share one credential are killed, stopped and cut off,
//! while an authorization server with single-use refresh tokens watches that no token is spent
//! twice and no session is lost.
//!
//! ```sh
//! cargo run --release -p examples --example torture -- --help
//! ```
//!
//! To copy it, turn on the features `axum`, `file`, `oauth2-client`, `postgres`, `redis`, `session-proxy`.
//!
//! | file | what is in it |
//! |---|---|
//! | `main.rs` | the parent: starts everything, breaks it, reads the book |
//! | `options.rs` | the command line |
//! | `server.rs` | the authorization server and the API, a process of their own |
//! | `book.rs` | what was done to which process, and whether that excuses a token that is spent twice |
//! | `worker.rs` | a process with many tasks that use the credential |
//! | `faults.rs` | what is done to them |
//! | `sessions/` | the same for browser sessions: `torture sessions --help` |
//! | `children.rs` | processes that end with this one |

mod book;
mod children;
mod faults;
mod options;
mod server;
mod sessions;
mod worker;

use std::{collections::BTreeMap, env, process::ExitCode, sync::Arc, time::Duration};

use testing::RedisServer;
use tokio::time::{Instant, sleep, timeout};
use tower_refresh::{
    BoxError, RefreshError, RefreshState, Tokens,
    store::{FileStore, Keyring, RedisStores, TokenStore},
};

use self::{
    children::Child,
    faults::Faults,
    options::{Kind, Options},
};

/// The time limits of the Redis lease and of its intent: short, so that there is time left
/// of the server's grace period.
const LEASE: Duration = Duration::from_millis(200);
const INTENT: Duration = Duration::from_millis(600);

/// How long everything may take to begin, and to come to rest in the end.
const SETTLE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match (runtime, arguments.first().map(String::as_str)) {
        (Err(error), _) => Err(error.into()),
        (Ok(runtime), Some("server")) => runtime.block_on(server::run(&arguments[1..])),
        (Ok(runtime), Some("worker")) => runtime.block_on(worker::run(&arguments[1..])),
        (Ok(runtime), Some("sessions")) => runtime.block_on(sessions::run(&arguments[1..])),
        (Ok(runtime), Some("session-worker")) => {
            runtime.block_on(sessions::worker::run(&arguments[1..]))
        }
        (Ok(runtime), _) => match Options::read(&arguments) {
            Ok(Some(options)) => runtime.block_on(torture(&options)),
            Ok(None) => {
                print!("{}", options::HELP);
                Ok(true)
            }
            Err(error) => {
                eprintln!("{error}\n\n{}", options::HELP);
                Ok(false)
            }
        },
    };
    match done {
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

/// Opens the store that `file:<path>` or a Redis URL names, as parent and workers do.
fn open(place: &str) -> Result<Arc<dyn TokenStore>, BoxError> {
    let keys = Keyring::new(*b"a key that only this example has");
    Ok(match place.strip_prefix("file:") {
        Some(path) => Arc::new(FileStore::open(path)?.sealed(keys)),
        None => {
            let stores = RedisStores::builder(place, keys).lease(LEASE).intent(INTENT);
            let stores = stores.timeout(Duration::from_millis(500)).build()?;
            Arc::new(stores.store("torture"))
        }
    })
}

async fn torture(options: &Options) -> Result<bool, BoxError> {
    let folder = tempfile::tempdir()?;
    let redis = (options.store == Kind::Redis).then(RedisServer::start);
    let place = match &redis {
        Some(redis) => redis.url(),
        None => format!("file:{}", folder.path().join("credential.json").display()),
    };
    let grace = options.grace.as_millis().to_string();
    let redis_too = if redis.is_some() { "stalls-count" } else { "stalls-wait" };
    let mut server = Child::start(0, &["server", &grace, redis_too])?;
    let address = server.first_line().await?;
    let book = Book { http: reqwest::Client::new(), address: address.clone() };

    // The user, who signs in, and again when a session is lost.
    let store = open(&place)?;
    let user = RefreshState::builder(async |_: Tokens| {
        Err::<Tokens, _>(RefreshError::transient("the user only signs in"))
    });
    let user = user.store(Arc::clone(&store)).build();
    user.set(book.login().await?).await?;

    let mut faults = Faults::new(options, &address, &place, redis);
    timeout(SETTLE, faults.start_workers()).await??;
    println!(
        "torture: {} processes x {} tasks, {} s, {:?}, grace {} ms, faults: {}, seed {}",
        options.processes,
        options.tasks,
        options.time.as_secs(),
        options.store,
        options.grace.as_millis(),
        options.faults.join(","),
        options.seed,
    );

    let end = Instant::now() + options.time;
    while Instant::now() < end {
        faults.next(&book).await?;
        if let Some(tokens) = book.login_if_dead().await? {
            // Redis may be away just now.
            timeout(SETTLE, async {
                while user.set(tokens.clone()).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await?;
        }
    }
    faults.mend(&book).await?;

    // Every process comes to work again, or a session was lost without a word.
    let rest = Instant::now() + SETTLE;
    let mut settled = false;
    while !settled && Instant::now() < rest {
        if let Some(tokens) = book.login_if_dead().await? {
            user.set(tokens).await?;
        }
        settled = faults.all_work().await;
    }
    let counts = faults.stop_workers().await?;
    let kept = book.holds(&store).await?;
    let book = book.read().await?;
    drop(server);
    Ok(report(options, &book, &counts, settled, kept))
}

fn report(
    options: &Options,
    book: &BTreeMap<String, u64>,
    counts: &BTreeMap<&'static str, u64>,
    settled: bool,
    kept: bool,
) -> bool {
    let of = |name: &str| book.get(name).copied().unwrap_or_default();
    println!();
    for (name, count) in counts {
        println!("{count:>10}  {name}");
    }
    for (name, words) in [
        ("ok", "requests that the API accepted"),
        ("refused", "requests that it refused (401)"),
        ("redeems", "refresh tokens redeemed"),
        ("busy", "redeems answered with a 503"),
        ("lost_before", "connections cut before the server knew of the redeem"),
        ("lost_after", "connections cut after it had redeemed"),
        ("unknown", "tokens that were never issued"),
        ("graces", "tokens that came again in time and got the same pair"),
        ("sign_ins", "sign-ins"),
        ("told", "losses whose failure said what was interrupted"),
    ] {
        println!("{:>10}  {words}", of(name));
    }
    println!();
    if !settled {
        println!("not every process came to work again");
    }
    if !kept {
        println!("the store does not hold the refresh token that the server would take");
    }
    if of("untold") > 0 {
        println!("{} sessions ended, and no failure said what was interrupted", of("untold"));
    }
    let lost = of("lost") + of("untold") + u64::from(!settled) + u64::from(!kept);
    println!(
        "requests={} redeems={} token_reuse={} sessions_lost={lost} unavoidable={}",
        of("ok") + of("refused"),
        of("redeems"),
        of("reuse"),
        of("unavoidable"),
    );
    let unexcused = !options.grace.is_zero() && of("unavoidable") > 0;
    of("reuse") == 0 && of("unknown") == 0 && lost == 0 && !unexcused && of("redeems") > 0
}

/// The server's book, read and written over HTTP.
pub(crate) struct Book {
    http: reqwest::Client,
    address: String,
}

impl Book {
    async fn get(&self, path: &str) -> Result<String, BoxError> {
        let url = format!("{}/{path}", self.address);
        let answer = timeout(Duration::from_secs(10), self.http.get(url).send()).await??;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Tells of something that is done to the processes, before it is done.
    pub(crate) async fn note(&self, event: &str) -> Result<(), BoxError> {
        self.get(&format!("note/{event}")).await.map(drop)
    }

    /// The process that has just redeemed, and not saved yet.
    pub(crate) async fn ambush(&self) -> Result<u64, BoxError> {
        Ok(self.get("ambush").await?.parse()?)
    }

    async fn login(&self) -> Result<Tokens, BoxError> {
        let answer = self.get("login").await?;
        let (access, refresh) = answer.split_once(' ').ok_or("no tokens")?;
        Ok(Tokens::new(access).with_refresh_token(refresh))
    }

    /// The user signs in again when a process has said that the session is over: it tries once
    /// more before that, after a second. If none says so, the user sees it all the same.
    async fn login_if_dead(&self) -> Result<Option<Tokens>, BoxError> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let book = self.read().await?;
            if book.get("dead") != Some(&1) {
                return Ok(None);
            }
            if book.get("untold") == Some(&0) || Instant::now() > patience {
                return Ok(Some(self.login().await?));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn read(&self) -> Result<BTreeMap<String, u64>, BoxError> {
        let answer = self.get("book").await?;
        let entry = |line: &str| {
            let (name, count) = line.split_once('=')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        Ok(answer.lines().filter_map(entry).collect())
    }

    /// Whether the store holds what the server would take next.
    async fn holds(&self, store: &Arc<dyn TokenStore>) -> Result<bool, BoxError> {
        let record = store.load().await?;
        let held = record.tokens.as_ref().and_then(|tokens| tokens.refresh_token());
        Ok(held == Some(&*self.get("current").await?))
    }
}
