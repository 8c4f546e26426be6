//! What is held, and for how long; bounds.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use testing::{
    next,
    script_body::{Script, Step, data},
};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt};
use tower_refresh::{
    BoxFuture,
    in_body::{GraphQl, InBodyLayer, JsonPointer, Peeked, Watched},
    layer::{ResponseHead, Verdict, classify},
};
use tower_test::mock;

use super::{all_rules, judge, response, script, through};
use crate::read::read;

type Chan = Channel<Bytes, Infallible>;
type Sent = Request<Watched<Chan>>;
type Handle = mock::Handle<Sent, Response<Chan>>;
type Call = BoxFuture<'static, Result<Response<Peeked<Chan>>, tower::BoxError>>;

const REFUSED: &str = r#"{"errors":[{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}]}"#;

fn layer() -> InBodyLayer {
    all_rules().hold(Duration::from_millis(50))
}

/// A call whose response has this content type, with both bodies in the test's hands.
async fn call(
    content_type: &str,
    upload: bool,
) -> (Option<Sender<Bytes, Infallible>>, task::Spawn<Call>, Sender<Bytes, Infallible>, Sent) {
    let (service, mut handle): (_, Handle) = mock::pair();
    let (request, body) = Channel::new(1);
    let call = layer().layer(service).oneshot(Request::new(body));
    let mut call: task::Spawn<Call> = task::spawn(Box::pin(call));
    assert_pending!(call.poll());
    let (mut sent, respond) = next(&mut handle).await;
    let request = upload.then_some(request);
    if !upload {
        assert!(sent.body_mut().frame().await.is_none());
    }
    let (sender, body) = Channel::new(8);
    respond.send_response(response(200, content_type, body));
    (request, call, sender, sent)
}

fn verdict_of<B>(response: &Response<B>) -> Verdict {
    classify(&ResponseHead::of(response))
}

#[tokio::test(start_paused = true)]
async fn a_head_waits_for_as_much_as_a_rule_needs() {
    let (_request, mut call, mut sender, _sent) = call("application/json", false).await;
    assert_pending!(call.poll());
    for part in [&REFUSED[..1], &REFUSED[1..20], "", &REFUSED[20..REFUSED.len() - 1]] {
        sender.send_data(part.into()).await.unwrap();
        assert_pending!(call.poll());
    }
    // Without waiting for the body's end.
    sender.send_data(Bytes::from("}")).await.unwrap();
    assert!(call.is_woken());
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(verdict_of(&response), Verdict::Challenge);
    drop(sender);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), REFUSED);
}

/// Each of these is known not to be a refusal, and the stream goes on without an end.
#[tokio::test(start_paused = true)]
async fn a_stream_is_not_held_once_it_is_known_to_be_none() {
    for (content_type, pending, passing) in [
        ("application/json", "  \n", "7"),
        ("application/connect+proto", "", "\0"),
        ("application/grpc-web+proto", "", "\0"),
        ("application/grpc-web-text", "AAA", "A"),
        // A last message that is longer than what is looked at.
        ("application/connect+json", "\x02\0", "\x7f\0\0"),
        ("text/event-stream", ": hello\n\ndata: {\"id\":1}", "\n\n"),
        ("text/event-stream", "event: connected\ndata: {}\n\n\ndata: 1\n", "\n"),
    ] {
        let (_request, mut call, mut sender, _sent) = call(content_type, false).await;
        let began = Instant::now();
        sender.send_data(pending.into()).await.unwrap();
        assert_pending!(call.poll(), "{content_type} {pending}");
        sender.send_data(passing.into()).await.unwrap();
        let response = assert_ready!(call.poll(), "{content_type} {passing}").unwrap();
        assert_eq!(verdict_of(&response), Verdict::Accept);
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(sender);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, [pending, passing].concat());
    }
    // What begins with a name that the rule does not know is none, before its end.
    for first in ["{\"id\":", "[{\"id\":", "[[", "{}", "{\"a name that is longer than all known"] {
        let rule = InBodyLayer::new().hold(Duration::from_secs(60)).rule(GraphQl::new());
        let began = Instant::now();
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        sender.send_data(first.into()).await.unwrap();
        through(rule, response(200, "application/json", body)).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "{first}");
    }
}

