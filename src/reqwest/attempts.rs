//! What all attempts of a request have in common ([`Original`]), and how an attempt is sent
//! ([`RestOfClient`]).

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Uri};
use reqwest::{Body, Request};
use reqwest_middleware::{Error, Next};
use tokio::sync::Mutex;
use tower_service::Service;

use super::{
    looks::Looks,
    origin::mark_origin,
    response::{BorrowedResponse, LentResponse},
    template::Template,
};
use crate::{body::ReplayBody, layer::Attempt, peek::PeekFuture, refresher::BoxFuture};

/// What all attempts of a request have in common, and the layer does not keep.
pub(super) struct Original<'e> {
    template: Template,
    /// The caller's. Locked while an attempt runs, and there is never more than one.
    extensions: Mutex<&'e mut Extensions>,
    /// Whether a closure attaches the token. It may put anything into an attempt's extensions.
    has_closure: bool,
    looks: Option<&'e Arc<Looks>>,
}

impl<'e> Original<'e> {
    /// Takes a request apart: the second part is the request as the layer gets it.
    pub(super) fn new(
        request: Request,
        uri: Uri,
        extensions: &'e mut Extensions,
        has_closure: bool,
        looks: Option<&'e Arc<Looks>>,
    ) -> (Self, http::Request<Body>) {
        let (template, mut request) = Template::new(request, uri);
        *request.extensions_mut() = extensions.clone();
        (Self { template, extensions: Mutex::new(extensions), has_closure, looks }, request)
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
    type Response = LentResponse;
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
            let looks = original.looks;
            let (request, upload) = original.template.request(parts, body, looks.is_some())?;
            let sent_to = request.url().clone();
            let send = async {
                let mut response = next.run(request, &mut extensions).await?;
                mark_origin(&mut response, &sent_to);
                Ok(BorrowedResponse::lend(response))
            };
            match looks {
                None => send.await,
                Some(looks) => {
                    let peek = PeekFuture::new(send, upload, Arc::clone(looks));
                    Box::pin(peek).await.map(BorrowedResponse::looked_into)
                }
            }
        })
    }
}
