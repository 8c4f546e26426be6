//! Tokens in PostgreSQL, shared by replicas (feature `postgres`).
//!
//! One table, a row for each name: see `migration.sql`. Each step is one statement that commits by
//! itself, so that the server does it whole or not at all, and no transaction waits for a client.
//! Every lease has a number that no other has, the fence; a save that does not bring the last one
//! is refused. A lease may therefore run out without harm: a holder that stalls is overtaken, and a
//! holder that comes back before that saves as if nothing had happened. A save ends the lease, so
//! that no other process waits for a holder that exits after it.
//!
//! Time is `now()`: in a statement by itself, the moment at which it reached the server. One that
//! had to wait for a row takes the lease for as much less.
//!
//! A statement that has to see what it writes over locks the row first (`locked`), and so sees
//! its latest version; the rest of it then decides by that.
//!
//! Each file imports only from those below it:
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | [`PostgresStores`], [`PostgresStore`] |
//! | `builder.rs` | where PostgreSQL is, and every knob |
//! | `lease.rs` | what the server is asked for the lease, which `timed_lease.rs` beside this folder keeps |
//! | `record.rs` | one name's record: read and written |
//! | `shared.rs` | what all names share; sweeping |
//! | `wake.rs` | callers that wait for a lease, and the connection that wakes them |
//! | `connection.rs` | the connections for statements, made anew when they break |
//! | `statement.rs`, `*.sql` | what the server does in one step |

mod builder;
mod connection;
mod lease;
mod record;
mod shared;
mod statement;
mod wake;

use std::{fmt, sync::Arc, time::SystemTime};

pub use self::builder::PostgresStoresBuilder;
use self::{record::PostgresRecord, shared::Shared};
use super::{Deleted, KeptUntil, Keyring, Leased, Record, Stores, TokenStore};
use crate::{
    error::ConfigError,
    refresher::BoxFuture,
    store::{SaveError, StoreError, timed_lease},
    tokens::Generation,
};

/// Keeps the credentials of many names in one table of a PostgreSQL database (13 or later). Cheap
/// to clone; all clones and all their [stores](Self::store) share a few connections for statements
/// and, while a caller waits for a lease, one more for wake-up calls. They are made when they are
/// needed, and made anew when they break.
///
/// Records are always sealed: see [`Keyring`].
///
/// ```no_run
/// use tower_refresh::{RefreshState, store::{Keyring, PostgresStores}};
/// # fn refresher() -> impl tower_refresh::Refresher { tower_refresh::refresher_fn(async || Ok(tower_refresh::Tokens::new(""))) }
///
/// # async fn example(key: [u8; 32]) -> Result<(), tower_refresh::BoxError> {
/// let url = "postgres://app:password@10.0.0.1/app";
/// let stores = PostgresStores::builder(url, Keyring::new(key)).build()?;
/// stores.migrate().await?;
/// let state = RefreshState::builder(refresher()).store(stores.store("alice")).build();
/// # Ok(()) }
/// ```
///
/// # What it promises
///
/// As long as the database keeps what it has committed (`fsync` and `synchronous_commit` on, as
/// they are by default), no saved token is lost. A standby that takes over without the last writes
/// forgets those: the store is then at an earlier generation, whose refresh token is spent.
///
/// A name that was never written has a row only while its lease is held, so a made-up name leaves
/// nothing behind. A [sweep](Self::sweep) deletes the rows of lease holders that have died, the marks
/// of sign-outs, and records whose [end](TokenStore::keep_until) has come. Other records stay.
///
/// A name is text of up to 2000 bytes, without NUL. Every operation on another one is an error.
///
/// # The rights that its user needs
///
/// ```sql
/// GRANT SELECT, INSERT, UPDATE, DELETE ON tower_refresh_records TO app;
/// ```
///
/// [`migrate`](Self::migrate) needs `CREATE` on the schema as long as there is no table.
///
/// # Poolers
///
/// Nothing is kept in a session, so PgBouncer may pool by transactions. Wake-up calls then do not
/// arrive, and waiters look every [`poll`](PostgresStoresBuilder::poll).
#[derive(Clone)]
pub struct PostgresStores(Arc<Shared>);

/// One name's record in PostgreSQL: a [`TokenStore`]. Cheap to clone.
///
/// [`PostgresStores::store`] makes it.
#[derive(Clone)]
pub struct PostgresStore(Arc<PostgresRecord>);

impl PostgresStores {
    /// The SQL that makes the table, for programs that keep their migrations elsewhere. It may be run
    /// again. With another [prefix](PostgresStoresBuilder::prefix), write that in the place of
    /// `tower_refresh`.
    pub const MIGRATION: &str = statement::MIGRATION;

    /// The database at this URL, `postgres://<user>[:<password>]@<host>[:<port>]/<database>`, or
    /// of these settings, as in `host=/var/run/postgresql user=app`. Records are sealed with these
    /// keys.
    pub fn builder(url: impl Into<String>, keys: Keyring) -> PostgresStoresBuilder {
        PostgresStoresBuilder::new(url.into(), keys)
    }

    /// The store of the credential of this name: a user's or a session's stable id. It is not
    /// secret: it can be read in the database. No I/O.
    #[must_use]
    pub fn store(&self, name: impl AsRef<str>) -> PostgresStore {
        PostgresStore(Arc::new(PostgresRecord::new(Arc::clone(&self.0), name.as_ref())))
    }

    /// Makes the table if there is none. Any number of processes may do so at once.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or does not allow it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.0.migrate().await
    }

    /// Deletes the rows that count as absent: records whose end has come, marks of sign-outs that
    /// are older than [`tombstone_ttl`](PostgresStoresBuilder::tombstone_ttl), and what holders of
    /// names that were never written have left. Returns how many. The stores do a little of it
    /// themselves, about once an hour.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or does not allow it. What was deleted before that is gone.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.0.sweep().await
    }
}

impl PostgresStoresBuilder {
    /// The stores. Connects to nothing: the server need not be up yet.
    ///
    /// # Errors
    ///
    /// The URL cannot be read, names no host, or asks for TLS, which these stores do not speak
    /// yet; a time is zero or the lease too short; the prefix or the schema has other characters
    /// than letters, digits and `_`. The URL is not in the error.
    pub fn build(self) -> Result<PostgresStores, ConfigError> {
        Ok(PostgresStores(Arc::new(self.shared()?)))
    }
}

impl Stores for PostgresStores {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        Arc::new(PostgresStores::store(self, name))
    }
}

impl TokenStore for PostgresStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(self.0.load())
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.0.changed(known))
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.0.save_as(None, expected, &record).await })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(self.0.delete())
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(self.0.keep_until(end))
    }

    /// Waits for as long as another holder has the lease. An error, the server being gone for
    /// instance, ends the wait. If the future is dropped at the moment it takes the lease, the
    /// lease is not free until [its time](PostgresStoresBuilder::lease) is over.
    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(timed_lease::lease(&self.0, known))
    }
}

impl fmt::Debug for PostgresStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStores")
            .field("table", &self.0.table)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.0.shared.table)
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}
