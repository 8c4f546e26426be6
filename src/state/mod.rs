//! A credential and how it is kept alive: [`RefreshState`] is one, [`Renewal`] is what any number
//! of them have in common. Usable without HTTP.
#![doc = include_str!("observe.md")]

// | file | what is in it |
// |---|---|
// | `mod.rs` | the shell: a lock around the machine, the watch channel, the public API |
// | `renewal.rs`, `builder.rs` | what a family of credentials shares; every knob |
// | `machine/` | the decisions, pure |
// | `driver.rs` | does what a flight's steps say, in a task of its own |
// | `waiters.rs`, `wait.rs` | the list of waiters, and the waiting |
// | `clock.rs` | sleeping by both clocks |
// | `look.rs` | looking at the store for what another process has written |
// | `refusals.rs` | what responses say of the token: what the machine hears of it |
// | `attempt.rs` | a call with the token, for protocols without a layer |
// | `auto_refresh.rs` | refreshes ahead of expiry where no request does |
// | `alarms/` | what has to happen later in a family: waiters' deadlines, looks ahead |
// | `sign.rs`, `revocation.rs` | sign-in and sign-out, and what the latter tells |
// | `unrevoked.rs` | what is left at the server, until a hook has revoked it |
// | `drain.rs` | graceful shutdown |
// | `failure.rs`, `status.rs` | why there is no token; what an operator can read |
// | `observe.rs` | what a program and its operator hear: health, hook, log |

mod alarms;
mod attempt;
mod auto_refresh;
mod builder;
mod clock;
mod drain;
mod driver;
mod failure;
mod heads;
mod look;
mod machine;
mod observe;
mod refusals;
mod renewal;
mod revocation;
mod sign;
mod status;
mod unrevoked;
mod wait;
mod waiters;

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
};

use tokio::{runtime::Handle, sync::watch};

pub use self::{
    attempt::AttemptError,
    auto_refresh::KeepFresh,
    builder::{RefreshStateBuilder, RenewalBuilder},
    drain::Drained,
    failure::{FailureKind, RefreshFailure},
    machine::WhileUnsaved,
    observe::FailureEvent,
    renewal::Renewal,
    revocation::{HookResult, Revocation, SignedOut},
    status::{Counts, Health, PastFailure, Status},
};
use self::{
    driver::FlightDriver,
    failure::present,
    machine::{Effects, Gate, Landing, Machine, Moment},
    observe::{Channels, Extras},
    waiters::{Everyone, Waiters},
};
#[cfg(feature = "session")]
pub(crate) use self::{
    heads::{Heads, OwedHead},
    revocation::TokensHook,
};
pub(crate) use self::{
    machine::{Accepted, Admission, Route},
    wait::Wait,
};
use crate::{
    credential::Credential,
    metrics,
    refresher::Refresher,
    store::TokenStore,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Time,
    tokens::Generation,
};

/// One credential: its tokens, generation, flight and failure.
///
/// Everything that uses the credential shares an `Arc<RefreshState>`. A watch channel signals
/// changes ([`subscribe`](Self::subscribe)). However many callers ask at once, one refresh runs, in a
/// task of its own: no caller's cancellation stops it, and each caller gets its outcome.
///
/// The methods that may start a task take `&Arc<Self>`, because the task keeps the state alive;
/// those that only look take `&self`.
///
/// Call the methods that may start a refresh within a tokio runtime whose time driver is enabled.
/// Without a runtime they fail with [`FailureKind::NoRuntime`] rather than panic, and
/// [`set`](Self::set) and [`clear`](Self::clear) end with their caller.
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
    /// The generation times two, plus one while the gate is closed. The one thing that a
    /// request reads on its way.
    gate_word: AtomicU64,
    /// The newest generation that a server has accepted, times two, plus one if that was a replay
    /// which the refresh has helped. Zero while the machine has to hear of each response.
    accepted: AtomicU64,
    replays: AtomicU64,
    inner: Mutex<Inner>,
    renewal: Renewal,
    store: Arc<dyn TokenStore>,
}

struct Inner {
    machine: Machine,
    waiters: Waiters,
    /// How many tasks of this state are under way: flights, hooks, sign-ins, sign-outs.
    running: u32,
    /// The store was told to delete tokens, and has not answered that it has.
    deletion_open: bool,
    is_kept_fresh: bool,
    /// Sign-ins and sign-outs take effect in the order they were begun. Made while there
    /// are any.
    write_queue: Weak<tokio::sync::Mutex<()>>,
    /// `None` while there is nothing in it.
    extras: Option<Box<Extras>>,
}

