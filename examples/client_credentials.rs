//! Service to service: the OAuth 2.0 client-credentials grant. The token is fetched on
//! first use and kept fresh; there is no user who signs in.
//!
//! ```text
//! cargo run -p examples --example client_credentials
//! ```
//!
//! To copy it, turn on the feature `oauth2-client`.
//!
//! Starts an authorization server and an API on loopback and sends a hundred requests
//! at once, twice; in between the API forgets the token. Exits with 1 if anything is not as
//! it should be.

use std::{error::Error, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::loopback::{CLIENT_ID, CLIENT_SECRET, Loopback};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, oauth2};

const REQUESTS: usize = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;

    // ---- What a user of the crate writes.
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?
        .client_secret_post(CLIENT_SECRET)
        .scope("reports")
        .audience("the API")
        .build()?;
    let state = RefreshState::builder(oauth.client_credentials_grant()).build();
    // However idle this service is, its token is good.
    let _fresh = state.keep_fresh();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state.clone()).allow_origin(servers.address())?)
        .service(Client::builder(TokioExecutor::new()).build_http());
    // ----

    let mut ok = 0;
    for _ in 0..2 {
        let mut callers = JoinSet::new();
        for _ in 0..REQUESTS {
            let (client, uri) = (client.clone(), servers.api());
            callers.spawn(async move {
                let request = Request::get(uri).body(Empty::<Bytes>::new())?;
                let status = client.oneshot(request).await?.status();
                Ok::<_, Box<dyn Error + Send + Sync>>(status == StatusCode::OK)
            });
        }
        while let Some(done) = callers.join_next().await {
            ok += usize::from(done??);
        }
        servers.expire_access_token();
    }

    let fetched = servers.book().refreshes;
    let granted = state.current().extra("scope").unwrap_or_default().to_owned();
    println!("requests={} ok={ok} fetched={fetched} scope={granted}", 2 * REQUESTS);
    let as_it_should = ok == 2 * REQUESTS && fetched == 2 && granted == "reports";
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
