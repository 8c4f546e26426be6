//! The requests of `hot_path`, and the service that they go to.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use pin_project_lite::pin_project;
use tower::Service;

/// The same chunk so many times. Cheap to clone, and always there at once.
#[derive(Clone)]
pub(crate) struct Chunks {
    chunk: Bytes,
    left: u64,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.checked_sub(1).map(|left| {
            self.left = left;
            Ok(Frame::data(self.chunk.clone()))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left * self.chunk.len() as u64)
    }
}

/// What a request's body is made of.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    None,
    OneKib,
    SixtyFourKib,
    OneMibIn16,
}

impl Size {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("1 KiB", Self::OneKib),
        ("64 KiB", Self::SixtyFourKib),
        ("1 MiB in 16 chunks", Self::OneMibIn16),
    ];
}

/// Where the values of a request's headers come from.
#[derive(Clone, Copy)]
pub(crate) enum Values {
    /// Three are text of the program, two are made for the request, as an id and a
    /// key are, and their names are given as text: memory of the request's own that
    /// is not shared yet.
    Owned,
    /// All are text of the program, names included.
    Static,
}

/// Builds requests. Each thread has one of its own: what a template's clones share
/// is not what is measured.
pub(crate) struct Template {
    uri: Uri,
    body: Chunks,
    values: Values,
}

impl Template {
    pub(crate) fn new(size: Size, values: Values) -> Self {
        let (length, left) = match size {
            Size::None => (0, 0),
            Size::OneKib => (1 << 10, 1),
            Size::SixtyFourKib => (64 << 10, 1),
            Size::OneMibIn16 => (64 << 10, 16),
        };
        Self {
            uri: String::from("https://api.example.com/v1/orders?draft=1")
                .parse()
                .expect("a valid URI"),
            body: Chunks { chunk: Bytes::from(vec![7; length]), left },
            values,
        }
    }

    /// A POST with five ordinary headers.
    pub(crate) fn request(&self) -> Request<Chunks> {
        const ID: (&str, &str) = ("x-request-id", "01JAB3ZK5W8M7Q2T4V6X9YC0DE");
        const KEY: (&str, &str) = ("idempotency-key", "5f0c9c1e-9a3d-4a5e-8f6b-2d7c1b0a9e84");
        let request = Request::post(self.uri.clone())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::USER_AGENT, HeaderValue::from_static("orders/1.4 (linux)"));
        let request = match self.values {
            Values::Owned => request.header(ID.0, ID.1).header(KEY.0, KEY.1),
            Values::Static => request
                .header(HeaderName::from_static(ID.0), HeaderValue::from_static(ID.1))
                .header(HeaderName::from_static(KEY.0), HeaderValue::from_static(KEY.1)),
        };
        request.body(self.body.clone()).expect("a valid request")
    }
}

/// Always ready; reads the body to its end and says 200.
#[derive(Clone)]
pub(crate) struct Reader;

pin_project! {
    pub(crate) struct Reading<B> {
        #[pin]
        body: B,
    }
}

impl<B: Body> Service<Request<B>> for Reader {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Reading<B>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Reading<B> {
        let (parts, body) = request.into_parts();
        // The head goes at once, the same for all.
        drop(black_box(parts));
        Reading { body }
    }
}

impl<B: Body> Future for Reading<B> {
    type Output = Result<Response<Empty<Bytes>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut body = self.project().body;
        // As hyper does: a body that says it is empty is not polled.
        while !body.is_end_stream() {
            let Some(Ok(frame)) = ready!(body.as_mut().poll_frame(cx)) else { break };
            black_box(&frame);
        }
        Poll::Ready(Ok(Response::new(Empty::new())))
    }
}
