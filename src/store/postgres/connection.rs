//! A few connections to the server: made when statements need them, and made anew when they
//! break. Every statement has a time limit.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_postgres::{
    CancelToken, Client, Config, Error, NoTls, Row,
    error::{DbError, SqlState},
    types::{ToSql, Type},
};

use crate::store::StoreError;

/// A value of a statement. Its type is given with it, so that the server need not be asked for it
/// first, and nothing is kept in a session that a pooler may give to another client.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) struct Connections {
    config: Config,
    limit: Duration,
    /// Those that no statement is using.
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

/// A connection in use. Unless it is given back it is closed: an answer that was not read may
/// still be on its way.
struct Using<'a> {
    client: Client,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Connections {
    /// Nothing is connected yet.
    pub(super) fn new(config: Config, limit: Duration, count: usize) -> Self {
        let permits = Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        Self { config, limit, idle: Mutex::default(), permits }
    }

    /// Runs a statement. It is sent a second time if the connection broke, and may then run twice:
    /// the second run must have the same result as the first.
    pub(super) async fn run(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.call(statement, parameters, self.limit, 2).await
    }

    /// Runs a statement that may take longer than others.
    pub(super) async fn run_long(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        const LONG: Duration = Duration::from_secs(60);
        self.call(statement, parameters, self.limit.max(LONG), 2).await
    }

    /// Runs a statement, and never sends it a second time after it may have run.
    pub(super) async fn run_once(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        // A connection that has broken meanwhile is found out by a statement that does nothing.
        self.run("SELECT", &[]).await?;
        self.call(statement, parameters, self.limit, 1).await
    }

    async fn call(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
        max_attempts: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let mut running = None;
        let work = async {
            let mut broken = 0;
            loop {
                let using = self.connection().await?;
                running = Some(using.client.cancel_token());
                let error = match using.client.query_typed(statement, parameters).await {
                    Ok(rows) => {
                        self.give_back(using);
                        return Ok(rows);
                    }
                    Err(error) => error,
                };
                running = None;
                if is_undone(&error) {
                    // Nothing has happened, and nothing of the connection is broken.
                    self.give_back(using);
                    continue;
                }
                if !is_connections_fault(&error) {
                    self.give_back(using);
                    return Err(error);
                }
                // It may have broken long ago, and the server be there: try again with a new
                // one. The others are as old.
                self.idle().clear();
                broken += 1;
                if broken >= max_attempts {
                    return Err(error);
                }
            }
        };
        match timeout(limit, work).await {
            Ok(done) => done.map_err(told),
            Err(_) => {
                // A connection that has been cut off without a word never answers again.
                self.idle().clear();
                if let Some(token) = running {
                    tokio::spawn(cancel(token, self.limit));
                }
                Err(StoreError::new("PostgreSQL did not answer in time"))
            }
        }
    }

    /// Runs statements without parameters, in one transaction.
    pub(super) async fn batch(&self, statements: &str) -> Result<(), StoreError> {
        const LONG: Duration = Duration::from_secs(60);
        let work = async {
            // The idle ones may have broken.
            self.idle().clear();
            let using = self.connection().await?;
            using.client.batch_execute(statements).await?;
            self.give_back(using);
            Ok(())
        };
        match timeout(self.limit.max(LONG), work).await {
            Ok(done) => done.map_err(told),
            Err(_) => Err(StoreError::new("PostgreSQL did not answer in time")),
        }
    }

    async fn connection(&self) -> Result<Using<'_>, Error> {
        // Never an error: the semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        let idle = {
            let mut idle = self.idle();
            idle.retain(|client| !client.is_closed());
            idle.pop()
        };
        let client = match idle {
            Some(client) => client,
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                // Statements that fail tell what is wrong with it.
                tokio::spawn(async { drop(connection.await) });
                client
            }
        };
        Ok(Using { client, _permit })
    }

    fn give_back(&self, using: Using<'_>) {
        self.idle().push(using.client);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        // Nothing panics while it is locked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the server to give the statement up, which may wait for a row that another connection has locked.
async fn cancel(token: CancelToken, limit: Duration) {
    let _ = timeout(limit, token.cancel_query(NoTls)).await;
}

/// Whether the server has undone the statement for the sake of another one, and takes it again:
/// a database whose `default_transaction_isolation` is stricter than usual does so often.
fn is_undone(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
    )
}

/// Whether another connection may do better.
pub(super) fn is_connections_fault(error: &Error) -> bool {
    match error.code() {
        // The server has ended the connection, or is a standby by now.
        Some(code) => {
            code.code().starts_with("08")
                || *code == SqlState::ADMIN_SHUTDOWN
                || *code == SqlState::CRASH_SHUTDOWN
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || code.code() == "57P05"
        }
        None => error.is_closed() || is_io(error),
    }
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>())
}

/// The client's error, in words of ours where the user can do something about it, and without what
/// the server says in detail: that may quote a row.
pub(super) fn told(error: Error) -> StoreError {
    let Some(server) = error.as_db_error() else {
        return StoreError::new(error);
    };
    let hint = match *server.code() {
        SqlState::UNDEFINED_TABLE => {
            ": run `PostgresStores::migrate` or the SQL in `PostgresStores::MIGRATION`"
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            ": the user needs SELECT, INSERT, UPDATE and DELETE on the table"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            ": the URL has to lead to the primary (target_session_attrs=read-write chooses it among several hosts)"
        }
        _ => "",
    };
    StoreError::new(format!("{}{hint}", summary(server)))
}

fn summary(error: &DbError) -> String {
    format!("{} {}: {}", error.severity(), error.code().code(), error.message())
}
