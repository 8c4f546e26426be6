//! Stores: the suite that every store has to pass, and tokens in files.
//!
//! | module | what |
//! |---|---|
//! | `conformance` | the suite, and what it must not let pass |
//! | `file` | [`FileStore`](tower_refresh::store::FileStore) |

#[cfg(feature = "test-util")]
mod conformance;
#[cfg(all(unix, feature = "file"))]
mod file;
