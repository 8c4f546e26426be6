//! [`RefreshState::keep_fresh`]: refreshes ahead of expiry where no request does.
//!
//! A loop that asks the machine what a request would ask, and sleeps until asking is of
//! use again. It waits for three things: the moment that the machine names, a change of
//! the credential, and the end of a task of the state (a flight that has failed changes
//! nothing else).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{
    RefreshState,
    clock::sleep_until_due,
    machine::{Machine, Upkeep},
};
use crate::{
    credential::Credential,
    time::{Due, after},
};

/// However short the tokens' lives and the cool-down are, no flight is started sooner
/// after the one before.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Keeps a credential fresh until it is dropped. Made by
/// [`RefreshState::keep_fresh`].
///
/// Dropping it stops nothing but the looking ahead: a refresh under way goes on and is
/// saved. It does not keep the [`RefreshState`] alive.
#[derive(Debug)]
#[must_use = "the credential is kept fresh until this is dropped"]
pub struct KeepFresh {
    /// `None` without a runtime.
    task: Option<AbortHandle>,
}

impl RefreshState {
    /// Refreshes ahead of expiry in the background, for a service that may have no
    /// request to do so when the time comes. Reads the store at once if that was not
    /// done yet. Stops when the guard is dropped.
    ///
    /// A refresh is started when a request would start it: at the early moment (see
    /// [`early_refresh`](super::RefreshStateBuilder::early_refresh)), while requests go on with the
    /// token that still works, or at the token's end if early refresh is turned off.
    /// After a failure it is tried again as soon as the cool-down or the brake allows. Once a
    /// credential was rejected or signed out, a store that was set is looked at now and then, at
    /// the pace of the [cool-down](super::RefreshStateBuilder::cool_down), in case another
    /// process has signed in. One without an expiry is left alone. A machine that has slept is
    /// caught up with within half a minute: the wall clock counts, too. No more than ten refreshes
    /// a second are started, whatever the tokens' life and the cool-down are. Ends with
    /// [`drain`](Self::drain).
    ///
    /// Several guards do no harm: there is still one refresh at a time.
    ///
    /// Must be called within a tokio runtime with its time driver enabled, and ends with
    /// that runtime. Without a runtime it does nothing but say so in a `tracing`
    /// warning.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tower_refresh::{RefreshState, Tokens};
    ///
    /// const LIFE: Duration = Duration::from_secs(3600);
    /// let state = RefreshState::builder(async |_spent: Tokens| {
    ///     Ok(Tokens::new("next").with_refresh_token("r2").with_expires_in(LIFE))
    /// })
    /// .tokens(Tokens::new("first").with_refresh_token("r1").with_expires_in(LIFE))
    /// .build();
    ///
    /// let fresh = state.keep_fresh();
    /// tokio::time::sleep(LIFE).await;
    /// assert_eq!(state.current().access_token(), Some("next"));
    /// drop(fresh);
    /// # });
    /// ```
    pub fn keep_fresh(self: &Arc<Self>) -> KeepFresh {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!("there is no runtime to keep a credential fresh in");
            return KeepFresh { task: None };
        };
        let (changes, ends) = (self.subscribe(), self.channels().ends.subscribe());
        let task = runtime.spawn(keep(Arc::downgrade(self), changes, ends));
        KeepFresh { task: Some(task.abort_handle()) }
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn keep(
    state: Weak<RefreshState>,
    mut changes: watch::Receiver<Credential>,
    mut ends: watch::Receiver<()>,
) {
    // What changes after a look at the state has not been seen by these, and ends the
    // wait that follows the look.
    while let Some(state) = state.upgrade() {
        let looked = Instant::now();
        let upkeep = state.with(Machine::upkeep);
        drop(state);
        match upkeep {
            Upkeep::Until(moment) => news(&mut changes, &mut ends, Some(moment)).await,
            Upkeep::News => news(&mut changes, &mut ends, None).await,
            Upkeep::Over => return,
        }
        sleep_until(after(looked, MIN_PAUSE)).await;
    }
}

/// Waits for a change, or until the moment has come. That the state is gone is a change.
async fn news(
    changes: &mut watch::Receiver<Credential>,
    ends: &mut watch::Receiver<()>,
    moment: Option<Due>,
) {
    let mut changed = pin!(changes.changed());
    let mut landed = pin!(ends.changed());
    let mut due = pin!(async {
        match moment {
            Some(moment) => sleep_until_due(moment).await,
            None => std::future::pending().await,
        }
    });
    poll_fn(|cx| {
        let over = changed.as_mut().poll(cx).is_ready()
            || landed.as_mut().poll(cx).is_ready()
            || due.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
