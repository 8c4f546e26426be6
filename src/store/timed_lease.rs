//! A lease with a time limit, kept by a server: waited for, renewed while its holder lives, and
//! given back. What the server does in each step is the [`Keeper`]'s.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record, SaveError, StoreError},
    time::{Due, Time},
    tokens::Generation,
};

/// The longest pause after a renewal that has failed.
const MAX_RENEWAL_PAUSE: Duration = Duration::from_millis(250);

/// One name's record at a server, as far as its lease goes.
pub(super) trait Keeper: Send + Sync + Sized + 'static {
    /// What the server is called in the log.
    const SERVER: &'static str;

    /// The number of a lease, which no other one has.
    type Fence: Send + Sync + 'static;

    type Listener: Listens;

    fn times(&self) -> Times;

    /// Takes the lease, or says why not.
    fn acquire(
        &self,
        known: Generation,
        owner: &str,
        begun: Time,
    ) -> impl Future<Output = Result<Acquired<Self::Fence>, StoreError>> + Send;

    /// Whether the lease is held, and for so long from now on.
    fn renew(
        &self,
        held: &Held<Self::Fence>,
        time: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether the lease is held, and the intent noted in it.
    fn intend(
        &self,
        held: &Held<Self::Fence>,
        generation: Generation,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Saves for the holder, and ends the lease.
    fn save(
        &self,
        held: &Held<Self::Fence>,
        expected: Generation,
        record: &Record,
    ) -> impl Future<Output = Result<(), SaveError>> + Send;

    fn release(
        &self,
        held: &Held<Self::Fence>,
        open_redeem: Option<OpenRedeem>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn listen(&self) -> Self::Listener;
}

/// One caller that waits.
pub(super) trait Listens: Send {
    /// Waits until it is time to look.
    fn woken(&mut self) -> impl Future<Output = ()> + Send;
}

/// The knobs of a lease.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) lease: Duration,
    pub(super) intent: Duration,
    pub(super) poll: Duration,
}

/// What came of an attempt to take the lease.
pub(super) enum Acquired<F> {
    Held {
        fence: F,
        open_redeem: Option<OpenRedeem>,
    },
    Newer(Record),
    /// Another holder has it, for that long if it does not renew it. `None`: not known.
    Wait(Option<Duration>),
}

/// Whose lease it is.
pub(super) struct Held<F> {
    pub(super) owner: String,
    pub(super) fence: F,
}

struct TimedLease<K: Keeper> {
    holding: Arc<Holding<K>>,
    open_redeem: Option<OpenRedeem>,
    renewal: AbortHandle,
    /// It has ended with a save: there is nothing to be given back.
    ended: bool,
}

/// What the lease and the task that renews it share.
struct Holding<K: Keeper> {
    keeper: Arc<K>,
    held: Held<K::Fence>,
    validity: Mutex<Validity>,
}

/// Until when the lease is held for certain, by both clocks, and for how long the next renewal
/// takes it.
struct Validity {
    until: Due,
    time: Duration,
}

/// Waits for the lease, or for a record that is later than `known`.
pub(super) async fn lease<K: Keeper>(
    keeper: &Arc<K>,
    known: Generation,
) -> Result<Leased, StoreError> {
    let poll = keeper.times().poll;
    let mut listener = None;
    loop {
        // Two holders of one name would take each other's lease for their own.
        let owner = crate::seal::random().map(u128::from_ne_bytes).ok_or_else(|| {
            StoreError::new("the operating system has no random bytes to name a lease's owner with")
        })?;
        let (owner, begun) = (format!("{owner:032x}"), Time::now());
        let left = match keeper.acquire(known, &owner, begun).await? {
            Acquired::Held { fence, open_redeem } => {
                let held = Held { owner, fence };
                return Ok(Leased::Lease(TimedLease::begin(keeper, held, open_redeem, begun)));
            }
            Acquired::Newer(record) => return Ok(Leased::Newer(record)),
            Acquired::Wait(left) => left,
        };
        let jittered = poll.mul_f64(0.5 + fastrand::f64() / 2.0);
        // A millisecond later than the lease runs out, because it is the server's clock that
        // decides.
        let wait = left.map_or(jittered, |left| jittered.min(left + Duration::from_millis(1)));
        // A listener is woken once when it begins to be heard, because it has heard nothing of
        // what was said before. So the attempt before this line misses no message.
        let listener = listener.get_or_insert_with(|| keeper.listen());
        let _ = timeout(wait, listener.woken()).await;
    }
}

/// Renews the lease until it is lost, or dropped.
async fn renew<K: Keeper>(holding: Arc<Holding<K>>) {
    // After the intent, too, although its time is longer: when that has run out, a waiter
    // gives the holder one lease time to renew, and then takes over.
    let often = holding.keeper.times().lease / 3;
    let mut pause = often;
    loop {
        sleep(pause).await;
        let (begun, time) = (Time::now(), holding.validity().time);
        match holding.keeper.renew(&holding.held, time).await {
            Ok(true) => {
                holding.extend(begun, time);
                pause = often;
            }
            Ok(false) => return holding.lost(),
            Err(error) => {
                // It is not logged, because it may quote what the server was sent. If it
                // lasts, the holder's next step meets it and tells.
                drop(error);
                tracing::debug!(
                    "a lease in {} could not be renewed, and is tried again",
                    K::SERVER
                );
                pause = MAX_RENEWAL_PAUSE.min(often);
            }
        }
    }
}

impl<K: Keeper> Holding<K> {
    fn validity(&self) -> MutexGuard<'_, Validity> {
        // Nothing panics while it is locked.
        self.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server was asked at `begun`, and its time limit begins later than that.
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

    async fn give_back(&self, open_redeem: Option<OpenRedeem>) {
        if self.keeper.release(&self.held, open_redeem).await.is_err() {
            tracing::debug!("a lease in {} could not be given back, and will run out", K::SERVER);
        }
    }
}

impl<K: Keeper> TimedLease<K> {
    /// The lease was asked for at `begun`.
    fn begin(
        keeper: &Arc<K>,
        held: Held<K::Fence>,
        open_redeem: Option<OpenRedeem>,
        begun: Time,
    ) -> Box<dyn Lease> {
        let time = keeper.times().lease;
        let validity = Mutex::new(Validity { until: begun.after(time), time });
        let holding = Arc::new(Holding { keeper: Arc::clone(keeper), held, validity });
        let renewal = tokio::spawn(renew(Arc::clone(&holding))).abort_handle();
        Box::new(Self { holding, open_redeem, renewal, ended: false })
    }
}

impl<K: Keeper> Lease for TimedLease<K> {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn is_held(&self) -> bool {
        !self.ended && !self.holding.validity().until.has_come(Time::now())
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Holding { keeper, held, .. } = &*self.holding;
            let (begun, time) = (Time::now(), keeper.times().intent);
            if !keeper.intend(held, generation).await? {
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
            let Holding { keeper, held, .. } = &*self.holding;
            let saved = keeper.save(held, expected, &record).await;
            if matches!(saved, Ok(()) | Err(SaveError::LeaseLost)) {
                self.renewal.abort();
                self.holding.lost();
                self.ended = true;
            }
            if matches!(saved, Err(SaveError::LeaseLost)) {
                // The record may be gone, and the fence with it, while the lease is ours yet:
                // no other holder is to wait for it.
                self.holding.give_back(None).await;
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
            self.holding.give_back(open_redeem).await;
        })
    }
}

impl<K: Keeper> Drop for TimedLease<K> {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// How an open redeem was left. Where a server has noted no cause (`open`, `open silent`), its
/// holder has not come back in its time: it is silent.
pub(super) fn open_cause(word: &str) -> OpenCause {
    OpenCause::from_word(word).unwrap_or(OpenCause::HolderSilent)
}
