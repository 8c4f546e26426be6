//! Where a response comes from, which matters because reqwest follows redirects.

use std::sync::Arc;

use crate::layer::{Classify, ResponseHead, Verdict, classify};

/// In a response's extensions: reqwest has followed redirects to another origin than the one
/// that the token was sent to, and the response comes from there.
#[derive(Clone, Copy)]
pub(super) struct FromOtherOrigin;

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
            Verdict::Challenge if head.extensions().get::<FromOtherOrigin>().is_some() => {
                Verdict::Ignore
            }
            verdict => verdict,
        }
    }
}
