//! Clocks, and what is made of their readings.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time of day's clock, for what tasks and threads do together.
#[allow(clippy::disallowed_methods, reason = "no paused clock here: this is a measurement")]
pub fn now() -> Instant {
    Instant::now()
}

/// What this thread has used of its processor. Others that use it meanwhile do not count.
pub fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// What this process has used of the processors, on all threads and in the kernel.
pub fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("a clock that counts up from zero")
}

/// For how long this thread had something to do and no processor. Zero where nobody counts it.
pub fn thread_delay() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least one: what other processes do only ever adds to a time.
pub fn least(values: Vec<f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}
