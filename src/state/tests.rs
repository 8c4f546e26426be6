use std::{
    error::Error,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::*;
use crate::{
    refresher::{BoxFuture, RefreshError},
    store::{Deleted, Lease, Leased, MemoryStore, OpenRedeem, Record, SaveError, StoreError},
    tokens::Tokens,
};

/// As when the thread that made the older change is overtaken on its way here.
#[test]
fn what_is_older_is_not_announced() {
    let state = RefreshState::builder(async |_: Tokens| Ok(Tokens::new("unused"))).build();
    let mut changes = state.subscribe();
    state.channels().announce(Credential::absent(Generation::new(2)));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    state.channels().announce(Credential::absent(Generation::new(1)));
    assert!(!changes.has_changed().unwrap());
    assert_eq!(changes.borrow().generation(), Generation::new(2));
}

/// Counts the errors that are dropped, and those of them that are dropped under the lock.
#[derive(Default)]
struct Seen {
    state: OnceLock<Weak<RefreshState>>,
    dropped: AtomicU32,
    under_the_lock: AtomicU32,
}

#[derive(Debug)]
struct Watched(Arc<Seen>);

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as told")
    }
}

impl Error for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(state) = self.0.state.get().and_then(Weak::upgrade) {
            let locked = state.inner.try_lock().is_err();
            self.0.under_the_lock.fetch_add(locked.into(), Ordering::Relaxed);
        }
    }
}

/// A store that fails while it is told to.
struct Failing {
    store: MemoryStore,
    loads_fail: Arc<AtomicBool>,
    saves_fail: Arc<AtomicBool>,
    seen: Arc<Seen>,
}

impl TokenStore for Failing {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        match self.loads_fail.load(Ordering::Relaxed) {
            true => Box::pin(async { Err(StoreError::new(Watched(Arc::clone(&self.seen)))) }),
            false => self.store.load(),
        }
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        self.store.save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.store.delete()
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            Ok(match self.store.lease(known).await? {
                Leased::Lease(lease) => {
                    let (fails, seen) = (Arc::clone(&self.saves_fail), Arc::clone(&self.seen));
                    Leased::Lease(Box::new(FailingLease { lease, fails, seen }))
                }
                newer => newer,
            })
        })
    }
}

struct FailingLease {
    lease: Box<dyn Lease>,
    fails: Arc<AtomicBool>,
    seen: Arc<Seen>,
}

impl Lease for FailingLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.lease.open_redeem()
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lease.intend(generation)
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        match self.fails.load(Ordering::Relaxed) {
            true => {
                let error = StoreError::new(Watched(Arc::clone(&self.seen)));
                Box::pin(async { Err(error.into()) })
            }
            false => self.lease.save(expected, record),
        }
    }

    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        self.lease.release(open_redeem)
    }
}

/// Whatever becomes of a failure: replaced by the next one, overcome, forgotten by a sign-in,
/// or come too late to count. An error's own drop may look at the state.
#[tokio::test(start_paused = true)]
async fn a_users_error_is_not_dropped_under_the_lock() {
    let (seen, gate) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
    let [loads_fail, saves_fail, held] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
    let answers = Arc::new(Mutex::new(Vec::<RefreshError>::new()));
    let refresher = {
        let (answers, held, gate) = (Arc::clone(&answers), Arc::clone(&held), Arc::clone(&gate));
        move |_: Tokens| {
            let (answers, held, gate) =
                (Arc::clone(&answers), Arc::clone(&held), Arc::clone(&gate));
            async move {
                if held.load(Ordering::Relaxed) {
                    gate.notified().await;
                }
                match answers.lock().unwrap().pop() {
                    Some(error) => Err(error),
                    None => Ok(Tokens::new("new").with_refresh_token("r")),
                }
            }
        }
    };
    let pair = || Tokens::new("old").with_refresh_token("r");
    let store = Failing {
        store: MemoryStore::with_tokens(pair()),
        loads_fail: Arc::clone(&loads_fail),
        saves_fail: Arc::clone(&saves_fail),
        seen: Arc::clone(&seen),
    };
    let state = RefreshState::builder(refresher)
        .store(store)
        .cool_down(Duration::ZERO, Duration::ZERO)
        .build();
    seen.state.set(Arc::downgrade(&state)).unwrap();
    state.token().await.unwrap();
    let fail = |rejected: bool| {
        let error = Watched(Arc::clone(&seen));
        let error = match rejected {
            true => RefreshError::rejected(error),
            false => RefreshError::transient(error),
        };
        answers.lock().unwrap().push(error);
    };

    // One after the other, and overcome.
    for _ in 0..3 {
        fail(false);
        state.refresh().await.unwrap_err();
    }
    loads_fail.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        state.refresh().await.unwrap_err();
    }
    loads_fail.store(false, Ordering::Relaxed);
    state.refresh().await.unwrap();

    // A save that fails several times.
    saves_fail.store(true, Ordering::Relaxed);
    state.refresh().await.unwrap_err();
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    saves_fail.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1)).await;

    // Rejected, and forgotten by a sign-in.
    fail(true);
    state.refresh().await.unwrap_err();
    state.set(pair()).await.unwrap();

    // Too late to count.
    held.store(true, Ordering::Relaxed);
    fail(false);
    drop(tokio_test::task::spawn(state.refresh()).poll());
    tokio::time::sleep(Duration::from_millis(1)).await;
    state.clear().await.unwrap();
    gate.notify_one();
    state.drain().await;

    assert_eq!(seen.under_the_lock.load(Ordering::Relaxed), 0);
    assert!(seen.dropped.load(Ordering::Relaxed) >= 8);
}
