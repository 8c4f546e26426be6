use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Connect, GraphQl, GrpcWeb, InBodyLayer, JsonPointer, Rule, Trpc,
    rule::{Head, Said},
};
use crate::layer::Verdict;

/// The beginning of a response: its content type (a number for one of [`TYPES`]), how long its pieces
/// are, and its body.
pub(crate) fn body_prefix(response: &[u8]) {
    let [kind, pieces, body @ ..] = response else { return };
    let content_type = TYPES[usize::from(*kind) % TYPES.len()];
    let pieces = usize::from(*pieces) + 1;
    for rule in rules() {
        finds_the_same_in_pieces(&rule, content_type, body, pieces);
    }
    gives_every_byte_on(content_type, body, pieces);
}

const TYPES: [&str; 6] = [
    "application/json",
    "application/jsonl",
    "text/event-stream",
    "application/connect+json",
    "application/grpc-web",
    "application/grpc-web-text",
];

const CAP: usize = 1 << 12;

fn rules() -> [Rule; 5] {
    let pointer = JsonPointer::new("/error", ["token_expired"]).expect("a pointer");
    [
        GraphQl::new().into(),
        Trpc::new().into(),
        Connect::new().into(),
        GrpcWeb::new().into(),
        pointer.into(),
    ]
}

/// A rule finds the same however the body is cut.
fn finds_the_same_in_pieces(rule: &Rule, content_type: &'static str, body: &[u8], pieces: usize) {
    let in_pieces = found(rule, content_type, body.chunks(pieces));
    assert_eq!(in_pieces, found(rule, content_type, [body].into_iter()));
}

fn found<'a>(
    rule: &Rule,
    content_type: &'static str,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<Verdict> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let head = Head { status: StatusCode::OK, headers: &headers, cap: CAP };
    let mut reader = rule.begin(&head)?;
    let said = pieces.find_map(|piece| match reader.read(piece) {
        Said::More | Said::Glance => None,
        Said::Found(verdict) => Some(Some(verdict)),
        Said::Nothing => Some(None),
    });
    said.unwrap_or_else(|| reader.end())
}

/// The caller gets the body as it came, whatever was looked at.
fn gives_every_byte_on(content_type: &'static str, body: &[u8], pieces: usize) {
    let frames = body.chunks(pieces).map(Bytes::copy_from_slice).collect();
    let layer = rules().into_iter().fold(InBodyLayer::new(), InBodyLayer::rule);
    let layer = layer.cap(CAP).hold(Duration::ZERO);
    let mut service = layer.layer(Server { content_type, frames });
    let cx = &mut Context::from_waker(Waker::noop());
    let future = pin!(service.call(Request::new(Frames::default())));
    let Poll::Ready(Ok(response)) = future.poll(cx) else { panic!("it waits") };
    assert_eq!(response.headers()[CONTENT_TYPE], content_type);
    let mut got = Vec::new();
    let mut read = response.into_body();
    loop {
        let hint = read.size_hint();
        match Pin::new(&mut read).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                assert!(hint.upper().is_none_or(|most| data.len() as u64 <= most));
                got.extend_from_slice(&data);
            }
            Poll::Ready(None) => break,
            _ => panic!("it waits"),
        }
    }
    assert_eq!(got, body);
}

#[derive(Default)]
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

struct Server {
    content_type: &'static str,
    frames: VecDeque<Bytes>,
}

impl<B> Service<Request<B>> for Server {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Frames(std::mem::take(&mut self.frames)));
        let content_type = HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        ready(Ok(response))
    }
}
