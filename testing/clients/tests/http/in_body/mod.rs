//! [`InBodyLayer`] below the layer, under hyper-util's client and inside reqwest's; `responses`
//! is about what reqwest's callers see.

mod responses;

use std::{io, io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt, future::BoxFuture, stream};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use testing::{
    Loopback,
    loopback::{BOTH, Protocol},
};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::decompression::DecompressionLayer;
use tower_refresh::{
    RefreshLayer, RefreshMiddleware, ReqwestLayer,
    body::NotReplayable,
    in_body::{Connect, GraphQl, GrpcWeb, InBodyLayer, JsonPointer, Trpc},
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
