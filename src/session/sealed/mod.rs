//! Sealed sessions: the tokens are in the browser's cookies, encrypted, and the server remembers only
//! what the browser may not have received.
//!
//! | file | what is in it |
//! |---|---|
//! | `cookies.rs` | [`Sealed`]: what a request shows, and what a response writes |
//! | `contents.rs` | the text that is sealed |
//! | `copy.rs` | [`BrowserCopy`]: the browser and the memory as one store |
//!
//! # What is remembered, and for how long
//!
//! A browser has no compare-and-swap, acknowledges nothing, and keeps whichever `Set-Cookie` arrives
//! last. So the memory keeps a session's newest tokens from the moment they are minted until a request
//! has shown that the browser has them **and** no older `Set-Cookie` can be on its way any more:
//!
//! 1. tokens are saved to the memory, and written to the cookie by each response of a request that
//!    shows older ones;
//! 2. once they are older than a response can be on its way
//!    ([`transit`](super::SealedBuilder::transit)), a response writes the cookie once more: the *last
//!    write*;
//! 3. a request that shows the last write was sent by a browser that has them for good. The tokens in
//!    the memory give way to a note that has only their number, under the lease, so that no redeem that
//!    was left open is forgotten; and the other name is cleared.
//!
//! A response writes one name or clears one, never both: one that is late then leaves the other as it
//! is. A new session has both names, so no single response of the one before it takes it away.
//!
//! A request with an older number than the note's is *stale*. It is asked to come again, by which the
//! browser sends what it has by now; the same once more is no session, and ends none: it is a copy of an
//! old jar. Stale tokens are neither redeemed nor written.
//!
//! # Who says what
//!
//! | | while it is remembered | once it is not |
//! |---|---|---|
//! | which tokens are the newest | the memory, and what a request shows if that is newer | what a request shows; run out, it is asked to come again first |
//! | idle | no: its record ends with the idle time, which each write moves on | by the moment at which the cookie was written; nothing is ended for it |
//! | ended | its note, until no cookie of it opens any more | no |
//! | whose list it is in | that of its user | it is put there again by the next request, or ended if the list says so |

mod contents;
mod cookies;
mod copy;
#[cfg(fuzzing)]
pub(super) mod fuzz;

pub(super) use self::{
    cookies::{Due, InBrowser, MAX_BYTES, Sealed, Shown, new_id},
    copy::BrowserCopy,
};
use super::identity::seconds;
use crate::time::Time;

/// The moment that cookies are written by, in seconds since the Unix epoch.
fn now() -> u64 {
    seconds(Time::never_back().wall)
}
