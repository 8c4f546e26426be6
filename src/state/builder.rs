//! Every knob of a [`Renewal`], and of the one [`RefreshState`] that is built without it.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    RefreshState, Renewal,
    alarms::Alarms,
    machine::{Machine, Policy, WhileUnsaved},
    observe::{FailureEvent, FailureHook},
    renewal::Shared,
    revocation::{HookResult, TokensHook},
};
use crate::{refresher::Refresher, store::TokenStore, time::Time, tokens::Tokens};

/// Configures how credentials are renewed, and builds a `T`: a [`Renewal`] for a family of
/// credentials (begins at [`Renewal::builder`]), or the [`RefreshState`] of a single one
/// (begins at [`RefreshState::builder`], see [`RefreshStateBuilder`]).
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{Renewal, Tokens};
///
/// let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
///     .early_refresh(Duration::from_secs(120))
///     .deadline(Duration::from_secs(10))
///     .on_failure(|event| eprintln!("{:?}: {}", event.name, event.kind()))
///     .build();
/// let alice = renewal.in_memory(Tokens::new("first")).named("alice");
/// # let _ = alice;
/// ```
#[must_use]
pub struct RenewalBuilder<T = Renewal> {
    refresher: Arc<dyn Refresher>,
    policy: Policy,
    on_discard: Option<TokensHook>,
    on_sign_out: Option<TokensHook>,
    on_failure: Option<FailureHook>,
    background_refreshes: usize,
    takes_named_origins: bool,
    // Of a single credential only.
    store: Option<Arc<dyn TokenStore>>,
    tokens: Option<Tokens>,
    name: Option<Arc<str>>,
    builds: PhantomData<fn() -> T>,
}

