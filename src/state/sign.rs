//! Sign-in and sign-out: what is written to the store outside of a flight.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
};

use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
    task::unconstrained,
};

use super::{
    Inner, RefreshState, Running,
    driver::PANICKED,
    machine::Moment,
    revocation::{Revocation, SignedOut},
};
use crate::{
    metrics,
    store::{Record, SaveError, StoreError},
    time::Time,
    tokens::{Generation, Tokens},
};

/// How often a sign-in starts over because another process was writing.
const MAX_CONFLICTS: usize = 16;

/// Counts it.
fn failed(operation: &'static str, error: StoreError) -> StoreError {
    metrics::store_error(operation);
    error
}

impl Inner {
    /// A sign-in has put this into the store. It ends what the sign-out before has left open.
    fn begins_with(&mut self, record: &Record) {
        self.deletion_open = false;
        if let (Some(tokens), true) = (&record.tokens, self.unrevoked().is_some()) {
            self.unrevoked_mut().spare(tokens);
        }
    }

    /// Returns whether an earlier one has had no answer.
    fn deletion_begins(&mut self, may_hold: bool) -> bool {
        let was_open = self.deletion_open;
        self.deletion_open |= may_hold;
        was_open
    }
}

impl RefreshState {
    /// Signs in: stores these tokens and uses them from then on. Ends every failure. A refresh that is
    /// under way loses: its result is discarded.
    ///
    /// The access token's life ([`Tokens::with_expires_in`]) counts from the call's first poll.
    /// Goes on when the caller is cancelled. Returns the new generation.
    ///
    /// # Errors
    ///
    /// The store failed. The credential is as it was. (If the store did write after all, the next
    /// refresh finds the new tokens there.)
    pub async fn set(self: &Arc<Self>, tokens: Tokens) -> Result<Generation, StoreError> {
        let state = Arc::clone(self);
        let sign_outs = self.lock().machine.sign_outs();
        // The life of the tokens counts from the call, however long it waits for its turn.
        let time = Time::now();
        self.finish(move |turn| async move {
            let _turn = turn;
            let tokens = state.renewal.stamp(tokens);
            let mut is_unreadable = false;
            for _ in 0..MAX_CONFLICTS {
                let held = match state.store.load().await {
                    Ok(held) => held,
                    Err(error) if is_unreadable => return Err(failed("load", error)),
                    // A store that cannot make sense of what it holds takes a first save in
                    // its place. Any other knows better, and tells again why it cannot read.
                    Err(_) => {
                        is_unreadable = true;
                        metrics::store_error("load");
                        Record::default()
                    }
                };
                let known = state.current().generation().max(held.generation);
                let now = Time::now();
                let generation = state.lock().machine.next_generation(known, held.generation, now);
                let record = Record::new(generation, tokens.clone().absolute(time));
                match state.store.save(held.generation, record).await {
                    Ok(()) => {
                        let record = Record::new(generation, tokens);
                        state.lock().begins_with(&record);
                        return Ok(state.with(|machine, at| {
                            machine.signed_in(&record, sign_outs, Moment { time, ..at });
                            machine.credential().generation()
                        }));
                    }
                    Err(SaveError::Conflict) => {}
                    Err(SaveError::Failed(error)) => return Err(failed("save", error)),
                    Err(error @ SaveError::LeaseLost) => return Err(StoreError::new(error)),
                }
            }
            Err(StoreError::new("other processes kept writing"))
        })
        .await
    }

    /// Signs out: from now on no request gets a token, and the store deletes its tokens. A refresh
    /// that is under way loses: its result is discarded.
    ///
    /// It takes effect in this process on the first poll; the deletion goes on if the caller is
    /// cancelled. It waits for the [`on_sign_out`](super::RefreshStateBuilder::on_sign_out) hook, if
    /// there is one. The returned [`SignedOut`] says whether the refresh token may live on at the
    /// server, as when the network is down. If so, the hook is called again while the process lives.
    ///
    /// # Errors
    ///
    /// The store could not delete, or could not say whether it did. This process is signed out all the
    /// same, other processes may not be: call again. If that call finds nothing, the tokens may live on
    /// at the server ([`Revocation::Unknown`]).
    pub async fn clear(self: &Arc<Self>) -> Result<SignedOut, StoreError> {
        self.clear_with(true).await
    }

