//! The lease in PostgreSQL: taken, renewed, and given back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{Row, types::Type};

use super::{
    connection::Parameter,
    record::{PostgresRecord, column},
    shared::{Shared, millis, unknown},
};
use crate::{
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record, SaveError, StoreError},
    time::{Due, Time},
    tokens::Generation,
};

/// The longest pause after a renewal that has failed.
const MAX_RENEWAL_PAUSE: Duration = Duration::from_millis(250);

pub(super) struct PostgresLease {
    holding: Arc<Holding>,
    open_redeem: Option<OpenRedeem>,
    renewal: AbortHandle,
    /// It has ended with a save: there is nothing to be given back.
    ended: bool,
}

/// What the lease and the task that renews it share.
struct Holding {
    record: Arc<PostgresRecord>,
    owner: String,
    fence: i64,
    validity: Mutex<Validity>,
}

/// Until when the lease is held for certain, by both clocks, and for how long the next renewal
/// takes it.
struct Validity {
    until: Due,
    time: Duration,
}

/// What came of an attempt to take the lease.
enum Attempt {
    Done(Leased),
    /// Another holder has it, for that long if it does not renew it. `None`: not known.
    Wait(Option<Duration>),
}

/// Waits for the lease, or for a record that is later than `known`.
pub(super) async fn lease(
    record: &Arc<PostgresRecord>,
    known: Generation,
) -> Result<Leased, StoreError> {
    let Shared { wakes, poll, .. } = &*record.shared;
    let mut listener = None;
    loop {
        let left = match attempt(record, known).await? {
            Attempt::Done(leased) => return Ok(leased),
            Attempt::Wait(left) => left,
        };
        let jittered = poll.mul_f64(0.5 + fastrand::f64() / 2.0);
        // A millisecond later than the lease runs out, because it is the server's clock that
        // decides.
        let wait = left.map_or(jittered, |left| jittered.min(left + Duration::from_millis(1)));
        // A listener is woken once when it begins to be heard, because it has heard nothing of
        // what was said before. So the attempt before this line misses no message.
        let listener = listener.get_or_insert_with(|| wakes.listen(record.word()));
        let _ = timeout(wait, listener.woken()).await;
    }
}

async fn attempt(record: &Arc<PostgresRecord>, known: Generation) -> Result<Attempt, StoreError> {
    let Shared { lease: time, statements, .. } = &*record.shared;
    // Two holders of one name would take each other's lease for their own.
    let owner = crate::seal::random().map(u128::from_ne_bytes).ok_or_else(|| {
        StoreError::new("the operating system has no random bytes to name a lease's owner with")
    })?;
    let owner = format!("{owner:032x}");
    let begun = Time::now();
    // No record is later than one that is too late to be written.
    let known = i64::try_from(known.get()).unwrap_or(i64::MAX);
    let millis = millis(*time);
    let parameters: [Parameter<'_>; 4] = [
        (&&*record.name, Type::TEXT),
        (&known, Type::INT8),
        (&owner, Type::TEXT),
        (&millis, Type::INT8),
    ];
    let rows = record.run(&statements.acquire, &parameters).await?;
    let Some(row) = rows.first() else {
        // Another one has inserted or deleted the row at this moment.
        return Ok(Attempt::Wait(Some(Duration::ZERO)));
    };
    let outcome: String = column(row, 0)?;
    match &*outcome {
        "newer" => {
            let record = record.read(column(row, 5)?, column(row, 6)?)?;
            Ok(Attempt::Done(Leased::Newer(record)))
        }
        "wait" => {
            let left: Option<i64> = column(row, 4)?;
            // It has no end, or had one just now: not known.
            let left = left.and_then(|left| u64::try_from(left).ok());
            Ok(Attempt::Wait(left.map(Duration::from_millis)))
        }
        "held" => {
            let (fence, open_redeem) = (column(row, 1)?, open_redeem(row)?);
            let validity = Mutex::new(Validity { until: begun.after(*time), time: *time });
            let record = Arc::clone(record);
            let holding = Arc::new(Holding { record, owner, fence, validity });
            let renewal = tokio::spawn(renew(Arc::clone(&holding))).abort_handle();
            let lease = PostgresLease { holding, open_redeem, renewal, ended: false };
            Ok(Attempt::Done(Leased::Lease(Box::new(lease))))
        }
        _ => Err(unknown()),
    }
}

