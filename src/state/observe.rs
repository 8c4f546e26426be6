//! What a program and its operator hear of a credential: the health word, its channel, the
//! hook for failures, and the log's lines about them.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::{runtime::Handle, sync::watch};
use tracing::{Instrument, Span};

use super::{
    Inner, RefreshState, Running,
    failure::{FailureKind, RefreshFailure},
    heads::Heads,
    status::{Counts, Health, PastFailure, Status},
    unrevoked::Unrevoked,
};
use crate::{
    credential::Credential,
    metrics,
    store::OpenCause,
    time::{Due, Time},
    tokens::Generation,
};

/// A failure that waiters got, as the
/// [`on_failure`](super::RenewalBuilder::on_failure) hook gets it. `Debug` shows no secret.
///
/// The page [`operating`](crate::guide::operating) has a program with that hook.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailureEvent {
    /// The credential's name, if it was given one.
    pub name: Option<Arc<str>>,
    /// The failure: its [`kind`](RefreshFailure::kind), a word for its cause
    /// ([`code`](RefreshFailure::code)), and as its [`source`](std::error::Error::source) the
    /// refresher's or the store's own error.
    pub failure: RefreshFailure,
    /// The credential's generation.
    pub generation: Generation,
    /// When, by the wall clock.
    pub at: SystemTime,
    /// Whether the failure before was the same, with the same cause. An outage has many tries, and
    /// the store of a session that has ended is read again now and then.
    pub repeated: bool,
}

impl FailureEvent {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.failure.kind()
    }
}

pub(super) type FailureHook = Arc<dyn Fn(FailureEvent) + Send + Sync>;

/// Signals to those who have subscribed. Never sent under a lock: a receiver's waker runs in
/// the sender, and a receiver's borrow blocks it.
pub(super) struct Channels {
    /// The credential changed.
    pub(super) changes: watch::Sender<Credential>,
    /// How it does changed.
    pub(super) health: watch::Sender<Health>,
    /// A task of this state has ended.
    pub(super) ends: watch::Sender<()>,
}

/// What most of many credentials do without.
#[derive(Default)]
pub(super) struct Extras {
    name: Option<Arc<str>>,
    /// Made at the first subscription.
    channels: Option<Arc<Channels>>,
    /// What the channel holds of how the credential does: what was told for the last time.
    told_health: Option<Health>,
    /// In the order of their first time.
    failures: Vec<PastFailure>,
    /// The last failure that waiters were told.
    last_told: Option<ToldFailure>,
    unrevoked: Unrevoked,
    /// Refresh tokens are spent only while a response is owed.
    heads: Option<Heads>,
}

/// By what a failure is the same as the one before: all that the log says of it.
#[derive(PartialEq)]
struct ToldFailure {
    kind: FailureKind,
    code: Option<Arc<str>>,
    open_redeem: Option<OpenCause>,
    generation: Generation,
}

impl ToldFailure {
    fn new(failure: &RefreshFailure, generation: Generation) -> Self {
        let (kind, code) = (failure.kind(), failure.shared_code());
        Self { kind, code, open_redeem: failure.open_redeem(), generation }
    }
}

impl Inner {
    /// Whether new tokens have a way to where they are kept.
    pub(super) fn may_redeem(&self) -> bool {
        let heads = self.extras.as_ref().and_then(|it| it.heads.as_ref());
        heads.is_none_or(Heads::may_redeem)
    }

    fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(super) fn name(&self) -> Option<Arc<str>> {
        self.extras.as_ref()?.name.clone()
    }

    pub(super) fn set_name(&mut self, name: Arc<str>) {
        self.extras_mut().name = Some(name);
    }

    /// `None`: there was no subscription.
    pub(super) fn channels(&self) -> Option<Arc<Channels>> {
        self.extras.as_ref()?.channels.clone()
    }

    pub(super) fn channels_mut(&mut self) -> Arc<Channels> {
        let credential = self.machine.credential().clone();
        let health = self.machine.health(Time::now());
        let Extras { channels, told_health, .. } = self.extras_mut();
        Arc::clone(channels.get_or_insert_with(|| {
            *told_health = Some(health);
            Arc::new(Channels::new(credential, health))
        }))
    }

