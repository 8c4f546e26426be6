//! [`RefreshState`]: one credential, kept alive. Usable without HTTP.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | the shell: a lock around the machine, the watch channel, the public API |
//! | `builder.rs` | every knob, with unit and default |
//! | `machine/` | the decisions, pure |
//! | `driver.rs` | does what a flight's steps say, in a task of its own |
//! | `waiters.rs`, `wait.rs` | who waits, and the waiting |
//! | `auto_refresh.rs` | refreshes ahead of expiry where no request does |
//! | `sign.rs` | sign-in and sign-out |
//! | `status.rs` | what an operator can read |

mod auto_refresh;
mod builder;
mod driver;
mod machine;
mod sign;
mod status;
mod wait;
mod waiters;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::watch,
    time::Instant,
};

pub use self::{
    auto_refresh::KeepFresh,
    builder::RefreshStateBuilder,
    machine::WhileUnsaved,
    status::{Counts, Status, Trigger},
};
use self::{
    driver::{Pilot, catch},
    machine::Machine,
    waiters::Waiters,
};
pub(crate) use self::{machine::Answer, wait::Wait};
use crate::{
    error::RefreshFailure,
    refresher::{BoxFuture, Refresher},
    store::TokenStore,
    tokens::{Credential, Generation, Tokens},
};

/// One credential: its tokens, generation, flight and failure.
///
/// Shared as `Arc<RefreshState>` by everything that uses the credential. Changes
/// are signalled on a watch channel ([`subscribe`](Self::subscribe)). However many
/// callers ask at once, one refresh runs, in a task of its own: no caller's
/// cancellation stops it, and each caller gets its outcome.
///
/// The methods that may start a refresh must be called within a tokio runtime with
/// its time driver enabled; without one they fail with
/// [`FailureKind::Shutdown`](crate::FailureKind::Shutdown) rather than panic. Without
/// one, [`set`](Self::set) and [`clear`](Self::clear) end with their caller.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |_spent: Tokens| {
///     Ok(Tokens::new("second").with_refresh_token("r2"))
/// })
/// .tokens(Tokens::new("first").with_refresh_token("r1"))
/// .build();
///
/// assert_eq!(state.token().await?.access_token(), Some("first"));
/// assert_eq!(state.refresh().await?.access_token(), Some("second"));
/// assert_eq!(state.status().counts.refreshes, 1);
/// # Ok::<_, tower_refresh::RefreshFailure>(()) }).unwrap();
/// ```
pub struct RefreshState {
    /// The generation times two, plus one while requests have to ask the machine
    /// first. The one thing that a request reads on its way.
    signal: AtomicU64,
    /// The newest generation that a server has accepted.
    accepted: AtomicU64,
    replays: AtomicU64,
    inner: Mutex<Inner>,
    /// The machine's credential, for those who need nothing else.
    current: RwLock<Credential>,
    /// Its changes, told to others: their wakers run here, and their borrows block.
    /// Never used under a lock.
    changes: watch::Sender<Credential>,
    /// How many tasks of this state are under way: flights, sign-ins, sign-outs.
    tasks: watch::Sender<usize>,
    /// How long a caller waits at most.
    deadline: Duration,
    /// Sign-ins and sign-outs take effect in the order they were begun.
    writes: Arc<tokio::sync::Mutex<()>>,
    refresher: Arc<dyn Refresher>,
    store: Arc<dyn TokenStore>,
    on_discard: Option<TokensHook>,
    on_sign_out: Option<TokensHook>,
}

type TokensHook = Arc<dyn Fn(Tokens) -> BoxFuture<'static, ()> + Send + Sync>;

struct Inner {
    machine: Machine,
    waiters: Waiters,
    /// The runtime that the flight runs in.
    home: Option<runtime::Id>,
}

impl RefreshState {
    /// Begins with who redeems. Everything else has a default.
    pub fn builder(refresher: impl Refresher) -> RefreshStateBuilder {
        RefreshStateBuilder::new(Arc::new(refresher))
    }

    /// The token to use now. Waits while there is none that works: on first use,
    /// after its end, and while a refused one is being replaced. Starts a refresh
    /// in the background when the token is about to run out.
    ///
    /// Cancel safe: a refresh that was started goes on.
    ///
    /// # Errors
    ///
    /// Why there is no token; [`FailureKind::Deadline`](crate::FailureKind::Deadline)
    /// after the builder's [`deadline`](RefreshStateBuilder::deadline).
    pub async fn token(self: &Arc<Self>) -> Result<Credential, RefreshFailure> {
        let answer = self.admit();
        self.settle(answer).await
    }

    /// Refreshes now, whatever the token's age, or joins the refresh under way. A
    /// credential that was rejected or signed out is not redeemed, but adopted from
    /// the store if there is a newer one.
    ///
    /// Cancel safe: the refresh goes on.
    ///
    /// # Errors
    ///
    /// Why there is no newer token. A cool-down or the brake is not overridden.
    pub async fn refresh(self: &Arc<Self>) -> Result<Credential, RefreshFailure> {
        let answer = self.with(|machine| machine.refresh(Instant::now()));
        self.settle(answer).await
    }

    /// A server refused the token of this generation: waits for a newer one, which
    /// may be there already. For protocols that no layer serves.
    ///
    /// Cancel safe: the refresh goes on.
    ///
    /// # Errors
    ///
    /// Why there is no newer token.
    pub async fn challenged(
        self: &Arc<Self>,
        generation: Generation,
    ) -> Result<Credential, RefreshFailure> {
        let answer = self.challenge(generation);
        self.settle(answer).await
    }

