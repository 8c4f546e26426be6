//! A small command-line program that is run three times at once, with one file of tokens.
//!
//! ```text
//! cargo run -p examples --example shared_file
//! ```
//!
//! To copy it, turn on the features `file`, `oauth2-client`.
//!
//! Starts an authorization server and an API on loopback, signs in, lets the access token
//! expire, and starts the program three times. Each run sends twenty POSTs; all of them are
//! refused, one run refreshes, and the others find in the file what it has saved. Exits
//! with 1 if anything is not as it should be.

use std::{env, error::Error, path::Path, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::{process::Command, task::JoinSet, time::timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, oauth2, store::FileStore};

const PROCESSES: usize = 3;
const REQUESTS: usize = 20;

/// The argument with which this program is the small one.
const CLI: &str = "cli";

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &*arguments {
        [part, address, file] if part == CLI => cli(address, Path::new(file)).await,
        _ => timeout(Duration::from_secs(60), run()).await?,
    }
}

// ---- What a user of the crate writes.

/// Sends its requests. The exit code is how many of them failed.
async fn cli(address: &str, file: &Path) -> Result<ExitCode, BoxError> {
    let oauth = oauth2::Client::builder(&format!("{address}/token"), CLIENT_ID)?.build()?;
    let state =
        RefreshState::builder(oauth.refresh_token_grant()).store(FileStore::open(file)?).build();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state.clone()).allow_origin(address)?)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        let (client, uri) = (client.clone(), format!("{address}/api"));
        callers.spawn(async move {
            let body = Bytes::from(format!("body {number}"));
            let request = Request::post(uri).body(Full::new(body.clone()))?;
            let response = client.oneshot(request).await?;
            let status = response.status();
            let echo = response.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>(status == StatusCode::OK && echo == body)
        });
    }
    let mut failed = 0;
    while let Some(done) = callers.join_next().await {
        failed += u8::from(!matches!(done, Ok(Ok(true))));
    }
    // Before the end: what was minted is in the file.
    state.drain().await;
    Ok(ExitCode::from(failed))
}
// ----

async fn run() -> Result<ExitCode, BoxError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tokens.json");
    // The sign-in, as a fourth run would do it.
    let redeem = async |_| unreachable!("nothing is refreshed here");
    let state = RefreshState::builder(redeem).store(FileStore::open(&file)?).build();
    state.set(servers.sign_in()).await?;

    servers.expire_access_token();
    servers.refuse_together(PROCESSES * REQUESTS);
    let mut processes = JoinSet::new();
    for _ in 0..PROCESSES {
        let mut process = Command::new(env::current_exe()?);
        process.args([CLI, servers.address()]).arg(&file).kill_on_drop(true);
        processes.spawn(async move { process.status().await });
    }
    let mut failed = 0;
    while let Some(status) = processes.join_next().await {
        // Without a code it was killed.
        failed += status??.code().map_or(REQUESTS, |code| code.unsigned_abs() as usize);
    }

    let book = servers.book();
    let requests = PROCESSES * REQUESTS;
    println!(
        "processes={PROCESSES} requests={requests} refreshes={} token_reuse={} failed={failed}",
        book.refreshes, book.token_reuse
    );
    let as_it_should = (book.ok, book.unauthorized) == (requests, requests)
        && (book.refreshes, book.token_reuse, failed) == (1, 0, 0);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
