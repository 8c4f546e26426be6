//! gRPC: statuses and deadlines.
//!
//! [`RefreshLayer`](crate::RefreshLayer) needs no configuration for gRPC:
//!
//! - `UNAUTHENTICATED` in the head of a response is a challenge
//!   ([`classify`](crate::layer::classify())).
//! - A replay, or a request that had to wait for a token, is sent later than its caller assumes. So
//!   it carries what is left of its `grpc-timeout`, and waits for a refresh no longer than that. When
//!   nothing is left there is no replay: the caller gets the response that is there, with a
//!   [`RefreshFailure`](crate::RefreshFailure) of the kind
//!   [`Deadline`](crate::FailureKind::Deadline). A request that was not sent yet is sent with the
//!   smallest timeout. A `grpc-timeout` that is malformed passes as it is.
//! - A call that the server has begun to answer is not replayed, whatever status it ends with.
//!
//! Some servers send a head, no message and then the status, even if they refuse a call. For them
//! there is [`GrpcStatusLayer`], and inside reqwest `grpc_status` on `RefreshMiddleware` and
//! `ReqwestLayer`. A status after a message goes to the caller.
//!
//! In the source, `protocol.rs` and `timeout.rs` hold what the protocol says, which
//! [`RefreshLayer`](crate::RefreshLayer) uses; `status/` is the optional layer.

pub(crate) mod protocol;
mod status;
pub(crate) mod timeout;

#[cfg(feature = "reqwest")]
pub(crate) use self::status::StatusLook;
pub use self::status::{GrpcStatus, GrpcStatusFuture, GrpcStatusLayer};
pub use crate::peek::{PeekFuture, Peeked, Peeking, Watched};
