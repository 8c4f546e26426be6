//! A server whose refusal comes after its head, made by hand.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use testing::{Loopback, echo::echo_client::EchoClient, loopback::Protocol};
use tonic::{Code, body::Body};
use tower::{ServiceBuilder, util::MapRequest};
use tower_refresh::{
    RefreshLayer,
    body::ReplayBody,
    grpc::{GrpcStatus, GrpcStatusLayer, Watched},
    layer::Refresh,
};

use crate::{chunk, done, numbers, written};

type Sent = Watched<ReplayBody<Body>>;
type Late = EchoClient<Refresh<GrpcStatus<crate::Plain<Sent>>>>;

/// As long as it takes: whatever is held for nothing hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn client(server: &Loopback) -> Late {
    let channel: MapRequest<_, _> = ServiceBuilder::new()
        .map_request((|request| request.map(Body::new)) as fn(Request<Sent>) -> Request<Body>)
        .service(crate::channel(server.socket()));
    let stack = ServiceBuilder::new()
        .layer(RefreshLayer::new(server.state()))
        .layer(GrpcStatusLayer::new().hold(FOR_EVER))
        .service(channel);
    EchoClient::new(stack)
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("said late"));
    Frame::trailers(trailers)
}

/// Begins every answer. What comes with the good token goes back as it came: that is an
/// echo, of one message or of many.
async fn late(
    server: Loopback,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let good = server.accepts(request.headers());
    answer(good, request).await
}

async fn answer(good: bool, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let incoming = request.into_body();
    let body = if !good {
        incoming.collect().await.unwrap();
        BodyExt::boxed(StreamBody::new(stream::iter([Ok::<_, Infallible>(status("16"))])))
    } else {
        let echo = BodyStream::new(incoming).filter_map(async |frame| frame.ok().map(Ok));
        BodyExt::boxed(StreamBody::new(echo.chain(stream::iter([Ok(status("0"))]))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[tokio::test]
async fn a_late_status_is_recovered_with_the_layer() {
    let server = Loopback::serve(Protocol::Http2, late).await;
    let mut client = client(&server);
    assert_eq!(done(client.unary(chunk(3))).await.unwrap().into_inner(), chunk(3));
    assert_eq!(server.refreshes(), 1);
}

#[tokio::test]
async fn a_late_status_reaches_the_caller_without_it() {
    let server = Loopback::serve(Protocol::Http2, late).await;
    let mut client = crate::client(server.socket(), RefreshLayer::new(server.state()));
    let status = done(client.unary(chunk(3))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "said late"));
    assert_eq!(server.refreshes(), 0);
}

/// If it cannot be replayed, the status is the caller's, with its message.
#[tokio::test]
async fn a_late_status_that_no_replay_follows_is_the_callers() {
    let server = Loopback::serve(Protocol::Http2, |_, request| answer(false, request)).await;
    let status = done(client(&server).unary(chunk(3))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "said late"));
    assert_eq!(server.refreshes(), 1);
}

/// The server sends its head, and then waits for the client.
#[tokio::test]
async fn a_stream_whose_server_waits_for_its_client_is_not_held() {
    let server = Loopback::serve(Protocol::Http2, late).await;
    let mut client = client(&server);
    done(client.unary(chunk(0))).await.unwrap();
    let (sender, sent) = written();
    let mut stream = done(client.chat(sent)).await.unwrap().into_inner();
    for number in 0..3 {
        sender.send(chunk(number)).unwrap();
        assert_eq!(done(stream.message()).await.unwrap(), Some(chunk(number)));
    }
    sender.send(chunk(3)).unwrap();
    drop(sender);
    assert_eq!(done(numbers(stream)).await.unwrap(), [3]);
}
