//! What all stores of one table share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::{
    connection::{Connections, Parameter},
    statement::{Statements, Table},
    wake::Wakes,
};
use crate::{
    store::{Keyring, StoreError, timed_lease::Times},
    time::after,
};

pub(super) struct Shared {
    pub(super) connections: Connections,
    pub(super) wakes: Wakes,
    pub(super) statements: Statements,
    pub(super) sweeping: Sweeping,
    pub(super) table: Table,
    pub(super) keys: Keyring,
    pub(super) tombstone_ttl: Duration,
    pub(super) times: Times,
}

/// When the stores sweep the next time. `None`: they have not begun to count.
#[derive(Default)]
pub(super) struct Sweeping(Mutex<Option<Instant>>);

/// How many rows one statement deletes at most.
const BATCH: i64 = 1000;

impl Shared {
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let table = self.table.to_string();
        // Without a lock, of two that make one table at once one fails, whatever `IF NOT EXISTS`
        // says. The number is any that others do not use.
        let lock = "SELECT pg_advisory_xact_lock(8390876204319725)";
        let batch = format!("{lock}; {}", self.statements.migration);
        let rows = self
            .connections
            .run("SELECT to_regclass($1) IS NOT NULL", &[(&table, Type::TEXT)])
            .await?;
        // A user who may not make tables need not be one who may.
        match rows.first().map(|row| row.try_get(0)) {
            Some(Ok(true)) => Ok(()),
            _ => self.connections.batch(&batch).await,
        }
    }

    pub(super) async fn sweep(&self) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let swept = self.sweep_some().await?;
            all += swept.unsigned_abs();
            if swept < BATCH {
                return Ok(all);
            }
        }
    }

    async fn sweep_some(&self) -> Result<i64, StoreError> {
        let tombstone_ttl = millis(self.tombstone_ttl);
        let parameters: [Parameter<'_>; 2] = [(&tombstone_ttl, Type::INT8), (&BATCH, Type::INT8)];
        let rows = self.connections.run_long(&self.statements.sweep, &parameters).await?;
        let row = rows.first().ok_or_else(unknown)?;
        row.try_get(0).map_err(|_| unknown())
    }

    /// Begins a sweep if it is time for one.
    pub(super) fn sweep_seldom(self: &Arc<Self>) {
        if !self.sweeping.is_due(Instant::now()) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if shared.sweep_some().await.is_err() {
                tracing::debug!("ended records in PostgreSQL could not be swept");
            }
        });
    }
}

impl Sweeping {
    /// The first one of a process is due within an hour, so that replicas that were started
    /// together do not sweep together; each other one an hour later.
    fn is_due(&self, now: Instant) -> bool {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        // Nothing panics while it is locked.
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = *next.get_or_insert_with(|| after(now, HOUR.mul_f64(fastrand::f64())));
        let is_due = now >= due;
        if is_due {
            *next = Some(after(now, HOUR));
        }
        is_due
    }
}

/// A time as the statements take it. A century stands for everything longer.
pub(super) fn millis(time: Duration) -> i64 {
    const MAX_MILLIS: i64 = 100 * 366 * 24 * 60 * 60 * 1000;
    i64::try_from(time.as_millis()).unwrap_or(MAX_MILLIS).clamp(1, MAX_MILLIS)
}

/// The error for an answer that none of the statements gives.
pub(super) fn unknown() -> StoreError {
    StoreError::new("the server's answer is not understood: the table is another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_sweep_once_an_hour() {
        let (sweeping, begun) = (Sweeping::default(), Instant::now());
        let minutes = (0..600).map(|minute| begun + Duration::from_secs(60 * minute + 1));
        let swept = minutes.filter(|now| sweeping.is_due(*now)).count();
        assert!((9..=10).contains(&swept), "{swept} times in ten hours");
    }
}