    /// Whether there is news of how the credential does, and a subscriber to hear it.
    pub(super) fn health_changed(&self, time: Time) -> bool {
        let Some(extras) = &self.extras else { return false };
        let hears = |channels: &Arc<Channels>| channels.health.receiver_count() > 0;
        extras.channels.as_ref().is_some_and(hears)
            && extras.told_health != Some(self.machine.health(time))
    }

    /// How the credential does, which is told now.
    fn tell_health(&mut self) -> Health {
        let health = self.machine.health(Time::now());
        self.extras_mut().told_health = Some(health);
        health
    }

    pub(super) fn unrevoked_mut(&mut self) -> &mut Unrevoked {
        &mut self.extras_mut().unrevoked
    }

    pub(super) fn unrevoked(&self) -> Option<&Unrevoked> {
        Some(&self.extras.as_ref()?.unrevoked)
    }

    /// One more failure of this kind.
    pub(super) fn count(&mut self, kind: FailureKind, last_at: SystemTime) {
        let generation = self.machine.credential().generation();
        let failures = &mut self.extras_mut().failures;
        match failures.iter_mut().find(|past| past.kind == kind) {
            Some(past) => *past = PastFailure { count: past.count + 1, last_at, generation, kind },
            None => failures.push(PastFailure { kind, count: 1, last_at, generation }),
        }
    }

    /// The waiters are told of this failure.
    pub(super) fn failed(&mut self, failure: RefreshFailure, at: SystemTime) -> FailureEvent {
        self.count(failure.kind(), at);
        let generation = self.machine.credential().generation();
        let told = Some(ToldFailure::new(&failure, generation));
        let extras = self.extras_mut();
        let repeated = extras.last_told == told;
        extras.last_told = told;
        FailureEvent { name: extras.name.clone(), failure, generation, at, repeated }
    }
}

impl Channels {
    fn new(credential: Credential, health: Health) -> Self {
        Self {
            changes: watch::Sender::new(credential),
            health: watch::Sender::new(health),
            ends: watch::Sender::new(()),
        }
    }

    /// Two threads may come here in either order: what is older then is not told.
    pub(super) fn announce(&self, credential: Credential) {
        self.changes.send_if_modified(|known| {
            let newer = credential.generation() > known.generation();
            if newer {
                *known = credential;
            }
            newer
        });
    }

    /// Looks at the state while the channel is locked, so that the last to come here tells what
    /// is. The state's lock is never held where the channel's is waited for; so the state notes
    /// what the channel holds, and compares with that.
    pub(super) fn announce_health(&self, state: &RefreshState) {
        self.health.send_if_modified(|known| {
            let health = state.lock().tell_health();
            std::mem::replace(known, health) != health
        });
    }
}

