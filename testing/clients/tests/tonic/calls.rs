//! The four kinds of calls, many at once, and their deadlines.

use std::{error::Error, iter::successors, sync::Arc, time::Duration};

use futures_util::{future::join_all, stream};
use testing::echo::{Sum, echo_client::EchoClient};
use tonic::{Code, Request, Status, body::Body};
use tower::{BoxError, Layer, ServiceBuilder};
use tower_refresh::{
    FailureKind, RefreshError, RefreshFailure, RefreshLayer, RefreshState, Tokens,
    body::ReplayBody,
    layer::{ErrorOnRefusalLayer, Refused},
};

use crate::{
    chunk, client, done, numbers,
    server::{Attempt, Strict},
    written,
};

/// Without the layer, and so that the server is known to be strict.
#[tokio::test]
async fn without_the_layer_every_call_is_refused() {
    let server = Strict::start().await;
    let mut client = EchoClient::new(crate::channel(server.address));
    let status = done(client.unary(chunk(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_unary_call_recovers() {
    let server = Strict::start().await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    assert_eq!(done(client.unary(chunk(7))).await.unwrap().into_inner(), chunk(7));
    assert_eq!((server.refused(), server.auth.refreshes()), (1, 1));
    // From now on the token is good.
    done(client.unary(chunk(8))).await.unwrap();
    assert_eq!((server.attempts().len(), server.auth.refreshes()), (3, 1));
}

/// As the docs show it, with all types inferred. A channel adds its origin below the layer.
#[tokio::test]
async fn a_channel_takes_one_line_and_its_requests_name_no_origin() {
    for relative in [true, false] {
        let server = Strict::start().await;
        let origin = format!("http://{}", server.address);
        let mut layer = RefreshLayer::new(server.state()).allow_origin(&origin).unwrap();
        if relative {
            layer = layer.allow_relative();
        }
        let channel = layer.map_body(Body::new).layer(crate::channel(server.address));
        let calls = (0..20).map(|number| {
            let mut client = EchoClient::new(channel.clone());
            async move { client.unary(chunk(number)).await.is_ok() }
        });
        let good = done(join_all(calls)).await.into_iter().filter(|good| *good).count();
        let expected = if relative { (20, 1) } else { (0, 0) };
        assert_eq!((good, server.auth.refreshes()), expected);
    }
}

/// tonic makes a `Status` of an error below it, and takes one that it finds there as it is.
fn status(error: BoxError) -> BoxError {
    match error.downcast::<Refused>() {
        Ok(refused) => {
            let mut status = Status::unauthenticated(refused.to_string());
            status.set_source(Arc::new(*refused));
            status.into()
        }
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_reason_of_a_failed_refresh_is_among_a_statuss_sources() {
    let server = Strict::start().await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let channel = ServiceBuilder::new()
        .map_err(status)
        .layer(ErrorOnRefusalLayer::new())
        .layer(RefreshLayer::new(state).map_body(Body::new))
        .service(crate::channel(server.address));
    let status = done(EchoClient::new(channel).unary(chunk(7))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let reason = successors(status.source(), |error| (*error).source())
        .find_map(|error| error.downcast_ref::<RefreshFailure>());
    assert_eq!(reason.map(RefreshFailure::kind), Some(FailureKind::Rejected));
}

#[tokio::test]
async fn a_client_streaming_call_recovers() {
    for patience in [0, 1, 50] {
        let server = Strict::patient(patience).await;
        let mut client = client(server.address, RefreshLayer::new(server.state()));
        let sum = done(client.collect(stream::iter((0..50).map(chunk)))).await.unwrap();
        let bytes = (0..50).map(|number| chunk(number).data.len() as u64).sum();
        assert_eq!(sum.into_inner(), Sum { chunks: 50, bytes });
        assert_eq!((server.refused(), server.auth.refreshes()), (1, 1));
        assert_eq!(server.attempts()[1].chunks, Vec::from_iter(0..50));
    }
}

#[tokio::test]
async fn a_server_streaming_call_recovers() {
    let server = Strict::start().await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    let stream = done(client.count(chunk(100))).await.unwrap().into_inner();
    assert_eq!(done(numbers(stream)).await.unwrap(), Vec::from_iter(0..100));
    assert_eq!((server.refused(), server.auth.refreshes()), (1, 1));
}

#[tokio::test]
async fn a_bidirectional_call_recovers() {
    let server = Strict::start().await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    let (sender, sent) = written();
    sender.send(chunk(0)).unwrap();
    let mut stream = done(client.chat(sent)).await.unwrap().into_inner();
    // One after the other: both directions are open.
    for number in 0..10 {
        assert_eq!(done(stream.message()).await.unwrap(), Some(chunk(number)));
        sender.send(chunk(number + 1)).unwrap();
    }
    drop(sender);
    assert_eq!(done(numbers(stream)).await.unwrap(), [10]);
    assert_eq!((server.refused(), server.auth.refreshes()), (1, 1));
}

#[tokio::test]
async fn a_hundred_calls_at_once_are_one_refresh() {
    let server = Strict::start().await;
    let state = server.state();
    let client = client(server.address, RefreshLayer::new(state));
    let calls = (0..100).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(chunk(number)).await })
    });
    let answers = done(join_all(calls)).await;
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap().unwrap().into_inner(), chunk(number));
    }
    assert_eq!(server.auth.refreshes(), 1);
    assert!(server.refused() >= 1);
}

/// Any other status is the caller's.
#[tokio::test]
async fn what_the_server_does_not_know_is_not_replayed() {
    let server = Strict::start().await;
    let stack = ServiceBuilder::new()
        .layer(RefreshLayer::new(server.state()))
        .map_request(|request: http::Request<ReplayBody<Body>>| {
            let mut request = request.map(Body::new);
            *request.uri_mut() = "/echo.Echo/Unknown".parse().unwrap();
            request
        })
        .service(crate::channel(server.address));
    let mut client = EchoClient::new(stack);
    let status = done(client.unary(chunk(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(server.auth.refreshes(), 0);
}

#[tokio::test]
async fn a_replay_has_less_time_than_the_first_attempt_had() {
    let server = Strict::start().await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    let mut request = Request::new(chunk(1));
    request.set_timeout(Duration::from_secs(60));
    done(client.unary(request)).await.unwrap();
    let micros = |attempt: &Attempt| {
        let timeout = attempt.timeout.as_deref().unwrap();
        timeout.strip_suffix('u').expect(timeout).parse::<u64>().unwrap()
    };
    let attempts = server.attempts();
    assert_eq!(micros(&attempts[0]), 60_000_000);
    assert!(micros(&attempts[1]) < 60_000_000, "{attempts:?}");
}
