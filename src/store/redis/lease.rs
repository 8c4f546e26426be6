//! The lease in Redis: taken, renewed, and given back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Value;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared, millis,
    record::{Keys, Place},
    script::{ACQUIRE, Answer, INTEND, RELEASE, RENEW, unknown},
};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record},
    tokens::Generation,
};

/// What stands for an interruption while nobody knows whether it is one.
const OPEN: &str = "open";

/// Before a renewal that has failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

pub(super) struct RedisLease {
    holding: Arc<Holding>,
    open_redeem: Option<OpenRedeem>,
    renewal: AbortHandle,
}

/// One holder's hold.
struct Holding {
    place: Arc<Place>,
    owner: String,
    fence: String,
    good: Mutex<Good>,
}

/// For how long it is held at least, and what a renewal makes of it.
struct Good {
    until: Instant,
    time: Duration,
}

/// What came of a try.
enum Try {
    Done(Leased),
    /// Others have it, for that long if they do not renew it.
    Wait(Option<Duration>),
}

/// Waits for the lease, or for what is newer.
pub(super) async fn lease(place: &Arc<Place>, seen: Generation) -> Result<Leased, StoreError> {
    let Shared { wakes, poll, .. } = &*place.shared;
    let owner = format!("{:032x}", fastrand::u128(..));
    let mut listener = None;
    loop {
        let left = match take(place, seen, &owner).await? {
            Try::Done(leased) => return Ok(leased),
            Try::Wait(left) => left,
        };
        // Never quite at once: it may be the server's clock that decides.
        let jittered = poll.mul_f64(0.5 + fastrand::f64() / 2.0);
        let wait = left.map_or(jittered, |left| jittered.min(left + Duration::from_millis(1)));
        // Whoever begins to listen is woken once it does: it looks again then, for what
        // was said before.
        let listener = listener.get_or_insert_with(|| wakes.listen(&place.keys.wake));
        let _ = timeout(wait, listener.woken()).await;
    }
}

async fn take(place: &Arc<Place>, seen: Generation, owner: &str) -> Result<Try, StoreError> {
    let Shared { lease: time, ttl, .. } = *place.shared;
    let Keys { record, lease, .. } = &place.keys;
    let begun = Instant::now();
    let arguments = [seen.get().to_string(), owner.to_owned(), millis(time), millis(ttl)];
    let answer = place.run(&ACQUIRE, &[record, lease], &arguments).await?;
    let mut answer = Answer::new(answer);
    match answer.text()?.as_deref() {
        Some("newer") => {
            let generation = answer.text()?;
            let record = place.read(generation, answer.bytes()?)?;
            Ok(Try::Done(Leased::Newer(record)))
        }
        Some("wait") => {
            // Less than nothing: it has just run out, or has no end.
            let left = u64::try_from(answer.number()?).ok().map(Duration::from_millis);
            Ok(Try::Wait(left))
        }
        Some("held") => {
            let fence = answer.text()?.ok_or_else(unknown)?;
            let open_redeem = answer.text()?.and_then(|left| found(&left));
            let good = Mutex::new(Good { until: begun + time, time });
            let (place, owner) = (Arc::clone(place), owner.to_owned());
            let holding = Arc::new(Holding { place, owner, fence, good });
            let renewal = tokio::spawn(renew(Arc::clone(&holding))).abort_handle();
            Ok(Try::Done(Leased::Lease(Box::new(RedisLease { holding, open_redeem, renewal }))))
        }
        _ => Err(unknown()),
    }
}

/// Renews it until it is lost, or dropped.
async fn renew(holding: Arc<Holding>) {
    // From the intent on, too: whoever would take over waits no longer for a sign of life.
    let often = holding.place.shared.lease / 3;
    let mut pause = often;
    loop {
        sleep(pause).await;
        let (begun, time) = (Instant::now(), holding.time());
        match holding.ask(&RENEW, &[millis(time)]).await {
            Ok(true) => {
                holding.is_good(begun, time);
                pause = often;
            }
            Ok(false) => return holding.lost(),
            Err(error) => {
                // What may be said of it is left to whoever needs the lease.
                drop(error);
                tracing::debug!("a lease in Redis could not be renewed, and is tried again");
                pause = AGAIN.min(often);
            }
        }
    }
}

impl Holding {
    /// Runs a script that answers whether the lease is held.
    async fn ask(&self, script: &redis::Script, rest: &[String]) -> Result<bool, StoreError> {
        let Keys { record, lease, .. } = &self.place.keys;
        let arguments = [&[self.owner.clone(), self.fence.clone()], rest].concat();
        let answer = self.place.run(script, &[record, lease], &arguments).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("held") => Ok(true),
            Some("lost") => Ok(false),
            _ => Err(unknown()),
        }
    }

    fn good(&self) -> MutexGuard<'_, Good> {
        // Nothing panics while it is held.
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self) -> Duration {
        self.good().time
    }

    /// The server was asked at `begun`, and its time began later.
    fn is_good(&self, begun: Instant, time: Duration) {
        let mut good = self.good();
        good.until = good.until.max(begun + time);
    }

    fn lost(&self) {
        self.good().until = Instant::now();
    }
}

impl Lease for RedisLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn is_held(&self) -> bool {
        Instant::now() < self.holding.good().until
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let time = self.holding.place.shared.intent;
            let begun = Instant::now();
            let open = format!("{generation} {OPEN}");
            if !self.holding.ask(&INTEND, &[open, millis(time)]).await? {
                self.holding.lost();
                return Err(StoreError::new("the lease was lost"));
            }
            self.holding.good().time = time;
            self.holding.is_good(begun, time);
            Ok(())
        })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let Holding { place, owner, fence, .. } = &*self.holding;
            let time = place.shared.lease;
            let begun = Instant::now();
            place.save(owner, fence, expected, &record).await?;
            *self.holding.good() = Good { until: begun + time, time };
            Ok(())
        })
    }

    fn release(self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.renewal.abort();
            let Holding { place, owner, fence, .. } = &*self.holding;
            let left = left.map_or_else(String::new, |left| {
                format!("{} {}", left.generation, left.cause.as_str())
            });
            let Keys { record, lease, wake } = &place.keys;
            let arguments = [owner.clone(), fence.clone(), left, wake.clone()];
            let released: Result<Value, _> =
                place.run(&RELEASE, &[record, lease], &arguments).await;
            if released.is_err() {
                tracing::debug!("a lease in Redis could not be given back, and will run out");
            }
        })
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// What a holder has left. One that has not come back in its time is silent by now.
fn found(left: &str) -> Option<OpenRedeem> {
    let (generation, word) = left.split_once(' ')?;
    let generation = Generation::new(generation.parse().ok()?);
    let cause = OpenCause::from_word(word).unwrap_or(OpenCause::HolderSilent);
    Some(OpenRedeem::new(generation, cause))
}
