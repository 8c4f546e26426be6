//! [`RefreshState`](tower_refresh::RefreshState) without HTTP.
//!
//! | module | what |
//! |---|---|
//! | `attempt` | calls with the token, for protocols without a layer |
//! | `basics` | the API, first use, signed out |
//! | `life` | from when on the life of an access token counts |
//! | `time` | early refresh, expiry, cool-down, brake, deadline |
//! | `keep_fresh` | refreshing ahead of expiry without requests |
//! | `unsaved` | a store that fails |
//! | `fence` | sign-in and sign-out at every step of a flight |
//! | `intent` | redeems that were interrupted, leases that were lost |
//! | `look` | looking for sign-ins by other processes |
//! | `sign_ins` | sign-ins while something is under way |
//! | `sign_out` | what a sign-out tells its hook |
//! | `left_behind` | what lives on at the server, and who is told |
//! | `shared` | several states, one store |
//! | `elsewhere` | what other processes do to the store, and what is found of it |
//! | `elsewhere_corners` | the same, where two things meet |
//! | `lost_records` | a store that has lost what it held |
//! | `family` | many credentials that share how they are renewed |
//! | `fleet` | their refreshes come neither all at one time nor too many at once |
//! | `alarms` | the task that does it, and what may happen to it |
//! | `observe` | what a program and its operator hear |
//! | `outcomes` | what the log says that a flight has done |
//! | `health` | how a credential does, in a word, and the channel of that |
//! | `serialize` | the same as JSON (feature `serde`) |
//! | `invariants` | those that are about the credential, by number |
//! | `cancellation` | every point at which a caller, a runtime or a hook can go away |

mod alarms;
mod attempt;
mod basics;
mod cancellation;
mod elsewhere;
mod elsewhere_corners;
mod family;
mod fence;
mod fleet;
mod grace;
mod health;
mod intent;
mod invariants;
mod keep_fresh;
mod left_behind;
mod life;
mod look;
mod lost_records;
mod observe;
mod outcomes;
#[cfg(feature = "serde")]
mod serialize;
mod shared;
mod sign_ins;
mod sign_out;
mod time;
mod unsaved;
