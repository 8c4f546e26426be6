//! What is counted, for the [`metrics`](::metrics) crate (feature `metrics`).
//!
//! Install a recorder, such as `metrics-exporter-prometheus`. Nothing is counted before that. Names and labels are stable, and the labels' values are the stable words of the
//! types that are named here. No credential's name is a label, and all credentials of a process
//! are counted together.
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `tower_refresh_refreshes_total` | `trigger` ([`Trigger::as_str`]), `outcome` | flights that have ended. `outcome` is `renewed`, `read`, `adopted`, `superseded`, `nothing_newer` (as in [`state`](crate::state#spans-and-events)) or a [`FailureKind::as_str`](crate::FailureKind::as_str) |
//! | `tower_refresh_failures_total` | `kind` ([`FailureKind::as_str`](crate::FailureKind::as_str)) | failures that waiters got, once a flight. `braked`: the brake was pulled. `deadline`: once a waiter. `doubted`: once a challenge that starts no refresh |
//! | `tower_refresh_gate_waits_total` | | requests that had to wait for a token before they were sent |
//! | `tower_refresh_replays_total` | | requests sent a second time |
//! | `tower_refresh_not_replayed_total` | `reason` ([`NotReplayable::as_str`] or [`FailureKind::as_str`](crate::FailureKind::as_str)) | responses that went to their caller with the reason in their extensions |
//! | `tower_refresh_store_errors_total` | `operation`: `lease`, `load`, `intend`, `save`, `delete` | calls of a store that failed. A conflict with another process is no failure |
//! | `tower_refresh_revocations_total` | `outcome` ([`Revocation::as_str`](crate::state::Revocation::as_str)) | calls of a hook that revokes tokens: `done`, `pending` (it failed, and is called again), `failed` |
//! | `tower_refresh_open_redeems_total` | `cause` ([`OpenCause::as_str`]) | open redeems that a flight has found with its lease |
//! | `tower_refresh_sessions_begun_total` | | browser sessions that were signed in (feature `session`) |
//! | `tower_refresh_sessions_ended_total` | `reason` (`session::Ended::as_str`) | browser sessions that have ended: each process that learns of it counts once |
//! | `tower_refresh_session_looks_total` | | looks at the store for a browser's request or stream |
//! | `tower_refresh_session_refusals_total` | `reason`: `csrf`, `no_session`, `unavailable` | browsers' requests that the session layer has refused. A redirect to the sign-in is no refusal |
//!
//! | histogram | labels | what |
//! |---|---|---|
//! | `tower_refresh_refresh_duration_seconds` | `outcome` | how long flights took, in seconds, the wait for the lease included |
//! | `tower_refresh_waiters` | | how many waiters were woken at once; the sum is the number of waiters |
//!
//! [`NotReplayable::as_str`]: crate::body::NotReplayable::as_str
//! [`OpenCause::as_str`]: crate::store::OpenCause::as_str
#![cfg_attr(not(doctest), doc = include_str!("metrics.md"))]
// The functions of this file are called outside every lock: a recorder is code of the user.
// Without the feature they are empty.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use std::time::Duration;

#[cfg(feature = "metrics")]
use metrics::{counter, describe_counter, describe_histogram, histogram};

use crate::refresher::Trigger;

/// Gives the recorder that is installed a sentence about each of them, and their units. A
/// program may call it once it has installed one.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::Unit::{Count, Seconds};
    for (name, what) in [
        ("tower_refresh_refreshes_total", "Refreshes that have ended, by what started them"),
        ("tower_refresh_failures_total", "Failures that waiters were told, by kind"),
        ("tower_refresh_gate_waits_total", "Requests that waited for a token before being sent"),
        ("tower_refresh_replays_total", "Requests that were sent a second time"),
        ("tower_refresh_not_replayed_total", "Refused requests that were not helped, by reason"),
        ("tower_refresh_store_errors_total", "Calls of a token store that failed, by operation"),
        ("tower_refresh_revocations_total", "Tries to revoke tokens at the server, by outcome"),
        ("tower_refresh_open_redeems_total", "Redeems of unknown end that were found, by cause"),
        ("tower_refresh_sessions_begun_total", "Browser sessions that were signed in"),
        ("tower_refresh_sessions_ended_total", "Browser sessions that have ended, by reason"),
        ("tower_refresh_session_looks_total", "Looks at the store for browser sessions"),
        ("tower_refresh_session_refusals_total", "Browsers' requests that were refused, by reason"),
    ] {
        describe_counter!(name, Count, what);
    }
    describe_histogram!("tower_refresh_refresh_duration_seconds", Seconds, "Time of a refresh");
    describe_histogram!("tower_refresh_waiters", Count, "Waiters that were told at once");
}

/// A flight has ended.
pub(crate) fn refreshed(trigger: Trigger, outcome: &'static str, took: Duration) {
    #[cfg(feature = "metrics")]
    {
        let trigger = trigger.as_str();
        counter!("tower_refresh_refreshes_total", "trigger" => trigger, "outcome" => outcome)
            .increment(1);
        histogram!("tower_refresh_refresh_duration_seconds", "outcome" => outcome).record(took);
    }
}

/// So many waiters were told of news.
pub(crate) fn told(waiters: usize) {
    #[cfg(feature = "metrics")]
    if waiters > 0 {
        // The doubles are exact far beyond what a process has memory for.
        histogram!("tower_refresh_waiters").record(waiters as f64);
    }
}

/// Waiters, a waiter or a challenge were told of a failure of this kind.
pub(crate) fn failed(kind: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_failures_total", "kind" => kind).increment(1);
}

/// A request waits at the gate.
pub(crate) fn gate_wait() {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_gate_waits_total").increment(1);
}

/// A request is sent a second time.
pub(crate) fn replayed() {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_replays_total").increment(1);
}

/// A response goes to its caller with this reason.
pub(crate) fn not_replayed(reason: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_not_replayed_total", "reason" => reason).increment(1);
}

/// This operation of a store has failed.
pub(crate) fn store_error(operation: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_store_errors_total", "operation" => operation).increment(1);
}

/// A hook that revokes tokens was called, and this came of it.
pub(crate) fn revoked(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_revocations_total", "outcome" => outcome).increment(1);
}

/// A flight has found an open redeem.
pub(crate) fn open_redeem(cause: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_open_redeems_total", "cause" => cause).increment(1);
}

/// A browser session was signed in.
#[cfg(feature = "session")]
pub(crate) fn session_begun() {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_sessions_begun_total").increment(1);
}

/// This process has heard that a browser session has ended.
#[cfg(feature = "session")]
pub(crate) fn session_ended(reason: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_sessions_ended_total", "reason" => reason).increment(1);
}

/// The store is looked at for a browser session.
#[cfg(feature = "session")]
pub(crate) fn session_looked() {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_session_looks_total").increment(1);
}

/// A browser's request was answered by the session layer.
#[cfg(feature = "session")]
pub(crate) fn session_refused(reason: &'static str) {
    #[cfg(feature = "metrics")]
    counter!("tower_refresh_session_refusals_total", "reason" => reason).increment(1);
}
