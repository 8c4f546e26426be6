//! Stores: the suite that every store has to pass, and tokens in files.
//!
//! | module | what |
//! |---|---|
//! | `conformance` | the suite, and what it must not let pass |
//! | `file` | [`FileStore`](tower_refresh::store::FileStore) |

mod conformance;
#[cfg(unix)]
mod file;
