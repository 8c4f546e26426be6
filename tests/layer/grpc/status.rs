//! A status that comes after the head, and `GrpcStatusLayer`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
};
use proptest::{collection::vec, prelude::*};
use testing::{
    Auth, builder, next, post,
    script_body::{Got, Hint, Script, Step, Wakes, data, hint_of, poll, trailers},
    token_of,
};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_refresh::{
    BoxFuture, RefreshLayer,
    body::ReplayBody,
    grpc::{GrpcStatusLayer, Peeked, Watched},
};
use tower_test::mock;

use crate::read::read;

/// A response that begins, and then has this body.
fn begun<B>(body: B) -> http::Response<B> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Sends a request through the layer to a service that answers at once, and has read the
/// request.
async fn through<B>(
    layer: GrpcStatusLayer,
    response: http::Response<B>,
) -> http::Response<Peeked<B>>
where
    B: Body + Unpin,
{
    let mut response = Some(response);
    let service = layer.layer(service_fn(move |request: http::Request<Watched<Full<Bytes>>>| {
        let response = response.take().unwrap();
        async move {
            request.into_body().collect().await.unwrap();
            Ok::<_, Infallible>(response)
        }
    }));
    service.oneshot(post("hello")).await.unwrap()
}

async fn seen(steps: impl IntoIterator<Item = Step>) -> http::Response<Peeked<Script>> {
    through(GrpcStatusLayer::new(), begun(Script::new(steps))).await
}

const REFUSED: &[(&str, &str)] = &[("grpc-status", "16"), ("grpc-message", "expired")];

#[tokio::test]
async fn a_status_right_after_the_head_is_refreshed_for_and_replayed() {
    for watched in [true, false] {
        let auth = Auth::new();
        let answer = |token: Option<&str>| {
            let code = if token == Some("access-1") { "16" } else { "0" };
            begun(Script::new([trailers(&[("grpc-status", code)])]))
        };
        let refresh = RefreshLayer::new(builder(&auth).build());
        let code = if watched {
            type Sent = http::Request<Watched<ReplayBody<Full<Bytes>>>>;
            let client = ServiceBuilder::new()
                .layer(refresh)
                .layer(GrpcStatusLayer::new())
                .service(service_fn(async |request: Sent| {
                    let answer = answer(token_of(&request));
                    request.into_body().collect().await.unwrap();
                    Ok::<_, Infallible>(answer)
                }));
            client.oneshot(post("hello")).await.unwrap().headers()["grpc-status"].clone()
        } else {
            type Sent = http::Request<ReplayBody<Full<Bytes>>>;
            let client = refresh.layer(service_fn(async |request: Sent| {
                let answer = answer(token_of(&request));
                request.into_body().collect().await.unwrap();
                Ok::<_, Infallible>(answer)
            }));
            let response = client.oneshot(post("hello")).await.unwrap();
            assert!(!response.headers().contains_key("grpc-status"));
            let body = response.into_body().collect().await.unwrap();
            body.trailers().unwrap()["grpc-status"].clone()
        };
        let (expected, refreshes) = if watched { ("0", 1) } else { ("16", 0) };
        assert_eq!((code.to_str().unwrap(), auth.count()), (expected, refreshes));
    }
}

#[tokio::test]
async fn all_trailers_are_in_the_head_and_still_in_the_body() {
    let steps = || {
        trailers(&[
            ("grpc-status", "16"),
            ("grpc-message", "expired"),
            ("www-authenticate", "Bearer"),
            ("www-authenticate", "Basic"),
            ("x-both", "behind"),
            ("content-type", "text/plain"),
            ("content-length", "5"),
        ])
    };
    let mut response = begun(Script::new([steps()]));
    response.headers_mut().insert("x-both", HeaderValue::from_static("before"));
    let mut response = through(GrpcStatusLayer::new(), response).await;
    let headers = response.headers();
    let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("grpc-status"), ["16"]);
    assert_eq!(all("grpc-message"), ["expired"]);
    assert_eq!(all("www-authenticate"), ["Bearer", "Basic"]);
    assert_eq!(all("x-both"), ["before", "behind"]);
    // What frames a message is no trailer's business.
    assert_eq!(all("content-type"), ["application/grpc"]);
    assert!(all("content-length").is_empty());
    assert_eq!(read(response.body_mut()), read(&mut Script::new([steps()])));
}

