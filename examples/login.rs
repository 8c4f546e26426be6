//! How the first tokens come: the `login` of a command line, by device code (RFC 8628).
//!
//! ```text
//! cargo run -p examples --example login
//! ```
//!
//! To copy it, turn on the features `file` and `oauth2-client`, and add the crate `oauth2` for the
//! sign-in itself.
//!
//! Starts an authorization server and an API on loopback. `login` shows a code, waits until the user
//! has typed it in (this server acts as if a user had), and stores the tokens; the next
//! command uses them. Exits with 1 if anything is not as it should be.

use std::{error::Error, path::Path, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oauth2::{
    ClientId, DeviceAuthorizationUrl, HttpRequest, HttpResponse, Scope,
    StandardDeviceAuthorizationResponse, TokenUrl, basic::BasicClient,
};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::time::{sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, Tokens, store::FileStore};

type BoxError = Box<dyn Error + Send + Sync>;

// ---- What a user of the crate writes.

/// The credential of this command line: its tokens are in a file.
fn credential(servers: &Loopback, file: &Path) -> Result<std::sync::Arc<RefreshState>, BoxError> {
    let oauth =
        tower_refresh::oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.build()?;
    Ok(RefreshState::builder(oauth.refresh_token_grant()).store(FileStore::open(file)?).build())
}

/// `login`: the user types a code in at the server, and the tokens are stored.
async fn login(servers: &Loopback, file: &Path) -> Result<(), BoxError> {
    let client = BasicClient::new(ClientId::new(CLIENT_ID.to_owned()))
        .set_token_uri(TokenUrl::new(servers.token_endpoint())?)
        .set_device_authorization_url(DeviceAuthorizationUrl::new(
            servers.device_authorization_endpoint(),
        )?);
    let details: StandardDeviceAuthorizationResponse = client
        .exchange_device_code()
        .add_scope(Scope::new("orders".to_owned()))
        .request_async(&send)
        .await?;
    println!("open    {}", details.verification_uri().as_str());
    println!("and type {}", details.user_code().secret());
    let response =
        client.exchange_device_access_token(&details).request_async(&send, sleep, None).await?;
    // A sign-in wins over whatever the file holds, and other commands find it there.
    credential(servers, file)?.set(Tokens::from(response)).await?;
    println!("signed in");
    Ok(())
}

/// Any other command.
async fn orders(servers: &Loopback, file: &Path) -> Result<StatusCode, BoxError> {
    let state = credential(servers, file)?;
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state.clone()).allow_origin(servers.address())?)
        .service(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::get(servers.api()).body(Empty::<Bytes>::new())?;
    let status = client.oneshot(request).await?.status();
    // Before the end: what was minted is in the file.
    state.drain().await;
    Ok(status)
}

/// How the `oauth2` crate sends its requests; its feature `reqwest` brings a client of its own.
async fn send(request: HttpRequest) -> Result<HttpResponse, hyper_util::client::legacy::Error> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.map(Full::<Bytes>::from)).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    Ok(HttpResponse::from_parts(parts, body))
}
// ----

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    timeout(Duration::from_secs(60), run()).await?
}

async fn run() -> Result<ExitCode, BoxError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tokens.json");
    let before = orders(&servers, &file).await?;
    login(&servers, &file).await?;
    let after = orders(&servers, &file).await?;
    // The token runs out, and the refresh token that `login` has stored is redeemed.
    servers.expire_access_token();
    let later = orders(&servers, &file).await?;
    println!("before the login {before}, after it {after}, later {later}");
    let expected = [StatusCode::UNAUTHORIZED, StatusCode::OK, StatusCode::OK];
    let ok = [before, after, later] == expected && servers.refreshes() == 1;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
