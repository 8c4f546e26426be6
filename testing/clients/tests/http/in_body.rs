//! [`InBodyLayer`] and [`GrpcStatusLayer`] below the layer, under hyper-util's client and inside
//! reqwest's.

use std::{convert::Infallible, io, io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{
    BodyExt, BodyStream, Full, StreamBody, channel::Channel, combinators::BoxBody,
};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use testing::{
    Loopback,
    loopback::{BOTH, Protocol},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::decompression::DecompressionLayer;
use tower_refresh::{
    RefreshLayer, RefreshMiddleware, ReqwestLayer,
    body::NotReplayable,
    grpc::GrpcStatusLayer,
    in_body::{Connect, GraphQl, GrpcWeb, InBodyLayer, JsonPointer, Trpc},
    layer::Verdict,
};

use crate::reqwest::bare;

/// As long as it takes: whatever is held for nothing hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn layer() -> InBodyLayer {
    InBodyLayer::new()
        .hold(FOR_EVER)
        .rule(GraphQl::new())
        .rule(Trpc::new())
        .rule(Connect::new())
        .rule(GrpcWeb::new())
        .rule(JsonPointer::new("/error", ["token_expired"]).unwrap())
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A response with these frames.
fn frames(content_type: &'static str, frames: Vec<io::Result<Frame<Bytes>>>) -> Answer {
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response
}

/// The same bytes as one chunk of a known length, or as many.
fn bytes(content_type: &'static str, body: Bytes, cut: bool) -> Answer {
    if cut {
        let chunks = body.chunks(7).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))));
        return frames(content_type, chunks.collect());
    }
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response
}

