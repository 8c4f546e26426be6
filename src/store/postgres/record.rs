//! One name's record in PostgreSQL: how it is read and written.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_postgres::{Row, types::FromSqlOwned, types::Type};

use super::{
    connection::Parameter,
    shared::{Shared, unknown},
};
use crate::{
    store::{
        Deleted, KeptUntil, Record, SaveError, StoreError,
        format::{Format, end_millis_of},
    },
    tokens::Generation,
};

/// One name in one table.
pub(super) struct PostgresRecord {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Box<str>,
    format: Format,
}

/// An index takes 2704 bytes, less what is its own.
const MAX_NAME: usize = 2000;

impl PostgresRecord {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        let format = Format::new(name, Some(shared.keys.clone()));
        Self { shared, name: name.into(), format }
    }

    /// Whether the table can keep this name.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.name.len() > MAX_NAME {
            return Err(StoreError::new("the name is too long: PostgreSQL keeps 2000 bytes"));
        }
        if self.name.contains('\0') {
            return Err(StoreError::new("the name has a NUL, which PostgreSQL keeps in no text"));
        }
        Ok(())
    }

    pub(super) async fn run(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.check()?;
        self.shared.connections.run(statement, parameters).await
    }

    /// What is said on the channel when the row has changed. It need not tell names apart for
    /// certain, and any user of the database can hear it: it is no name.
    pub(super) fn word(&self) -> String {
        // FNV-1a: every version of this program has to say the same.
        let hash = self.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    pub(super) async fn load(&self) -> Result<Record, StoreError> {
        Ok(self.changed_since(0).await?.unwrap_or_default())
    }

    /// One round trip, and only the generation, while that is `known`.
    pub(super) async fn changed(&self, known: Generation) -> Result<Option<Record>, StoreError> {
        match self.changed_since(number(known)).await? {
            None => Ok((known != Generation::ZERO).then(Record::default)),
            Some(record) => Ok((record.generation != known).then_some(record)),
        }
    }

    /// The record, without its tokens if it is the known one. `None`: there is none.
    async fn changed_since(&self, known: i64) -> Result<Option<Record>, StoreError> {
        let parameters: [Parameter<'_>; 2] = [(&&*self.name, Type::TEXT), (&known, Type::INT8)];
        let rows = self.run(&self.shared.statements.read, &parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let generation = column(row, 0)?;
        match generation == known {
            true => Ok(Some(Record::new(to_generation(generation)?, None))),
            false => self.read(generation, column(row, 1)?).map(Some),
        }
    }

    /// The record, from the columns of its row.
    pub(super) fn read(
        &self,
        generation: i64,
        document: Option<Vec<u8>>,
    ) -> Result<Record, StoreError> {
        self.format.read(to_generation(generation)?, document.as_deref())
    }

    /// Saves for the holder of a lease, whose fence is given, and ends the lease; or for a
    /// sign-in: then there is no fence.
    pub(super) async fn save_as(
        &self,
        fence: Option<i64>,
        expected: Generation,
        record: &Record,
    ) -> Result<(), SaveError> {
        let document = match &record.tokens {
            Some(_) => Some(self.format.write(record, None)?),
            None => None,
        };
        let document = document.as_ref().map(|document| document.as_slice());
        let generation = i64::try_from(record.generation.get()).map_err(|_| {
            SaveError::Failed(StoreError::new("the generation is too great to be written"))
        })?;
        let (channel, word) = (self.shared.wakes.channel(), self.word());
        let expected = number(expected);
        let parameters: [Parameter<'_>; 7] = [
            (&&*self.name, Type::TEXT),
            (&fence, Type::INT8),
            (&expected, Type::INT8),
            (&generation, Type::INT8),
            (&document, Type::BYTEA),
            (&channel, Type::TEXT),
            (&word, Type::TEXT),
        ];
        let refusal = loop {
            let rows = self.run(&self.shared.statements.save, &parameters).await?;
            let row = rows.first().ok_or_else(unknown)?;
            let outcome: String = column(row, 0)?;
            let refusal = match &*outcome {
                "saved" => {
                    self.shared.sweep_seldom();
                    return Ok(());
                }
                "again" => continue,
                "lost" => SaveError::LeaseLost,
                "conflict" => SaveError::Conflict,
                _ => return Err(unknown().into()),
            };
            // The statement may have run before, and its answer have been lost: then the record
            // is there.
            match self.is_written(record, column(row, 1)?, column(row, 2)?, document) {
                true => return Ok(()),
                false => break refusal,
            }
        };
        Err(refusal)
    }

    /// Whether this row holds the record, written by this call or by an earlier one.
    fn is_written(
        &self,
        record: &Record,
        generation: Option<i64>,
        found: Option<Vec<u8>>,
        document: Option<&[u8]>,
    ) -> bool {
        let (Some(generation), Some(found), Some(document)) = (generation, found, document) else {
            return false;
        };
        // Each document is sealed with a nonce of its own, so one of an earlier call is another.
        found == document
            || u64::try_from(generation) == Ok(record.generation.get())
                && self
                    .read(generation, Some(found))
                    .is_ok_and(|found| found.is_same_in_all(record))
    }

    pub(super) async fn keep_until(&self, end: SystemTime) -> Result<KeptUntil, StoreError> {
        let end = Duration::from_millis(end_millis_of(end));
        let end = SystemTime::UNIX_EPOCH
            .checked_add(end)
            .ok_or_else(|| StoreError::new("this system's clock cannot say that end"))?;
        let parameters: [Parameter<'_>; 2] =
            [(&&*self.name, Type::TEXT), (&end, Type::TIMESTAMPTZ)];
        let rows = self.run(&self.shared.statements.keep, &parameters).await?;
        match column(rows.first().ok_or_else(unknown)?, 0)? {
            true => Ok(KeptUntil::Kept),
            false => Ok(KeptUntil::NoTokens),
        }
    }

    pub(super) async fn delete(&self) -> Result<Deleted, StoreError> {
        self.check()?;
        let Shared { connections, statements, wakes, .. } = &*self.shared;
        let first = number(Generation::ZERO.next_at(SystemTime::now()));
        let (channel, word) = (wakes.channel(), self.word());
        let parameters: [Parameter<'_>; 4] = [
            (&&*self.name, Type::TEXT),
            (&first, Type::INT8),
            (&channel, Type::TEXT),
            (&word, Type::TEXT),
        ];
        loop {
            // A second delete would find no tokens to revoke.
            let rows = connections.run_once(&statements.delete, &parameters).await?;
            let Some(row) = rows.first() else {
                // Another one has inserted or deleted the row at this moment.
                continue;
            };
            let generation: i64 = column(row, 0)?;
            let document: Option<Vec<u8>> = column(row, 1)?;
            let deleted = self.format.deleted_tokens(document.as_deref());
            return Ok(Deleted::new(to_generation(generation)?, deleted));
        }
    }
}

/// A generation as the server knows it: one that is too great is none of its own.
pub(super) fn number(generation: Generation) -> i64 {
    i64::try_from(generation.get()).unwrap_or(-1)
}

fn to_generation(number: i64) -> Result<Generation, StoreError> {
    Ok(Generation::new(u64::try_from(number).map_err(|_| unknown())?))
}

/// A column of an answer. The client's own error is left out: it need not be told.
pub(super) fn column<T: FromSqlOwned>(row: &Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|_| unknown())
}
