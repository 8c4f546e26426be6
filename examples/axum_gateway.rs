//! A reverse proxy in axum that puts its own token on what it forwards, and streams both
//! ways.
//!
//! ```text
//! cargo run -p examples --example axum_gateway
//! ```
//!
//! To copy it, turn on the feature `oauth2-client`.
//!
//! Starts an authorization server, an API and the gateway on loopback, and lets the
//! gateway's token expire. A hundred streamed uploads go through it at once, and a
//! conversation whose every chunk is answered before the next is sent. Exits with 1 if
//! anything is not as it should be.

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    http::{
        Request, StatusCode, Uri,
        header::{AUTHORIZATION, HOST},
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, Channel};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceBuilder;
use tower_refresh::{RefreshLayer, RefreshState, oauth2};

type AnyError = Box<dyn Error + Send + Sync>;
type Upload = Channel<Bytes, std::convert::Infallible>;

const UPLOADS: usize = 100;
const CHUNKS: usize = 16;
const CHUNK: &[u8] = &[b'x'; 4096];

/// Forwards everything to the upstream, with the layer between.
fn gateway(upstream: &str, state: Arc<RefreshState>) -> Result<Router, AnyError> {
    let layer = RefreshLayer::new(state).allow_origin(upstream)?;
    let upstream = upstream.to_owned();
    let proxy = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_| async { StatusCode::BAD_GATEWAY }))
        .map_request(move |mut request: Request<Body>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            if let Ok(uri) = format!("{upstream}{path}").parse::<Uri>() {
                *request.uri_mut() = uri;
            }
            // The upstream's name is another, and the caller's credentials are not for it.
            request.headers_mut().remove(HOST);
            request.headers_mut().remove(AUTHORIZATION);
            request
        })
        .layer(layer)
        .service(Client::builder(TokioExecutor::new()).build_http());
    Ok(Router::new().fallback_service(proxy))
}

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.build()?;
    let state =
        RefreshState::builder(oauth.refresh_token_grant()).tokens(servers.sign_in()).build();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let router = gateway(servers.address(), state)?;
    tokio::spawn(async move { axum::serve(listener, router).await });

    servers.expire_access_token();
    servers.refuse_together(UPLOADS);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        uploads.spawn(upload(client.clone(), format!("{address}/api")));
    }
    let mut ok = 0;
    while let Some(done) = uploads.join_next().await {
        ok += usize::from(done??);
    }
    servers.expire_access_token();
    let answered = converse(client, format!("{address}/stream")).await?;

    let book = servers.book();
    println!(
        "uploads={UPLOADS} ok={ok} answered={answered}/{CHUNKS} refreshes={} token_reuse={}",
        book.refreshes, book.token_reuse
    );
    let as_it_should = ok == UPLOADS
        && answered == CHUNKS
        && book.unauthorized == UPLOADS + 1
        && (book.refreshes, book.token_reuse) == (2, 0);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends a body chunk by chunk, and reads the echo.
async fn upload(client: Client<HttpConnector, Upload>, uri: String) -> Result<bool, AnyError> {
    let (mut sender, body) = Channel::new(1);
    let request = Request::post(uri).body(body)?;
    tokio::spawn(async move {
        for _ in 0..CHUNKS {
            // A server that has failed to answer does not read on either.
            if sender.send_data(Bytes::from_static(CHUNK)).await.is_err() {
                return;
            }
        }
    });
    let response = client.request(request).await?;
    let status = response.status();
    let echo = response.into_body().collect().await?.to_bytes();
    Ok(status == StatusCode::OK && *echo == *CHUNK.repeat(CHUNKS))
}

/// Sends each chunk when the one before has come back.
async fn converse(client: Client<HttpConnector, Upload>, uri: String) -> Result<usize, AnyError> {
    let (mut sender, body) = Channel::new(1);
    let request = Request::post(uri).body(body)?;
    sender.send_data(Bytes::from_static(CHUNK)).await?;
    let mut echo = client.request(request).await?.into_body();
    for answered in 0..CHUNKS {
        let mut length = 0;
        while length < CHUNK.len() {
            match echo.frame().await {
                Some(frame) => length += frame?.data_ref().map_or(0, Bytes::len),
                None => return Ok(answered),
            }
        }
        if answered + 1 < CHUNKS {
            sender.send_data(Bytes::from_static(CHUNK)).await?;
        }
    }
    Ok(CHUNKS)
}