/// The answers to a streamed batch are not held once one of them is there.
#[tokio::test(start_paused = true)]
async fn a_streamed_batch_goes_on_with_its_first_answer() {
    let head = "{\"0\":[[0],[null,0,0]],\"1\":[[0],[null,0,1]]}\n";
    let done = "[0,0,[[{\"result\":0}],[\"result\",0,2]]]\n";
    let refused = "[1,0,[[{\"error\":{\"data\":{\"code\":\"UNAUTHORIZED\"}}}]]]\n";

    let layer = || InBodyLayer::new().rule(tower_refresh::in_body::Trpc::new());
    for (frames, expected, waited) in [
        (vec![head, done], Verdict::Accept, 0),
        (vec![head, done, refused], Verdict::RefreshOnly, 0),
        // The other may be under way.
        (vec![head, refused], Verdict::RefreshOnly, 50),
        (vec![head], Verdict::Accept, 50),
    ] {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
        for frame in &frames {
            sender.send_data((*frame).into()).await.unwrap();
        }
        let began = Instant::now();
        let response = through(layer(), response(200, "application/json", body)).await;
        assert_eq!(verdict_of(&response), expected, "{frames:?}");
        assert_eq!(began.elapsed(), Duration::from_millis(waited), "{frames:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_is_held_no_longer_than_that_and_nothing_is_lost() {
    for (hold, expected) in [(None, 50), (Some(20), 20), (Some(0), 0)] {
        let mut layer = InBodyLayer::new().rule(GraphQl::new());
        if let Some(hold) = hold {
            layer = layer.hold(Duration::from_millis(hold));
        }
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(8);
        sender.send_data(Bytes::from(&REFUSED[..9])).await.unwrap();
        let began = Instant::now();
        let response = through(layer, response(200, "application/json", body)).await;
        assert_eq!(began.elapsed(), Duration::from_millis(expected));
        assert_eq!(verdict_of(&response), Verdict::Accept);
        sender.send_data(Bytes::from(&REFUSED[9..])).await.unwrap();
        drop(sender);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), REFUSED);
    }
}

/// A stream that goes both ways may wait for its client.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_while_the_request_is_sent() {
    let (request, mut call, mut sender, _sent) = call("application/connect+json", true).await;
    assert!(request.is_some());
    sender.send_data(Bytes::from_static(&[2, 0, 0])).await.unwrap();
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(verdict_of(&response), Verdict::Accept);
}

#[test]
fn no_more_bytes_are_looked_at_than_that() {
    let long = |length: usize| {
        let mut body = String::from(REFUSED);
        body.insert_str(REFUSED.len() - 1, &" ".repeat(length - REFUSED.len()));
        body
    };
    let cap = 200;
    for (length, expected) in [(200, Verdict::Challenge), (201, Verdict::Accept)] {
        let body = long(length);
        for cut in [body.len(), 50, 1] {
            let steps = body.as_bytes().chunks(cut);
            let steps = steps.map(|chunk| Step::Data(Bytes::copy_from_slice(chunk)));
            let response = response(200, "application/json", Script::new(steps));
            assert_eq!(judge(all_rules().cap(cap), response), expected, "{length} {cut}");
        }
    }
    // Nothing is read of a document that is known to be longer, and of no other if none may be.
    for (cap, length) in [(200, "201"), (0, "5")] {
        let mut response = response(200, "application/json", Script::new([Step::Pending]));
        response.headers_mut().insert("content-length", length.parse().unwrap());
        assert_eq!(
            judge(InBodyLayer::new().cap(cap).rule(GraphQl::new()), response),
            Verdict::Accept
        );
    }
    let response = response(200, "application/json", script(REFUSED));
    assert_eq!(judge(all_rules().cap(0), response), Verdict::Accept);
}

