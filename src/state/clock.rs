//! Sleeping by both clocks.

use std::time::Duration;

use tokio::time::sleep_until;

use crate::time::{Due, Time, after};

/// How long the wall clock is not looked at, at most. tokio's clock stands still while the
/// machine sleeps.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// Sleeps until either clock says that the moment has come; by the wall clock half a minute
/// late at most.
pub(super) async fn sleep_until_due(due: Due) {
    // At least once, so that a wait of nothing is one all the same.
    let mut time = Time::now();
    loop {
        sleep_until(due.now.min(after(time.now, LOOK))).await;
        time = Time::now();
        if due.has_come(time) {
            return;
        }
    }
}
