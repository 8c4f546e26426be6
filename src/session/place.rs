//! A request's place for a session, as layer and handler share it ([`Slot`]).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http::HeaderValue;

use super::{
    ended::Ended,
    entry::Entry,
    sealed::Shown,
    shared::{Shared, Visit},
};
use crate::state::OwedHead;

pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    inner: Mutex<Inner>,
    /// The response depends on who is signed in.
    asked: AtomicBool,
    /// The browser may have a cookie that this request did not bring.
    pub(super) is_blind: bool,
}

struct Inner {
    found: Found,
    /// What the browser has of the session, if its tokens are in its cookies.
    shown: Option<Arc<Shown>>,
    /// The response takes a new session's tokens along.
    owed: Option<OwedHead>,
    written: Option<Written>,
}

/// Whose request it is.
pub(super) enum Found {
    /// It brings no cookie of ours.
    NoCookie,
    Visit(Visit),
}

/// What the response does to the cookie.
pub(super) enum Written {
    Set(Vec<HeaderValue>),
    Clear,
}

impl Slot {
    pub(super) fn new(
        shared: Arc<Shared>,
        (found, shown): (Found, Option<Arc<Shown>>),
        is_blind: bool,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner { found, shown, owed: None, written: None });
        Arc::new(Self { shared, inner, asked: AtomicBool::new(false), is_blind })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn lives(&self) -> Option<Arc<Entry>> {
        match &self.lock().found {
            Found::Visit(Visit::Lives(entry)) => Some(Arc::clone(entry)),
            _ => None,
        }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        match &self.lock().found {
            Found::Visit(Visit::Ended(ended)) => Some(*ended),
            _ => None,
        }
    }

    pub(super) fn has_cookie(&self) -> bool {
        !matches!(self.lock().found, Found::NoCookie)
    }

    pub(super) fn write(&self, written: Written, visit: Visit) {
        let mut inner = self.lock();
        inner.written = Some(written);
        inner.shown = None;
        inner.found = Found::Visit(visit);
    }

    /// A session whose cookies are written before the response goes out.
    pub(super) fn begun(&self, entry: &Arc<Entry>) {
        let mut inner = self.lock();
        inner.shown = None;
        inner.owed = entry.in_browser.as_ref().map(|browser| browser.copy.heads.owe());
        inner.found = Found::Visit(Visit::Lives(Arc::clone(entry)));
    }

    pub(super) fn set(&self, cookies: Vec<HeaderValue>) {
        self.lock().written = Some(Written::Set(cookies));
    }

    pub(super) fn shown(&self) -> Option<Arc<Shown>> {
        self.lock().shown.clone()
    }

    /// This session was signed out.
    pub(super) fn signed_out(&self, entry: &Arc<Entry>, ended: Ended) {
        let is_ours = self.lives().is_some_and(|it| Arc::ptr_eq(&it, entry));
        if is_ours {
            self.write(Written::Clear, Visit::Ended(ended));
        }
    }

    /// The head goes out.
    pub(super) fn take_written(&self) -> Option<Written> {
        let mut inner = self.lock();
        inner.owed = None;
        inner.written.take()
    }
}
