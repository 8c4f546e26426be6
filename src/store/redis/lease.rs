//! The lease in Redis: taken, renewed, and given back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use redis::Value;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    record::RedisRecord,
    script::{ACQUIRE, Answer, INTEND, RELEASE, RENEW, Script, unknown},
    shared::{Shared, millis},
};
use crate::{
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record, SaveError, StoreError},
    time::{Due, Time},
    tokens::Generation,
};

/// Stands in the record, in the place of an [`OpenCause`], while the holder that noted its
/// intent has neither saved nor said how the redeem ended.
const OPEN: &str = "open";

/// The longest pause after a renewal that has failed.
const MAX_RENEWAL_PAUSE: Duration = Duration::from_millis(250);

pub(super) struct RedisLease {
    holding: Arc<Holding>,
    open_redeem: Option<OpenRedeem>,
    renewal: AbortHandle,
    /// It has ended with a save: there is nothing to be given back.
    ended: bool,
}

/// What the lease and the task that renews it share.
struct Holding {
    record: Arc<RedisRecord>,
    owner: String,
    fence: String,
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
    record: &Arc<RedisRecord>,
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
        // A listener is woken once when its subscription begins, because it has heard nothing
        // of what was published before. So the attempt before this line misses no message.
        let listener = listener.get_or_insert_with(|| wakes.listen(&record.keys.wake()));
        let _ = timeout(wait, listener.woken()).await;
    }
}

async fn attempt(record: &Arc<RedisRecord>, known: Generation) -> Result<Attempt, StoreError> {
    let Shared { lease: time, intent, .. } = *record.shared;
    // Two holders of one name would take each other's lease for their own.
    let owner = crate::seal::random().map(u128::from_ne_bytes).ok_or_else(|| {
        StoreError::new("the operating system has no random bytes to name a lease's owner with")
    })?;
    let owner = format!("{owner:032x}");
    let begun = Time::now();
    let keys = [record.keys.record(), &*record.keys.lease()];
    let known = known.get().to_string();
    let arguments = [known, owner.clone(), millis(time), millis(intent), first_fence(begun.wall)];
    let mut answer = Answer::new(record.run(&ACQUIRE, &keys, &arguments).await?);
    match answer.text()?.as_deref() {
        Some("newer") => {
            let generation = answer.text()?;
            let record = record.read(generation, answer.bytes()?)?;
            Ok(Attempt::Done(Leased::Newer(record)))
        }
        Some("wait") => {
            // `PTTL` is -2 without a key and -1 without an expiry: not known, so poll.
            let left = u64::try_from(answer.number()?).ok().map(Duration::from_millis);
            Ok(Attempt::Wait(left))
        }
        Some("held") => {
            let fence = answer.text()?.ok_or_else(unknown)?;
            let open_redeem = answer.text()?.and_then(|text| parse_open_redeem(&text));
            let validity = Mutex::new(Validity { until: begun.after(time), time });
            let record = Arc::clone(record);
            let holding = Arc::new(Holding { record, owner, fence, validity });
            let renewal = tokio::spawn(renew(Arc::clone(&holding))).abort_handle();
            let lease = RedisLease { holding, open_redeem, renewal, ended: false };
            Ok(Attempt::Done(Leased::Lease(Box::new(lease))))
        }
        _ => Err(unknown()),
    }
}

/// Where the fences of a name begin: at nanoseconds since the epoch, by the client's clock, since
/// the server's is a right more. What counts is that no fence comes twice, and even a clock that
/// is behind does not stand at the same nanosecond again.
fn first_fence(wall: SystemTime) -> String {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Redis counts with 63 bits: these 62 leave room for as many leases, whatever the clock says.
    (since.as_nanos() % (1 << 62)).to_string()
}

/// Renews the lease until it is lost, or dropped.
async fn renew(holding: Arc<Holding>) {
    // After the intent, too, although its time is longer: when that has run out, a waiter
    // gives the holder one lease time to renew, and then takes over.
    let Shared { lease, intent, .. } = *holding.record.shared;
    let often = lease / 3;
    let mut pause = often;
    loop {
        sleep(pause).await;
        let (begun, time) = (Time::now(), holding.validity().time);
        match holding.run(&RENEW, &[millis(time), millis(intent)]).await {
            Ok(true) => {
                holding.extend(begun, time);
                pause = often;
            }
            Ok(false) => return holding.lost(),
            Err(error) => {
                // It is not logged, because it may quote what the server was sent. If it
                // lasts, the holder's next step meets it and tells.
                drop(error);
                tracing::debug!("a lease in Redis could not be renewed, and is tried again");
                pause = MAX_RENEWAL_PAUSE.min(often);
            }
        }
    }
}

impl Holding {
    /// Runs a script that says whether the lease is held.
    async fn run(&self, script: &Script, rest: &[String]) -> Result<bool, StoreError> {
        let keys = [self.record.keys.record(), &*self.record.keys.lease()];
        let arguments = [&[self.owner.clone(), self.fence.clone()], rest].concat();
        let answer = self.record.run(script, &keys, &arguments).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("held") => Ok(true),
            Some("lost") => Ok(false),
            _ => Err(unknown()),
        }
    }

    fn validity(&self) -> MutexGuard<'_, Validity> {
        // Nothing panics while it is locked.
        self.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The command was sent at `begun`, and the server's time limit begins later than that.
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

impl RedisLease {
    async fn give_back(&self, open_redeem: Option<OpenRedeem>) {
        let Holding { record, owner, fence, .. } = &*self.holding;
        let open_redeem = open_redeem.map_or_else(String::new, |open| {
            format!("{} {}", open.generation, open.cause.as_str())
        });
        let keys = [record.keys.record(), &*record.keys.lease()];
        let arguments = [owner.clone(), fence.clone(), open_redeem, record.keys.wake()];
        let released: Result<Value, _> = record.run(&RELEASE, &keys, &arguments).await;
        if released.is_err() {
            tracing::debug!("a lease in Redis could not be given back, and will run out");
        }
    }
}

impl Lease for RedisLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn is_held(&self) -> bool {
        !self.ended && !self.holding.validity().until.has_come(Time::now())
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Shared { intent: time, ttl, .. } = *self.holding.record.shared;
            let begun = Time::now();
            let open = format!("{generation} {OPEN}");
            if !self.holding.run(&INTEND, &[open, millis(time), millis(ttl)]).await? {
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
            let saved = keeper.save(fence, expected, &record).await;
            if matches!(saved, Ok(()) | Err(SaveError::LeaseLost)) {
                self.renewal.abort();
                self.holding.lost();
                self.ended = true;
            }
            if matches!(saved, Err(SaveError::LeaseLost)) {
                // The record may be gone, and the fence with it, while the lease is ours yet:
                // nobody is to wait for it.
                self.give_back(None).await;
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
            self.give_back(open_redeem).await;
        })
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// The open redeem in a record. Where no cause is given (`open`, `open silent`), its holder
/// has not come back in its time: it is silent.
fn parse_open_redeem(text: &str) -> Option<OpenRedeem> {
    let (generation, word) = text.split_once(' ')?;
    let generation = Generation::new(generation.parse().ok()?);
    let cause = OpenCause::from_word(word).unwrap_or(OpenCause::HolderSilent);
    Some(OpenRedeem::new(generation, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_begin_where_redis_can_count_on() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36);
        for wall in [SystemTime::UNIX_EPOCH - Duration::from_secs(1), SystemTime::now(), far] {
            let first: i64 = first_fence(wall).parse().unwrap();
            assert!(first.checked_add(1 << 62).is_some(), "{first}");
        }
    }
}
