//! Every point at which somebody can go away: callers, runtimes, and user code that
//! panics. Afterwards nobody hangs, and later callers work.

mod callers;
mod panics;
mod runtimes;
