//! What gRPC over HTTP/2 says in a message's head.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

/// The header of a call's status. It stands in the head of a response that is nothing else
/// ("Trailers-Only"), otherwise in the trailers.
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");

// The status codes that the default classifier knows.
pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
pub(crate) const INTERNAL: u32 = 13;
pub(crate) const UNAVAILABLE: u32 = 14;
pub(crate) const DATA_LOSS: u32 = 15;
pub(crate) const UNAUTHENTICATED: u32 = 16;

/// The code in a status. A value that is not a number counts as [`UNKNOWN`].
pub(crate) fn code(status: &HeaderValue) -> u32 {
    status.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN)
}

/// Whether a message is gRPC's, in whatever encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    let start = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..PREFIX.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}
