//! What a layer is told ([`Rules`]).

use std::sync::Arc;

use http::{Uri, request::Parts};

type Exempt = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone, Default)]
pub(super) struct Rules {
    pub(super) is_required: bool,
    pub(super) sign_in_at: Option<Box<str>>,
    pub(super) exempt: Option<Arc<Exempt>>,
}

impl Rules {
    /// Whether a request for this has to have a session. The sign-in has none yet.
    pub(super) fn requires(&self, uri: &Uri) -> bool {
        self.is_required && self.sign_in_at.as_deref() != Some(uri.path())
    }

    pub(super) fn is_exempt(&self, parts: &Parts) -> bool {
        self.exempt.as_ref().is_some_and(|exempt| exempt(parts))
    }
}