#[tokio::test]
async fn a_status_behind_a_message_and_what_is_no_status_stay_where_they_are() {
    for steps in [
        vec![data("message"), trailers(REFUSED)],
        vec![data(""), trailers(REFUSED)],
        vec![trailers(&[("x-other", "5")])],
        vec![Step::Fail],
    ] {
        let mut response = seen(steps.clone()).await;
        assert_eq!(response.headers().len(), 1, "{steps:?}");
        assert_eq!(read(response.body_mut()), read(&mut Script::new(steps)));
    }
}

/// The script insists on not being polled after its end.
#[tokio::test]
async fn a_body_that_was_over_is_not_polled_again() {
    let mut response = seen([]).await;
    let wakes = Arc::new(Wakes::default());
    for _ in 0..3 {
        assert!(response.body().is_end_stream());
        assert_eq!(hint_of(response.body()), (0, Some(0)));
        assert_eq!(poll(response.body_mut(), &wakes), Got::End);
    }
}

#[tokio::test]
async fn other_responses_are_not_looked_at() {
    for (status, name, value) in [
        (200, "content-type", "application/json"),
        (200, "grpc-status", "0"),
        (204, "x", ""),
        (401, "x", ""),
        (503, "x", ""),
    ] {
        let mut response = begun(Script::new([Step::Panic]));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        let before = response.headers().clone();
        let response = through(GrpcStatusLayer::new(), response).await;
        assert_eq!(*response.headers(), before);
    }
}

/// A response whose body is written by the test.
fn written() -> (Sender<Bytes, Infallible>, http::Response<Chan>) {
    let (sender, body) = Channel::new(1);
    (sender, begun(body))
}

type Chan = Channel<Bytes, Infallible>;

fn refused() -> HeaderMap {
    REFUSED.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_head_is_held_until_its_first_frame_and_no_longer_than_that() {
    for (knob, expected) in [(None, 50), (Some(20), 20), (Some(3000), 3000), (Some(0), 0)] {
        let layer = knob.map_or(GrpcStatusLayer::default(), |knob| {
            GrpcStatusLayer::new().hold(Duration::from_millis(knob))
        });
        let (_sender, response) = written();
        let begun = Instant::now();
        let response = through(layer, response).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(expected));
        assert!(!response.headers().contains_key("grpc-status"));
    }
    // It comes in time.
    let (mut sender, response) = written();
    let begun = Instant::now();
    tokio::spawn(async move {
        sleep(Duration::from_millis(30)).await;
        sender.send_trailers(refused()).await.unwrap();
    });
    let response = through(GrpcStatusLayer::new(), response).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(30));
    assert_eq!(response.headers()["grpc-status"], "16");
}

/// What comes after the hold is the body's, in order.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_the_hold_is_over() {
    let (mut sender, response) = written();
    let response = through(GrpcStatusLayer::new(), response).await;
    tokio::spawn(async move {
        sender.send_data(Bytes::from("one")).await.unwrap();
        sender.send_data(Bytes::from("two")).await.unwrap();
        sender.send_trailers(refused()).await.unwrap();
    });
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&refused()));
    assert_eq!(body.to_bytes(), "onetwo");
}

type Sent = http::Request<Watched<Chan>>;
type Handle = mock::Handle<Sent, http::Response<Chan>>;
type Call = BoxFuture<'static, Result<http::Response<Peeked<Chan>>, tower::BoxError>>;

/// Calls a mock with a body that the test writes.
fn streaming() -> (Sender<Bytes, Infallible>, task::Spawn<Call>, Handle) {
    let (service, handle) = mock::pair::<Sent, http::Response<Chan>>();
    let (sender, body) = Channel::new(1);
    let call = GrpcStatusLayer::new().layer(service).oneshot(http::Request::new(body));
    (sender, task::spawn(Box::pin(call)), handle)
}

