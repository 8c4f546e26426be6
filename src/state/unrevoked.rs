//! Tokens that live on at the server although nothing will use them: they are revoked by the
//! user's hook, again and again until that works, and what is left in the end is told.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::runtime::Handle;
use tracing::{Instrument, Span};

use super::{
    Inner, RefreshState, Running,
    clock::sleep_until_due,
    driver::catch,
    failure::io_kind,
    machine::MAX_RETRY_AFTER,
    revocation::{Revocation, SignedOut, TokensHook},
};
use crate::{
    error::SharedError, metrics, refresher::RefreshError, store::Record, time::Time, tokens::Tokens,
};

/// So many are kept at most.
const MAX_UNREVOKED: usize = 64;

/// However short the cool-down is, no hook is called again sooner.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Tokens that are not revoked yet.
#[derive(Default)]
pub(super) struct Unrevoked {
    list: Vec<Entry>,
    last: u64,
}

struct Entry {
    number: u64,
    tokens: Tokens,
    /// Some task is having them revoked, or will once more.
    in_hand: bool,
}

impl Unrevoked {
    fn add(&mut self, tokens: Tokens) -> u64 {
        self.last += 1;
        self.list.push(Entry { number: self.last, tokens, in_hand: true });
        self.last
    }

    fn get(&self, number: u64) -> Option<&Tokens> {
        self.list.iter().find(|entry| entry.number == number).map(|entry| &entry.tokens)
    }

    fn remove(&mut self, number: u64) {
        self.list.retain(|entry| entry.number != number);
    }

    /// No task has them in hand any more. They stay in the list, if that is not too long.
    fn leave(&mut self, number: u64) {
        if let Some(entry) = self.list.iter_mut().find(|entry| entry.number == number) {
            entry.in_hand = false;
        }
        let left = self.list.iter().filter(|entry| !entry.in_hand).count();
        if left > MAX_UNREVOKED {
            let first = self.list.iter().position(|entry| !entry.in_hand);
            first.map(|first| self.list.remove(first));
        }
    }

    /// A session has begun with these tokens: its refresh token must live on.
    pub(super) fn spare(&mut self, used: &Tokens) {
        self.list.retain(|entry| !have_one_refresh_token(&entry.tokens, used));
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn tokens(&self) -> Vec<Tokens> {
        self.list.iter().map(|entry| entry.tokens.clone()).collect()
    }
}

fn have_one_refresh_token(unused: &Tokens, used: &Tokens) -> bool {
    unused.refresh_token().is_some() && unused.refresh_token() == used.refresh_token()
}

/// Tokens in the list of [`Unrevoked`], for the one that has them in hand. If that is dropped,
/// with its runtime perhaps, they are left in the list.
struct InHand {
    running: Running,
    number: u64,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.running.0.lock().unrevoked_mut().leave(self.number);
    }
}

impl InHand {
    fn new(state: &Arc<RefreshState>, inner: &mut Inner, tokens: Tokens) -> Self {
        let number = inner.unrevoked_mut().add(tokens);
        Self { running: Running::begin(state, inner), number }
    }

    fn state(&self) -> &Arc<RefreshState> {
        &self.running.0
    }

    /// `None`: they are in use again.
    fn tokens(&self) -> Option<Tokens> {
        self.state().lock().unrevoked()?.get(self.number).cloned()
    }

    /// The same; another process may have signed in with them.
    async fn tokens_unless_stored(&self) -> Option<Tokens> {
        let store = &self.state().store;
        if let Some(Ok(Record { tokens: Some(used), .. })) =
            catch(async { store.load().await }).await
        {
            self.state().lock().unrevoked_mut().spare(&used);
        }
        self.tokens()
    }

    fn revoked(&self) {
        self.state().lock().unrevoked_mut().remove(self.number);
        metrics::revoked(Revocation::Done.as_str());
    }

    /// One try. If it fails, it goes on in a task of its own.
    async fn revoke(self, hook: &TokensHook) -> SignedOut {
        let Some(tokens) = self.tokens() else { return SignedOut::new(Revocation::Nothing) };
        let Err(why) = attempt(hook, tokens).await else {
            self.revoked();
            return SignedOut::new(Revocation::Done);
        };
        let is_last = self.state().lock().machine.is_draining();
        let runtime = Handle::try_current().ok().filter(|_| !is_last && !why.is_final());
        let error = why.error.clone();
        let revocation = if runtime.is_some() { Revocation::Pending } else { Revocation::Failed };
        self.state().not_revoked(&why, revocation, true);
        if let Some(runtime) = runtime {
            let again = Again { in_hand: self, hook: Arc::clone(hook) };
            runtime.spawn(again.run(why).instrument(Span::current()));
        }
        SignedOut::failed(revocation, error)
    }
}

/// Why a hook has not revoked.
struct NotRevoked {
    /// `None`: it panicked.
    error: Option<SharedError>,
}

