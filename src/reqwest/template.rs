//! [`Template`]: what of a request has no place in an `http::Request`.

use std::mem;

use bytes::Bytes;
use http::{Uri, request::Parts};
use http_body::Body as _;
use reqwest::{Body, Error, Request};

use crate::{
    body::ReplayBody,
    error::BoxError,
    peek::{Upload, Watched},
};

/// What all attempts of a request have in common, and the layer does not keep: the URL with its
/// fragment, and what reqwest keeps to itself, such as the timeout.
pub(super) struct Template {
    /// The request without its head, and with an empty body if it has one.
    request: Request,
    /// Its URL as the layer knows it.
    uri: Uri,
}

impl Template {
    /// Takes a request apart: the second part is the request as the layer gets it.
    pub(super) fn new(mut request: Request, uri: Uri) -> (Self, http::Request<Body>) {
        let body = request.body_mut().as_mut().map(mem::take).unwrap_or_default();
        let mut seen = http::Request::new(body);
        *seen.method_mut() = mem::take(request.method_mut());
        *seen.uri_mut() = uri.clone();
        *seen.version_mut() = request.version();
        *seen.headers_mut() = mem::take(request.headers_mut());
        (Self { request, uri }, seen)
    }

    /// The request of one attempt, and what tells when it has been sent. That is said of a stream
    /// only if it is `watched`; bytes wait for nothing.
    pub(super) fn request(
        &self,
        parts: Parts,
        body: ReplayBody<Body>,
        watched: bool,
    ) -> Result<(Request, Upload), Error> {
        // Cannot fail: only a body that is a stream keeps a request from being cloned, and the
        // template has none, or empty bytes.
        let mut request = self.request.try_clone().expect("no stream");
        if parts.uri != self.uri {
            // The closure that attaches the token has changed it.
            let mut moved = http::Request::new(Body::default());
            *moved.uri_mut() = parts.uri;
            *request.url_mut() = Request::try_from(moved)?.url().clone();
        }
        *request.method_mut() = parts.method;
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers;
        let mut upload = Upload::over();
        let body = match body.into_source() {
            Ok(body) if body.as_bytes().is_some_and(<[u8]>::is_empty) => None,
            Ok(body) if watched && body.as_bytes().is_none() => Some(watch(body, &mut upload)),
            Ok(body) => Some(body),
            Err(body) if body.is_end_stream() => None,
            Err(body) if watched => Some(watch(body, &mut upload)),
            Err(body) => Some(Body::wrap(body)),
        };
        if body.is_some() {
            *request.body_mut() = body;
        }
        Ok((request, upload))
    }
}

/// A stream whose end `upload` tells.
fn watch<B>(body: B, upload: &mut Upload) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    let watched;
    (watched, *upload) = Watched::new(body);
    Body::wrap(watched)
}
