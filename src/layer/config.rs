//! What a layer, its services and their futures share.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, request::Parts};

use crate::{
    body::Budget,
    credential::Credential,
    layer::attach::{Attach, Attempt},
    layer::classify::{Classify, Verdict, classify},
    layer::origin::Origin,
    layer::source::Source,
};

/// What a layer and all its services know.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) source: Source,
    pub(crate) attach: Attach,
    pub(crate) origins: Vec<Origin>,
    pub(crate) classify: Option<Arc<dyn Classify>>,
    pub(crate) may_replay: Option<Predicate>,
    pub(crate) cap: usize,
    pub(crate) budget: Budget,
    pub(crate) mark_attempts: bool,
}

type Predicate = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

impl Config {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            attach: Attach::BEARER,
            origins: Vec::new(),
            classify: None,
            may_replay: None,
            cap: 1 << 20,
            budget: Budget::new(64 << 20),
            mark_attempts: true,
        }
    }

    /// Whether tokens may go there.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|origin| origin.covers(uri))
    }

    pub(crate) fn may_replay(&self, parts: &Parts) -> bool {
        self.may_replay.as_ref().is_none_or(|may| may(parts))
    }

    /// Puts on a request what an attempt carries; `value` is what
    /// [`Attach::value`] said. `false`, and nothing done, if the request has brought
    /// credentials of its own.
    pub(crate) fn dress(
        &self,
        parts: &mut Parts,
        credential: &Credential,
        value: Option<&HeaderValue>,
        number: u8,
    ) -> bool {
        let attached = self.attach.apply(parts, credential, value);
        if attached && self.mark_attempts {
            parts.extensions.insert(Attempt::new(number, credential.generation()));
        }
        attached
    }

    pub(crate) fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        match &self.classify {
            None => classify(status, headers),
            Some(classify) => classify.classify(status, headers),
        }
    }
}

/// What the futures of one service refer to.
pub(crate) struct Own<S> {
    pub(crate) config: Arc<Config>,
    /// Never called, never made ready: replays clone it.
    template: Mutex<S>,
}

impl<S> Own<S> {
    pub(crate) fn new(config: Arc<Config>, template: S) -> Arc<Self> {
        Arc::new(Self { config, template: Mutex::new(template) })
    }

    /// A service of the caller's own, not ready yet.
    pub(crate) fn service(&self) -> S
    where
        S: Clone,
    {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
