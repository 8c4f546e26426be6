//! `Router::layer(RefreshLayer)` on a handler that forwards to an upstream, over
//! real sockets on both sides.

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::IntoResponse, routing::any};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use server::{Protocol, serve, strict};
use tokio::{net::TcpListener, task::JoinSet};
use tower_refresh::{Attempt, FromExtensions, RefreshLayer, RefreshState};

type Upstream = (Client<hyper_util::client::legacy::connect::HttpConnector, Body>, Uri);

/// Forwards a request with the token that the layer has put on it.
async fn forward(
    State((client, uri)): State<Upstream>,
    mut request: Request<Body>,
) -> impl IntoResponse {
    assert!(request.headers().contains_key(AUTHORIZATION));
    assert!(request.extensions().get::<Attempt>().is_some());
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
    let upstream = serve(Protocol::Http1, strict).await;
    let layer = RefreshLayer::new(upstream.seen.state());
    let uri = gateway(forwarding(upstream.address).layer(layer)).await;
    assert_eq!(send_many(&uri).await, vec![StatusCode::OK; 50]);
    assert_eq!(upstream.seen.refreshes(), 1);
    assert_eq!(upstream.seen.bodies.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn a_credential_from_the_requests_extensions() {
    let upstream = serve(Protocol::Http1, strict).await;
    let state: Arc<RefreshState> = upstream.seen.state();
    let router = forwarding(upstream.address)
        .layer(RefreshLayer::per_request(FromExtensions))
        // Whoever knows the session puts its state there.
        .layer(axum::Extension(Arc::clone(&state)));
    let uri = gateway(router).await;
    assert_eq!(send_many(&uri).await, vec![StatusCode::OK; 50]);
    assert_eq!(state.status().counts.refreshes, 1);
    assert_eq!(upstream.seen.refreshes(), 1);
}
