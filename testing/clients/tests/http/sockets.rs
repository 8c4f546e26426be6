//! The layer over hyper-util's client and real sockets, HTTP/1 and HTTP/2.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, channel::Channel};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use testing::{
    Loopback,
    loopback::{BOTH, Protocol, ResponseBody, text},
};
use tokio::{sync::mpsc, task::JoinSet};
use tower::{Layer, ServiceExt};
use tower_refresh::{
    RefreshLayer, RefreshState,
    body::{NotReplayable, ReplayBody},
    layer::Refresh,
};

type HyperClient<B> = Client<HttpConnector, ReplayBody<B>>;

fn client<B>(protocol: Protocol) -> HyperClient<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tower_refresh::BoxError>,
{
    Client::builder(TokioExecutor::new()).http2_only(protocol == Protocol::Http2).build_http()
}

fn refreshing<B>(protocol: Protocol, state: &Arc<RefreshState>) -> Refresh<HyperClient<B>>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tower_refresh::BoxError>,
{
    RefreshLayer::new(Arc::clone(state)).layer(client(protocol))
}

fn post<B>(server: &Loopback, body: B) -> Request<B> {
    Request::post(format!("http://{}/", server.socket())).body(body).unwrap()
}

/// A body that the test feeds frame by frame.
struct Fed(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

fn fed() -> (mpsc::UnboundedSender<Bytes>, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Fed(receiver))
}

#[tokio::test]
async fn the_replay_uses_the_same_connection() {
    for protocol in BOTH {
        for length in [0, 1, 1000, 40_000] {
            let server = Loopback::serve(
                protocol,
                move |server: Loopback, request: Request<Incoming>| async move {
                    let good = server.accepts(request.headers());
                    request.into_body().collect().await.unwrap();
                    if good {
                        return text(StatusCode::OK, "");
                    }
                    text(StatusCode::UNAUTHORIZED, vec![b'x'; length])
                },
            )
            .await;
            let service = refreshing(protocol, &server.state());
            let response = service.oneshot(post(&server, Full::from("hello"))).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(server.refreshes(), 1);
            assert_eq!(server.connections(), 1, "{protocol:?}, a 401 of {length} bytes");
        }
    }
}

#[tokio::test]
async fn a_thousand_requests_one_refresh() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, Loopback::strict).await;
        let service = refreshing::<Full<Bytes>>(protocol, &server.state());
        let mut callers = JoinSet::new();
        for number in 0..1000 {
            let request = post(&server, Full::from(format!("body {number}").repeat(50)));
            callers.spawn(service.clone().oneshot(request));
        }
        while let Some(response) = callers.join_next().await {
            assert_eq!(response.unwrap().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(server.refreshes(), 1, "{protocol:?}");
        let mut bodies = server.bodies();
        let mut expected: Vec<Bytes> =
            (0..1000).map(|number| format!("body {number}").repeat(50).into()).collect();
        bodies.sort();
        expected.sort();
        assert_eq!(bodies, expected, "{protocol:?}");
    }
}

/// Answers 401 without reading a byte; the good token's body is read whole.
async fn early(server: Loopback, request: Request<Incoming>) -> Response<ResponseBody> {
    if server.accepts(request.headers()) {
        return server.strict(request).await;
    }
    text(StatusCode::UNAUTHORIZED, "no need to see the body")
}

#[tokio::test]
async fn a_401_before_the_body_is_read() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, early).await;
        let service = refreshing(protocol, &server.state());
        let body = "a body that nobody reads the first time ".repeat(10_000);
        let response = service.oneshot(post(&server, Full::from(body.clone()))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{protocol:?}");
        assert_eq!(server.bodies(), [Bytes::from(body)]);
    }
}

#[tokio::test]
async fn the_replay_takes_over_an_upload_that_is_still_running() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, early).await;
        let state = server.state();
        let mut changes = state.subscribe();
        let service = refreshing(protocol, &state);
        let (feed, body) = fed();
        feed.send("before, ".into()).unwrap();
        let response = tokio::spawn(service.oneshot(post(&server, body)));
        // The 401 has come and the refresh is over, while the upload still runs.
        changes.changed().await.unwrap();
        feed.send("and after".into()).unwrap();
        drop(feed);
        assert_eq!(response.await.unwrap().unwrap().status(), StatusCode::OK, "{protocol:?}");
        assert_eq!(server.bodies(), ["before, and after"]);
    }
}

