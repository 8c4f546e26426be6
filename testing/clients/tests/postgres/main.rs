//! `PostgresStore` against a real server. Tests share one, and have a table each; those that do
//! something to the server have their own.

mod conformance;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use testing::PostgresServer;
use tokio_postgres::{Client, NoTls};
use tower_refresh::store::{Keyring, PostgresStores, PostgresStoresBuilder};

const KEY: [u8; 32] = [7; 32];

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
        Self::at(shared()).await
    }

    async fn at(server: &PostgresServer) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = Self { url: server.url(), prefix: format!("test{number}") };
        place.builder().build().unwrap().migrate().await.unwrap();
        place
    }

    /// With time enough for a statement on a machine that has other things to do.
    fn builder(&self) -> PostgresStoresBuilder {
        PostgresStores::builder(&self.url, Keyring::new(KEY))
            .prefix(&self.prefix)
            .max_connections(2)
            .timeout(millis(10_000))
    }

    fn table(&self) -> String {
        format!("{}_records", self.prefix)
    }

    /// A connection of the test's own, to see what is there.
    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        client
    }
}