#[tokio::test(start_paused = true)]
async fn a_head_passes_at_once_while_the_request_is_sent() {
    let (_request, mut call, mut handle) = streaming();
    assert_pending!(call.poll());
    let (_sent, respond) = next(&mut handle).await;
    let (_sender, response) = written();
    respond.send_response(response);
    let response = assert_ready!(call.poll()).unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_there_already_is_seen_while_the_request_is_sent() {
    let (_request, mut call, mut handle) = streaming();
    assert_pending!(call.poll());
    let (_sent, respond) = next(&mut handle).await;
    let (mut sender, response) = written();
    sender.send_trailers(refused()).await.unwrap();
    respond.send_response(response);
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.headers()["grpc-status"], "16");
}

#[tokio::test(start_paused = true)]
async fn a_head_is_held_once_the_request_has_ended_or_is_dropped() {
    for dropped in [true, false] {
        let (mut request, mut call, mut handle) = streaming();
        assert_pending!(call.poll());
        let (sent, respond) = next(&mut handle).await;
        let mut sent = Some(sent);
        request.send(Frame::data(Bytes::from("hello"))).await.unwrap();
        if dropped {
            sent = None;
        } else {
            drop(request);
            let body = sent.as_mut().unwrap().body_mut();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        }
        let (mut sender, response) = written();
        respond.send_response(response);
        assert_pending!(call.poll());
        sender.send_trailers(refused()).await.unwrap();
        assert!(call.is_woken());
        let response = assert_ready!(call.poll()).unwrap();
        assert_eq!(response.headers()["grpc-status"], "16");
        drop(sent);
    }
}

/// A client that is told that a body is empty may neither read nor drop it.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_has_ended() {
    type Sent = http::Request<Watched<Full<Bytes>>>;
    let (service, mut handle) = mock::pair::<Sent, http::Response<Chan>>();
    let mut call = task::spawn(GrpcStatusLayer::new().layer(service).oneshot(post("")));
    assert_pending!(call.poll());
    let (_sent, respond) = next(&mut handle).await;
    let (_sender, response) = written();
    respond.send_response(response);
    assert_pending!(call.poll());
}

#[tokio::test]
async fn readiness_is_the_inner_services() {
    let (service, mut handle) = mock::pair::<Sent, http::Response<Chan>>();
    let mut service = task::spawn(GrpcStatusLayer::new().layer(service));
    handle.allow(0);
    assert_pending!(service.enter(|cx, mut service| service.poll_ready(cx)));
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).unwrap();
    handle.send_error("gone");
    let error = assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx)));
    assert_eq!(error.unwrap_err().to_string(), "gone");
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![Just(data("a")), Just(data("")), Just(data("message"))],
        1 => Just(trailers(REFUSED)),
        1 => Just(trailers(&[("x-other", "5")])),
        2 => Just(Step::Pending),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes, in whatever order, comes as from the body itself.
    #[test]
    fn a_body_that_was_looked_at_is_the_body_itself(
        steps in vec(step(), 0..6),
        unknown in any::<bool>(),
        tells_end in any::<bool>(),
    ) {
        let hint = if unknown { Hint::Unknown } else { Hint::Right };
        let script = Script::new(steps).hint(hint).tells_end(tells_end);
        let mut own = script.clone();
        let layer = GrpcStatusLayer::new().hold(Duration::ZERO);
        let mut response = tokio_test::block_on(through(layer, begun(script)));
        // What it knows more of the frame that it has is right.
        let first = match own.steps.front() {
            Some(Step::Pending) => own.steps.pop_front().and(None),
            Some(Step::Data(data)) if unknown => Some((data.len() as u64, None, false)),
            None => Some((0, Some(0), true)),
            _ => None,
        };
        let (mut theirs, ours) = (read(&mut own), read(response.body_mut()));
        if let Some((lower, upper, end)) = first {
            (theirs[0].1, theirs[0].2) = ((lower, upper), end);
        }
        prop_assert_eq!(ours, theirs);
    }
}