    /// A server accepted the token of this generation. Tells the brake that new
    /// tokens work. For protocols that no layer serves.
    pub fn accepted(&self, generation: Generation) {
        if self.accepted.load(Ordering::Relaxed) < generation.get() {
            self.accepted.fetch_max(generation.get(), Ordering::Relaxed);
        }
    }

    /// The current credential as it is, without waiting: perhaps run out, perhaps
    /// without a token.
    #[must_use]
    pub fn current(&self) -> Credential {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The watch channel: holds the current credential and signals each change of
    /// it. Holding on to the receiver's borrow blocks whoever makes the next change, a
    /// refresh or a sign-in; clone out of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Credential> {
        self.changes.subscribe()
    }

    /// Graceful shutdown: starts no refresh from now on, and waits until the one
    /// under way has saved its tokens. If saving keeps failing this takes as long
    /// as that does; wrap it in a timeout. Cancel safe.
    ///
    /// It waits for the hooks, too, for sign-ins and sign-outs under way, and for a lease that
    /// another process has, however long that one keeps it. Neither the
    /// refresher, the store nor a hook may await it: it would wait for itself.
    pub async fn drain(self: &Arc<Self>) {
        self.with(Machine::drain);
        // Those who would wait for the next flight hear that there will be none.
        self.tasks.send_modify(|_| {});
        // The sender is in `self`: this cannot end in an error.
        let _ = self.tasks.subscribe().wait_for(|tasks| *tasks == 0).await;
    }

    /// What an operator may want to know.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = self.lock();
        let machine = &inner.machine;
        let last_failure = machine.last_failure().cloned();
        Status {
            generation: machine.credential().generation(),
            signed_in: machine.credential().is_present(),
            expires_at: machine.credential().expires_at(),
            in_flight: machine.flight().map(|flight| flight.trigger()),
            retry_at: machine.retry_at(Instant::now()),
            last_failure,
            counts: machine.counts().with_replays(self.replays.load(Ordering::Relaxed)),
        }
    }

    /// The word that changes with everything a request has to know. Even while the
    /// gate is open.
    pub(crate) fn signal(&self) -> u64 {
        self.signal.load(Ordering::Acquire)
    }

    pub(crate) fn admit(self: &Arc<Self>) -> Answer {
        self.with(|machine| machine.admit(Instant::now()))
    }

    pub(crate) fn challenge(self: &Arc<Self>, generation: Generation) -> Answer {
        self.with(|machine| {
            let accepted =
                self.accepted.load(Ordering::Relaxed) >= machine.credential().generation().get();
            machine.challenge(generation, accepted, Instant::now())
        })
    }

    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Ordering::Relaxed);
    }

    async fn settle(self: &Arc<Self>, answer: Answer) -> Result<Credential, RefreshFailure> {
        match answer {
            Answer::Go => self.current().present(),
            Answer::Wait(ticket) => Wait::new(Arc::clone(self), ticket).await,
            Answer::Refuse(failure) => Err(failure),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code of a user runs under this lock, and none of ours panics in it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks or tells the machine, and does what follows from it: publishes, wakes,
    /// starts the flight.
    fn with<R>(self: &Arc<Self>, event: impl FnOnce(&mut Machine) -> R) -> R {
        let mut inner = self.lock();
        let generation = inner.machine.credential().generation();
        let failures = inner.machine.failures();
        let idle = inner.machine.flight().is_none();

        let result = event(&mut inner.machine);

        let machine = &inner.machine;
        let changed = machine.credential().generation() != generation;
        let signal = machine.credential().generation().get() << 1 | u64::from(machine.closed());
        let news = changed || machine.failures() != failures;
        let launched = machine.flight().filter(|_| idle);
        let pilot = launched.map(|flight| Pilot::new(Arc::clone(self), machine, flight));
        let published = changed.then(|| machine.credential().clone());
        if let Some(credential) = &published {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            current.clone_from(credential);
        }
        if pilot.is_some() {
            inner.home = Handle::try_current().ok().map(|runtime| runtime.id());
        }
        let woken = news.then(|| inner.waiters.take_all());
        self.signal.store(signal, Ordering::Release);
        drop(inner);

        if let Some(credential) = published {
            self.announce(credential);
        }
        woken.into_iter().flatten().for_each(|waker| waker.wake());
        if let Some(pilot) = pilot {
            pilot.spawn();
        }
        result
    }

    /// Two threads may come here in either order: what is older then is not told.
    fn announce(&self, credential: Credential) {
        self.changes.send_if_modified(|known| {
            let newer = credential.generation() > known.generation();
            if newer {
                *known = credential;
            }
            newer
        });
    }
}

/// Counts as under way until it is dropped.
struct Task(Arc<RefreshState>);

impl Task {
    fn begin(state: &Arc<RefreshState>) -> Self {
        // Under the state's lock, so nobody is woken: those who wait, wait for fewer.
        state.tasks.send_if_modified(|tasks| {
            *tasks += 1;
            false
        });
        Self(Arc::clone(state))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

impl fmt::Debug for RefreshState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshState").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when the thread that made the older change is overtaken on its way here.
    #[test]
    fn what_is_older_is_not_announced() {
        let state = RefreshState::builder(async |_: Tokens| Ok(Tokens::new("unused"))).build();
        let mut changes = state.subscribe();
        state.announce(Credential::absent(Generation::new(2)));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        state.announce(Credential::absent(Generation::new(1)));
        assert!(!changes.has_changed().unwrap());
        assert_eq!(changes.borrow().generation(), Generation::new(2));
    }
}
