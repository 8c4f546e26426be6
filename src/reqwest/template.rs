//! A request that was taken apart: the template of its attempts.

use std::mem;

use bytes::Bytes;
use http::{Extensions, Uri, request::Parts};
use http_body::Body as _;
use reqwest::{Body, Error, Request, Url};
use smallvec::SmallVec;

use crate::{
    body::ReplayBody,
    error::BoxError,
    peek::{Upload, Watched},
};

/// Takes a request apart. What is given back is the request as the layer gets it. What has no place
/// in it stays: the URL with its fragment, and what reqwest keeps to itself, such as the timeout;
/// and an empty body, if there is a body. `None`, and nothing is done, if its URL is nothing that a
/// request can be sent to.
#[inline]
pub(super) fn take_apart(
    request: &mut Request,
    extensions: Extensions,
) -> Option<http::Request<Body>> {
    let uri = uri_of(request.url())?;
    let body = request.body_mut().as_mut().map(mem::take).unwrap_or_default();
    let mut seen = http::Request::new(body);
    *seen.method_mut() = mem::take(request.method_mut());
    *seen.uri_mut() = uri;
    *seen.version_mut() = request.version();
    *seen.headers_mut() = mem::take(request.headers_mut());
    *seen.extensions_mut() = extensions;
    Some(seen)
}

/// `None` if no request can be sent there.
fn uri_of(url: &Url) -> Option<Uri> {
    // The parts of a `Uri` share its text, for which a plain copy allocates a second time. Most
    // texts fit into the one allocation of their owner.
    let text = SmallVec::<[u8; 128]>::from_slice(url.as_str().as_bytes());
    Uri::from_maybe_shared(Bytes::from_owner(text)).ok()
}

/// The request of one attempt, and what tells when it has been sent. That is said of a stream only
/// if it is `watched`; bytes wait for nothing. `may_move`: a closure attaches the token, which may
/// change the URI.
#[inline]
pub(super) fn attempt(
    template: &Request,
    parts: Parts,
    body: ReplayBody<Body>,
    may_move: bool,
    watched: bool,
) -> Result<(Request, Upload), Error> {
    // Cannot fail: only a body that is a stream keeps a request from being cloned, and the
    // template has none, or empty bytes.
    let mut request = template.try_clone().expect("no stream");
    if may_move && uri_of(template.url()).is_none_or(|uri| uri != parts.uri) {
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

/// A stream whose end `upload` tells.
fn watch<B>(body: B, upload: &mut Upload) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    let watched;
    (watched, *upload) = Watched::new(body);
    Body::wrap(watched)
}