#[tokio::test]
async fn a_stalled_upload_that_was_superseded_gives_its_connection_back() {
    let server = Loopback::serve(Protocol::Http1, early).await;
    let state = server.state();
    let service = refreshing(Protocol::Http1, &state);
    let (feed, body) = fed();
    feed.send("one chunk and then nothing".into()).unwrap();
    let response = tokio::spawn(service.oneshot(post(&server, body)));
    // The first connection ends although its upload never did.
    server.closed().wait_for(|closed| *closed == 1).await.unwrap();
    drop(feed);
    assert_eq!(response.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(server.bodies(), ["one chunk and then nothing"]);
}

#[tokio::test]
async fn an_upload_past_the_cap_is_sent_and_not_replayed() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, Loopback::strict).await;
        let state = server.state();
        let layer = RefreshLayer::new(Arc::clone(&state)).replay_cap(64 << 10);
        let service = layer.layer(client(protocol));
        let upload = || {
            let (mut feed, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                for _ in 0..64 {
                    feed.send_data(Bytes::from(vec![7; 32 << 10])).await.unwrap();
                }
            });
            post(&server, body)
        };
        let mut changes = state.subscribe();
        let response = service.clone().oneshot(upload()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.extensions().get(), Some(&NotReplayable::TooLarge));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "the token has expired", "the caller gets the original response");

        // It was not in vain: the next caller finds a new token.
        changes.changed().await.unwrap();
        let response = service.oneshot(upload()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{protocol:?}");
        assert_eq!(server.bodies()[0].len(), 2 << 20);
        assert_eq!(server.refreshes(), 1);
    }
}

#[tokio::test]
async fn a_conversation_longer_than_the_cap_goes_both_ways() {
    let server = Loopback::serve(
        Protocol::Http2,
        |server: Loopback, request: Request<Incoming>| async move {
            if !server.accepts(request.headers()) {
                return text(StatusCode::UNAUTHORIZED, "");
            }
            // An echo: the head first, then frame by frame what comes in.
            let mut body = request.into_body();
            let (mut reply, echo) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    if reply.send(frame).await.is_err() {
                        return;
                    }
                }
            });
            Response::new(echo.map_err(|never| match never {}).boxed())
        },
    )
    .await;
    let layer = RefreshLayer::new(server.state()).replay_cap(16);
    let service = layer.layer(client(Protocol::Http2));
    let (feed, body) = fed();
    feed.send("first".into()).unwrap();
    let response = service.oneshot(post(&server, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut echo = response.into_body();
    let mut expected = Bytes::from("first");
    for number in 0..1000 {
        let frame = echo.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, expected);
        expected = format!("a longer word, number {number}").into();
        feed.send(expected.clone()).unwrap();
    }
    drop(feed);
    assert_eq!(echo.collect().await.unwrap().to_bytes(), expected);
}

#[tokio::test]
async fn trailers_are_replayed() {
    let trailers = Arc::new(Mutex::new(Vec::new()));
    let seen_trailers = Arc::clone(&trailers);
    let server =
        Loopback::serve(Protocol::Http2, move |server: Loopback, request: Request<Incoming>| {
            let trailers = Arc::clone(&seen_trailers);
            async move {
                let good = server.accepts(request.headers());
                let body = request.into_body().collect().await.unwrap();
                trailers.lock().unwrap().push((good, body.trailers().unwrap()["checksum"].clone()));
                text(if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, "")
            }
        })
        .await;
    let service = refreshing(Protocol::Http2, &server.state());
    let body = Full::<Bytes>::from("data").with_trailers(async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("checksum", "abc".parse().unwrap());
        Some(Ok(trailers))
    });
    let body = Box::pin(body);
    assert!(!body.is_end_stream());
    let response = service.oneshot(post(&server, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        *trailers.lock().unwrap(),
        [(false, "abc".parse().unwrap()), (true, "abc".parse().unwrap())]
    );
}
