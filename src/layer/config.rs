//! What is set on a layer.

use std::sync::Arc;

use http::{Uri, request::Parts};

use super::{
    attach::{Attach, Attempt, FIRST},
    classify::{Classify, ResponseHead, Verdict, classify},
    origin::{FirstOrigin, Origins},
    source::Source,
};
use crate::{body::Budget, credential::Credential, state::RefreshState};

/// What is set on a layer. All its services have it in common.
#[derive(Clone)]
pub(crate) struct Config {
    pub(super) source: Source,
    pub(crate) attach: Attach,
    pub(super) origins: Origins,
    pub(crate) classify: Option<Arc<dyn Classify>>,
    pub(super) wants_uri: bool,
    pub(super) heeds: Option<Predicate>,
    pub(super) may_replay: Option<Predicate>,
    pub(super) cap: usize,
    pub(super) budget: Budget,
    /// Whether first attempts carry their number, as replays always do.
    pub(super) marks_first: bool,
}

pub(super) type Predicate = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

impl Config {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            attach: Attach::BEARER,
            origins: Origins::default(),
            classify: None,
            wants_uri: false,
            heeds: None,
            may_replay: None,
            cap: 1 << 20,
            budget: Budget::new(64 << 20),
            marks_first: false,
        }
    }

    /// Whether tokens may go there, in a call that began at `first`.
    #[inline]
    pub(super) fn allows(&self, uri: &Uri, first: &mut FirstOrigin) -> bool {
        self.origins.allow(uri, first)
    }

    /// Whether this credential's token may be sent by this layer at all.
    #[inline]
    pub(super) fn may_send(&self, state: &RefreshState) -> bool {
        !state.takes_named_origins() || self.origins.are_named()
    }

    /// Whether the response to this request counts.
    #[inline]
    pub(super) fn heeds(&self, parts: &Parts) -> bool {
        self.heeds.as_ref().is_none_or(|heeds| heeds(parts))
    }

    #[inline]
    pub(super) fn may_replay(&self, parts: &Parts) -> bool {
        self.may_replay.as_ref().is_none_or(|may| may(parts))
    }

    /// Says in a request's extensions which attempt it is: a replay, or also a first one if that
    /// is wanted.
    #[inline]
    pub(super) fn mark(&self, parts: &mut Parts, credential: &Credential, number: u8) {
        if self.marks_first || number != FIRST {
            Attempt::new(number, credential.generation()).mark(parts);
        }
    }

    #[inline]
    pub(super) fn judge(&self, head: &ResponseHead<'_>) -> Verdict {
        match &self.classify {
            None => classify(head),
            Some(classify) => classify.classify(head),
        }
    }
}