/// Refusals inside a 200: content types and bodies.
const REFUSALS: [(&str, &[u8]); 6] = [
    ("application/json", br#"{"errors":[{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}]}"#),
    ("application/json; charset=utf-8", br#"{"ok":false,"error":"token_expired"}"#),
    (
        "application/json",
        b"{\"0\":[[0],[null,0,0]]}\n[0,0,[[{\"error\":{\"data\":{\"code\":\"UNAUTHORIZED\"}}}]]]\n",
    ),
    (
        "text/event-stream",
        b"event: connected\ndata: {}\n\n\nevent: serialized-error\ndata: {\"data\":{\"code\":\"UNAUTHORIZED\"}}\n\n\n",
    ),
    ("application/connect+json", b"\x02\0\0\0\x24{\"error\":{\"code\":\"unauthenticated\"}}"),
    ("application/grpc-web+proto", b"\x80\0\0\0\x11grpc-status: 16\r\n"),
];

/// Reads the request, and refuses inside a 200. What comes with the good token goes back.
async fn refusing(
    number: usize,
    cut: bool,
    server: Loopback,
    request: Request<Incoming>,
) -> Answer {
    let good = server.accepts(request.headers());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (content_type, refused) = REFUSALS[number];
    bytes(content_type, if good { body } else { refused.into() }, cut)
}

/// Sends bytes, and gives the response's status and bytes.
type Send = Box<dyn Fn(String, Bytes) -> BoxFuture<'static, (StatusCode, Bytes)>>;

const CLIENTS: [&str; 3] = ["hyper", "middleware", "service"];

/// One of the clients, over the layer with a state of the server's.
fn client(name: &str, protocol: Protocol, server: &Loopback) -> Send {
    match name {
        "hyper" => {
            let http2 = protocol == Protocol::Http2;
            let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
            let client = ServiceBuilder::new()
                .layer(RefreshLayer::new(server.state()))
                .layer(layer())
                .service(client);
            Box::new(move |url, body| {
                let request = Request::post(url).body(Full::new(body)).unwrap();
                let response = client.clone().oneshot(request);
                let read = async {
                    let response = response.await.unwrap();
                    let status = response.status();
                    (status, response.into_body().collect().await.unwrap().to_bytes())
                };
                read.boxed()
            })
        }
        "middleware" => {
            let client = with(protocol, server, |it| it.in_body(layer()));
            Box::new(move |url, body| {
                let response = client.post(url).body(body).send();
                async { read(response.await.unwrap()).await }.boxed()
            })
        }
        _ => {
            let client = ServiceBuilder::new()
                .layer(ReqwestLayer::new(RefreshLayer::new(server.state())).in_body(layer()))
                .service(bare(protocol));
            Box::new(move |url, body| {
                let request = bare(protocol).post(url).body(body).build().unwrap();
                let response = client.clone().oneshot(request);
                async { read(response.await.unwrap()).await }.boxed()
            })
        }
    }
}

async fn read(response: reqwest::Response) -> (StatusCode, Bytes) {
    (response.status(), response.bytes().await.unwrap())
}

fn with(
    protocol: Protocol,
    server: &Loopback,
    look: impl FnOnce(RefreshMiddleware) -> RefreshMiddleware,
) -> ClientWithMiddleware {
    let middleware = look(RefreshMiddleware::new(RefreshLayer::new(server.state())));
    ClientBuilder::new(bare(protocol)).with(middleware).build()
}

#[tokio::test]
async fn refusals_inside_a_200_are_one_refresh_and_every_body_is_whole() {
    for protocol in BOTH {
        for number in 0..REFUSALS.len() {
            for name in CLIENTS {
                let server = Loopback::serve(protocol, move |server, request| {
                    refusing(number, number % 2 == 0, server, request)
                })
                .await;
                let send = client(name, protocol, &server);
                let url = format!("http://{}/", server.socket());
                let mut callers = JoinSet::new();
                for caller in 0..20 {
                    // No answer of the rules' protocols.
                    let body = Bytes::from(format!("{caller} orders"));
                    let answer = send(url.clone(), body.clone());
                    callers.spawn(async move { (answer.await, body) });
                }
                while let Some(answer) = callers.join_next().await {
                    let ((status, answer), body) = answer.unwrap();
                    assert_eq!((status, answer), (StatusCode::OK, body), "{name} {number}");
                }
                assert_eq!(server.refreshes(), 1, "{protocol:?} {name} {number}");
            }
        }
    }
}

/// A body that is compressed cannot be read: what decompresses goes below.
#[tokio::test]
async fn a_compressed_refusal_is_found_above_what_decompresses() {
    let server = async || {
        Loopback::serve(Protocol::Http1, async |server: Loopback, request: Request<Incoming>| {
            let good = server.accepts(request.headers());
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(if good { b"{\"data\":{}}" } else { REFUSALS[0].1 }).unwrap();
            let body = gzip.finish().unwrap();
            let mut response = bytes("application/json", body.into(), false);
            response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
            response
        })
        .await
    };
    let request = |server: &Loopback| {
        Request::post(server.address()).body(Full::<Bytes>::from("hello")).unwrap()
    };
    let below = server().await;
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(below.state()))
        .layer(layer())
        .layer(DecompressionLayer::new())
        .service(Client::builder(TokioExecutor::new()).build_http());
    let response = client.oneshot(request(&below)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((&*body, below.refreshes()), (&b"{\"data\":{}}"[..], 1));

    let above = server().await;
    let client = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(RefreshLayer::new(above.state()))
        .layer(layer())
        .service(Client::builder(TokioExecutor::new()).build_http());
    let response = client.oneshot(request(&above)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((&*body, above.refreshes()), (REFUSALS[0].1, 0));
}

/// What was carried out in part is the caller's, whole, and is sent once.
#[tokio::test]
async fn what_was_carried_out_in_part_is_not_sent_again() {
    const IN_PART: &[u8] = br#"[{"result":{}},{"error":{"data":{"code":"UNAUTHORIZED"}}}]"#;
    let server = Loopback::serve(Protocol::Http1, async |server: Loopback, request| {
        let _: Request<Incoming> = request;
        server.lock().unauthorized += 1;
        let mut response = bytes("application/json", IN_PART.into(), true);
        *response.status_mut() = StatusCode::MULTI_STATUS;
        response
    })
    .await;
    let client = with(Protocol::Http1, &server, |it| it.in_body(layer()));
    let response = client.post(server.address()).body("pay").send().await.unwrap();
    let reason = response.extensions().get::<NotReplayable>();
    assert_eq!(reason, Some(&NotReplayable::CarriedOut));
    assert_eq!(read(response).await, (StatusCode::MULTI_STATUS, IN_PART.into()));
    assert_eq!(server.lock().unauthorized, 1);
}

/// All that a caller can ask of a response is as without a look.
#[tokio::test]
async fn nothing_of_a_response_is_lost_that_was_looked_into() {
    for protocol in BOTH {
        for cut in [false, true] {
            let server = Loopback::serve(protocol, move |_, _: Request<Incoming>| async move {
                let body = Bytes::from_static(b"{\"data\":{\"text\":\"not refused\"}}");
                let mut response = bytes("application/json; charset=utf-8", body, cut);
                let headers = response.headers_mut();
                headers.append("set-cookie", HeaderValue::from_static("a=1"));
                headers.append("set-cookie", HeaderValue::from_static("b=2"));
                *response.status_mut() = StatusCode::CREATED;
                response
            })
            .await;
            let url = format!("http://{}/orders?draft=1", server.socket());
            let plain = bare(protocol).get(&url).send().await.unwrap();
            let looked = with(protocol, &server, |it| it.in_body(layer()));
            let looked = looked.get(&url).send().await.unwrap();
            let service = ServiceBuilder::new()
                .layer(ReqwestLayer::new(RefreshLayer::new(server.state())).in_body(layer()))
                .service(bare(protocol));
            let request = bare(protocol).get(&url).build().unwrap();
            let served = service.oneshot(request).await.unwrap();
            for looked in [looked, served] {
                assert_eq!(looked.url().query(), Some("draft=1"));
                assert_eq!(looked.url(), plain.url());
                assert_eq!(looked.status(), plain.status());
                assert_eq!(looked.version(), plain.version());
                let mut headers = [looked.headers().clone(), plain.headers().clone()];
                headers.iter_mut().for_each(|headers| drop(headers.remove("date")));
                assert_eq!(headers[0], headers[1]);
                // It has been read to its end, so that it may be known where it was not.
                assert!(
                    plain.content_length().is_none_or(|it| Some(it) == looked.content_length())
                );
                assert_eq!(looked.remote_addr(), Some(server.socket()));
                assert!(looked.extensions().get::<Verdict>().is_none());
                assert_eq!(looked.text().await.unwrap(), r#"{"data":{"text":"not refused"}}"#);
            }
        }
    }
}

/// A body that breaks off, within what is looked at and after it, breaks off for the reader; its
/// error says the same.
#[tokio::test]
async fn an_error_of_a_body_that_was_looked_into_is_the_readers() {
    for first in ["{\"data\":", "{\"data\":{}}", "not json"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99";
                stream.write_all(format!("{head}\r\n\r\n{first}").as_bytes()).await.unwrap();
            }
        });
        let server = Loopback::start(Duration::ZERO).await.unwrap();
        let plain = bare(Protocol::Http1).get(&url).send().await.unwrap();
        let looked = with(Protocol::Http1, &server, |it| it.in_body(layer()));
        let looked = looked.get(&url).send().await.unwrap();
        let errors = [plain, looked].map(|mut response| async move {
            assert_eq!(response.chunk().await.unwrap().unwrap(), first);
            response.chunk().await.unwrap_err()
        });
        let [plain, looked] = errors;
        let (plain, looked) = (plain.await, looked.await);
        let kinds = |error: &reqwest::Error| {
            (error.is_decode(), error.is_body(), error.is_timeout(), error.is_request())
        };
        assert_eq!(kinds(&looked), kinds(&plain), "{looked:?} {plain:?}");
        assert_eq!(looked.to_string(), plain.to_string());
    }
}

/// The client's own timeout ends a body that was looked into, too.
#[tokio::test]
async fn a_timeout_runs_on_while_a_head_is_held_and_after_it() {
    for first in ["{\"data\":", "not json"] {
        let server = Loopback::serve(Protocol::Http1, move |_, _: Request<Incoming>| async move {
            let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
            sender.send_data(first.into()).await.unwrap();
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(sender);
            });
            let mut response = Response::new(body);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            response
        })
        .await;
        let client = with(Protocol::Http1, &server, |it| it.in_body(layer()));
        let request = client.get(server.address()).timeout(Duration::from_millis(50));
        let error = request.send().await.unwrap().bytes().await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
    }
}

