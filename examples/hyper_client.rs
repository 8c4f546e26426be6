//! The layer over hyper-util's client, with the OAuth 2.0 refresh-token grant.
//!
//! ```text
//! cargo run -p examples --example hyper_client
//! ```
//!
//! To copy it, turn on the feature `oauth2-client`.
//!
//! Starts an authorization server and an API on loopback, lets the access token expire,
//! and sends a hundred POSTs at once. Then it signs out, which revokes the tokens. Exits
//! with 1 if anything is not as it should be.

use std::{error::Error, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, oauth2};

const REQUESTS: usize = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;

    // ---- What a user of the crate writes.
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.build()?;
    let revoker = oauth.revoker(&servers.revocation_endpoint())?;
    let state = RefreshState::builder(oauth.refresh_token_grant())
        .tokens(servers.sign_in())
        .on_discard(revoker.hook())
        .on_sign_out(revoker.hook())
        .build();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state.clone()).allow_origin(servers.address())?)
        .service(Client::builder(TokioExecutor::new()).build_http());
    // ----

    servers.expire_access_token();
    servers.refuse_together(REQUESTS);
    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        let (client, uri) = (client.clone(), servers.api());
        callers.spawn(async move {
            let body = Bytes::from(format!("body {number}"));
            let request = Request::post(uri).body(Full::new(body.clone()))?;
            let response = client.oneshot(request).await?;
            let status = response.status();
            let echo = response.into_body().collect().await?.to_bytes();
            Ok::<_, Box<dyn Error + Send + Sync>>(status == StatusCode::OK && echo == body)
        });
    }
    let mut ok = 0;
    while let Some(done) = callers.join_next().await {
        ok += usize::from(done??);
    }
    state.clear().await?;

    let book = servers.book();
    println!(
        "requests={REQUESTS} ok={ok} unauthorized={} refreshes={} token_reuse={} revoked={}",
        book.unauthorized, book.refreshes, book.token_reuse, book.revoked
    );
    let as_it_should = (ok, book.unauthorized) == (REQUESTS, REQUESTS)
        && (book.refreshes, book.token_reuse, book.revoked) == (1, 0, 1);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
