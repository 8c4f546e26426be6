//! Where Redis is, and every knob.

use std::{fmt, time::Duration};

use redis::{Client, ErrorKind, IntoConnectionInfo, RedisError};
use secrecy::{ExposeSecret, SecretString};

use super::{
    connection::{Connection, Server},
    rights::Rights,
    shared::Shared,
    wake::Wakes,
};
use crate::{
    error::{BoxError, ConfigError},
    store::{Keyring, timed_lease::Times},
};

/// Builds [`RedisStores`](super::RedisStores): every knob.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{Keyring, RedisStores};
/// # let key = [7; 32];
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # let _inside = runtime.enter();
///
/// let stores = RedisStores::builder("redis://localhost/", Keyring::new(key))
///     .prefix("shop-tokens")
///     .ttl(Duration::from_secs(180 * 24 * 3600))
///     .build()?;
/// # let _ = stores;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[must_use]
pub struct RedisStoresBuilder {
    urls: Vec<SecretString>,
    cluster: bool,
    #[cfg(feature = "redis-tls")]
    root: Option<Vec<u8>>,
    keys: Keyring,
    prefix: String,
    lease: Duration,
    intent: Duration,
    ttl: Duration,
    tombstone_ttl: Duration,
    poll: Duration,
    timeout: Duration,
}

