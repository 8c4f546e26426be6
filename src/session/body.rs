//! The body of a response behind the layer: [`SessionBody`].

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{refresher::BoxFuture, session::Ended};

pin_project! {
    /// The body of a response that has come through a [`SessionLayer`](super::SessionLayer): the
    /// service's own. An event stream ends when its session does, after an event `session-ended` whose
    /// data is the [reason](Ended::as_str).
    pub struct SessionBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProject]
    enum Kind<B> {
        Whole { #[pin] body: B },
        Stream { #[pin] body: B, ended: Option<BoxFuture<'static, Ended>> },
        Text { text: Option<Bytes> },
    }
}

impl<B> SessionBody<B> {
    pub(super) fn whole(body: B) -> Self {
        Self { kind: Kind::Whole { body } }
    }

    /// Ends when this does.
    pub(super) fn stream(body: B, ended: BoxFuture<'static, Ended>) -> Self {
        Self { kind: Kind::Stream { body, ended: Some(ended) } }
    }

    pub(super) fn text(text: &'static str) -> Self {
        let text = (!text.is_empty()).then(|| Bytes::from_static(text.as_bytes()));
        Self { kind: Kind::Text { text } }
    }
}

impl<B: Body<Data = Bytes>> Body for SessionBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProject::Whole { body } => body.poll_frame(cx),
            KindProject::Text { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text))))
            }
            KindProject::Stream { body, ended } => {
                let Some(future) = ended else { return Poll::Ready(None) };
                if let Poll::Ready(why) = future.as_mut().poll(cx) {
                    *ended = None;
                    // What came before may be in the middle of an event.
                    let last = format!("\n\nevent: session-ended\ndata: {why}\n\n");
                    return Poll::Ready(Some(Ok(Frame::data(last.into()))));
                }
                let frame = ready!(body.poll_frame(cx));
                if frame.is_none() {
                    *ended = None;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole { body } => body.is_end_stream(),
            Kind::Stream { body, ended } => ended.is_none() || body.is_end_stream(),
            Kind::Text { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole { body } => body.size_hint(),
            // It may end before.
            Kind::Stream { .. } => SizeHint::default(),
            Kind::Text { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |it| it.len() as u64))
            }
        }
    }
}

impl<B: Default> Default for SessionBody<B> {
    fn default() -> Self {
        Self::whole(B::default())
    }
}

impl<B> fmt::Debug for SessionBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBody").finish_non_exhaustive()
    }
}
