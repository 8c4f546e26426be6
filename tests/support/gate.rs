//! A place where others can be held.

use std::sync::Arc;

use tokio::{sync::watch, time::timeout};

use super::secs;

/// Open at first. Works across runtimes.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    closed: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { closed: watch::Sender::new(false), arrived: watch::Sender::new(0) }))
    }

    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.0.closed.send_replace(false);
    }

    /// How many have come here, let through or not.
    pub(crate) fn count(&self) -> usize {
        *self.0.arrived.borrow()
    }

    /// Waits until so many have come here in all; not for ever, so that a test fails
    /// rather than hangs.
    pub(crate) async fn arrived(&self, count: usize) {
        let mut arrived = self.0.arrived.subscribe();
        let come = timeout(secs(600), arrived.wait_for(|arrived| *arrived >= count)).await;
        come.expect("nobody comes").unwrap();
    }

    pub(crate) async fn pass(&self) {
        self.0.arrived.send_modify(|arrived| *arrived += 1);
        self.0.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
    }
}