impl RedisStoresBuilder {
    pub(super) fn new(urls: Vec<String>, cluster: bool, keys: Keyring) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            urls: urls.into_iter().map(SecretString::from).collect(),
            cluster,
            #[cfg(feature = "redis-tls")]
            root: None,
            keys,
            prefix: "tower-refresh".to_owned(),
            lease: Duration::from_secs(5),
            intent: Duration::from_secs(15),
            ttl: 90 * DAY,
            tombstone_ttl: DAY,
            poll: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
        }
    }

    /// What every key begins with. Default: `tower-refresh`. It must have no braces.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
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
    /// When it runs out, the next holder waits one more `lease` before it takes over: if Redis was
    /// down, and not the old holder, that one renews the lease in this time.
    pub fn intent(mut self, time: Duration) -> Self {
        self.intent = time;
        self
    }

    /// How long a record is kept after it was written: longer than refresh tokens live.
    /// Default: 90 days.
    pub fn ttl(mut self, time: Duration) -> Self {
        self.ttl = time;
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

    /// How long a command may take, connecting included. Default: 1 s. The lease should
    /// be some times as long.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Trusts these certificates, PEM, rather than those of the system. For `rediss://`.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root = Some(pem.into());
        self
    }

    /// Checks every setting, and connects to nothing.
    pub(super) fn shared(self) -> Result<Shared, ConfigError> {
        const MIN_LEASE: Duration = Duration::from_millis(100);
        const MIN_TIME: Duration = Duration::from_millis(1);
        if self.prefix.contains(['{', '}']) {
            return Err(ConfigError::new(
                "the prefix of Redis keys has a brace: braces mark the name, choose another prefix",
            ));
        }
        if self.lease < MIN_LEASE {
            return Err(ConfigError::new(
                "the lease in Redis is too short: give it 100 ms at least",
            ));
        }
        if [self.ttl, self.tombstone_ttl, self.poll, self.timeout].iter().any(|t| *t < MIN_TIME) {
            return Err(ConfigError::new(
                "a time of the stores in Redis is too short: ttl, tombstone_ttl, poll and timeout must be 1 ms at least",
            ));
        }
        let nodes = self.urls.iter().map(|url| self.client(url)).collect::<Result<Vec<_>, _>>()?;
        let server = self.server(&nodes)?;
        Ok(Shared {
            connection: Connection::new(server, self.timeout, Rights::new(&self.prefix)),
            wakes: Wakes::new(nodes, self.timeout, Rights::new(&self.prefix)),
            keys: self.keys,
            prefix: self.prefix,
            ttl: self.ttl,
            tombstone_ttl: self.tombstone_ttl,
            times: Times {
                lease: self.lease,
                intent: self.intent.max(self.lease),
                poll: self.poll,
            },
        })
    }

    fn client(&self, url: &SecretString) -> Result<Client, ConfigError> {
        const UNREADABLE: ConfigError = ConfigError::new(
            "a Redis URL cannot be read: it has to be like redis://[[<name>]:<password>@]<host>[:<port>][/<database>], rediss:// for TLS, or redis+unix:///<path>",
        );
        let url = url.expose_secret();
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        if scheme.contains("sentinel") {
            return Err(ConfigError::new(
                "a Redis URL asks for Sentinel, which this crate cannot ask for the primary: give the redis:// URL of a name that leads to the primary (a proxy, a service, a DNS entry); after a failover the stores connect to it anew",
            ));
        }
        if scheme.contains("cluster") {
            return Err(ConfigError::new(
                "a Redis URL asks for a cluster: give the redis:// URLs of its nodes to `RedisStores::cluster` (feature `redis-cluster`)",
            ));
        }
        let wants_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
        if wants_tls && !cfg!(feature = "redis-tls") {
            return Err(ConfigError::new(
                "a Redis URL asks for TLS: turn on this crate's feature `redis-tls`",
            ));
        }
        let info = url.into_connection_info().map_err(|e| UNREADABLE.with_source(redacted(&e)))?;
        #[cfg(feature = "redis-tls")]
        if let redis::ConnectionAddr::TcpTls { .. } = info.addr() {
            // redis asks rustls for the process's default at the first connection, and that
            // panics where there is none.
            crate::tls::ensure_default_provider()?;
            if let Some(certificates) = self.certificates() {
                return Client::build_with_tls(info, certificates).map_err(|error| {
                    ConfigError::new(
                        "the root certificates for Redis cannot be read: they have to be PEM",
                    )
                    .with_source(redacted(&error))
                });
            }
        }
        Client::open(info).map_err(|error| UNREADABLE.with_source(redacted(&error)))
    }

    #[cfg(feature = "redis-tls")]
    fn certificates(&self) -> Option<redis::TlsCertificates> {
        let root_cert = Some(self.root.clone()?);
        Some(redis::TlsCertificates { client_tls: None, root_cert })
    }

    fn server(&self, nodes: &[Client]) -> Result<Server, ConfigError> {
        #[cfg(feature = "redis-cluster")]
        if self.cluster && !nodes.is_empty() {
            let infos = nodes.iter().map(|node| node.get_connection_info().clone());
            let builder = redis::cluster::ClusterClientBuilder::new(infos).retries(1);
            #[cfg(feature = "redis-tls")]
            let builder = match self.certificates() {
                Some(certificates) => builder.certs(certificates),
                None => builder,
            };
            return builder.build().map(Server::Cluster).map_err(|error| {
                ConfigError::new("the URLs of a Redis cluster do not go together: they must have the same scheme, name and password")
                    .with_source(redacted(&error))
            });
        }
        match nodes {
            [node] => Ok(Server::Single(node.clone())),
            _ => {
                Err(ConfigError::new("a Redis cluster has no URL: give that of one node at least"))
            }
        }
    }
}

/// The client's error about a setting if it is one of its own constant sentences, and only its
/// kind otherwise: it could quote a URL with its password.
fn redacted(error: &RedisError) -> BoxError {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidClientConfig, None) => error.to_string().into(),
        _ => error.category().to_owned().into(),
    }
}

impl fmt::Debug for RedisStoresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoresBuilder")
            .field("cluster", &self.cluster)
            .field("keys", &self.keys)
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .field("intent", &self.intent)
            .field("ttl", &self.ttl)
            .field("tombstone_ttl", &self.tombstone_ttl)
            .field("poll", &self.poll)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(feature = "redis-tls")))]
mod tests {
    use crate::store::{Keyring, RedisStores};

    #[test]
    fn tls_asks_for_its_feature() {
        let error = RedisStores::builder("rediss://localhost/", Keyring::new([1; 32])).build();
        let said = error.unwrap_err().to_string();
        assert!(said.contains("TLS") && said.contains("`redis-tls`"), "{said}");
    }
}
