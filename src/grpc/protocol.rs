//! What gRPC over HTTP/2 says of itself in a head.

use http::{HeaderMap, HeaderName, header::CONTENT_TYPE};

/// The status of a call: in the head of a response that is nothing else
/// ("Trailers-Only"), otherwise in the trailers.
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a message's content is gRPC's, in whatever encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    let start = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..PREFIX.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}
