//! What happens to requests, as the page shows it. It comes from those that know: the application
//! when a request begins and ends, the API what it refuses, the authorization server of a refresh.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{self, Receiver, Sender, error::RecvError},
    time::Instant,
};

/// How many events a slow page may be behind before it misses some.
const KEPT: usize = 8192;

/// The request header that names a request, from the page to the API.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// Tells pages what happens. Clones are the same.
#[derive(Clone)]
pub(crate) struct Timeline {
    begun: Instant,
    events: Sender<Event>,
}

/// What happened, and in whose session: a page hears of its own only.
#[derive(Clone)]
struct Event {
    sid: Arc<str>,
    text: Arc<str>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { begun: Instant::now(), events: broadcast::channel(KEPT).0 }
    }
}

impl Timeline {
    /// Tells of something. `about`: what it happened to, a request's id say.
    pub(crate) fn tell(&self, sid: &str, kind: &str, about: &str) {
        let text = self.text(kind, about);
        // An error means that no page is open.
        let _ = self.events.send(Event { sid: sid.into(), text: text.to_string().into() });
    }

    /// The same as text, for one page.
    pub(crate) fn text(&self, kind: &str, about: &str) -> Value {
        let at = self.begun.elapsed().as_secs_f64() * 1000.0;
        json!({ "kind": kind, "about": about, "at": at })
    }

    /// What happens in a session from now on.
    pub(crate) fn listen(&self, sid: &str) -> Listener {
        Listener { sid: sid.into(), events: self.events.subscribe() }
    }
}

/// One page.
pub(crate) struct Listener {
    sid: Arc<str>,
    events: Receiver<Event>,
}

impl Listener {
    /// The next event of its session.
    pub(crate) async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            match self.events.recv().await {
                Ok(event) if event.sid == self.sid => return Some(event.text),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
