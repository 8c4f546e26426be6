//! [`InBodyLayer`](tower_refresh::in_body::InBodyLayer) and [`GrpcStatusLayer`] inside reqwest: what a caller sees of a response that was
//! looked into.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody, channel::Channel};
use hyper::body::Incoming;
use reqwest_middleware::ClientBuilder;
use testing::{
    Loopback,
    loopback::{BOTH, Protocol},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    RefreshLayer, RefreshMiddleware, ReqwestLayer, grpc::GrpcStatusLayer, layer::Verdict,
};

use super::{FOR_EVER, bytes, frames, layer, with};
use crate::reqwest::bare;

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
