//! [`StatusLook`]: what is taken from the first frame.

use std::{fmt, time::Duration};

use bytes::Buf;
use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING},
};
use http_body::Frame;

use super::GrpcStatusLayer;
use crate::{
    grpc::protocol::{STATUS, is_grpc},
    peek::{Look, Next, Peek},
};

/// A look at the first frame.
pub struct StatusLook {
    hold: Duration,
    /// The frame, if it is trailers with a status.
    trailers: Option<HeaderMap>,
}

impl Peek for GrpcStatusLayer {
    type Look = StatusLook;

    /// Whether the response may be a status that its head does not show.
    fn begin<B>(&self, head: &Response<B>) -> Option<StatusLook> {
        let headers = head.headers();
        let may_hide_one =
            head.status() == StatusCode::OK && is_grpc(headers) && !headers.contains_key(&STATUS);
        may_hide_one.then_some(StatusLook { hold: self.hold, trailers: None })
    }
}

impl Look for StatusLook {
    fn frame<D: Buf>(&mut self, frame: &Frame<D>) -> Next {
        let trailers = frame.trailers_ref();
        self.trailers = trailers.filter(|trailers| trailers.contains_key(&STATUS)).cloned();
        Next::Enough
    }

    fn conclude<B>(self, response: &mut Response<B>) {
        if let Some(trailers) = self.trailers {
            merge(response.headers_mut(), trailers);
        }
    }

    fn hold(&self) -> Duration {
        self.hold
    }
}

/// Adds trailers to a head, except for fields that frame a message: these must not come in
/// trailers (RFC 9110, section 6.5.1), and would change how the body is read.
fn merge(headers: &mut HeaderMap, trailers: HeaderMap) {
    for (name, value) in &trailers {
        let framing = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING];
        if !framing.contains(name) {
            headers.append(name, value.clone());
        }
    }
}

// By hand, because what is looked at may be secret.
impl fmt::Debug for StatusLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusLook").finish_non_exhaustive()
    }
}
