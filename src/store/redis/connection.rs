//! One connection to Redis, or to a cluster: made when the first command needs it, and made
//! anew when it breaks. Every command has a time limit.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::{
    rights::Rights,
    script::{Invocation, Script},
};
use crate::store::StoreError;

/// Where Redis is.
pub(super) enum Server {
    Single(Client),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster::ClusterClient),
}

#[derive(Clone)]
enum Link {
    Single(ConnectionManager),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

#[derive(Clone, Copy)]
enum Command<'a> {
    Plain(&'a Cmd),
    Script(&'a Invocation<'a>),
}

pub(super) struct Connection {
    server: Server,
    limit: Duration,
    rights: Rights,
    link: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    link: Option<Link>,
    /// How many links there were, so that a caller whose command has failed takes away the
    /// link that it used, and not a newer one.
    number: u64,
}

impl Connection {
    /// Nothing is connected yet.
    pub(super) fn new(server: Server, limit: Duration, rights: Rights) -> Self {
        Self { server, limit, rights, link: Mutex::default() }
    }

    /// Runs a script. It is sent a second time if the connection broke, and may then run twice:
    /// the second run must have the same result as the first.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, StoreError> {
        self.call(Command::Script(&Invocation { script, keys, arguments }), 2).await
    }

    /// Runs a script, and never sends it a second time.
    pub(super) async fn run_once(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, StoreError> {
        self.call(Command::Script(&Invocation { script, keys, arguments }), 1).await
    }

    /// Sends a command that only reads.
    pub(super) async fn read(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.call(Command::Plain(command), 2).await
    }

    async fn call(&self, command: Command<'_>, max_attempts: usize) -> Result<Value, StoreError> {
        let mut number = self.current().number;
        let work = async {
            let mut attempts = 0;
            loop {
                let mut link;
                (number, link) = self.link()?;
                let error = match link.send(command).await {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                if link.is_beyond_repair(&error) {
                    self.forget(number);
                }
                attempts += 1;
                // The connection may have broken long ago, and the server be there: try again
                // with a new one.
                let is_links_fault = error.is_connection_dropped() || is_elsewhere(&error);
                if attempts == max_attempts || !is_links_fault {
                    return Err(error);
                }
            }
        };
        match timeout(self.limit, work).await {
            Ok(done) => done.map_err(|error| self.told(error, command)),
            Err(_) => {
                // A connection that has been cut off without a word never answers again.
                self.forget(number);
                Err(StoreError::new("Redis did not answer in time"))
            }
        }
    }

    /// The client's error, in words of ours where the user can do something about it, and where
    /// the server quotes what it was sent: it may be a password.
    fn told(&self, error: RedisError, command: Command<'_>) -> StoreError {
        let script = match command {
            Command::Plain(_) => None,
            Command::Script(invocation) => Some(invocation.script),
        };
        match self.rights.refusal(&error, script).or_else(|| unknown_command(&error)) {
            Some(told) => StoreError::new(told),
            None => StoreError::new(error),
        }
    }

    fn link(&self) -> RedisResult<(u64, Link)> {
        let mut current = self.current();
        if let Some(link) = &current.link {
            return Ok((current.number, link.clone()));
        }
        let link = self.server.connect(self.limit)?;
        current.link = Some(link.clone());
        current.number += 1;
        Ok((current.number, link))
    }

    /// The next command connects anew.
    fn forget(&self, number: u64) {
        let mut current = self.current();
        if current.number == number {
            current.link = None;
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Nothing panics while it is locked.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Returns at once: the first command waits for the connection.
    fn connect(&self, limit: Duration) -> RedisResult<Link> {
        match self {
            Self::Single(client) => {
                // No retries of the manager's own: the next command connects anew, and each
                // command has one time limit for all of it.
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(Some(limit));
                ConnectionManager::new_lazy_with_config(client.clone(), config).map(Link::Single)
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(client) => {
                let config = redis::cluster::ClusterConfig::new()
                    .set_connection_timeout(limit)
                    .set_response_timeout(limit);
                Ok(Link::Cluster(client.get_pending_async_connection_with_config(config)))
            }
        }
    }
}

impl Link {
    async fn send(&mut self, command: Command<'_>) -> RedisResult<Value> {
        let script = match command {
            Command::Plain(command) => return self.query(command).await,
            Command::Script(script) => script,
        };
        match self.query(&script.by_hash()).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&script.whole()).await
            }
            done => done,
        }
    }

    async fn query(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(link) => command.query_async(link).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(link) => command.query_async(link).await,
        }
    }

    /// Whether the link does not mend itself after this error.
    fn is_beyond_repair(&self, error: &RedisError) -> bool {
        // A manager connects anew when the connection has ended. It does not notice one that
        // was cut off without a word, nor that the host's name means another server by now.
        match self {
            Self::Single(_) => error.is_timeout() || is_elsewhere(error),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => error.is_io_error() || error.is_unrecoverable_error(),
        }
    }
}

/// The server does not know a command. Its own words quote what it was sent, perhaps a password.
fn unknown_command(error: &RedisError) -> Option<String> {
    error.to_string().contains("args beginning with").then(|| {
        "the server does not know a command that is needed: the URL has to be that of a Redis 6.2 or later, and neither of a Sentinel nor of a proxy that runs no scripts".to_owned()
    })
}

/// Whether this server is a replica by now, and another one takes the writes.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    )
}
