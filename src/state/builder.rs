//! Every knob of a [`Renewal`], and of the one [`RefreshState`] that is built without it.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    RefreshState, Renewal,
    machine::{Machine, Policy, WhileUnsaved},
    renewal::{Shared, TokensHook},
};
use crate::{refresher::Refresher, store::TokenStore, tokens::Tokens};

/// Configures how credentials are renewed, and builds a `T`: a [`Renewal`] for a family of
/// credentials (begins at [`Renewal::builder`]), or the [`RefreshState`] of a single one
/// (begins at [`RefreshState::builder`], see [`RefreshStateBuilder`]).
#[must_use]
pub struct RenewalBuilder<T = Renewal> {
    refresher: Arc<dyn Refresher>,
    policy: Policy,
    on_discard: Option<TokensHook>,
    on_sign_out: Option<TokensHook>,
    // Of a single credential only.
    store: Option<Arc<dyn TokenStore>>,
    tokens: Option<Tokens>,
    builds: PhantomData<fn() -> T>,
}

/// Configures a single [`RefreshState`]: the knobs of every [`RenewalBuilder`], a
/// [`store`](RenewalBuilder::store), and [`tokens`](RenewalBuilder::tokens) to begin with.
pub type RefreshStateBuilder = RenewalBuilder<RefreshState>;

impl<T> RenewalBuilder<T> {
    pub(super) fn new(refresher: Arc<dyn Refresher>) -> Self {
        let policy = Policy {
            needs_tokens: refresher.needs_tokens(),
            minted_for: refresher.minted_for(),
            ..Policy::default()
        };
        Self {
            refresher,
            policy,
            on_discard: None,
            on_sign_out: None,
            store: None,
            tokens: None,
            builds: PhantomData,
        }
    }

    /// How long before its end a token is renewed in the background while requests
    /// go on with it. Default: 60 s. Never more than the
    /// [`early_fraction`](Self::early_fraction) of the token's life; up to a quarter is
    /// taken off at random. Zero turns early refresh off.
    pub fn early_refresh(mut self, window: Duration) -> Self {
        self.policy.early = window;
        self
    }

    /// The early window is at most the token's life divided by this. Default: 5.
    /// Zero counts as 1.
    pub fn early_fraction(mut self, divisor: u32) -> Self {
        self.policy.early_fraction = divisor.max(1);
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

    /// How long no refresh is tried after the server refused the client and not the refresh
    /// token: a wrong secret, a grant or scope that it may not have
    /// ([`RefreshError::client_refused`](crate::RefreshError::client_refused)). Only a person
    /// can mend that, so [`refresh`](RefreshState::refresh) tries at once. A `Retry-After`
    /// that is longer counts instead, up to an hour. Default: 5 minutes.
    pub fn client_cool_down(mut self, pause: Duration) -> Self {
        self.policy.client_cool_down = pause;
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

    /// Whether a store without a record means that the session has ended, as a sign-out does. A
    /// sign-out leaves a number in the store, so an empty store has lost its data, or has
    /// evicted the record. Default: `false`: a token that works is used to its end, and, if that
    /// is known, put into the store again, without the refresh token. Where the record is the session, say `true`.
    pub fn empty_store_ends(mut self, ends: bool) -> Self {
        self.policy.absent_ends = ends;
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
    /// (RFC 7009). A refresh token that the server has not rotated is not among them,
    /// because the one that came first may be using it. No flight or request waits for the
    /// hook; [`drain`](RefreshState::drain) does. Not called once the flight's runtime is
    /// gone. Default: nothing.
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

    fn renewal(self) -> Renewal {
        let Self { refresher, policy, on_discard, on_sign_out, .. } = self;
        Renewal::new(Shared { refresher, policy, on_discard, on_sign_out })
    }
}

impl RenewalBuilder {
    /// Builds what the credentials of a family share.
    #[must_use]
    pub fn build(self) -> Renewal {
        self.renewal()
    }
}

impl RenewalBuilder<RefreshState> {
    /// Tokens to begin with. Default: none, that is, signed out (or, with a
    /// refresher that needs none, fetched on first use). If a [`store`](Self::store)
    /// is set and holds a record already, that wins.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Where the tokens live. Default: a
    /// [`MemoryStore`](crate::store::MemoryStore) of its own. A store that is set is read on
    /// first use, while the first requests wait. It counts as shared: if the credential is
    /// rejected or signed out, a challenge reads the store again, in case another process
    /// has signed in; at most as often as [`cool_down`](Self::cool_down) says.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Builds the state. Nothing is read, redeemed or spawned yet.
    #[must_use]
    pub fn build(mut self) -> Arc<RefreshState> {
        let (store, tokens) = (self.store.take(), self.tokens.take());
        let renewal = self.renewal();
        match store {
            Some(store) => RefreshState::new(renewal, store, Machine::unread(true, tokens)),
            None => renewal.in_memory(tokens),
        }
    }
}

impl<T> fmt::Debug for RenewalBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}
