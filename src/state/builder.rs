//! Every knob of a [`RefreshState`].

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Inner, RefreshState, TokensHook,
    machine::{Machine, Policy, WhileUnsaved},
    waiters::Waiters,
};
use crate::{
    refresher::Refresher,
    store::{MemoryStore, Record, TokenStore},
    tokens::{Generation, Time, Tokens},
};

/// Configures a [`RefreshState`]; begins at [`RefreshState::builder`].
#[must_use]
pub struct RefreshStateBuilder {
    refresher: Arc<dyn Refresher>,
    store: Option<Arc<dyn TokenStore>>,
    tokens: Option<Tokens>,
    on_discard: Option<TokensHook>,
    on_sign_out: Option<TokensHook>,
    policy: Policy,
}

impl RefreshStateBuilder {
    pub(super) fn new(refresher: Arc<dyn Refresher>) -> Self {
        let policy = Policy { needs_tokens: refresher.needs_tokens(), ..Policy::default() };
        Self { refresher, store: None, tokens: None, on_discard: None, on_sign_out: None, policy }
    }

    /// Tokens to begin with. Default: none, that is, signed out (or, with a
    /// refresher that needs none, fetched on first use). If a [`store`](Self::store)
    /// is set and holds a record already, that wins.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Where the tokens live. Default: a [`MemoryStore`] of its own. A store that is
    /// set is read on first use, while the first requests wait. It counts as shared: if the
    /// credential is rejected or signed out, a challenge reads it again, in case somebody
    /// else has signed in; at most as often as [`cool_down`](Self::cool_down) says.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self.policy.shared = true;
        self
    }

    /// How long before its end a token is renewed in the background while requests
    /// go on with it. Default: 60 s. Never more than the
    /// [`early_share`](Self::early_share) of the token's life; up to a quarter is
    /// taken off at random. Zero turns early refresh off.
    pub fn early_refresh(mut self, window: Duration) -> Self {
        self.policy.early = window;
        self
    }

    /// The early window is at most the token's life divided by this. Default: 5.
    /// Zero counts as 1.
    pub fn early_share(mut self, divisor: u32) -> Self {
        self.policy.early_share = divisor.max(1);
        self
    }

    /// How long no refresh is tried after a transient failure: from `first`,
    /// doubled with each failure in a row up to `most`, of which a random part is
    /// waited. A `Retry-After` that is longer counts instead, up to an hour. Also
    /// paces the retries of a save. Default: 1 s to 60 s.
    pub fn cool_down(mut self, first: Duration, most: Duration) -> Self {
        self.policy.cool_down = first;
        self.policy.cool_down_max = most;
        self
    }

    /// The brake: if more than `refreshes` within `window` brought tokens that were
    /// refused without ever having been accepted, none is tried for `pause`.
    /// Default: 5 within 30 s, pause 60 s.
    pub fn brake(mut self, refreshes: usize, window: Duration, pause: Duration) -> Self {
        self.policy.brake_after = refreshes;
        self.policy.brake_window = window;
        self.policy.brake_pause = pause;
        self
    }

    /// How long one caller waits for a refresh at most. The refresh itself goes on.
    /// Default: 30 s.
    pub fn deadline(mut self, wait: Duration) -> Self {
        self.policy.deadline = wait;
        self
    }

    /// What requests get while new tokens cannot be saved. Default:
    /// [`WhileUnsaved::Refuse`].
    pub fn while_unsaved(mut self, choice: WhileUnsaved) -> Self {
        self.policy.while_unsaved = choice;
        self
    }

    /// Called with tokens that were minted and will never be used, because a
    /// sign-in, a sign-out or another process came first: revoke them there
    /// (RFC 7009). A refresh token that the server has not rotated is not among them:
    /// whoever came first may be using it. Nobody waits for it but
    /// [`drain`](RefreshState::drain). Not called once the flight's runtime is gone.
    /// Default: nothing.
    pub fn on_discard<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Tokens) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_discard = Some(Arc::new(move |tokens| Box::pin(hook(tokens))));
        self
    }

    /// Called by [`clear`](RefreshState::clear) with the tokens that were deleted, after
    /// the sign-out has taken effect: revoke them there (RFC 7009). `clear` waits for it,
    /// and it goes on when `clear` is cancelled. Not called if the deletion failed, nor
    /// for tokens that another process deleted. Default: nothing.
    pub fn on_sign_out<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Tokens) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_sign_out = Some(Arc::new(move |tokens| Box::pin(hook(tokens))));
        self
    }

    /// Builds the state. Nothing is read, redeemed or spawned yet.
    #[must_use]
    pub fn build(self) -> Arc<RefreshState> {
        let deadline = self.policy.deadline;
        let (store, machine) = match (self.store, self.tokens) {
            (Some(store), seed) => (store, Machine::unread(self.policy, seed)),
            (None, None) => (
                Arc::new(MemoryStore::new()) as Arc<dyn TokenStore>,
                Machine::unread(self.policy, None),
            ),
            (None, Some(tokens)) => {
                // What this store holds is known: there is no need to read it.
                let mut machine = Machine::unread(self.policy, None);
                let record = Record::new(Generation::ZERO.next(), tokens.clone());
                machine.signed_in(&record, machine.sign_outs(), Time::now(), fastrand::f64());
                (Arc::new(MemoryStore::with_tokens(tokens)) as Arc<dyn TokenStore>, machine)
            }
        };
        let credential = machine.credential().clone();
        Arc::new(RefreshState {
            signal: AtomicU64::new(
                credential.generation().get() << 1 | u64::from(machine.closed()),
            ),
            accepted: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            inner: Mutex::new(Inner { machine, waiters: Waiters::default(), home: None }),
            current: RwLock::new(credential.clone()),
            changes: watch::Sender::new(credential),
            tasks: watch::Sender::new(0),
            deadline,
            writes: Arc::default(),
            refresher: self.refresher,
            store,
            on_discard: self.on_discard,
            on_sign_out: self.on_sign_out,
        })
    }
}

impl fmt::Debug for RefreshStateBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshStateBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}
