//! A place where tasks can be held.

use std::sync::Arc;

use tokio::{sync::watch, time::timeout};

use super::secs;

/// Open at first. Works across runtimes.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    closed: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// An open one.
    pub fn new() -> Self {
        Self(Arc::new(Inner { closed: watch::Sender::new(false), arrived: watch::Sender::new(0) }))
    }

    /// Holds every task that comes from now on.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Lets all tasks through.
    pub fn open(&self) {
        self.0.closed.send_replace(false);
    }

    /// How many tasks have come here, let through or not.
    pub fn count(&self) -> usize {
        *self.0.arrived.borrow()
    }

    /// Waits until so many have come here in all; not for ever, so that a test fails
    /// rather than hangs.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.0.arrived.subscribe();
        let come = timeout(secs(600), arrived.wait_for(|arrived| *arrived >= count)).await;
        come.expect("no task comes").unwrap();
    }

    /// Comes to the gate, and waits until it is open.
    pub async fn pass(&self) {
        self.0.arrived.send_modify(|arrived| *arrived += 1);
        self.0.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
    }
}
