//! Locks and atomics of what several threads share without more: the standard library's. Built with
//! `cfg(tower_refresh_loom)`, the tests have loom's, which tries every order of their steps
//! (`cargo xtask loom`).

#[cfg(not(all(test, tower_refresh_loom)))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};

#[cfg(all(test, tower_refresh_loom))]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
