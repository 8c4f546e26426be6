//! `PostgresStore` against a real server. Tests share one, and have a table each; those that do
//! something to the server have their own.

mod config;
mod conformance;
mod ends;
mod isolation;
mod leases;
mod outages;
mod races;
mod rows;
mod saves;
mod secrets;
mod stalled;
mod waiting;

use std::{
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use testing::PostgresServer;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};
use tower_refresh::{
    Generation, Tokens,
    store::{
        Keyring, Lease, Leased, PostgresStore, PostgresStores, PostgresStoresBuilder, Record,
        TokenStore,
    },
};

const KEY: [u8; 32] = [7; 32];
/// The name of the record, where there is one only.
const NAME: &str = "alice";
/// Never, as far as a test is concerned.
const HOUR: Duration = Duration::from_secs(3600);

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The server of all tests that leave it as it is. It ends with the process.
fn shared() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start)
}

/// A table of the test's own.
struct Place {
    url: String,
    prefix: String,
}

impl Place {
    /// At the shared server.
    async fn new() -> Self {
        Self::at(shared().url()).await
    }

    async fn at(url: impl Into<String>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = Self { url: url.into(), prefix: format!("test{number}") };
        place.builder().build().unwrap().migrate().await.unwrap();
        place
    }

    /// With time enough for a statement on a machine that has other things to do.
    fn builder(&self) -> PostgresStoresBuilder {
        self.builder_at(&self.url)
    }

    fn builder_at(&self, url: &str) -> PostgresStoresBuilder {
        PostgresStores::builder(url, Keyring::new(KEY))
            .prefix(&self.prefix)
            .max_connections(2)
            .timeout(millis(10_000))
    }

    /// With times that are short enough to be waited for.
    fn brief(&self) -> PostgresStore {
        let stores = self.builder().lease(millis(1000)).intent(millis(2000)).poll(millis(50));
        stores.build().unwrap().store(NAME)
    }

    /// A store with connections of its own, as another process has.
    fn open(&self) -> PostgresStore {
        self.builder().build().unwrap().store(NAME)
    }

    /// A store that looks when it is told to.
    fn patient(&self) -> PostgresStore {
        self.builder().lease(HOUR).intent(HOUR).poll(HOUR).build().unwrap().store(NAME)
    }

    fn table(&self) -> String {
        format!("{}_records", self.prefix)
    }

    /// A connection of the test's own, to see what is there.
    async fn sight(&self) -> Sight {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        Sight { client, table: self.table() }
    }
}

/// What a test sees of the table, and does to it. In its statements `records` is the table.
struct Sight {
    client: Client,
    table: String,
}

/// A row, as far as it is the lease's.
#[derive(Debug)]
struct Row {
    fence: i64,
    owner: Option<String>,
    /// Milliseconds that are left of the lease.
    left: i64,
    redeem: Option<String>,
    awaited: bool,
}

impl Row {
    fn is_leased(&self) -> bool {
        self.left > 0
    }
}

impl Sight {
    async fn run(&self, statement: &str) {
        let statement = statement.replace("records", &self.table);
        self.client.batch_execute(&statement).await.unwrap();
    }

    async fn number(&self, statement: &str) -> i64 {
        let statement = statement.replace("records", &self.table);
        self.client.query_one(&statement, &[]).await.unwrap().get(0)
    }

    async fn count(&self) -> i64 {
        self.number("SELECT count(*) FROM records").await
    }

    async fn row(&self) -> Option<Row> {
        let statement = format!(
            "SELECT fence, owner,
                coalesce(ceil(extract(epoch FROM lease_until - now()) * 1000)::bigint, 0),
                redeem || ' ' || redeem_state, awaited
            FROM {} WHERE name = $1",
            self.table
        );
        let row = self.client.query_opt(&statement, &[&NAME]).await.unwrap()?;
        Some(Row {
            fence: row.get(0),
            owner: row.get(1),
            left: row.get(2),
            redeem: row.get(3),
            awaited: row.get(4),
        })
    }

    async fn is_leased(&self) -> bool {
        self.row().await.is_some_and(|row| row.is_leased())
    }

    async fn redeem(&self) -> Option<String> {
        self.row().await.and_then(|row| row.redeem)
    }

    async fn until(&self, what: &str, is_so: impl Fn(Option<&Row>) -> bool) {
        until(what, async || is_so(self.row().await.as_ref())).await;
    }

    /// Waits until that many connections of stores listen, to this table's channel or another's.
    async fn listening(&self, count: i64) {
        let channel = self.table.replace("records", "wake");
        let listening = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"{channel}\"' AND state = 'idle'"
        );
        until("enough that listen", async || self.number(&listening).await >= count).await;
    }
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
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    #[allow(clippy::disallowed_methods, reason = "real processes know no paused clock")]
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never {what}");
        sleep(millis(5)).await;
    }
}

fn access(tokens: &Option<Tokens>) -> Option<&str> {
    tokens.as_ref().map(Tokens::access_token)
}
