//! What all stores of one Redis share.

use std::time::Duration;

use super::{connection::Connection, wake::Wakes};
use crate::store::{Keyring, timed_lease::Times};

pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) wakes: Wakes,
    pub(super) keys: Keyring,
    pub(super) prefix: String,
    pub(super) ttl: Duration,
    pub(super) tombstone_ttl: Duration,
    pub(super) times: Times,
}

/// A time as Redis takes it. A century stands for everything longer, which Redis refuses.
pub(super) fn millis(time: Duration) -> String {
    const MAX_MILLIS: u128 = 100 * 366 * 24 * 60 * 60 * 1000;
    time.as_millis().clamp(1, MAX_MILLIS).to_string()
}