/// A peer may send frames without bytes for ever.
#[tokio::test]
async fn empty_frames_come_to_an_end() {
    let body = |empty| {
        let last = data(r#"{"error":"token_expired"}"#);
        Script::new((0..empty).map(|_| data("")).chain([last]))
    };
    for (empty, expected) in [(100, Verdict::Challenge), (1000, Verdict::Accept)] {
        let response = response(200, "application/json", body(empty));
        let mut response = through(all_rules().cap(200), response).await;
        assert_eq!(verdict_of(&response), expected);
        assert_eq!(read(response.body_mut()).len(), empty + 2);
    }
}

/// hyper's body says that it has ended before a poll does.
#[tokio::test(start_paused = true)]
async fn a_body_that_says_that_it_has_ended_is_not_waited_for() {
    let body = Frames { frames: [pieces(["{\"error\":"])].into(), ends: true };
    let began = Instant::now();
    let response = through(layer(), response(200, "application/json", body)).await;
    assert_eq!(verdict_of(&response), Verdict::Accept);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn other_responses_are_not_touched() {
    for (status, content_type) in [
        (200, "text/html"),
        (200, "application/grpc"),
        (200, "application/octet-stream"),
        (200, "application/jsonp"),
        (204, "application/json"),
        (401, "application/json"),
        (302, "application/json"),
    ] {
        let body = Script::new([Step::Panic]);
        let response = through(layer(), response(status, content_type, body)).await;
        assert!(response.extensions().is_empty(), "{status} {content_type}");
    }
    let response = Response::new(Script::new([Step::Panic]));
    through(layer(), response).await;
    let response = self::response(200, "application/json", Script::new([Step::Panic]));
    through(InBodyLayer::new(), response).await;
}

/// A chunk that lies in pieces is read whole. Of one in too many nothing is concluded.
#[tokio::test]
async fn chunks_in_pieces_are_read() {
    let two = pieces(["{\"error\"", ":"]);
    let mut many = vec![""; 15];
    many.push("{\"error\":");
    let sixteen = pieces(many.clone());
    many.push("1}{\"a\":");
    for (first, expected) in
        [(two, Verdict::Challenge), (sixteen, Verdict::Challenge), (pieces(many), Verdict::Accept)]
    {
        let frames = [first, pieces(["\"token_", "expired\"}"])];
        let text: String = frames
            .iter()
            .flat_map(|frame| &frame.0)
            .map(|it| std::str::from_utf8(it).unwrap())
            .collect();
        let body = Frames { frames: frames.into(), ends: false };
        let rule = JsonPointer::new("/error", ["token_expired"]).unwrap();
        let response = response(200, "application/json", body);
        let response = through(InBodyLayer::new().rule(rule), response).await;
        assert_eq!(verdict_of(&response), expected, "{text}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
    }
}

/// A body of such chunks. At its end it says so, and is pending, or it is at its end.
struct Frames {
    frames: VecDeque<Pieces>,
    ends: bool,
}

struct Pieces(VecDeque<Bytes>);

fn pieces(parts: impl IntoIterator<Item = &'static str>) -> Pieces {
    Pieces(parts.into_iter().map(Bytes::from).collect())
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|part| !part.is_empty()).map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0);
        filled.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        for part in &mut self.0 {
            let step = count.min(part.len());
            part.advance(step);
            count -= step;
        }
    }
}

impl Body for Frames {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        match self.frames.pop_front() {
            Some(pieces) => Poll::Ready(Some(Ok(Frame::data(pieces)))),
            None if self.ends => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.frames.is_empty()
    }
}

/// A call that is dropped while its head is held is over.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_lets_go_of_the_body() {
    let (_request, mut call, mut sender, _sent) = call("application/json", false).await;
    assert_pending!(call.poll());
    drop(call);
    assert!(sender.send_data(Bytes::new()).await.is_err());
}