fn grpc_status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Frame::trailers(trailers)
}

/// A status in trailers is found inside reqwest; one after a message is the caller's.
#[tokio::test]
async fn a_grpc_status_after_the_head_is_found_inside_reqwest() {
    for (message_first, refreshes) in [(false, 1), (true, 0)] {
        for in_service in [false, true] {
            let server =
                Loopback::serve(Protocol::Http2, move |server, request: Request<Incoming>| {
                    let good = server.accepts(request.headers());
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let mut all = Vec::new();
                        if good || message_first {
                            all.push(Ok(Frame::data(body)));
                        }
                        all.push(Ok(grpc_status(if good { "0" } else { "16" })));
                        frames("application/grpc", all)
                    }
                })
                .await;
            let look = GrpcStatusLayer::new().hold(FOR_EVER);
            let response = if in_service {
                let layer = ReqwestLayer::new(RefreshLayer::new(server.state()));
                let client = layer.grpc_status(look);
                let client = ServiceBuilder::new().layer(client).service(bare(Protocol::Http2));
                let request = bare(Protocol::Http2).post(server.address()).body("hello");
                client.oneshot(request.build().unwrap()).await.unwrap()
            } else {
                let client = with(Protocol::Http2, &server, |it| it.grpc_status(look));
                client.post(server.address()).body("hello").send().await.unwrap()
            };
            assert_eq!(server.refreshes(), refreshes);
            let response: http::Response<reqwest::Body> = response.into();
            let body = response.into_body().collect().await.unwrap();
            let expected = if message_first { "16" } else { "0" };
            assert_eq!(body.trailers().unwrap()["grpc-status"], expected);
            assert_eq!(body.to_bytes(), "hello");
        }
    }
}

/// A stream that goes both ways waits for its client, which waits for the head.
#[tokio::test]
async fn no_head_is_held_while_a_stream_is_sent() {
    for replays in [true, false] {
        let server = Loopback::serve(Protocol::Http2, |_, request: Request<Incoming>| async move {
            let mut response = Response::new(StreamBody::new(BodyStream::new(request.into_body())));
            let json = HeaderValue::from_static("application/connect+json");
            response.headers_mut().insert("content-type", json);
            response
        })
        .await;
        let layer_above = RefreshLayer::new(server.state()).replay_if(move |_| replays);
        let middleware = RefreshMiddleware::new(layer_above).in_body(layer());
        let client = ClientBuilder::new(bare(Protocol::Http2)).with(middleware).build();
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let request = client.request(Method::POST, server.address());
        let mut response = request.body(reqwest::Body::wrap(body)).send().await.unwrap();
        sender.send_data(Bytes::from("hello")).await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "hello");
        drop(sender);
        while let Some(chunk) = response.chunk().await.unwrap() {
            assert!(chunk.is_empty());
        }
    }
}