impl RefreshState {
    /// Begins with the refresher. Everything else has a default.
    pub fn builder(refresher: impl Refresher) -> RefreshStateBuilder {
        RefreshStateBuilder::new(Arc::new(refresher))
    }

    fn new(renewal: Renewal, store: Arc<dyn TokenStore>, mut machine: Machine) -> Arc<Self> {
        let gate_word = gate_word(machine.credential().generation(), machine.effects().gate);
        Arc::new(Self {
            gate_word: AtomicU64::new(gate_word),
            accepted: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                machine,
                waiters: Waiters::default(),
                running: 0,
                deletion_open: false,
                is_kept_fresh: false,
                write_queue: Weak::new(),
                extras: None,
            }),
            renewal,
            store,
        })
    }

    /// The token to use now. Waits while there is no token that works: on first use, after the
    /// token's end, and while a refused token is being replaced. Starts a refresh in the background if
    /// the token is about to run out.
    ///
    /// Cancel safe: a refresh that was started goes on.
    ///
    /// # Errors
    ///
    /// Why there is no token; [`FailureKind::Deadline`]
    /// after the builder's [`deadline`](RefreshStateBuilder::deadline).
    pub async fn token(self: &Arc<Self>) -> Result<Credential, RefreshFailure> {
        let answer = self.with(Machine::token);
        self.settle(answer).await
    }

    /// Refreshes now, whatever the token's age, or joins the refresh under way. If another process
    /// writes to the store after this call, its tokens are adopted instead. After a rejection or a
    /// sign-out nothing is redeemed; tokens are adopted if the store has newer ones.
    ///
    /// Cancel safe: the refresh goes on.
    ///
    /// # Errors
    ///
    /// Why there is no newer token. This call does not cut a cool-down or the brake short, except for
    /// the [`client_cool_down`](RenewalBuilder::client_cool_down).
    pub async fn refresh(self: &Arc<Self>) -> Result<Credential, RefreshFailure> {
        let limit = Time::now().after(self.renewal.deadline()).now;
        let (refreshes, reading) = self.with(|machine, at| (machine.refreshes(), machine.read(at)));
        if let Some(ticket) = reading {
            Wait::new(Arc::clone(self), ticket).await?;
            let machine = &self.lock().machine;
            // Redeemed, or adopted what was written since.
            if machine.refreshes() != refreshes || machine.landing() == Landing::Adopted {
                return present(machine.credential().clone());
            }
        }
        match self.with(Machine::refresh) {
            Admission::Wait(ticket) => {
                Wait::new(Arc::clone(self), ticket).no_later_than(Some(limit)).await
            }
            answer => self.settle(answer).await,
        }
    }

    /// Call it when a server has refused the token of this generation: it waits for a newer one, which
    /// may be there already. For protocols that no layer serves. Where the token works, call
    /// [`accepted`](Self::accepted): a refresh whose token is never accepted counts as one that did not
    /// help, and a few of those delay the next.
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
        let answer = self.challenge(generation, || None);
        self.settle(answer).await
    }

    /// Call it when a server has accepted the token of this generation. Then a later refusal of the
    /// same token is a doubt (see [`FailureKind::Doubted`]), and the brake knows that new tokens work.
    /// For protocols that no layer serves.
    pub fn accepted(&self, generation: Generation) {
        self.accepted_on(generation, Accepted::Caller, || None);
    }

    /// The current credential as it is, without waiting. Its token may have run out, or be missing.
    #[must_use]
    pub fn current(&self) -> Credential {
        self.lock().machine.credential().clone()
    }

    /// The watch channel: it holds the current credential and signals each change. A receiver that
    /// keeps its borrow blocks the refresh or sign-in that makes the next change, so clone out of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Credential> {
        self.channels().changes.subscribe()
    }

    /// If the server has rejected the refresh token: the store's generation that it stood in, and why.
    #[cfg(feature = "session")]
    pub(crate) fn rejected(&self) -> Option<(Generation, Option<RefreshFailure>)> {
        let machine = &self.lock().machine;
        let is_rejected = machine.health(Time::now()) == Health::Rejected;
        is_rejected.then(|| (machine.stored(), machine.last_failure().cloned()))
    }

    /// Whether the store was told to delete tokens, and has not answered that it has.
    #[cfg(feature = "session")]
    pub(crate) fn owes_deletion(&self) -> bool {
        self.lock().deletion_open
    }

    /// Whether a refresh is under way.
    #[cfg(feature = "session")]
    pub(crate) fn is_in_flight(&self) -> bool {
        self.lock().machine.in_flight().is_some()
    }

    /// Whether another state over the same store would do as well: nothing is under way, and nothing is
    /// known here alone.
    #[cfg(feature = "session")]
    pub(crate) fn is_at_rest(&self) -> bool {
        let inner = self.lock();
        let is_busy = inner.running > 0 || inner.waiters.are_there() || inner.is_kept_fresh;
        let owes = inner.deletion_open || inner.unrevoked().is_some_and(|it| it.len() > 0);
        !is_busy && !owes && inner.machine.is_at_rest(Time::now())
    }

    /// Whether a layer may send its token only to origins that it was told of.
    #[inline]
    pub(crate) fn takes_named_origins(&self) -> bool {
        self.renewal.takes_named_origins()
    }

    /// The word that changes with everything a request has to know. Even while the
    /// gate is open.
    pub(crate) fn gate_word(&self) -> u64 {
        self.gate_word.load(Ordering::Acquire)
    }

    pub(crate) fn admit(self: &Arc<Self>) -> Admission {
        self.with(Machine::admit)
    }

    /// A request is sent a second time.
    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Ordering::Relaxed);
        metrics::replayed();
    }

    async fn settle(self: &Arc<Self>, answer: Admission) -> Result<Credential, RefreshFailure> {
        match answer {
            Admission::Proceed => present(self.current()),
            Admission::Wait(ticket) => Wait::new(Arc::clone(self), ticket).await,
            Admission::Refuse(failure) => Err(failure),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code of a user runs under this lock (`with` says how), and none of ours panics in it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks or tells the machine, and carries out the effects.
    fn with<R>(self: &Arc<Self>, event: impl FnOnce(&mut Machine, Moment<'_>) -> R) -> R {
        let mut inner = self.lock();
        // The machine may let go of a user's error, whose drop must not run under the lock.
        let _errors = inner.machine.errors();
        let at = Moment { may_redeem: inner.may_redeem(), ..self.renewal.moment() };
        let sign_outs = inner.machine.sign_outs();
        let result = event(&mut inner.machine, at);
        let Effects { gate, publish, wake, failed, discard, begin } = inner.machine.effects();
        let gate_word = gate_word(inner.machine.credential().generation(), gate);
        let driver = begin.map(|departure| {
            let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
            inner.waiters.flight_begins(runtime);
            FlightDriver::new(Running::begin(self, &mut inner), departure)
        });
        let woken = wake.then(|| inner.waiters.take_all());
        let failed = failed.map(|failure| inner.failed(failure, at.time.wall));
        let health_changed = inner.health_changed(at.time);
        let is_news = publish.is_some() || health_changed;
        let channels = if is_news { inner.channels() } else { None };
        let look_again = publish.is_some() && inner.is_kept_fresh;
        self.gate_word.store(gate_word, Ordering::Release);
        drop(inner);

        if let Some(channels) = channels {
            if let Some(credential) = publish {
                channels.announce(credential);
            }
            if health_changed {
                channels.announce_health(self);
            }
        }
        metrics::told(woken.map_or(0, Everyone::wake));
        self.look_again(look_again);
        if let Some(event) = failed {
            self.report(event);
        }
        if let Some(tokens) = discard {
            self.discard(*tokens, sign_outs);
        }
        if let Some(driver) = driver {
            driver.spawn();
        }
        result
    }

    fn channels(&self) -> Arc<Channels> {
        self.lock().channels_mut()
    }
}

fn gate_word(generation: Generation, gate: Gate) -> u64 {
    generation.get() << 1 | u64::from(gate == Gate::Closed)
}

/// A task of a state. Counts as under way until it is dropped.
struct Running(Arc<RefreshState>);

impl Running {
    fn begin(state: &Arc<RefreshState>, inner: &mut Inner) -> Self {
        inner.running += 1;
        Self(Arc::clone(state))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.running -= 1;
        if inner.write_queue.strong_count() == 0 {
            // A `Weak` keeps the memory of what it points to.
            inner.write_queue = Weak::new();
        }
        let (channels, is_kept_fresh) = (inner.channels(), inner.is_kept_fresh);
        drop(inner);
        if let Some(channels) = channels {
            channels.ends.send_replace(());
        }
        self.0.look_again(is_kept_fresh);
    }
}

impl Drop for RefreshState {
    fn drop(&mut self) {
        if self.inner.get_mut().is_ok_and(|inner| inner.is_kept_fresh) {
            self.renewal.alarms().forget(self);
        }
    }
}

impl fmt::Debug for RefreshState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshState").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(all(test, tower_refresh_loom))]
pub(crate) mod interleavings;
#[cfg(test)]
mod tests;
