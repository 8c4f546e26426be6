//! What a rule is ([`Rule`]), and what of a response's head is the same for all of them.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};

use crate::layer::Verdict;

/// A rule for an [`InBodyLayer`](super::InBodyLayer): a [`GraphQl`](super::GraphQl), a
/// [`Trpc`](super::Trpc), a [`Connect`](super::Connect), a [`GrpcWeb`](super::GrpcWeb) or a
/// [`JsonPointer`](super::JsonPointer).
///
/// ```
/// use tower_refresh::in_body::{GraphQl, InBodyLayer, Rule, Trpc};
///
/// let rules: [Rule; 2] = [GraphQl::new().into(), Trpc::new().into()];
/// let layer = rules.into_iter().fold(InBodyLayer::new(), InBodyLayer::rule);
/// ```
#[derive(Clone)]
pub struct Rule {
    name: &'static str,
    judge: Arc<dyn Judge>,
}

/// Which responses a rule reads.
pub(super) trait Judge: Send + Sync + 'static {
    /// Judges by the head alone. `None`: the response passes.
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>>;
}

/// One response that a rule reads. It is given every byte once, in order, cut in any way.
pub(super) trait Reader: Send + Sync {
    fn read(&mut self, bytes: &[u8]) -> Said;

    /// There are no more bytes, or a bound is reached.
    fn end(&mut self) -> Option<Verdict> {
        None
    }
}

/// What a reader says of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It may be a refusal.
    More,
    /// It is none as a whole. What there is already may tell whether it is one in part.
    Glance,
    /// This one.
    Found(Verdict),
    /// It is no refusal.
    Nothing,
}

/// What of a response's head rules go by.
pub(super) struct Head<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// How many bytes are looked at at most.
    pub(super) cap: usize,
}

impl Rule {
    pub(super) fn new(name: &'static str, judge: impl Judge) -> Self {
        Self { name, judge: Arc::new(judge) }
    }

    pub(super) fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        self.judge.begin(head)
    }
}

impl Head<'_> {
    /// Whether a body says anything that the status does not, and in bytes that can be read. A
    /// 401 is a refusal without it, and a 206 is a piece of a body.
    pub(super) fn is_readable(&self) -> bool {
        let status = match self.status.as_u16() {
            204..=206 | 401 => false,
            status => matches!(status, 200..=299 | 400..=599),
        };
        // graphql-yoga says `none` in its event streams, which no standard knows.
        let plain = |encoding: &[u8]| {
            encoding.eq_ignore_ascii_case(b"identity") || encoding.eq_ignore_ascii_case(b"none")
        };
        let mut encodings = self.headers.get_all(CONTENT_ENCODING).into_iter();
        status && encodings.all(|encoding| plain(encoding.as_bytes()))
    }

    /// The content type without its parameters. Empty if there is none.
    pub(super) fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
    }

    pub(super) fn is_event_stream(&self) -> bool {
        self.content_type().eq_ignore_ascii_case("text/event-stream")
    }

    /// Whether it is known that the body does not end before the cap.
    pub(super) fn is_too_long(&self) -> bool {
        let value = self.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.parse().ok()).is_some_and(|length: u64| {
            usize::try_from(length).map_or(true, |length| length > self.cap)
        })
    }
}

/// Content types that a rule looks at. Their parameters and capital letters do not matter.
#[derive(Clone, Debug)]
pub(super) struct ContentTypes(pub(super) Vec<Cow<'static, str>>);

impl ContentTypes {
    pub(super) fn new<const N: usize>(types: [&'static str; N]) -> Self {
        Self(types.map(Cow::Borrowed).to_vec())
    }

    pub(super) fn push(&mut self, content_type: impl Into<Cow<'static, str>>) {
        self.0.push(content_type.into());
    }

    pub(super) fn has(&self, content_type: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(content_type))
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
