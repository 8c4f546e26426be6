//! [`RefreshState`](tower_refresh::RefreshState) without HTTP.
//!
//! | module | what |
//! |---|---|
//! | `basics` | the API, first use, signed out |
//! | `time` | early refresh, expiry, cool-down, brake, deadline |
//! | `keep_fresh` | refreshing ahead of expiry without requests |
//! | `unsaved` | a store that fails |
//! | `fence` | sign-in and sign-out at every step of a flight |
//! | `intent` | redeems that were interrupted, leases that were lost |
//! | `look` | looking for sign-ins by other processes |
//! | `sign_out` | what a sign-out tells its hook |
//! | `shared` | several states, one store |
//! | `elsewhere` | what other processes do to the store, and what is found of it |
//! | `elsewhere_corners` | the same, where two things meet |
//! | `lost_records` | a store that has lost what it held |
//! | `family` | many credentials that share how they are renewed |
//! | `observe` | what a program and its operator hear |
//! | `serialize` | the same as JSON (feature `serde`) |
//! | `invariants` | those that are about the credential, by number |
//! | `cancellation` | every point at which a caller, a runtime or a hook can go away |

mod basics;
mod cancellation;
mod elsewhere;
mod elsewhere_corners;
mod family;
mod fence;
mod grace;
mod intent;
mod invariants;
mod keep_fresh;
mod look;
mod lost_records;
mod observe;
#[cfg(feature = "serde")]
mod serialize;
mod shared;
mod sign_out;
mod time;
mod unsaved;
