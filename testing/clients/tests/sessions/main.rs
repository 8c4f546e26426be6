//! Browser sessions: [`SessionLayer`](tower_refresh::session::SessionLayer) and what is around it.
//!
//! | module | what |
//! |---|---|
//! | `invariants` | S1 to S20, by number |
//! | `logouts` | logout tokens that a provider has signed, and others |
//! | `endings` | why sessions end, and who is told |
//! | `cookies` | bad input |
//! | `corners` | where two things meet |
//! | `beside` | tower-sessions in the same application |
//! | `memory` | what a session costs that nobody uses |
//! | `metrics` | what is counted, by names and labels |
//! | `races` | what other tabs and replicas do meanwhile |
//! | `sockets` | WebSockets over HTTP/2, through the proxy |
//! | `sealed`, `sealed_corners`, `jars` | what sealed sessions promise besides; a browser at its worst |
//! | `stores` | the same promises over files, Redis and PostgreSQL |
//! | `axum` | an application on real sockets: extractors, proxy, WebSockets, streams |

/// These tests, over sessions in a store and over sealed ones: what both modes promise alike.
macro_rules! in_both_modes {
    ($($names:tt)+) => {
        testing::in_both_modes! { [tokio::test(start_paused = true)] $($names)+ }
    };
}

mod axum;
mod beside;
mod cookies;
mod corners;
mod endings;
mod invariants;
mod jars;
mod logouts;
mod memory;
mod metrics;
mod races;
mod sealed;
mod sealed_corners;
mod sockets;
mod stores;
