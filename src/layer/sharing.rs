//! What the futures of one service refer to, and when a clone of the service gets its own.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::config::Config;

/// What a service shares with the futures it makes, and at first with its clones.
pub(super) struct Shared<S> {
    pub(super) config: Arc<Config>,
    /// Never called and never made ready: clones of it send what has had to wait.
    template: Mutex<S>,
    redirected: AtomicBool,
}

impl<S> Shared<S> {
    pub(super) fn new(config: Arc<Config>, template: S) -> Arc<Self> {
        Arc::new(Self {
            config,
            template: Mutex::new(template),
            redirected: AtomicBool::new(false),
        })
    }

    /// A response was a redirect: what comes next may be a request of the same call.
    pub(super) fn has_redirected(&self) {
        self.redirected.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_redirected(&self) -> bool {
        self.redirected.load(Ordering::Relaxed)
    }

    /// A service for one request alone, not ready yet.
    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whose [`Shared`] and cached token a service uses.
///
/// A clone begins with its parent's. Most clones are called once and keep those. At its
/// second call a clone is taken to be long-lived and gets its own, so that its hot path
/// touches no reference count that another thread touches.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sharing {
    /// Its parent's; not called yet.
    Parents,
    /// Its parent's; called once.
    ParentsOnce,
    Own,
    /// `get_mut` may have changed the inner service since the template was made.
    Changed,
}

impl Sharing {
    /// How a clone of a service begins.
    pub(super) fn of_clone(self) -> Self {
        match self {
            Self::Changed => Self::Changed,
            Self::Parents | Self::ParentsOnce | Self::Own => Self::Parents,
        }
    }
}
