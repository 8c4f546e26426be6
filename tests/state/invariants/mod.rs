//! What this crate promises about a credential, by number: each promise is held still at
//! the moment where it could break. Those about one request, 8 and 10 to 13, are in
//! `tests/layer/invariants.rs`.
//!
//! | module | invariants | more of it |
//! |---|---|---|
//! | `flight` | 1 one redeem, 2 late challenges | `shared` |
//! | | 3 a flight outlives its callers | `cancellation::callers` |
//! | | 7 every waiter hears | `cancellation::panics`, `cancellation::runtimes` |
//! | `saving` | 4 save, then publish | `unsaved` |
//! | | 5 fence | `fence` |
//! | | 15 nothing lost on the way out | |
//! | `failing` | 6 kinds of failure, 9 brake, 14 isolation | `time`, `look` |

mod failing;
mod flight;
mod saving;