/// Configures a single [`RefreshState`]: the knobs of every [`RenewalBuilder`], a
/// [`store`](RenewalBuilder::store), and [`tokens`](RenewalBuilder::tokens) to begin with.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{RefreshState, Tokens, store::MemoryStore};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
///     .store(MemoryStore::new())
///     .tokens(Tokens::new("").with_refresh_token("r1")) // redeemed before the first request
///     .cool_down(Duration::from_secs(2), Duration::from_secs(300))
///     .build();
/// # let _ = state;
/// ```
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
            on_failure: None,
            background_refreshes: 64,
            takes_named_origins: false,
            store: None,
            tokens: None,
            name: None,
            builds: PhantomData,
        }
    }

    /// How long before a token's end it is renewed in the background, while requests go on with it.
    /// Zero turns early refresh off. Default: 60 s.
    ///
    /// This window is at most the [`early_fraction`](Self::early_fraction) of the token's life, less
    /// up to a quarter of it at random. The tokens of a family are renewed even earlier, by the
    /// [`early_spread`](Self::early_spread).
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

    /// Spreads early refreshes at random over so many percent of the life that comes before the early
    /// window. So the authorization server sees no wave if many tokens were minted at one time. Zero
    /// spreads them over the first quarter of the window only. More than 90 counts as 90. Default: 50
    /// for a [`Renewal`], zero for a single credential.
    ///
    /// With 50, of tokens that live for an hour the first is renewed after half an hour and the last
    /// 45 s before its end.
    pub fn early_spread(mut self, percent: u32) -> Self {
        self.policy.early_spread = percent.min(90);
        self
    }

    /// How many background refreshes of the family are under way at one time, at most: those that are
    /// [early](Self::early_refresh), and those of [`keep_fresh`](RefreshState::keep_fresh). The others
    /// wait for their turn, as after a restart that took longer than the tokens live. A refresh that a
    /// request or caller waits for begins at once. Default: 64. Zero counts as 1.
    ///
    /// If this is too low, tokens run out before they are renewed, and requests wait. Multiply the
    /// refreshes a second by the seconds that one takes: 100 000 hourly tokens, with answers after
    /// 50 ms, need two. A refresh that cannot save its tokens, or whose refresher hangs, counts, too.
    pub fn background_refreshes(mut self, most: usize) -> Self {
        self.background_refreshes = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long the state waits after a transient failure before it tries again. The time begins with
    /// `first` and doubles with each failure in a row, up to `most`; the wait is a random part of it.
    /// A longer `Retry-After` counts instead, up to an hour. The retries of a save have the same pace.
    /// Default: 1 s to 60 s.
    pub fn cool_down(mut self, first: Duration, most: Duration) -> Self {
        self.policy.cool_down = first;
        self.policy.cool_down_max = most;
        self
    }

    /// How long the state waits after the server has refused the client, and not the refresh token,
    /// because of a wrong secret, grant or scope
    /// ([`RefreshError::client_refused`](crate::RefreshError::client_refused)). Only a person can mend
    /// that, so [`refresh`](RefreshState::refresh) tries at once. A longer `Retry-After` counts
    /// instead, up to an hour. Default: 5 minutes.
    pub fn client_cool_down(mut self, pause: Duration) -> Self {
        self.policy.client_cool_down = pause;
        self
    }

    /// The brake: if within `window` the server refused the new tokens of more than `refreshes`
    /// refreshes, and accepted none of them, the state tries no refresh for `pause`.
    /// Default: 5 within 30 s, pause 60 s.
    pub fn brake(mut self, refreshes: usize, window: Duration, pause: Duration) -> Self {
        self.policy.brake_after = refreshes;
        self.policy.brake_window = window;
        self.policy.brake_pause = pause;
        self
    }

    /// How long one caller waits for a refresh, at most. The refresh itself goes on.
    /// Default: 30 s.
    pub fn deadline(mut self, wait: Duration) -> Self {
        self.policy.deadline = wait;
        self
    }

    /// Whether an empty store means that the session has ended, as after a sign-out. (A sign-out
    /// leaves a number in the store. So an empty one has lost its data, or has evicted the record.)
    ///
    /// With `true` the session ends and does not come back: tokens that were minted meanwhile are
    /// [discarded](Self::on_discard) and not saved. Choose it where the record is the session.
    ///
    /// Default: `false`. Requests go on with an access token that works until its end. If that end is
    /// known, the state puts the token into the store again, without the refresh token.
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

    /// A hook for tokens that were minted and that no request will use, because a sign-in, a sign-out
    /// or another process came first. Revoke them there (RFC 7009). If it returns an error the state
    /// calls it again, as [`on_sign_out`](Self::on_sign_out).
    ///
    /// The state does not call it if the store has tokens that may be of the same session, since a
    /// server may end a session by any of its tokens, an access token included. That is so if the
    /// server has not rotated the refresh token; or if a save may have worked unheard, and another
    /// process may have redeemed what it wrote.
    ///
    /// No flight or request waits for the hook; [`drain`](RefreshState::drain) does. Without a runtime,
    /// or after its shutdown, the hook is not called, and `drain` returns the tokens.
    ///
    /// Default: after a sign-out the hook of `on_sign_out` gets these tokens, too. Otherwise `drain`
    /// returns them if they have a refresh token.
    pub fn on_discard<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Tokens) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        self.on_discard = Some(tokens_hook(hook));
        self
    }

    /// A hook for the tokens that a sign-out has deleted. Revoke them there (RFC 7009).
    /// [`clear`](RefreshState::clear) calls it once the sign-out has taken effect, and waits for it; the
    /// hook goes on if `clear` is cancelled. `clear` does not call it if the deletion failed, nor for
    /// tokens that another process deleted. If the store is empty and has never got the
    /// [`tokens`](Self::tokens) to begin with, the hook gets those. Default: nothing.
    ///
    /// The hook returns nothing, or a `Result` ([`HookResult`]). After an error the tokens live on at
    /// the server, and [`SignedOut`](super::SignedOut) says so. The state calls the hook with them
    /// again while the process lives, at the pace of the [`cool_down`](Self::cool_down), and for the
    /// last time in [`drain`](RefreshState::drain), which returns what is left. It stops after a
    /// sign-in with the same refresh token, here or in another process (it reads the store before).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_refresh::{RefreshState, Tokens, state::Revocation};
    ///
    /// async fn revoke(tokens: Tokens) -> Result<(), std::io::Error> {
    ///     Err(std::io::ErrorKind::NetworkUnreachable.into())
    /// }
    ///
    /// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
    ///     .tokens(Tokens::new("first").with_refresh_token("r1"))
    ///     .on_sign_out(revoke)
    ///     .build();
    ///
    /// let signed_out = state.clear().await?;
    /// assert_eq!(signed_out.revocation, Revocation::Pending);
    /// assert!(signed_out.lives_on());
    /// // The network is still down when the process ends.
    /// let left = state.drain().await.unrevoked;
    /// assert_eq!(left[0].refresh_token(), Some("r1"));
    /// # Ok::<_, tower_refresh::store::StoreError>(()) }).unwrap();
    /// ```
    pub fn on_sign_out<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Tokens) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        self.on_sign_out = Some(tokens_hook(hook));
        self
    }

    /// A hook for failures: the session has ended ([`FailureKind::Rejected`],
    /// [`FailureKind::SignedOut`]), the refresh failed and is tried again, tokens cannot be saved, the
    /// brake is pulled. The state calls it once a flight, however many waiters get that failure. It
    /// does not call it for what concerns one request only ([`FailureKind::Deadline`],
    /// [`FailureKind::Doubted`], [`FailureKind::Unsendable`]). Default: nothing.
    ///
    /// The hook runs in a task of its own, soon after the waiters got the failure; without a runtime
    /// it runs at once. No flight or request waits for the hook. [`drain`](RefreshState::drain) does,
    /// so the hook must not wait for `drain`. It may call the state's other methods, spawn tasks and
    /// send on channels. It should not block, because that holds up its thread. Calls may overlap. A
    /// panic of the hook harms nothing.
    ///
    /// [`FailureKind::Rejected`]: super::FailureKind::Rejected
    /// [`FailureKind::SignedOut`]: super::FailureKind::SignedOut
    /// [`FailureKind::Deadline`]: super::FailureKind::Deadline
    /// [`FailureKind::Doubted`]: super::FailureKind::Doubted
    /// [`FailureKind::Unsendable`]: super::FailureKind::Unsendable
    ///
    /// ```
    /// use tower_refresh::{RefreshState, Tokens};
    ///
    /// let (ended, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    /// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
    ///     .name("alice")
    ///     .on_failure(move |event| {
    ///         let _ = ended.send(event);
    ///     })
    ///     .build();
    /// # let _ = (state, sessions.try_recv());
    /// ```
    pub fn on_failure(mut self, hook: impl Fn(FailureEvent) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(hook));
        self
    }

    fn renewal(self) -> Renewal {
        let alarms = Alarms::new(self.background_refreshes);
        Renewal::new(Shared {
            refresher: self.refresher,
            policy: self.policy,
            on_discard: self.on_discard,
            on_sign_out: self.on_sign_out,
            on_failure: self.on_failure,
            alarms,
            takes_named_origins: self.takes_named_origins,
        })
    }
}