impl RefreshState {
    /// The credential's health now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.lock().machine.health(Time::now())
    }

    /// The second watch channel: it holds the credential's health and signals each change of it, as
    /// when a session ends ([`Health::needs_sign_in`]). ([`subscribe`](Self::subscribe) signals new
    /// tokens only.)
    ///
    /// Time that passes signals nothing: a token that runs out shows with the next event, while
    /// [`health`](Self::health) knows at once. Changes that follow each other quickly may be seen as
    /// one. A receiver that keeps its borrow blocks the refresh that makes the next change, so copy out
    /// of it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_refresh::{RefreshError, RefreshState, Tokens, state::Health};
    ///
    /// let state = RefreshState::builder(async |_spent: Tokens| {
    ///     Err(RefreshError::rejected("the session was ended").with_code("invalid_grant"))
    /// })
    /// .tokens(Tokens::new("first").with_refresh_token("r1"))
    /// .build();
    ///
    /// let mut health = state.subscribe_health();
    /// let program = tokio::spawn(async move {
    ///     health.wait_for(|health| health.needs_sign_in()).await.map(|health| *health)
    /// });
    /// let failure = state.refresh().await.unwrap_err();
    /// assert_eq!(failure.code(), Some("invalid_grant"));
    /// assert_eq!(program.await??, Health::Rejected);
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn subscribe_health(&self) -> watch::Receiver<Health> {
        let channels = self.channels();
        let mut receiver = channels.health.subscribe();
        // It was not kept up while there was no receiver.
        channels.announce_health(self);
        receiver.mark_unchanged();
        receiver
    }

    /// The credential's name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<Arc<str>> {
        self.lock().name()
    }

    /// Gives the credential a name, or another name: for the states of a
    /// [`Renewal`](super::Renewal). The name stands in the log, in [`Status`] and in [`FailureEvent`],
    /// so it must be no secret.
    ///
    /// ```
    /// # use tower_refresh::{Renewal, Tokens};
    /// # let renewal = Renewal::builder(async |_: Tokens| Ok(Tokens::new(""))).build();
    /// let alice = renewal.in_memory(None).named("alice");
    /// assert_eq!(alice.name().as_deref(), Some("alice"));
    /// ```
    #[must_use]
    pub fn named(self: Arc<Self>, name: impl Into<Arc<str>>) -> Arc<Self> {
        self.lock().set_name(name.into());
        self
    }

    /// Refresh tokens are spent only while there is a response to take the new ones along.
    #[cfg(feature = "session")]
    pub(super) fn needs_heads(&self, heads: Heads) {
        self.lock().extras_mut().heads = Some(heads);
    }

    /// Everything that an operator may want to know, at one look.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = Time::now();
        let left = |end: Due| end.left(now);
        let inner = self.lock();
        let machine = &inner.machine;
        Status {
            name: inner.name(),
            health: machine.health(now),
            generation: machine.credential().generation(),
            signed_in: machine.credential().is_present(),
            expires_in: machine.credential().end().map(left),
            in_flight: machine.in_flight(),
            retry_in: machine.retry_at(now).map(left),
            last_failure: machine.last_failure().cloned(),
            unrevoked: inner.unrevoked().map_or(0, Unrevoked::len),
            counts: Counts {
                refreshes: machine.refreshes(),
                replays: self.replays.load(Ordering::Relaxed),
                joined: machine.joined(),
                failures: inner.extras.as_ref().map_or(Vec::new(), |it| it.failures.clone()),
            },
        }
    }

    /// The waiters were told. Called outside the lock.
    pub(super) fn report(self: &Arc<Self>, event: FailureEvent) {
        event.log();
        metrics::failed(event.kind().as_str());
        let Some(hook) = self.renewal.on_failure() else { return };
        let call = Call { hook: Arc::clone(hook), event: Some(event) };
        // A task of its own, so that no flight and no request waits for the hook. One that is
        // dropped unpolled, with its runtime, calls it all the same.
        if let Ok(runtime) = Handle::try_current() {
            let running = Running::begin(self, &mut self.lock());
            let work = async move {
                drop(call);
                drop(running);
            };
            runtime.spawn(work.instrument(Span::current()));
        }
    }
}

/// One call of the hook: made when this is dropped.
struct Call {
    hook: FailureHook,
    event: Option<FailureEvent>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self { hook, event } = self;
        if let Some(event) = event.take() {
            // Its panic is its own.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(event)));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("event", &self.event).finish_non_exhaustive()
    }
}

impl FailureEvent {
    /// A warning, unless it is what some process has asked for, or was told before.
    fn log(&self) {
        let Self { name, failure, generation, repeated, .. } = self;
        let (kind, code) = (failure.kind(), failure.code());
        let (name, generation) = (name.as_deref(), generation.get());
        let open_redeem = failure.open_redeem().map(OpenCause::as_str);
        macro_rules! log {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    kind = kind.as_str(),
                    name,
                    generation,
                    cause = code,
                    open_redeem,
                    $message
                )
            };
        }
        let ended = matches!(kind, FailureKind::Rejected | FailureKind::SignedOut);
        let asked_for = match kind {
            // By another process; or there never was a session.
            FailureKind::SignedOut => code.is_none(),
            kind => kind == FailureKind::Shutdown,
        };
        match (ended, repeated, asked_for) {
            (true, true, _) => log!(debug, "session ended"),
            (true, false, true) => log!(info, "session ended"),
            (true, false, false) => log!(warn, "session ended"),
            (false, true, _) => log!(debug, "refresh failed"),
            (false, false, true) => log!(info, "refresh failed"),
            (false, false, false) => log!(warn, "refresh failed"),
        }
    }
}
