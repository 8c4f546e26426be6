//! gRPC: its statuses and its deadlines.
//!
//! [`RefreshLayer`](crate::RefreshLayer) needs no configuration for gRPC:
//!
//! - `UNAUTHENTICATED` in the head of a response is a challenge, as
//!   [`classify`](crate::classify()) has it.
//! - A request that is sent later than its caller thinks, the replay or one that had to
//!   wait for a token, carries what is left of its `grpc-timeout` and not a fresh one. It
//!   waits for a refresh no longer than that. When nothing is left there is no replay: the
//!   caller gets the response that is there, with a
//!   [`RefreshFailure`](crate::RefreshFailure) of the kind
//!   [`Deadline`](crate::FailureKind::Deadline); a request that was not sent yet is sent with
//!   the smallest timeout. A value that is not as the protocol has it is passed as it is.
//! - A call that the server begins to answer is not replayed any more, whatever status it
//!   ends with.
//!
//! Some servers begin every answer, also one that is nothing but a status.
//! [`GrpcStatusLayer`] is for those.

mod body;
mod future;
mod layer;
pub(crate) mod timeout;

use http::{HeaderMap, HeaderName, header::CONTENT_TYPE};

pub use self::{
    body::{Peeked, Watched},
    future::GrpcStatusFuture,
    layer::{GrpcStatus, GrpcStatusLayer},
};

/// The status of a call: in the head of a response that is nothing else
/// ("Trailers-Only"), otherwise in the trailers.
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a message's content is gRPC's, in whatever encoding.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    let start = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..PREFIX.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}