fn tokens_hook<F, Fut>(hook: F) -> TokensHook
where
    F: FnOnce(Tokens) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: HookResult> + Send + 'static,
{
    Arc::new(move |tokens| {
        let revoking = hook.clone()(tokens);
        Box::pin(async { revoking.await.into_result() })
    })
}

impl RenewalBuilder {
    /// Builds what the credentials of a family share.
    #[must_use]
    pub fn build(self) -> Renewal {
        self.renewal()
    }

    /// For browser sessions: puts another refresher before this one, which is given it and the hook for
    /// tokens that nothing will use; and tokens go to named origins only.
    #[cfg(feature = "session")]
    pub(crate) fn wrap<R: Refresher>(
        mut self,
        wrap: impl FnOnce(Arc<dyn Refresher>, Option<TokensHook>) -> R,
    ) -> Self {
        let hook = self.on_discard.clone().or_else(|| self.on_sign_out.clone());
        self.refresher = Arc::new(wrap(self.refresher, hook));
        self.takes_named_origins = true;
        self
    }
}

impl RenewalBuilder<RefreshState> {
    /// Tokens to begin with. If a [`store`](Self::store) is set and has a record already, that record
    /// wins. The tokens' life ([`Tokens::with_expires_in`]) counts from [`build`](Self::build).
    /// Default: none. The credential is then signed out or, if its refresher needs no tokens, fetches
    /// its first one on first use.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Where the tokens live. Default: a [`MemoryStore`](crate::store::MemoryStore) of its own.
    ///
    /// A store that is set is read on first use, while the first requests wait. It counts as shared
    /// with other processes: after a rejection or a sign-out challenges read it again, in case another
    /// process has signed in, at most as often as [`cool_down`](Self::cool_down) says.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The credential's name in the log, in [`Status`](super::Status) and in [`FailureEvent`]. It must
    /// be no secret. Default: none. See [`RefreshState::named`] for those of a [`Renewal`].
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Builds the state. Nothing is read, redeemed or spawned yet.
    #[must_use]
    pub fn build(mut self) -> Arc<RefreshState> {
        let (store, tokens, name) = (self.store.take(), self.tokens.take(), self.name.take());
        let renewal = self.renewal();
        let state = match store {
            Some(store) => {
                let seed = tokens.map(|tokens| (renewal.stamp(tokens), Time::now()));
                RefreshState::new(renewal, store, Machine::unread(true, seed))
            }
            None => renewal.in_memory(tokens),
        };
        match name {
            Some(name) => state.named(name),
            None => state,
        }
    }
}

impl<T> fmt::Debug for RenewalBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}
