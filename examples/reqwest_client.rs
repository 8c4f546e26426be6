//! reqwest with one extra line. The client that redeems is reqwest, too.
//!
//! ```text
//! cargo run -p examples --example reqwest_client
//! ```
//!
//! To copy it, turn on the features `oauth2`, `reqwest-middleware`.
//!
//! Starts an authorization server and an API on loopback, lets the access token expire, and
//! sends a hundred `client.post(url).json(..).send()` at once. Exits with 1 if anything is
//! not as it should be.

use std::{error::Error, process::ExitCode, time::Duration};

use reqwest_middleware::ClientBuilder;
use serde_json::{Value, json};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::task::JoinSet;
use tower_refresh::{RefreshLayer, RefreshMiddleware, RefreshState, oauth2};

type AnyError = Box<dyn Error + Send + Sync>;

const REQUESTS: usize = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;

    // ---- What a user of the crate writes: who redeems ...
    let plain = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy() // the servers are on loopback
        .build()?;
    let http = plain.clone();
    let http = tower::service_fn(move |request: http::Request<reqwest::Body>| {
        let http = http.clone();
        async move { http.execute(request.try_into()?).await.map(http::Response::from) }
    });
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.over(http);
    let state =
        RefreshState::builder(oauth.refresh_token_grant()).tokens(servers.sign_in()).build();

    // ---- ... and one line more for the client.
    let layer = RefreshLayer::new(state).allow_origin(servers.address())?;
    let client = ClientBuilder::new(plain).with(RefreshMiddleware::new(layer)).build();
    // ----

    servers.expire_access_token();
    servers.refuse_together(REQUESTS);
    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        let request = client.post(servers.api()).json(&document(number));
        callers.spawn(async move {
            let response = request.send().await?;
            let is_ok = response.status() == reqwest::StatusCode::OK;
            let echo: Value = serde_json::from_slice(&response.bytes().await?)?;
            Ok::<_, AnyError>(is_ok && echo == document(number))
        });
    }
    let mut ok = 0;
    while let Some(done) = callers.join_next().await {
        ok += usize::from(done??);
    }

    let book = servers.book();
    println!(
        "requests={REQUESTS} ok={ok} unauthorized={} refreshes={} token_reuse={}",
        book.unauthorized, book.refreshes, book.token_reuse
    );
    let as_it_should = (ok, book.unauthorized) == (REQUESTS, REQUESTS)
        && (book.refreshes, book.token_reuse) == (1, 0);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Some kilobytes that no two requests share.
fn document(number: usize) -> Value {
    json!({ "number": number, "text": format!("document {number}; ").repeat(200) })
}
