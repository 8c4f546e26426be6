//! Tokens in Redis, shared by replicas (feature `redis`).
//!
//! ```text
//! <prefix>:{<name>}        hash: g generation, d sealed document, f fence, i open redeem
//! <prefix>:{<name>}:lease  the holder's own token, with a time limit
//! <prefix>:{<name>}:wake   channel: look again
//! ```
//!
//! Each step is one script, so that the server does it whole or not at all. Every lease has
//! a number that no other has, the fence; a save that does not bring the last one is refused. A
//! lease may therefore run out without harm: a holder that stalls is overtaken, and a holder
//! that comes back before that saves as if nothing had happened. A save ends the lease, so that
//! no other process waits for a holder that exits after it.
//!
//! The scripts call nothing that the rights in [`RedisStores`]'s docs do not cover, and write
//! in an order in which a right that is missing is met before a refresh token is spent.
//!
//! Each file imports only from those below it:
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | [`RedisStores`], [`RedisStore`] |
//! | `builder.rs` | where Redis is, and every knob |
//! | `lease.rs` | what the server is asked for the lease, which `timed_lease.rs` beside this folder keeps |
//! | `record.rs` | the keys of one name; reading and writing its record |
//! | `shared.rs` | what all names share |
//! | `wake.rs` | callers that wait for a lease, and the connection that wakes them |
//! | `connection.rs` | the connection for commands, made anew when it breaks |
//! | `rights.rs` | what the user of the server has to be allowed, and what a refusal is called |
//! | `script.rs`, `*.lua` | what the server does in one step |

mod builder;
mod connection;
mod lease;
mod record;
mod rights;
mod script;
mod shared;
mod wake;

use std::{fmt, sync::Arc, time::SystemTime};

pub use self::builder::RedisStoresBuilder;
use self::{record::RedisRecord, shared::Shared};
use super::{Deleted, KeptUntil, Keyring, Leased, Record, Stores, TokenStore};
use crate::{
    error::ConfigError,
    refresher::BoxFuture,
    store::{SaveError, StoreError, timed_lease},
    tokens::Generation,
};

/// Keeps the credentials of many names in one Redis (6.2 or later, or a server that speaks
/// like it). Cheap to clone; all clones and all their [stores](Self::store) share one
/// connection for commands and, once a caller waits for a lease, one more for wake-up calls.
/// Both are made when they are needed, and made anew when they break.
///
/// Records are always sealed: see [`Keyring`].
///
/// ```no_run
/// use tower_refresh::{RefreshState, store::{Keyring, RedisStores}};
/// # fn refresher() -> impl tower_refresh::Refresher { tower_refresh::refresher_fn(async || Ok(tower_refresh::Tokens::new(""))) }
///
/// # fn example(key: [u8; 32]) -> Result<(), tower_refresh::ConfigError> {
/// let stores = RedisStores::builder("redis://127.0.0.1/", Keyring::new(key)).build()?;
/// let state = RefreshState::builder(refresher()).store(stores.store("alice")).build();
/// # Ok(()) }
/// ```
///
/// # What it promises
///
/// As long as Redis keeps what it has confirmed (`appendonly yes`, `appendfsync always`), no
/// saved token is lost. A server that writes to disk less often, or a replica that takes over
/// without the last writes, forgets those: the store is then at an earlier generation, whose refresh
/// token is spent.
///
/// A name that was never written has keys only while its lease is held, so a made-up name leaves
/// nothing behind. If the lease holder dies, its keys go after
/// [`intent`](RedisStoresBuilder::intent). Records go after [`ttl`](RedisStoresBuilder::ttl), traces
/// of a sign-out after [`tombstone_ttl`](RedisStoresBuilder::tombstone_ttl).
///
/// # The rights that its user needs
///
/// ```text
/// ACL SETUSER app on >password +@read +@write +@scripting +@pubsub ~tower-refresh:* resetchannels &tower-refresh:*
/// ```
///
/// where `tower-refresh` stands for the [prefix](RedisStoresBuilder::prefix). Of each of these
/// categories the stores use a part:
///
/// | category | commands | without them |
/// |---|---|---|
/// | `@scripting` | `EVALSHA`, `EVAL` | an error |
/// | `@read` | `GET`, `HGET`, `HMGET`, `PTTL` | an error |
/// | `@write` | `SET`, `PEXPIRE`, `PEXPIREAT`, `HSET`, `HDEL`, `HINCRBY` | an error |
/// | `@pubsub` | `PUBLISH`, `SUBSCRIBE`, `UNSUBSCRIBE` | waiters look every [`poll`](RedisStoresBuilder::poll) |
/// | none | `SELECT` | an error, if the URL has a database other than 0 |
/// | none | `CLUSTER SLOTS`, `READONLY`, `PING` | in a cluster, the way to a key is found late or not at all |
///
/// The error's source names the command that was refused and the rights that are needed. Before
/// a refresh token is spent, the flight has used every right that the save needs.
///
/// # Sentinel
///
/// A Sentinel's URL is refused. Give the URL of a name that leads to the primary: a proxy, a service,
/// a DNS entry. After a failover the stores connect to that name anew.
#[derive(Clone)]
pub struct RedisStores(Arc<Shared>);

