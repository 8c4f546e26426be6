//! What all attempts of a request have in common ([`Original`]), and how an attempt is sent
//! ([`RestOfClient`]).

use std::{
    mem,
    task::{Context, Poll},
};

use http::{Extensions, Uri, request::Parts};
use http_body::Body as _;
use reqwest::{Body, Request, Response, Url};
use reqwest_middleware::{Error, Next};
use tokio::sync::Mutex;
use tower_service::Service;

use super::{origin::FromOtherOrigin, response::BorrowedResponse};
use crate::{body::ReplayBody, layer::Attempt, refresher::BoxFuture};

/// What all attempts of a request have in common, and the layer does not keep.
pub(super) struct Original<'e> {
    /// The request without its head, and with an empty body if it has one.
    template: Request,
    /// The template's URL as the layer knows it.
    uri: Uri,
    /// The caller's. Locked while an attempt runs, and there is never more than one.
    extensions: Mutex<&'e mut Extensions>,
    /// Whether a closure attaches the token. It may put anything into an attempt's extensions.
    has_closure: bool,
}

impl<'e> Original<'e> {
    /// Takes a request apart: the second part is the request as the layer gets it.
    pub(super) fn new(
        mut template: Request,
        uri: Uri,
        extensions: &'e mut Extensions,
        has_closure: bool,
    ) -> (Self, http::Request<Body>) {
        let body = template.body_mut().as_mut().map(mem::take).unwrap_or_default();
        let mut request = http::Request::new(body);
        *request.method_mut() = mem::take(template.method_mut());
        *request.uri_mut() = uri.clone();
        *request.version_mut() = template.version();
        *request.headers_mut() = mem::take(template.headers_mut());
        *request.extensions_mut() = extensions.clone();
        (Self { template, uri, extensions: Mutex::new(extensions), has_closure }, request)
    }

    /// The request of one attempt.
    fn request(&self, parts: Parts, body: ReplayBody<Body>) -> Result<Request, Error> {
        // Cannot fail: only a body that is a stream keeps a request from being cloned, and the
        // template has none, or empty bytes.
        let mut request = self.template.try_clone().expect("no stream");
        if parts.uri != self.uri {
            // The closure that attaches the token has changed it.
            *request.url_mut() = Url::parse(&parts.uri.to_string()).map_err(Error::middleware)?;
        }
        *request.method_mut() = parts.method;
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers;
        match body.into_source() {
            Ok(body) if body.as_bytes().is_some_and(<[u8]>::is_empty) => {}
            Ok(body) => *request.body_mut() = Some(body),
            Err(body) if body.is_end_stream() => {}
            Err(body) => *request.body_mut() = Some(Body::wrap(body)),
        }
        Ok(request)
    }
}

/// The rest of the client, as a service that can be called several times for one request.
#[derive(Clone)]
pub(super) struct RestOfClient<'r, 'e> {
    next: Next<'r>,
    original: &'r Original<'e>,
}

impl<'r, 'e> RestOfClient<'r, 'e> {
    pub(super) fn new(next: Next<'r>, original: &'r Original<'e>) -> Self {
        Self { next, original }
    }
}

impl<'r> Service<http::Request<ReplayBody<Body>>> for RestOfClient<'r, '_> {
    type Response = http::Response<BorrowedResponse>;
    type Error = Error;
    type Future = BoxFuture<'r, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<ReplayBody<Body>>) -> Self::Future {
        let Self { next, original } = self.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let mut extensions = original.extensions.lock().await;
            let mut marks = mem::take(&mut parts.extensions);
            if original.has_closure {
                extensions.extend(marks);
            } else if let Some(attempt) = marks.remove::<Attempt>() {
                extensions.insert(attempt);
            }
            let request = original.request(parts, body)?;
            let sent_to = request.url().origin();
            let mut response = next.run(request, &mut extensions).await?;
            if response.url().origin() != sent_to && !is_made_up(&response) {
                response.extensions_mut().insert(FromOtherOrigin);
            }
            Ok(BorrowedResponse::lend(response))
        })
    }
}

/// Whether a middleware has made this response and given it no URL: then it has the one that
/// reqwest gives to every such response.
fn is_made_up(response: &Response) -> bool {
    *response.url() == *Response::from(http::Response::new(Body::default())).url()
}
