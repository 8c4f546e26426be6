//! `Router::layer(RefreshLayer)` on a handler that forwards to an upstream, over
//! real sockets on both sides.

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::IntoResponse, routing::any};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::{Loopback, loopback::Protocol};
use tokio::{net::TcpListener, task::JoinSet};
use tower_refresh::{FromExtensions, RefreshLayer, RefreshState};

type Upstream = (Client<hyper_util::client::legacy::connect::HttpConnector, Body>, Uri);

/// Forwards a request with the token that the layer has put on it.
async fn forward(
    State((client, uri)): State<Upstream>,
    mut request: Request<Body>,
) -> impl IntoResponse {
    assert!(request.headers().contains_key(AUTHORIZATION));
    *request.uri_mut() = uri;
    request.headers_mut().remove("host");
    client.request(request).await.map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn gateway(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    uri
}

fn forwarding(address: std::net::SocketAddr) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://{address}/").parse().unwrap();
    Router::new().route("/", any(forward)).with_state((client, uri))
}

async fn send_many(uri: &str) -> Vec<StatusCode> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut callers = JoinSet::new();
    for number in 0..50 {
        let request = Request::post(uri).body(Full::from(format!("body {number}"))).unwrap();
        let client = client.clone();
        callers.spawn(async move {
            let response = client.request(request).await.unwrap();
            let status = response.status();
            response.into_body().collect().await.unwrap();
            status
        });
    }
    callers.join_all().await
}

#[tokio::test]
async fn a_router_takes_the_layer_as_it_is() {
    let upstream = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let layer = RefreshLayer::new(upstream.state());
    let uri = gateway(forwarding(upstream.socket()).layer(layer)).await;
    assert_eq!(send_many(&uri).await, vec![StatusCode::OK; 50]);
    assert_eq!(upstream.refreshes(), 1);
    assert_eq!(upstream.bodies().len(), 50);
}

#[tokio::test]
async fn a_credential_from_the_requests_extensions() {
    let upstream = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let state: Arc<RefreshState> = upstream.state();
    let router = forwarding(upstream.socket())
        .layer(RefreshLayer::per_request(FromExtensions))
        // The layer that knows the session puts its state there.
        .layer(axum::Extension(Arc::clone(&state)));
    let uri = gateway(router).await;
    assert_eq!(send_many(&uri).await, vec![StatusCode::OK; 50]);
    assert_eq!(state.status().counts.refreshes, 1);
    assert_eq!(upstream.refreshes(), 1);
}
