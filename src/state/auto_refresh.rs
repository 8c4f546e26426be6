//! [`RefreshState::keep_fresh`]: refreshes ahead of expiry where no request does.
//!
//! Its family's [`Alarms`](super::alarms::Alarms) ask the machine what a request would ask, and again
//! when asking is of use: at the moment that the machine names, after a change of the credential, and
//! at the end of a task of the state (a flight that has failed changes nothing else).

use std::{
    fmt,
    sync::{Arc, Weak},
};

use tokio::runtime::Handle;

use super::{RefreshState, alarms::Bell};

/// Keeps a credential fresh until it is dropped. Made by
/// [`RefreshState::keep_fresh`].
///
/// Dropping it starts no further refresh. A refresh under way goes on, and its tokens are saved. The
/// guard does not keep the [`RefreshState`] alive.
#[must_use = "the credential is kept fresh until this is dropped"]
pub struct KeepFresh {
    state: Weak<RefreshState>,
    /// `None` without a runtime.
    bell: Option<Arc<Bell>>,
}

impl RefreshState {
    /// Refreshes ahead of expiry in the background, for a service that may have no
    /// request to do so when the time comes. Reads the store at once if that was not
    /// done yet. Stops when the guard is dropped.
    ///
    /// It starts a refresh when a request would: at the early moment (see
    /// [`early_refresh`](super::RefreshStateBuilder::early_refresh)), while requests go on with the
    /// token that still works, or at the token's end if early refresh is turned off. After a failure it
    /// tries again as soon as the cool-down or the brake allows. A token without an expiry is left
    /// alone. It starts no more than ten refreshes a second, whatever the tokens' life and the
    /// cool-down are.
    ///
    /// After a rejection or a sign-out it looks at a store that was set now and then, at the pace of the
    /// [cool-down](super::RefreshStateBuilder::cool_down), in case another process has signed in. After
    /// a machine has slept, it catches up within half a minute. It ends with [`drain`](Self::drain).
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
            return KeepFresh { state: Weak::new(), bell: None };
        };
        self.lock().is_kept_fresh = true;
        let bell = self.renewal.alarms().keep(self, &runtime);
        KeepFresh { state: Arc::downgrade(self), bell: Some(bell) }
    }

    /// Something has happened that may matter to [`keep_fresh`](Self::keep_fresh).
    pub(super) fn look_again(&self, is_kept_fresh: bool) {
        if is_kept_fresh {
            self.renewal.alarms().look_again(self);
        }
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        if let Some(bell) = &self.bell {
            bell.release(&self.state);
        }
    }
}

impl fmt::Debug for KeepFresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepFresh").finish_non_exhaustive()
    }
}
