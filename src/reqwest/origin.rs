//! Where a response comes from, which matters because reqwest follows redirects.

use std::sync::Arc;

use reqwest::{Body, Response, Url};

use crate::layer::{Classify, ResponseHead, Verdict, classify};

/// In a response's extensions: reqwest has followed redirects to another origin than the one
/// that the token was sent to, and the response comes from there.
#[derive(Clone, Copy)]
pub(super) struct FromOtherOrigin;

/// Marks a response to a request that was sent to this URL, if it comes from another origin.
pub(super) fn mark_origin(response: &mut Response, sent_to: &Url) {
    // Nearly always the same URL; an origin has to be made of it first.
    let url = response.url();
    if url != sent_to && url.origin() != sent_to.origin() && !is_made_up(response) {
        response.extensions_mut().insert(FromOtherOrigin);
    }
}

/// Whether a middleware has made this response and given it no URL: then it has the one that
/// reqwest gives to every such response.
fn is_made_up(response: &Response) -> bool {
    *response.url() == *Response::from(http::Response::new(Body::default())).url()
}

/// The layer's own classifier, except that a refusal by another origin says nothing of the
/// token.
pub(super) struct SameOriginOnly(pub(super) Option<Arc<dyn Classify>>);

impl Classify for SameOriginOnly {
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict {
        let verdict = match &self.0 {
            Some(classify) => classify.classify(head),
            None => classify(head),
        };
        match verdict {
            Verdict::Challenge | Verdict::RefreshOnly
                if head.extensions().get::<FromOtherOrigin>().is_some() =>
            {
                Verdict::Ignore
            }
            verdict => verdict,
        }
    }
}
