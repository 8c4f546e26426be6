//! gRPC without a server: what the layer does with `grpc-timeout` and `grpc-status`.
//!
//! | module | what |
//! |---|---|
//! | `timeout` | a request that is sent later has less time |
//! | `status` | a status that comes after the head, and `GrpcStatusLayer` |

mod status;
mod timeout;

use http::HeaderValue;
use testing::{Response, answer};

/// A response that is nothing but a status.
fn trailers_only(code: &'static str) -> Response {
    let mut response = answer(200);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    response
}
