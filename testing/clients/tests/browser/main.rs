//! Browser sessions in a real browser: Chromium, by its driver. What the sessions rely on of a browser is
//! here, and not only what they do.
//!
//! | module | what |
//! |---|---|
//! | `browser` | a browser for each test, and its tabs |
//! | `app` | the application under test, on real sockets, with an API |
//! | `provider` | where its users sign in, and out |
//! | `tls` | the same over TLS |
//! | `cookies` | the cookie as the browser has it, twins, many others, HTTP/2 |
//! | `sealed` | sealed sessions: the cookies, the order in which responses arrive, what is too large |
//! | `refreshes` | tabs over an expiry, closed and superseded ones, those that sign out |
//! | `waiting` | requests that waited in the browser |
//! | `sockets` | WebSockets over HTTP/1.1 and HTTP/2, through the proxy |
//! | `streams` | event streams over an end and an outage |
//! | `sign_in` | prefetches, and the return from the provider |
//! | `back` | what Back and prefetched pages show after the end |
//! | `strangers` | pages of other sites and ports |
//! | `pictures` | the example's page, to be looked at |

/// These tests, over sessions in a store and over sealed ones: what both modes promise alike.
macro_rules! in_both_modes {
    ($($names:tt)+) => {
        testing::in_both_modes! { [tokio::test] $($names)+ }
    };
}

mod app;
mod back;
mod browser;
mod cookies;
/// The example's, as it is copied.
#[path = "../../../../examples/bff/logout.rs"]
mod logout;
mod pictures;
mod provider;
mod refreshes;
mod sealed;
mod sign_in;
mod sockets;
mod strangers;
mod streams;
mod tls;
mod waiting;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Something that happens soon, and nobody says when.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if is_so().await {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("never {what}");
}