    /// The same without waiting for the hook, which goes on.
    #[cfg(feature = "session")]
    pub(crate) async fn clear_soon(self: &Arc<Self>) -> Result<SignedOut, StoreError> {
        self.clear_with(false).await
    }

    async fn clear_with(self: &Arc<Self>, waits: bool) -> Result<SignedOut, StoreError> {
        let (may_hold, seed, sign_out) = self.with(|machine, _| {
            (machine.may_hold_tokens(), machine.take_seed(), machine.sign_out())
        });
        let state = Arc::clone(self);
        self.finish(move |turn| async move {
            // If no answer comes, the next deletion may find nothing of what was there.
            let was_open = state.lock().deletion_begins(may_hold);
            let deleted = state.store.delete().await;
            let deleted = deleted.map_err(|error| failed("delete", error))?;
            state.lock().deletion_open = false;
            state.with(|machine, _| machine.deleted(deleted.generation, sign_out));
            // The next sign-in need not wait for the hook.
            drop(turn);
            Ok(match (deleted.tokens.or(seed), state.renewal.on_sign_out()) {
                (None, _) if was_open => SignedOut::new(Revocation::Unknown),
                (None, _) => SignedOut::new(Revocation::Nothing),
                (Some(_), None) => SignedOut::new(Revocation::NotAsked),
                (Some(tokens), Some(hook)) if waits => state.revoke(hook, tokens).await,
                (Some(tokens), Some(hook)) => {
                    let (state, hook) = (Arc::clone(&state), Arc::clone(hook));
                    let running = Running::begin(&state, &mut state.lock());
                    let revoking = async move {
                        state.revoke(&hook, tokens).await;
                        drop(running);
                    };
                    match Handle::try_current() {
                        Ok(runtime) => drop(runtime.spawn(revoking)),
                        Err(_) => revoking.await,
                    }
                    SignedOut::new(Revocation::Pending)
                }
            })
        })
        .await
    }

    /// Runs a store operation when its turn has come, and to its end even if the
    /// caller goes away. The next one's turn comes when the guard is dropped.
    async fn finish<T: Send + 'static, Fut>(
        self: &Arc<Self>,
        work: impl FnOnce(OwnedMutexGuard<()>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        // Polled here for its place in the queue: tasks may begin in any order.
        let mut turn = Box::pin(unconstrained(self.write_queue().lock_owned()));
        let first = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await;
        let work = async move {
            let turn = match first {
                Poll::Ready(turn) => turn,
                Poll::Pending => turn.await,
            };
            work(turn).await
        };
        let Ok(runtime) = Handle::try_current() else {
            let result = work.await;
            // There is no task whose end `keep_fresh` would hear of.
            let is_kept_fresh = self.lock().is_kept_fresh;
            self.look_again(is_kept_fresh);
            return result;
        };
        let running = Running::begin(self, &mut self.lock());
        let done = runtime.spawn(async move {
            let result = work.await;
            drop(running);
            result
        });
        done.await.unwrap_or_else(|end| {
            let panicked = end.is_panic();
            let reason = if panicked { PANICKED } else { "the runtime is gone" };
            Err(StoreError::new(reason))
        })
    }

    fn write_queue(&self) -> Arc<Mutex<()>> {
        let mut inner = self.lock();
        inner.write_queue.upgrade().unwrap_or_else(|| {
            let queue = Arc::default();
            inner.write_queue = Arc::downgrade(&queue);
            queue
        })
    }
}
