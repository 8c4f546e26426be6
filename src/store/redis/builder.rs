//! Where Redis is, and every knob.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Client, IntoConnectionInfo, RedisResult};
use secrecy::{ExposeSecret, SecretString};

use super::{
    RedisStores, Shared,
    connection::{Connection, Server},
    wake::Wakes,
};
use crate::{error::StoreError, store::Keyring};

/// Makes [`RedisStores`].
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

    /// After how long others may have a lease that its holder does not renew: how long a
    /// crash before the redeem keeps them waiting. Default: 5 s. A holder renews it every
    /// third of that time; at least 100 ms.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// The same from the moment on at which the refresh token is spent: how long the
    /// others wait for a holder that has stalled to come back with what it was given.
    /// Default: 15 s. Never shorter than [`lease`](Self::lease). After it they wait for one
    /// lease more: perhaps it was the server that was away, and nobody could be heard.
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

    /// How often whoever waits for a lease looks, if nothing wakes it: messages can be
    /// lost. Default: 250 ms; between half of it and all of it, at random.
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

    /// The stores. The server need not be up yet.
    ///
    /// With `rediss://` this sets ring as the process's default provider of cryptography
    /// for rustls if there is none yet.
    ///
    /// # Errors
    ///
    /// A URL cannot be read, asks for a feature that is off, or is at odds with another; a
    /// time is zero or the lease too short; the prefix has braces.
    pub fn build(self) -> Result<RedisStores, StoreError> {
        if self.prefix.contains(['{', '}']) {
            return Err(StoreError::new("the prefix of the keys must not contain braces"));
        }
        if self.lease < Duration::from_millis(100) {
            return Err(StoreError::new("the lease must be at least 100 ms"));
        }
        let least = Duration::from_millis(1);
        if [self.ttl, self.tombstone_ttl, self.poll, self.timeout].iter().any(|time| *time < least)
        {
            return Err(StoreError::new("every time must be at least 1 ms"));
        }
        let nodes = self.urls.iter().map(|url| self.client(url)).collect::<RedisResult<Vec<_>>>();
        let nodes = nodes.map_err(StoreError::new)?;
        let server = self.server(&nodes)?;
        Ok(RedisStores(Arc::new(Shared {
            connection: Connection::new(server, self.timeout),
            wakes: Wakes::new(nodes, self.timeout),
            keys: self.keys,
            prefix: self.prefix,
            lease: self.lease,
            intent: self.intent.max(self.lease),
            ttl: self.ttl,
            tombstone_ttl: self.tombstone_ttl,
            poll: self.poll,
        })))
    }

    fn client(&self, url: &SecretString) -> RedisResult<Client> {
        let info = url.expose_secret().into_connection_info()?;
        #[cfg(feature = "redis-tls")]
        if let redis::ConnectionAddr::TcpTls { .. } = info.addr() {
            // Without one the client would panic where the program has several.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                // If somebody else was faster, there is one.
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            if let Some(certificates) = self.certificates() {
                return Client::build_with_tls(info, certificates);
            }
        }
        Client::open(info)
    }

    #[cfg(feature = "redis-tls")]
    fn certificates(&self) -> Option<redis::TlsCertificates> {
        let root_cert = Some(self.root.clone()?);
        Some(redis::TlsCertificates { client_tls: None, root_cert })
    }

    fn server(&self, nodes: &[Client]) -> Result<Server, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if self.cluster {
            let infos = nodes.iter().map(|node| node.get_connection_info().clone());
            let builder = redis::cluster::ClusterClientBuilder::new(infos).retries(1);
            #[cfg(feature = "redis-tls")]
            let builder = match self.certificates() {
                Some(certificates) => builder.certs(certificates),
                None => builder,
            };
            return builder.build().map(Server::Cluster).map_err(StoreError::new);
        }
        match nodes {
            [node] => Ok(Server::Single(node.clone())),
            _ => Err(StoreError::new("there must be one URL")),
        }
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
