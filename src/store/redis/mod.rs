//! Tokens in Redis, shared by replicas (feature `redis`).
//!
//! ```text
//! <prefix>:{<name>}        hash: g generation, d sealed document, f fence, i what is left open
//! <prefix>:{<name>}:lease  the holder's own token, with a time limit
//! <prefix>:{<name>}:wake   channel: look again
//! ```
//!
//! Each step is one script, so that the server does it whole or not at all. Every lease has
//! a number that is greater than those before it, the fence; a save that brings an older one
//! is refused. A lease may therefore run out without harm: a holder that stalls is overtaken,
//! and one that comes back before anybody did so saves as if nothing had been.
//!
//! | file | what is in it |
//! |---|---|
//! | `builder.rs` | where Redis is, and every knob |
//! | `connection.rs` | the connection, made anew when it breaks |
//! | `script.rs`, `*.lua` | what the server does in one step |
//! | `record.rs` | reading and writing one record |
//! | `lease.rs`, `wake.rs` | the lease; who waits for it, and what wakes them |

mod builder;
mod connection;
mod lease;
mod record;
mod script;
mod wake;

use std::{fmt, sync::Arc, time::Duration};

pub use self::builder::RedisStoresBuilder;
use self::{connection::Connection, record::Place, wake::Wakes};
use super::{Deleted, Keyring, Leased, Record, TokenStore};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    tokens::Generation,
};

/// One Redis (6.2 or later, or what speaks like it) and how tokens are kept there. Cheap to
/// clone; all clones and all their [stores](Self::store) share one connection for commands
/// and, once somebody waits for a lease, one more for wake-up calls. Both are made when they
/// are needed, and made anew when they break.
///
/// Records are always sealed: see [`Keyring`].
///
/// ```no_run
/// use tower_refresh::{RefreshState, store::{Keyring, RedisStores}};
/// # fn refresher() -> impl tower_refresh::Refresher { tower_refresh::from_nothing(async || Ok(tower_refresh::Tokens::new(""))) }
///
/// # fn example(key: [u8; 32]) -> Result<(), tower_refresh::StoreError> {
/// let stores = RedisStores::builder("redis://127.0.0.1/", Keyring::new(key)).build()?;
/// let state = RefreshState::builder(refresher()).store(stores.store("alice")).build();
/// # Ok(()) }
/// ```
///
/// # What it promises
///
/// As long as Redis keeps what it has confirmed (`appendonly yes`, `appendfsync always`), no
/// saved token is lost. A server that writes to disk less often, or a replica that takes over
/// before it has heard everything, forgets the last writes: the store is then at an earlier
/// generation, whose refresh token is spent.
#[derive(Clone)]
pub struct RedisStores(Arc<Shared>);

/// One name's record in Redis: a [`TokenStore`]. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore(Arc<Place>);

struct Shared {
    connection: Connection,
    wakes: Wakes,
    keys: Keyring,
    prefix: String,
    lease: Duration,
    intent: Duration,
    ttl: Duration,
    tombstone_ttl: Duration,
    poll: Duration,
}

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
    /// stable id. It is not secret: it can be read in Redis.
    #[must_use]
    pub fn store(&self, name: impl AsRef<str>) -> RedisStore {
        RedisStore(Arc::new(Place::new(Arc::clone(&self.0), name.as_ref())))
    }
}

impl TokenStore for RedisStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(self.0.load())
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.0.save("", "", expected, &record).await })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(self.0.delete())
    }

    /// Waits for as long as others have the lease. An error, Redis being gone for instance,
    /// ends the wait. If it is dropped at the moment it takes the lease, nobody has it until
    /// [its time](RedisStoresBuilder::lease) is over.
    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(lease::lease(&self.0, seen))
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
        f.debug_struct("RedisStore").field("key", &self.0.keys.record).finish_non_exhaustive()
    }
}

/// A time as Redis takes it. A century is for ever.
fn millis(time: Duration) -> String {
    const CENTURY: u128 = 100 * 366 * 24 * 60 * 60 * 1000;
    time.as_millis().clamp(1, CENTURY).to_string()
}
