//! How the middleware sends the attempts of a request: [`RestOfClient`].

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use http::Extensions;
use reqwest::{Body, Request};
use reqwest_middleware::{Error, Next};
use tower_service::Service;

use super::{
    looks::Looks,
    origin::mark_origin,
    response::{BorrowedResponse, LentResponse},
    template,
};
use crate::{body::ReplayBody, layer::Attempt, peek::PeekFuture};

/// The rest of the client, and what all attempts of a request have in common.
pub(super) struct RestOfClient<'r> {
    pub(super) next: &'r Next<'r>,
    pub(super) template: &'r Request,
    /// Whether a closure attaches the token. It may change an attempt's URI, and put anything into
    /// its extensions.
    pub(super) has_closure: bool,
    /// The caller's. Taken while an attempt runs, and there is never more than one.
    pub(super) extensions: Mutex<Option<&'r mut Extensions>>,
    pub(super) looks: Option<&'r Arc<Looks>>,
}

impl<'r> RestOfClient<'r> {
    pub(super) fn send(
        &self,
        request: http::Request<ReplayBody<Body>>,
    ) -> impl Future<Output = Result<LentResponse, Error>> + Send {
        let (mut parts, body) = request.into_parts();
        let mut marks = mem::take(&mut parts.extensions);
        let watched = self.looks.is_some();
        let attempt = template::attempt(self.template, parts, body, self.has_closure, watched);
        let moved_to = match &attempt {
            Ok((request, _)) if self.has_closure => Some(Box::new(request.url().clone())),
            _ => None,
        };
        async move {
            // There is one attempt at a time, so they are there.
            let mut taken = self.extensions().take();
            let mut none = Extensions::new();
            let extensions = taken.as_deref_mut().unwrap_or(&mut none);
            if self.has_closure {
                extensions.extend(marks);
            } else if let Some(attempt) = marks.remove::<Attempt>() {
                extensions.insert(attempt);
            }
            let (request, upload) = attempt?;
            let sent = self.next.clone().run(request, extensions);
            let lent = async {
                let mut response = sent.await?;
                mark_origin(&mut response, moved_to.as_deref().unwrap_or(self.template.url()));
                Ok(BorrowedResponse::lend(response))
            };
            let lent = match self.looks {
                None => {
                    // It would take room in this future.
                    drop(upload);
                    lent.await
                }
                // Boxed because few layers look into responses.
                Some(looks) => Box::pin(PeekFuture::new(lent, upload, Arc::clone(looks)))
                    .await
                    .map(BorrowedResponse::looked_into),
            };
            *self.extensions() = taken;
            lent
        }
    }

    fn extensions(&self) -> MutexGuard<'_, Option<&'r mut Extensions>> {
        self.extensions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A closure that sends an attempt, as a service: so its future need not be boxed.
#[derive(Clone)]
pub(super) struct Attempts<F>(pub(super) F);

impl<F, Fut> Service<http::Request<ReplayBody<Body>>> for Attempts<F>
where
    F: Fn(http::Request<ReplayBody<Body>>) -> Fut,
    Fut: Future<Output = Result<LentResponse, Error>>,
{
    type Response = LentResponse;
    type Error = Error;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<ReplayBody<Body>>) -> Fut {
        (self.0)(request)
    }
}
