//! An executable prints the token, as for kubectl's `exec` credentials
//! (`client.authentication.k8s.io/v1`); `gcloud` and others do the same in forms of their own.
//!
//! ```text
//! cargo run -p examples --example exec_credential
//! ```
//!
//! Starts an API on loopback, sends a hundred requests at once before and after the token is
//! refused, and exits with 1 if anything is not as it should be. The executable is a shell
//! script; where there is no `sh`, nothing is shown.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::State, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command, task::JoinSet, time::timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{BoxError, RefreshError, RefreshLayer, RefreshState, Tokens, refresher_fn};

const REQUESTS: usize = 100;

// ---- What a user of the crate writes.

/// A credential whose token this command prints.
fn printed_by(command: Vec<String>) -> Arc<RefreshState> {
    RefreshState::builder(refresher_fn(move || run(command.clone()))).build()
}

async fn run(command: Vec<String>) -> Result<Tokens, RefreshError> {
    let (program, arguments) = command.split_first().ok_or_else(|| failed("no command"))?;
    let child = Command::new(program)
        .args(arguments)
        .env("KUBERNETES_EXEC_INFO", EXEC_INFO)
        // It must not wait for a person: there may be none.
        .stdin(Stdio::null())
        // What it has to say to a person is said, and is not in any error.
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(60), child).await;
    let output = output.map_err(|_| failed("it took longer than 60 s"))?;
    let output = output.map_err(RefreshError::transient)?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    // serde_json's error would quote the token.
    let credential: Value =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("it did not print JSON"))?;
    let text = |name: &str| credential.get("status")?.get(name)?.as_str();
    let tokens = Tokens::new(text("token").ok_or_else(|| failed("it printed no token"))?);
    // Without an end the token is used until it is refused.
    Ok(match text("expirationTimestamp").and_then(moment) {
        Some(end) => tokens.with_expires_at(end),
        None => tokens,
    })
}

const EXEC_INFO: &str = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}"#;

fn failed(what: impl Into<BoxError>) -> RefreshError {
    RefreshError::transient(what).unspent()
}

/// A moment in UTC by RFC 3339, to the second: `2026-11-28T10:00:00Z`.
fn moment(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
        let numbers: Result<Vec<u64>, _> = text.split(by).map(str::parse).collect();
        numbers.ok()?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) =
        (numbers(date, '-')?, numbers(time.split('.').next()?, ':')?);
    // Years begin in March here, so that the leap day is their last.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
// ----

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    assert_eq!(moment("1970-01-01T00:00:00Z"), Some(UNIX_EPOCH));
    let leap_day = UNIX_EPOCH + Duration::from_secs(951_827_696);
    assert_eq!(moment("2000-02-29T12:34:56.789Z"), Some(leap_day));
    if cfg!(not(unix)) {
        return Ok(ExitCode::SUCCESS);
    }

    let folder = tempfile::tempdir()?;
    let server = Server::start().await?;
    let state = printed_by(vec!["sh".into(), script(folder.path())?.display().to_string()]);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(Arc::clone(&state)).allow_origin(&server.address)?)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let mut ok = 0;
    for _ in 0..2 {
        let mut callers = JoinSet::new();
        for _ in 0..REQUESTS {
            let (client, uri) = (client.clone(), format!("{}/data", server.address));
            callers.spawn(async move {
                let request = Request::get(uri).body(Empty::<Bytes>::new())?;
                Ok::<_, BoxError>(client.oneshot(request).await?.status() == StatusCode::OK)
            });
        }
        while let Some(done) = callers.join_next().await {
            ok += usize::from(done??);
        }
        server.good.fetch_add(1, SeqCst);
    }
    let (runs, ends) = (state.status().counts.refreshes, state.current().expires_at().is_some());
    println!("requests={} ok={ok} runs={runs} ends={ends}", 2 * REQUESTS);
    let as_it_should = ok == 2 * REQUESTS && runs == 2 && ends;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An executable that prints `token-1`, and then `token-2`.
fn script(folder: &Path) -> Result<PathBuf, BoxError> {
    let script = folder.join("print-token.sh");
    let count = folder.join("count").display().to_string();
    let text = format!(
        r#"echo >> "{count}"
number=$(wc -l < "{count}" | tr -d ' ')
printf '{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1",'
printf '"status":{{"token":"token-%s","expirationTimestamp":"2999-01-01T00:00:00Z"}}}}' "$number"
"#
    );
    std::fs::write(&script, text)?;
    Ok(script)
}

/// An API that takes `token-1` only, and later `token-2` only.
struct Server {
    address: String,
    good: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let good = Arc::new(AtomicUsize::new(1));
        let router = Router::new().route("/data", get(data)).with_state(Arc::clone(&good));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, good })
    }
}

async fn data(State(good): State<Arc<AtomicUsize>>, headers: HeaderMap) -> StatusCode {
    let good = format!("Bearer token-{}", good.load(SeqCst));
    let is_good = headers.get(header::AUTHORIZATION).is_some_and(|brought| *brought == *good);
    if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}
