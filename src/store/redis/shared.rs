//! What all stores of one Redis share.

use std::time::Duration;

use super::{connection::Connection, wake::Wakes};
use crate::store::Keyring;

pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) wakes: Wakes,
    pub(super) keys: Keyring,
    pub(super) prefix: String,
    pub(super) lease: Duration,
    pub(super) intent: Duration,
    pub(super) ttl: Duration,
    pub(super) tombstone_ttl: Duration,
    pub(super) poll: Duration,
}

/// What stands for everything longer: Redis refuses more, and no clock could be asked for it.
pub(super) const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A time as Redis takes it.
pub(super) fn millis(time: Duration) -> String {
    time.min(CENTURY).as_millis().max(1).to_string()
}
