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
//!    ([`transit`](super::SealedBuilder::transit)), a response writes the cookie once more: the *last write*,
//!    which also clears the other slot;
//! 3. a request that shows the last write was sent by a browser that has them for good. The tokens in
//!    the memory give way to a note that has only their number.
//!
//! A request with an older number than the note's is asked to come again, by which the browser sends
//! what it has by now; the same once more is no session, and ends none: it is a copy of an old jar.

mod contents;
mod cookies;
mod copy;

pub(super) use self::{
    cookies::{Due, InBrowser, MAX_BYTES, Sealed, Shown, new_id},
    copy::BrowserCopy,
};
