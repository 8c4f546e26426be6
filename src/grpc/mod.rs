//! gRPC: its statuses and its deadlines.
//!
//! [`RefreshLayer`](crate::RefreshLayer) needs no configuration for gRPC:
//!
//! - `UNAUTHENTICATED` in the head of a response is a challenge, as
//!   [`classify`](crate::layer::classify()) has it.
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

pub(crate) mod protocol;
mod status;
pub(crate) mod timeout;

pub use self::status::{GrpcStatus, GrpcStatusFuture, GrpcStatusLayer, Peeked, Watched};
