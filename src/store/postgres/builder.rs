//! Where PostgreSQL is, and every knob.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Config, config::SslMode};

use super::{
    connection::Connections,
    shared::{Shared, Sweeping},
    statement::{Statements, Table},
    wake::Wakes,
};
use crate::{
    error::ConfigError,
    store::{Keyring, timed_lease::Times},
};

/// Builds [`PostgresStores`](super::PostgresStores): every knob.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{Keyring, PostgresStores};
/// # let key = [7; 32];
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # let _inside = runtime.enter();
///
/// let stores = PostgresStores::builder("host=/var/run/postgresql user=app", Keyring::new(key))
///     .prefix("shop_tokens")
///     .lease(Duration::from_secs(10))
///     .build()?;
/// # let _ = stores;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[must_use]
pub struct PostgresStoresBuilder {
    url: SecretString,
    keys: Keyring,
    table: Table,
    max_connections: usize,
    lease: Duration,
    intent: Duration,
    tombstone_ttl: Duration,
    poll: Duration,
    timeout: Duration,
}

impl PostgresStoresBuilder {
    pub(super) fn new(url: String, keys: Keyring) -> Self {
        Self {
            url: url.into(),
            keys,
            table: Table { schema: None, prefix: "tower_refresh".to_owned() },
            max_connections: 4,
            lease: Duration::from_secs(5),
            intent: Duration::from_secs(15),
            tombstone_ttl: Duration::from_secs(24 * 60 * 60),
            poll: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
        }
    }

    /// What the names of the table, `<prefix>_records`, and of the channel begin with. Default:
    /// `tower_refresh`. Up to 40 letters, digits and `_`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.table.prefix = prefix.into();
        self
    }

    /// The schema of the table, which has to be there. Default: the connection's own, by its
    /// `search_path`. Up to 16 letters, digits and `_`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.table.schema = Some(schema.into());
        self
    }

    /// How many connections there are for statements, at most. Default: 4; at least 1.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count;
        self
    }

    /// How long a lease lasts that its holder does not renew. A crash before the redeem keeps waiters
    /// waiting for that long. A holder renews it every third of that time. Default: 5 s; at least
    /// 100 ms.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// How long the lease lasts from the moment at which the refresh token is spent. A holder that has
    /// stalled may take that long to come back and save its new tokens. Default: 15 s. Never shorter
    /// than [`lease`](Self::lease).
    ///
    /// When it runs out, the next holder waits one more `lease` before it takes over: if the server
    /// was down, and not the old holder, that one renews the lease in this time.
    pub fn intent(mut self, time: Duration) -> Self {
        self.intent = time;
        self
    }

    /// How long a sign-out is remembered: longer than any refresh under way takes to
    /// save. Default: one day.
    pub fn tombstone_ttl(mut self, time: Duration) -> Self {
        self.tombstone_ttl = time;
        self
    }

    /// How often a caller that waits for a lease looks if no message wakes it: messages can
    /// be lost. Default: 250 ms; the pause is between half of it and all of it, at random.
    pub fn poll(mut self, time: Duration) -> Self {
        self.poll = time;
        self
    }

    /// How long a statement may take, connecting included. Default: 1 s. The lease should
    /// be some times as long.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Checks every setting, and connects to nothing.
    pub(super) fn shared(self) -> Result<Shared, ConfigError> {
        const MIN_LEASE: Duration = Duration::from_millis(100);
        const MIN_TIME: Duration = Duration::from_millis(1);
        let Table { schema, prefix } = &self.table;
        if !is_word(prefix, 40) || schema.as_ref().is_some_and(|schema| !is_word(schema, 16)) {
            return Err(ConfigError::new(
                "a name in PostgreSQL is not allowed: prefix (up to 40 characters) and schema (up to 16) have only letters, digits and _",
            ));
        }
        if self.lease < MIN_LEASE {
            return Err(ConfigError::new(
                "the lease in PostgreSQL is too short: give it 100 ms at least",
            ));
        }
        if [self.tombstone_ttl, self.poll, self.timeout].iter().any(|time| *time < MIN_TIME) {
            return Err(ConfigError::new(
                "a time of the stores in PostgreSQL is too short: tombstone_ttl, poll and timeout must be 1 ms at least",
            ));
        }
        if self.max_connections == 0 {
            return Err(ConfigError::new(
                "the stores in PostgreSQL have no connection: max_connections must be 1 at least",
            ));
        }
        let config = self.config()?;
        Ok(Shared {
            connections: Connections::new(config.clone(), self.timeout, self.max_connections),
            wakes: Wakes::new(config, &self.table.channel(), self.timeout),
            statements: Statements::new(&self.table),
            sweeping: Sweeping::default(),
            table: self.table,
            keys: self.keys,
            tombstone_ttl: self.tombstone_ttl,
            times: Times {
                lease: self.lease,
                intent: self.intent.max(self.lease),
                poll: self.poll,
            },
        })
    }

    fn config(&self) -> Result<Config, ConfigError> {
        // The client's own errors are left out: they may quote a piece of the URL.
        let parsed = self.url.expose_secret().parse::<Config>();
        let mut config = parsed.map_err(|_| {
            ConfigError::new(
                "the PostgreSQL URL cannot be read: it has to be like postgres://<user>[:<password>]@<host>[:<port>]/<database>, or settings like host=<host> user=<user>; an @ or / in a password is written %40 or %2F",
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConfigError::new("the PostgreSQL URL names no host"));
        }
        // `prefer`, the default, goes on without TLS where there is none.
        if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            return Err(ConfigError::new(
                "the PostgreSQL URL asks for TLS, which these stores do not speak yet: connect within a trusted network, or through a proxy that speaks it",
            ));
        }
        if config.get_application_name().is_none() {
            config.application_name("tower-refresh");
        }
        // One host of several that does not answer leaves time for the others.
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        if let (2.., None) = (hosts, config.get_connect_timeout()) {
            config.connect_timeout(self.timeout / u32::try_from(hosts).unwrap_or(u32::MAX));
        }
        Ok(config)
    }
}

fn is_word(text: &str, max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=max).contains(&text.len()) && text.bytes().all(is_plain)
}

impl fmt::Debug for PostgresStoresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStoresBuilder")
            .field("keys", &self.keys)
            .field("table", &self.table)
            .field("max_connections", &self.max_connections)
            .field("lease", &self.lease)
            .field("intent", &self.intent)
            .field("tombstone_ttl", &self.tombstone_ttl)
            .field("poll", &self.poll)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
