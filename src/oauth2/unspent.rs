//! What an HTTP client's error says of whether the server has seen the request.
//!
//! | | | |
//! |---|---|---|
//! | no connection came about | not spent | tried again after the cool-down |
//! | the connection was gone before the request was begun | not spent | tried again at once |
//! | HTTP/2: RST_STREAM with REFUSED_STREAM, or a GOAWAY without error below the stream (RFC 9113, section 8.7) | not spent | tried again at once |
//! | all else, such as a connection that ends before the first byte of the response | may be spent | |
//!
//! These are hyper's own errors, and so those of reqwest and other clients that are built on it.

use std::error::Error;

/// Whether no connection came about, so that the server has done nothing. Only the HTTP client knows.
/// The system's error does not say so, be it a refused connection or an unreachable host: a
/// connection that is up ends in these too, when ICMP has said so of it.
#[cfg(feature = "oauth2-client")]
pub(super) fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<hyper_util::client::legacy::Error>();
    error.is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// Whether the server has not begun the request, and the same may be sent again at once.
#[cfg(feature = "oauth2-client")]
pub(super) fn is_untouched(error: &(dyn Error + 'static)) -> bool {
    // hyper says so only of a request that it has not begun to write.
    let is_unwritten = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
    is_unwritten || error.downcast_ref().is_some_and(is_refused_stream)
}

/// h2 ends a stream with the server's GOAWAY only if that is below it.
#[cfg(feature = "oauth2-client")]
fn is_refused_stream(error: &h2::Error) -> bool {
    let reason = error.reason();
    let is_refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
    let is_above = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (is_refused || is_above)
}

#[cfg(not(feature = "oauth2-client"))]
pub(super) fn is_unreachable(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(not(feature = "oauth2-client"))]
pub(super) fn is_untouched(_: &(dyn Error + 'static)) -> bool {
    false
}
