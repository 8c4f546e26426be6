//! A command line's `login`: the device flow (RFC 8628). The user opens a page on any device and
//! enters a code; the tokens go into a file, and later runs use and renew them.
//!
//! ```text
//! cargo run -p examples --example login
//! ```
//!
//! What it shows takes the features `file` and `oauth2-client`.
//!
//! Starts an authorization server with a user on loopback, signs in, and then sends a request as
//! another run would, after the access token has run out. Exits with 1 if anything is not as it
//! should be.

use std::{io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use oauth2::{
    ClientId, DeviceAuthorizationUrl, HttpRequest, HttpResponse,
    StandardDeviceAuthorizationResponse, TokenUrl, basic::BasicClient,
};
use testing::loopback::Loopback;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    BoxError, RefreshLayer, RefreshState, Tokens, oauth2::Client, store::FileStore,
};

// ---- What a user of the crate writes.

/// `my-program login`.
async fn login(file: &Path, device_endpoint: &str, token_endpoint: &str) -> Result<(), BoxError> {
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let send = |request: HttpRequest| {
        let http = http.clone();
        async move {
            let response = http.request(request.map(Full::from)).await.map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            Ok::<HttpResponse, io::Error>(Response::from_parts(head, body.into()))
        }
    };
    let client = BasicClient::new(ClientId::new("my-program".into()))
        .set_device_authorization_url(DeviceAuthorizationUrl::new(device_endpoint.into())?)
        .set_token_uri(TokenUrl::new(token_endpoint.into())?);
    let device: StandardDeviceAuthorizationResponse =
        client.exchange_device_code().request_async(&send).await?;
    let (page, code) = (device.verification_uri().as_str(), device.user_code().secret());
    println!("Open {page} and enter {code}");
    let response =
        client.exchange_device_access_token(&device).request_async(&send, sleep, None).await?;
    credential(file, token_endpoint)?.set(Tokens::from(response)).await?;
    Ok(())
}

/// What every run begins with.
fn credential(file: &Path, token_endpoint: &str) -> Result<Arc<RefreshState>, BoxError> {
    let client = Client::builder(token_endpoint, "my-program")?.build()?;
    let store = FileStore::open(file)?;
    Ok(RefreshState::builder(client.refresh_token_grant()).store(store).build())
}
// ----

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let servers = Loopback::start(Duration::ZERO).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("credential.json");
    let device_endpoint = format!("{}/device", servers.address());
    login(&file, &device_endpoint, &servers.token_endpoint()).await?;

    // Another run, some time later.
    servers.expire_access_token();
    let state = credential(&file, &servers.token_endpoint())?;
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state.clone()).allow_origin(servers.address())?)
        .service(legacy::Client::builder(TokioExecutor::new()).build_http());
    let request = Request::get(servers.api()).body(Empty::<Bytes>::new())?;
    let status = client.oneshot(request).await?.status();
    state.drain().await;

    let refreshes = servers.refreshes();
    println!("status={status} refreshes={refreshes}");
    let as_it_should = status == StatusCode::OK && refreshes == 1;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
