//! A token in a file that another program renews, as Kubernetes' kubelet does with projected
//! service-account tokens. It is read again when a server refuses it, and ahead of its end.
//!
//! ```text
//! cargo run -p examples --example token_file
//! ```
//!
//! Starts an API on loopback, sends a hundred requests at once before and after the file was
//! renewed, and exits with 1 if anything is not as it should be.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::State, routing::get};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinSet, spawn_blocking},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    BoxError, BoxFuture, RefreshError, RefreshLayer, RefreshState, Refresher, Tokens,
    refresher::{RefreshRequest, Trigger},
};

const REQUESTS: usize = 100;

// ---- What a user of the crate writes.

/// A token in a file. In a pod that is `/var/run/secrets/kubernetes.io/serviceaccount/token`, or
/// where the volume is mounted.
struct TokenFile(PathBuf);

impl Refresher for TokenFile {
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async move {
            // Nothing is ever spent by reading.
            let failed = |error: io::Error| RefreshError::transient(error).unspent();
            let read = read(&self.0).await.map_err(failed)?;
            let refused = request.tokens.filter(|_| request.trigger == Trigger::Challenge);
            if refused.is_some_and(|refused| refused.access_token() == read.access_token()) {
                return Err(failed(io::Error::other("the file has not been renewed yet")));
            }
            Ok(read)
        })
    }

    fn needs_tokens(&self) -> bool {
        false
    }
}

fn token_in(file: PathBuf) -> Arc<RefreshState> {
    RefreshState::builder(TokenFile(file))
        // The kubelet renews a token when 80 % of its life are over. From 90 % on it is new.
        .early_refresh(Duration::from_secs(3600))
        .early_fraction(10)
        // Looked at again soon: there is no server to be spared.
        .cool_down(Duration::from_millis(100), Duration::from_secs(10))
        .build()
}

async fn read(file: &Path) -> io::Result<Tokens> {
    let file = file.to_owned();
    let text = spawn_blocking(move || std::fs::read_to_string(file)).await??;
    let token = text.trim();
    if token.is_empty() {
        // It is being written.
        return Err(io::Error::other("the file is empty"));
    }
    let tokens = Tokens::new(token);
    Ok(match end_of(token) {
        Some(end) => tokens.with_expires_at(end),
        // Another kind of token is used until it is refused.
        None => tokens,
    })
}

/// A JWT's `exp` (RFC 7519, section 4.1.4). It is not verified, as only the server can: it says
/// when to look again.
fn end_of(token: &str) -> Option<SystemTime> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.get("exp")?.as_u64()?))
}
// ----

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    let server = Server::start().await?;
    server.renew(&file)?;

    let state = token_in(file.clone());
    // However idle this program is, it has read the file ahead of the token's end.
    let _fresh = state.keep_fresh();
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
        // Before its end: the old token is refused from now on.
        server.renew(&file)?;
    }
    let reads = state.status().counts.refreshes;
    let ends = state.current().expires_at().is_some();
    println!("requests={} ok={ok} reads={reads} ends={ends}", 2 * REQUESTS);
    let as_it_should = ok == 2 * REQUESTS && reads == 2 && ends;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An API, and who renews its tokens.
struct Server {
    address: String,
    good: Arc<Mutex<String>>,
}

impl Server {
    async fn start() -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let good = Arc::<Mutex<String>>::default();
        let router = Router::new().route("/data", get(data)).with_state(Arc::clone(&good));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, good })
    }

    /// Writes a new token, whole or not at all: the file is moved into its place.
    fn renew(&self, file: &Path) -> Result<(), BoxError> {
        let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3600;
        let claims = json!({ "exp": end, "jti": fastrand::u64(..) }).to_string();
        let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{token}\n"))?;
        std::fs::rename(new, file)?;
        *self.good.lock().unwrap() = token;
        Ok(())
    }
}

async fn data(State(good): State<Arc<Mutex<String>>>, headers: HeaderMap) -> StatusCode {
    let good = format!("Bearer {}", good.lock().unwrap());
    let is_good = headers.get(header::AUTHORIZATION).is_some_and(|brought| *brought == *good);
    if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}