impl NotRevoked {
    fn refresh_error(&self) -> Option<&RefreshError> {
        self.error.as_ref()?.downcast_ref()
    }

    /// Another try would not help.
    fn is_final(&self) -> bool {
        self.error.is_none() || self.refresh_error().is_some_and(RefreshError::is_rejected)
    }

    /// A word for the cause, without a secret.
    fn code(&self) -> Option<Arc<str>> {
        match self.refresh_error() {
            Some(error) if error.code.is_some() => error.code.clone(),
            _ => io_kind(&***self.error.as_ref()?),
        }
    }
}

async fn attempt(hook: &TokensHook, tokens: Tokens) -> Result<(), NotRevoked> {
    match catch(async { hook(tokens).await }).await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(NotRevoked { error: Some(SharedError::new(error)) }),
        None => Err(NotRevoked { error: None }),
    }
}

impl RefreshState {
    /// Has the hook revoke these tokens, in one try. If that fails, it goes on in a task of its
    /// own.
    pub(super) async fn revoke(self: &Arc<Self>, hook: &TokensHook, tokens: Tokens) -> SignedOut {
        let in_hand = InHand::new(self, &mut self.lock(), tokens);
        in_hand.revoke(hook).await
    }

    /// Has tokens revoked that no request will use, in a task of its own: no flight and no
    /// request waits for that. They were minted after the first `sign_outs`.
    ///
    /// Without a hook for them, that of a sign-out takes the refresh token of a session that was
    /// signed out of: it was called for one that is spent. Any other, of a session that may go
    /// on, is listed.
    pub(super) fn discard(self: &Arc<Self>, tokens: Tokens, sign_outs: u32) {
        let has_refresh_token = tokens.refresh_token().is_some();
        let mut inner = self.lock();
        let machine = &inner.machine;
        let is_over = machine.sign_outs() != sign_outs || !machine.credential().is_present();
        let of_sign_out = self.renewal.on_sign_out().filter(|_| is_over && has_refresh_token);
        let hook = self.renewal.on_discard().or(of_sign_out).cloned();
        if hook.is_none() && !has_refresh_token {
            return;
        }
        let in_hand = InHand::new(self, &mut inner, tokens);
        drop(inner);
        if let (Some(hook), Ok(runtime)) = (hook, Handle::try_current()) {
            let work = async move {
                in_hand.revoke(&hook).await;
            };
            runtime.spawn(work.instrument(Span::current()));
        }
    }

    /// Says so: what is tried again once more, quietly.
    fn not_revoked(&self, why: &NotRevoked, outcome: Revocation, is_first: bool) {
        let (name, cause, outcome) = (self.name(), why.code(), outcome.as_str());
        let (name, cause) = (name.as_deref(), cause.as_deref());
        match is_first || outcome == Revocation::Failed.as_str() {
            true => tracing::warn!(name, cause, outcome, "revocation failed"),
            false => tracing::debug!(name, cause, outcome, "revocation failed"),
        }
        metrics::revoked(outcome);
    }

    fn revocation_pause(&self, tries: u32, why: &NotRevoked) -> Duration {
        let moment = self.renewal.moment();
        let error = why.refresh_error();
        let pause = match error {
            Some(error) if error.is_client_refused() => moment.policy.client_cool_down,
            _ => moment.policy.backoff(tries, moment.jitter),
        };
        let asked = error.and_then(RefreshError::retry_after).unwrap_or_default();
        pause.max(asked.min(MAX_RETRY_AFTER)).max(MIN_PAUSE)
    }
}

/// The tries after the first.
struct Again {
    in_hand: InHand,
    hook: TokensHook,
}

impl Again {
    async fn run(self, mut why: NotRevoked) {
        let state = self.in_hand.state();
        for tries in 1.. {
            let is_last = self.pause(state.revocation_pause(tries, &why)).await;
            let Some(tokens) = self.in_hand.tokens_unless_stored().await else { return };
            match attempt(&self.hook, tokens).await {
                Ok(()) => return self.in_hand.revoked(),
                Err(next) => why = next,
            }
            if is_last || why.is_final() {
                return state.not_revoked(&why, Revocation::Failed, false);
            }
            state.not_revoked(&why, Revocation::Pending, false);
        }
    }

    /// Waits so long; less if the state is drained, and then there is one more try.
    async fn pause(&self, pause: Duration) -> bool {
        let state = self.in_hand.state();
        let mut ends = state.channels().ends.subscribe();
        let mut over = pin!(sleep_until_due(Time::now().after(pause)));
        loop {
            if state.lock().machine.is_draining() {
                return true;
            }
            let mut ended = pin!(ends.changed());
            let is_over = poll_fn(|cx| match over.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => ended.as_mut().poll(cx).map(|_| false),
            });
            if is_over.await {
                return false;
            }
        }
    }
}