/// One name's record in Redis: a [`TokenStore`]. Cheap to clone.
///
/// [`RedisStores::store`] makes it.
#[derive(Clone)]
pub struct RedisStore(Arc<RedisRecord>);

impl RedisStores {
    /// The Redis at this URL: `redis://[<name>][:<password>@]<host>[:<port>][/<database>]`,
    /// `rediss://` with TLS (feature `redis-tls`), `redis+unix:///<path>`. Records are sealed
    /// with these keys.
    pub fn builder(url: impl Into<String>, keys: Keyring) -> RedisStoresBuilder {
        RedisStoresBuilder::new(vec![url.into()], false, keys)
    }

    /// A Redis cluster, some of whose nodes have these URLs (feature `redis-cluster`). A
    /// name's keys are all at one node.
    #[cfg(feature = "redis-cluster")]
    pub fn cluster<U: Into<String>>(
        urls: impl IntoIterator<Item = U>,
        keys: Keyring,
    ) -> RedisStoresBuilder {
        RedisStoresBuilder::new(urls.into_iter().map(Into::into).collect(), true, keys)
    }

    /// The store of the credential of this name, which is any text: a user's or a session's
    /// stable id. It is not secret: it can be read in Redis. No I/O.
    #[must_use]
    pub fn store(&self, name: impl AsRef<str>) -> RedisStore {
        RedisStore(Arc::new(RedisRecord::new(Arc::clone(&self.0), name.as_ref())))
    }
}

impl RedisStoresBuilder {
    /// The stores. Connects to nothing: the server need not be up yet.
    ///
    /// With `rediss://` rustls works with the process's default crypto provider. If there is
    /// none and the feature `ring` is on, this installs ring as that.
    ///
    /// # Errors
    ///
    /// A URL cannot be read, asks for Sentinel or for a feature that is off, or contradicts another
    /// one; a time is zero or the lease too short; the prefix has braces; the certificates
    /// are no PEM; `rediss://` has no crypto provider. No URL is in the error.
    pub fn build(self) -> Result<RedisStores, ConfigError> {
        Ok(RedisStores(Arc::new(self.shared()?)))
    }
}

impl Stores for RedisStores {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        Arc::new(RedisStores::store(self, name))
    }
}

impl TokenStore for RedisStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(self.0.load())
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.0.changed(known))
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.0.save_as("", expected, &record).await })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(self.0.delete())
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(self.0.keep_until(end))
    }

    /// Waits for as long as another holder has the lease. An error, Redis being gone for
    /// instance, ends the wait. If the future is dropped at the moment it takes the lease, the
    /// lease is not free until [its time](RedisStoresBuilder::lease) is over.
    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(timed_lease::lease(&self.0, known))
    }
}

impl fmt::Debug for RedisStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStores")
            .field("prefix", &self.0.prefix)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("key", &self.0.keys.record()).finish_non_exhaustive()
    }
}
