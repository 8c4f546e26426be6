//! A proxy that gives each request to the next replica in turn: the worst that can happen to a session.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderMap, HeaderValue, Request, StatusCode, Uri, Version,
        header::{CONNECTION, COOKIE, HOST},
        uri::Scheme,
    },
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// In front of these replicas.
pub(crate) fn router(replicas: Vec<SocketAddr>) -> Router {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let turn = AtomicUsize::new(0);
    let next = move || replicas[turn.fetch_add(1, Ordering::Relaxed) % replicas.len()];
    let next = std::sync::Arc::new(next);
    Router::new().fallback(move |request: Request<Body>| {
        let (client, replica) = (client.clone(), next());
        async move { forward(&client, replica, request).await }
    })
}

/// Bodies are passed on as they come, those of event streams too.
async fn forward(
    client: &Client<HttpConnector, Body>,
    replica: SocketAddr,
    mut request: Request<Body>,
) -> Response {
    to_http1(&mut request);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = replica.to_string().parse().ok();
    let Ok(uri) = Uri::from_parts(parts) else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    match client.request(request).await {
        Ok(mut response) => {
            response.headers_mut().remove(CONNECTION);
            response.map(Body::new)
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// HTTP/2 has the host in the URI, and may have each cookie in a field of its own; HTTP/1.1 has one
/// field for each (RFC 9113, sections 8.3.1 and 8.2.3).
fn to_http1(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    let authority = request.uri().authority().map(ToString::to_string);
    let host = authority.and_then(|authority| HeaderValue::from_str(&authority).ok());
    let headers: &mut HeaderMap = request.headers_mut();
    headers.remove(CONNECTION);
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        // It consists of what came as header fields.
        if let Ok(cookies) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
            headers.insert(COOKIE, cookies);
        }
    }
}
