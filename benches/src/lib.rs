//! What the benchmarks share: clocks, and counts by valgrind.

pub mod time;
pub mod valgrind;
