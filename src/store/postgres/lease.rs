//! The lease in PostgreSQL: what its statements are given, and what they answer.

use std::time::Duration;

use tokio_postgres::{Row, types::Type};

use super::{
    connection::Parameter,
    record::{PostgresRecord, column},
    shared::{Shared, millis, unknown},
    wake::Listener,
};
use crate::{
    store::{
        OpenRedeem, Record, SaveError, StoreError,
        timed_lease::{Acquired, Held, Keeper, Times, open_cause},
    },
    time::Time,
    tokens::Generation,
};

impl Keeper for PostgresRecord {
    const SERVER: &'static str = "PostgreSQL";

    type Fence = i64;
    type Listener = Listener;

    fn times(&self) -> Times {
        self.shared.times
    }

    async fn acquire(
        &self,
        known: Generation,
        owner: &str,
        _: Time,
    ) -> Result<Acquired<i64>, StoreError> {
        // No record is later than one that is too late to be written.
        let known = i64::try_from(known.get()).unwrap_or(i64::MAX);
        let millis = millis(self.shared.times.lease);
        let parameters: [Parameter<'_>; 4] = [
            (&&*self.name, Type::TEXT),
            (&known, Type::INT8),
            (&owner, Type::TEXT),
            (&millis, Type::INT8),
        ];
        let rows = self.run(&self.shared.statements.acquire, &parameters).await?;
        let Some(row) = rows.first() else {
            // Another one has inserted or deleted the row at this moment.
            return Ok(Acquired::Wait(Some(Duration::ZERO)));
        };
        let outcome: String = column(row, 0)?;
        match &*outcome {
            "newer" => Ok(Acquired::Newer(self.read(column(row, 5)?, column(row, 6)?)?)),
            "wait" => {
                let left: Option<i64> = column(row, 4)?;
                // It has no end, or had one just now: not known.
                let left = left.and_then(|left| u64::try_from(left).ok());
                Ok(Acquired::Wait(left.map(Duration::from_millis)))
            }
            "held" => Ok(Acquired::Held { fence: column(row, 1)?, open_redeem: open_redeem(row)? }),
            _ => Err(unknown()),
        }
    }

    async fn renew(&self, held: &Held<i64>, time: Duration) -> Result<bool, StoreError> {
        let millis = millis(time);
        let parameters: [Parameter<'_>; 4] = [
            (&&*self.name, Type::TEXT),
            (&held.fence, Type::INT8),
            (&held.owner, Type::TEXT),
            (&millis, Type::INT8),
        ];
        let rows = self.run(&self.shared.statements.renew, &parameters).await?;
        Ok(!rows.is_empty())
    }

    async fn intend(&self, held: &Held<i64>, generation: Generation) -> Result<bool, StoreError> {
        let (generation, millis) = (noted(generation)?, millis(self.shared.times.intent));
        let parameters: [Parameter<'_>; 5] = [
            (&&*self.name, Type::TEXT),
            (&held.fence, Type::INT8),
            (&held.owner, Type::TEXT),
            (&generation, Type::INT8),
            (&millis, Type::INT8),
        ];
        let rows = self.run(&self.shared.statements.intend, &parameters).await?;
        Ok(!rows.is_empty())
    }

    async fn save(
        &self,
        held: &Held<i64>,
        expected: Generation,
        record: &Record,
    ) -> Result<(), SaveError> {
        self.save_as(Some(held.fence), expected, record).await
    }

    async fn release(
        &self,
        held: &Held<i64>,
        open_redeem: Option<OpenRedeem>,
    ) -> Result<(), StoreError> {
        let generation = open_redeem.map(|open| noted(open.generation)).transpose()?;
        let state = open_redeem.map(|open| open.cause.as_str());
        let Shared { statements, wakes, .. } = &*self.shared;
        let (channel, word) = (wakes.channel(), self.word());
        let parameters: [Parameter<'_>; 6] = [
            (&&*self.name, Type::TEXT),
            (&held.fence, Type::INT8),
            (&generation, Type::INT8),
            (&state, Type::TEXT),
            (&channel, Type::TEXT),
            (&word, Type::TEXT),
        ];
        self.run(&statements.release, &parameters).await.map(drop)
    }

    fn listen(&self) -> Listener {
        self.shared.wakes.listen(self.word())
    }
}

/// The open redeem in a row.
fn open_redeem(row: &Row) -> Result<Option<OpenRedeem>, StoreError> {
    let (generation, state): (Option<i64>, Option<String>) = (column(row, 2)?, column(row, 3)?);
    let (Some(generation), Some(state)) = (generation, state) else {
        return Ok(None);
    };
    let generation = Generation::new(u64::try_from(generation).map_err(|_| unknown())?);
    Ok(Some(OpenRedeem::new(generation, open_cause(&state))))
}

fn noted(generation: Generation) -> Result<i64, StoreError> {
    i64::try_from(generation.get())
        .map_err(|_| StoreError::new("the generation is too great to be written"))
}
