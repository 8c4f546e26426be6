//! `tonic_channel`: a channel whose connection ends in this process.

use std::{
    future::{Ready, pending, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{future::join_all, stream};
use http::{Request, Response};
use testing::echo::echo_client::EchoClient;
use tokio::sync::{Barrier, mpsc};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_refresh::{
    RefreshError, RefreshLayer, RefreshState, Tokens, layer::ErrorOnRefusalLayer, tonic_channel,
};

use crate::{chunk, done, numbers, server::Strict, written};

/// A channel for a library that takes nothing else.
fn channel(server: &Strict, state: Arc<RefreshState>) -> Channel {
    let layer = RefreshLayer::new(state).allow_relative().map_body(Body::new);
    tonic_channel(layer.layer(crate::channel(server.address)))
}

#[tokio::test]
async fn calls_of_every_kind_recover_together_by_one_refresh() {
    const CALLS: u64 = 300; // more than HTTP/2 servers allow at once if they are not told
    let server = Strict::start().await;
    let channel = channel(&server, server.state());
    let calls = (0..CALLS).map(|number| {
        let mut client = EchoClient::new(channel.clone());
        async move {
            client.unary(chunk(number)).await.map(|answer| answer.into_inner() == chunk(number))
        }
    });
    assert!(done(join_all(calls)).await.into_iter().all(|call| call.is_ok_and(|whole| whole)));
    assert_eq!(server.auth.refreshes(), 1);

    let mut client = EchoClient::new(channel);
    let sum = done(client.collect(stream::iter((0..50).map(chunk)))).await.unwrap().into_inner();
    assert_eq!(sum.chunks, 50);
    let (sender, sent) = written();
    sender.send(chunk(0)).unwrap();
    let mut both_ways = done(client.chat(sent)).await.unwrap().into_inner();
    for number in 1..20 {
        assert_eq!(done(both_ways.message()).await.unwrap(), Some(chunk(number - 1)));
        sender.send(chunk(number)).unwrap();
    }
    drop(sender);
    assert_eq!(done(numbers(both_ways)).await.unwrap(), [19]);
    assert_eq!(server.auth.refreshes(), 1);
}

/// All the calls of this test are under way before one of them is answered.
#[tokio::test]
async fn more_calls_are_under_way_at_once_than_http2_allows_by_default() {
    let barrier = Arc::new(Barrier::new(1000));
    let meet = service_fn(move |_: Request<Body>| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Ok::<_, BoxError>(Status::not_found("all are here").into_http::<Body>())
        }
    });
    let channel = tonic_channel(meet);
    let calls = (0..1000).map(|number| {
        let mut client = EchoClient::new(channel.clone());
        async move { client.unary(chunk(number)).await.unwrap_err().code() }
    });
    assert!(done(join_all(calls)).await.into_iter().all(|code| code == Code::NotFound));
}

/// Also a long answer, and one that is read slowly.
#[tokio::test]
async fn what_is_larger_than_every_window_comes_whole() {
    let server = Strict::start().await;
    let mut client = EchoClient::new(channel(&server, server.state()));
    // What is so large is not kept for a replay: the token is refreshed before.
    done(client.unary(chunk(1))).await.unwrap();
    let large = testing::echo::Chunk { number: 1, data: vec![7; 3_000_000].into() };
    assert_eq!(done(client.unary(large.clone())).await.unwrap().into_inner(), large);
    let stream = done(client.count(chunk(50_000))).await.unwrap().into_inner();
    assert_eq!(done(numbers(stream)).await.unwrap().len(), 50_000);
}

#[tokio::test]
async fn the_service_sees_a_request_without_an_origin_and_with_its_deadline() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let look = service_fn(move |request: Request<Body>| {
        let timeout = request.headers().get("grpc-timeout").cloned();
        let _ = seen.send((request.uri().to_string(), timeout, request.headers()["te"].clone()));
        async { Ok::<_, BoxError>(Status::not_found("it looks only").into_http::<Body>()) }
    });
    let mut client = EchoClient::new(tonic_channel(look));
    let mut request = tonic::Request::new(chunk(1));
    request.set_timeout(Duration::from_secs(30));
    assert_eq!(done(client.unary(request)).await.unwrap_err().code(), Code::NotFound);
    let (uri, timeout, te) = requests.recv().await.unwrap();
    assert_eq!(uri, "/echo.Echo/Unary");
    assert_eq!(timeout.unwrap(), "30000000u");
    assert_eq!(te, "trailers");
}

#[tokio::test]
async fn a_refusal_that_is_an_error_says_why() {
    let server = Strict::start().await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let layer = RefreshLayer::new(state).allow_relative().map_body(Body::new);
    let stack = ServiceBuilder::new().layer(ErrorOnRefusalLayer::new()).layer(layer);
    let channel = tonic_channel(stack.service(crate::channel(server.address)));
    let status = done(EchoClient::new(channel).unary(chunk(7))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().ends_with("the refresh token was rejected"), "{status}");
}

/// Fails when it is asked whether it is ready, when it is called, or in its response's middle.
#[derive(Clone, Copy)]
struct Fails {
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Readiness,
    Call,
    Body,
}

impl Service<Request<Body>> for Fails {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(if let How::Readiness = self.how { Err(error()) } else { Ok(()) })
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let body = http_body_util::StreamBody::new(stream::iter([Err::<
            http_body::Frame<bytes::Bytes>,
            _,
        >(error())]));
        ready(if let How::Call = self.how {
            Err(error())
        } else {
            Ok(Response::builder()
                .header("content-type", "application/grpc")
                .body(Body::new(body))
                .unwrap())
        })
    }
}

/// A status among the sources, with something that cannot be in a header as it is.
fn error() -> BoxError {
    Status::resource_exhausted("no seats,\nat all").into()
}

#[tokio::test]
async fn a_status_of_the_service_comes_through_whenever_it_comes() {
    for how in [How::Readiness, How::Call, How::Body] {
        let channel = tonic_channel(Fails { how });
        let status = done(EchoClient::new(channel).unary(chunk(1))).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "no seats,\nat all");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_as_without_the_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = tonic_channel(crate::channel(address));
    let status = done(EchoClient::new(channel).unary(chunk(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// Says when it is dropped.
struct Tells(mpsc::UnboundedSender<&'static str>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_drops_its_request() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let hangs = service_fn(move |_: Request<Body>| {
        let _ = tell.send("called");
        let tells = Tells(tell.clone());
        async move {
            let _tells = tells;
            pending::<Result<Response<Body>, BoxError>>().await
        }
    });
    let mut client = EchoClient::new(tonic_channel(hangs));
    let call = tokio::spawn(async move { client.unary(chunk(1)).await });
    assert_eq!(done(told.recv()).await, Some("called"));
    call.abort();
    assert_eq!(done(told.recv()).await, Some("dropped"));
}

/// So that nothing is left of a channel that is not used any more.
#[tokio::test]
async fn the_connection_goes_with_the_last_clone() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let tells = Arc::new(Tells(tell));
    let channel = tonic_channel(service_fn(move |_: Request<Body>| {
        let _ = &tells;
        async { Ok::<_, BoxError>(Status::not_found("").into_http::<Body>()) }
    }));
    let mut clone = EchoClient::new(channel.clone());
    done(clone.unary(chunk(1))).await.unwrap_err();
    drop(channel);
    done(clone.unary(chunk(1))).await.unwrap_err();
    assert!(told.try_recv().is_err());
    drop(clone);
    assert_eq!(done(told.recv()).await, Some("dropped"));
}