/// The open redeem in a row. Where no cause is given (`open`, `open silent`), its holder
/// has not come back in its time: it is silent.
fn open_redeem(row: &Row) -> Result<Option<OpenRedeem>, StoreError> {
    let (generation, state): (Option<i64>, Option<String>) = (column(row, 2)?, column(row, 3)?);
    let (Some(generation), Some(state)) = (generation, state) else {
        return Ok(None);
    };
    let generation = Generation::new(u64::try_from(generation).map_err(|_| unknown())?);
    let cause = OpenCause::from_word(&state).unwrap_or(OpenCause::HolderSilent);
    Ok(Some(OpenRedeem::new(generation, cause)))
}

/// Renews the lease until it is lost, or dropped.
async fn renew(holding: Arc<Holding>) {
    // After the intent, too, although its time is longer: when that has run out, a waiter
    // gives the holder one lease time to renew, and then takes over.
    let often = holding.record.shared.lease / 3;
    let mut pause = often;
    loop {
        sleep(pause).await;
        let (begun, time) = (Time::now(), holding.validity().time);
        match holding.renew(time).await {
            Ok(true) => {
                holding.extend(begun, time);
                pause = often;
            }
            Ok(false) => return holding.lost(),
            Err(error) => {
                // If it lasts, the holder's next step meets it and tells.
                drop(error);
                tracing::debug!("a lease in PostgreSQL could not be renewed, and is tried again");
                pause = MAX_RENEWAL_PAUSE.min(often);
            }
        }
    }
}

impl Holding {
    /// Whether the lease is held, and longer.
    async fn renew(&self, time: Duration) -> Result<bool, StoreError> {
        let millis = millis(time);
        let parameters: [Parameter<'_>; 4] = [
            (&&*self.record.name, Type::TEXT),
            (&self.fence, Type::INT8),
            (&self.owner, Type::TEXT),
            (&millis, Type::INT8),
        ];
        let rows = self.record.run(&self.record.shared.statements.renew, &parameters).await?;
        Ok(!rows.is_empty())
    }

    fn validity(&self) -> MutexGuard<'_, Validity> {
        // Nothing panics while it is locked.
        self.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statement was sent at `begun`, and the server's time limit begins later than that.
    fn extend(&self, begun: Time, time: Duration) {
        let (mut validity, until) = (self.validity(), begun.after(time));
        // An intent may have made it longer since then.
        if until.now >= validity.until.now {
            validity.until = until;
        }
    }

    fn lost(&self) {
        self.validity().until = Time::now().after(Duration::ZERO);
    }
}

impl Lease for PostgresLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn is_held(&self) -> bool {
        !self.ended && !self.holding.validity().until.has_come(Time::now())
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Holding { record, owner, fence, .. } = &*self.holding;
            let time = record.shared.intent;
            let begun = Time::now();
            let (generation, millis) = (noted(generation)?, millis(time));
            let parameters: [Parameter<'_>; 5] = [
                (&&*record.name, Type::TEXT),
                (fence, Type::INT8),
                (owner, Type::TEXT),
                (&generation, Type::INT8),
                (&millis, Type::INT8),
            ];
            if record.run(&record.shared.statements.intend, &parameters).await?.is_empty() {
                self.holding.lost();
                return Err(StoreError::new("the lease was lost"));
            }
            self.holding.validity().time = time;
            self.holding.extend(begun, time);
            Ok(())
        })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let Holding { record: keeper, fence, .. } = &*self.holding;
            let saved = keeper.save(Some(*fence), expected, &record).await;
            if matches!(saved, Ok(()) | Err(SaveError::LeaseLost)) {
                self.renewal.abort();
                self.holding.lost();
                self.ended = true;
            }
            saved
        })
    }

    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.ended {
                return;
            }
            self.renewal.abort();
            if self.holding.release(open_redeem).await.is_err() {
                tracing::debug!("a lease in PostgreSQL could not be given back, and will run out");
            }
        })
    }
}

impl Holding {
    async fn release(&self, open_redeem: Option<OpenRedeem>) -> Result<(), StoreError> {
        let generation = open_redeem.map(|open| noted(open.generation)).transpose()?;
        let state = open_redeem.map(|open| open.cause.as_str());
        let Shared { statements, wakes, .. } = &*self.record.shared;
        let (channel, word) = (wakes.channel(), self.record.word());
        let parameters: [Parameter<'_>; 6] = [
            (&&*self.record.name, Type::TEXT),
            (&self.fence, Type::INT8),
            (&generation, Type::INT8),
            (&state, Type::TEXT),
            (&channel, Type::TEXT),
            (&word, Type::TEXT),
        ];
        self.record.run(&statements.release, &parameters).await?;
        Ok(())
    }
}

impl Drop for PostgresLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

fn noted(generation: Generation) -> Result<i64, StoreError> {
    i64::try_from(generation.get())
        .map_err(|_| StoreError::new("the generation is too great to be written"))
}
