//! [`Renewal`]: what all credentials of a kind share.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "session")]
use super::Heads;
use super::{
    RefreshState, RenewalBuilder,
    alarms::Alarms,
    machine::{Machine, Moment, Policy},
    observe::FailureHook,
    revocation::TokensHook,
};
use crate::{
    refresher::{BoxFuture, RefreshError, RefreshRequest, Refresher},
    store::{MemoryStore, Record, TokenStore},
    time::Time,
    tokens::{Generation, Tokens},
};

/// How the credentials of a family are renewed: the refresher, the policy and the hooks,
/// built once and shared by any number of [`RefreshState`]s. Cheap to clone.
///
/// For a server with a credential a user or a session. A single credential takes
/// [`RefreshState::builder`] instead. The states of a family share nothing else: neither
/// tokens nor flight nor failure.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{Renewal, Tokens};
///
/// let renewal = Renewal::builder(async |spent: Tokens| {
///     Ok(Tokens::new("second").with_refresh_token("r2"))
/// })
/// .build();
///
/// let alice = renewal.in_memory(Tokens::new("first").with_refresh_token("r1"));
/// let bob = renewal.in_memory(None);
/// assert_eq!(alice.refresh().await?.access_token(), Some("second"));
/// assert_eq!(bob.current().access_token(), None);
/// # Ok::<_, tower_refresh::RefreshFailure>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Renewal(Arc<Shared>);

/// The default of [`RenewalBuilder::early_spread`] for a family, in percent. With less, 100 000 tokens
/// that were minted together come back in a wave of more than three times the mean.
const SPREAD: u32 = 50;

pub(super) struct Shared {
    pub(super) refresher: Arc<dyn Refresher>,
    pub(super) policy: Policy,
    pub(super) on_discard: Option<TokensHook>,
    pub(super) on_sign_out: Option<TokensHook>,
    pub(super) on_failure: Option<FailureHook>,
    pub(super) alarms: Alarms,
    /// Those of browser sessions: a handler may send a request anywhere.
    pub(super) takes_named_origins: bool,
}

impl Renewal {
    /// Begins with the refresher. Everything else has a default.
    pub fn builder(refresher: impl Refresher) -> RenewalBuilder {
        RenewalBuilder::new(Arc::new(refresher)).early_spread(SPREAD)
    }

    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// A credential whose tokens live in this store. The store is read on first use, while
    /// the first requests wait, and counts as shared with other processes (see
    /// [`RefreshStateBuilder::store`](super::RefreshStateBuilder::store)).
    ///
    /// Nothing is read, redeemed or spawned yet. Several states over one record are as good
    /// as several processes: the store's lease keeps their refreshes apart. One state for
    /// each credential of a process is cheaper.
    #[must_use]
    pub fn state(&self, store: Arc<dyn TokenStore>) -> Arc<RefreshState> {
        RefreshState::new(self.clone(), store, Machine::unread(true, None))
    }

    /// The same, where the store has just been read, and holds these tokens. Those that were minted
    /// for another resource are left to the first use. With `heads` it redeems only while a response is
    /// owed.
    #[cfg(feature = "session")]
    pub(crate) fn state_of(
        &self,
        store: Arc<dyn TokenStore>,
        record: &Record,
        heads: Option<Heads>,
    ) -> Arc<RefreshState> {
        let mut machine = Machine::unread(true, None);
        if record.tokens.as_ref().is_some_and(|tokens| self.0.policy.accepts(tokens)) {
            machine.signed_in(record, machine.sign_outs(), self.moment());
            // A state announces nothing when it is made.
            let _ = machine.effects();
        }
        let state = RefreshState::new(self.clone(), store, machine);
        if let Some(heads) = heads {
            state.needs_heads(heads);
        }
        state
    }

    /// A credential in this process's memory: signed in with these tokens, or with `None`
    /// signed out until [`RefreshState::set`].
    #[must_use]
    pub fn in_memory(&self, tokens: impl Into<Option<Tokens>>) -> Arc<RefreshState> {
        let mut machine = Machine::unread(false, None);
        let store = match tokens.into() {
            None => MemoryStore::new(),
            Some(tokens) => {
                // What this store holds is known: there is no need to read it.
                let record = Record::new(Generation::ZERO.next(), self.stamp(tokens));
                machine.signed_in(&record, machine.sign_outs(), self.moment());
                // The first state to be made announces nothing.
                let _ = machine.effects();
                MemoryStore::with_record(record)
            }
        };
        RefreshState::new(self.clone(), store.into_dyn(), machine)
    }

    /// This moment, for the machine.
    pub(super) fn moment(&self) -> Moment<'_> {
        Moment {
            policy: &self.0.policy,
            time: Time::now(),
            jitter: fastrand::f64(),
            may_redeem: true,
        }
    }

    /// These tokens of a user, with this crate's own notes in them put right.
    pub(crate) fn stamp(&self, tokens: Tokens) -> Tokens {
        self.0.policy.stamp(tokens)
    }

    #[inline]
    pub(super) fn takes_named_origins(&self) -> bool {
        self.0.takes_named_origins
    }

    pub(super) fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    pub(super) fn deadline(&self) -> Duration {
        self.0.policy.deadline
    }

    pub(super) fn redeem(
        &self,
        request: RefreshRequest,
    ) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        self.0.refresher.refresh(request)
    }

    pub(super) fn on_discard(&self) -> Option<&TokensHook> {
        self.0.on_discard.as_ref()
    }

    /// Gives tokens that no state has to the hook of a sign-out. Best effort.
    #[cfg(feature = "session")]
    pub(crate) async fn revoke(&self, tokens: Tokens) {
        if let Some(hook) = self.on_sign_out() {
            if hook(tokens).await.is_err() {
                tracing::warn!("the tokens of a sign-in that failed may live on at the server");
            }
        }
    }

    pub(super) fn on_failure(&self) -> Option<&FailureHook> {
        self.0.on_failure.as_ref()
    }

    pub(super) fn on_sign_out(&self) -> Option<&TokensHook> {
        self.0.on_sign_out.as_ref()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}
