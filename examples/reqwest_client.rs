//! reqwest with one extra line: a hundred requests, an expired token, one refresh.
//!
//! ```text
//! cargo run --example reqwest_client --features reqwest-middleware
//! ```
//!
//! Starts a strict server on loopback: a refresh token is for single use, and spending one
//! twice revokes everything, as real servers do. Then the access token expires, and a hundred
//! `client.post(url).json(..).send()` find out at the same time. Exits with 1 unless each of
//! them came through, whole, on one refresh.

use std::{
    collections::HashSet,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::post,
};
use reqwest_middleware::ClientBuilder;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Barrier, task::JoinSet};
use tower_refresh::{RefreshError, RefreshLayer, RefreshMiddleware, RefreshState, Tokens};

type AnyError = Box<dyn Error + Send + Sync>;

const REQUESTS: usize = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    // What should take no time must not take for ever.
    tokio::time::timeout(Duration::from_secs(60), run()).await?
}

async fn run() -> Result<ExitCode, AnyError> {
    let server = Arc::new(Server::new());
    let origin = serve(Arc::clone(&server)).await?;

    // ---- What a user of the crate writes: who redeems, with a client of its own ...
    let plain = reqwest::Client::builder().no_proxy().build()?;
    let (client, token_endpoint) = (plain.clone(), format!("{origin}/token"));
    let state = RefreshState::builder(move |spent: Tokens| {
        let (client, uri) = (client.clone(), token_endpoint.clone());
        async move {
            let refresh_token = spent.refresh_token().unwrap_or_default().to_owned();
            let request = client.post(uri).body(refresh_token);
            let response = request.send().await.map_err(RefreshError::transient)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::BAD_REQUEST => return Err(RefreshError::rejected("invalid_grant")),
                status => return Err(RefreshError::transient(format!("the server said {status}"))),
            }
            let answer = response.text().await.map_err(RefreshError::transient)?;
            let (access, refresh) =
                answer.split_once(' ').ok_or_else(|| RefreshError::transient("malformed"))?;
            Ok(Tokens::new(access).with_refresh_token(refresh))
        }
    })
    .tokens(server.sign_in())
    .build();

    // ---- ... and one line more for the client.
    let client = ClientBuilder::new(plain)
        .with(RefreshMiddleware::new(RefreshLayer::new(Arc::clone(&state)).allow_origin(&origin)?))
        .build();

    println!("{REQUESTS} requests are sent with a token that has just expired\n");
    server.expire_access_token();
    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        callers
            .spawn(client.post(format!("{origin}/upload/{number}")).json(&document(number)).send());
    }
    let mut ok = 0;
    while let Some(response) = callers.join_next().await {
        ok += usize::from(response??.status() == StatusCode::OK);
    }
    state.drain().await;

    let seen = server.books();
    println!(
        "requests={REQUESTS} ok={ok} refreshes={} token_reuse={}",
        seen.refreshes, seen.token_reuse
    );
    let as_promised = ok == REQUESTS
        && seen.whole.len() == REQUESTS
        && seen.refreshes == 1
        && seen.token_reuse == 0
        && state.status().counts.refreshes == 1;
    if !as_promised {
        eprintln!("that is not what should have happened: {:?}", state.status());
    }
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Some kilobytes that no two requests share.
fn document(number: usize) -> Value {
    json!({ "number": number, "text": format!("document {number}; ").repeat(200) })
}

struct Server {
    books: Mutex<Books>,
    /// No 401 goes out before everybody has come with the expired token.
    refused: Barrier,
}

#[derive(Default)]
struct Books {
    issued: u64,
    access: String,
    refresh: String,
    spent: HashSet<String>,
    refreshes: usize,
    token_reuse: usize,
    /// Whose document came whole with a good token.
    whole: HashSet<usize>,
}

impl Server {
    fn new() -> Self {
        Self { books: Mutex::default(), refused: Barrier::new(REQUESTS) }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign_in(&self) -> Tokens {
        let mut books = self.books();
        books.issue();
        Tokens::new(books.access.clone()).with_refresh_token(books.refresh.clone())
    }

    fn expire_access_token(&self) {
        self.books().access.clear();
    }
}

impl Books {
    fn issue(&mut self) {
        self.issued += 1;
        self.access = format!("access-{}", self.issued);
        self.refresh = format!("refresh-{}", self.issued);
    }
}

/// `POST /token`: redeems a refresh token, once.
async fn token(State(server): State<Arc<Server>>, refresh: String) -> (StatusCode, String) {
    let mut books = server.books();
    if books.spent.contains(&refresh) {
        books.token_reuse += 1;
        books.access.clear();
        books.refresh.clear();
    }
    if refresh.is_empty() || refresh != books.refresh {
        return (StatusCode::BAD_REQUEST, "invalid_grant".into());
    }
    books.spent.insert(refresh);
    books.issue();
    books.refreshes += 1;
    (StatusCode::OK, format!("{} {}", books.access, books.refresh))
}

/// `POST /upload/{number}`: takes the document of that number, with a good token only.
async fn upload(
    State(server): State<Arc<Server>>,
    Path(number): Path<usize>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if token.is_empty() || token != server.books().access {
        server.refused.wait().await;
        return StatusCode::UNAUTHORIZED;
    }
    if body != document(number).to_string() || !server.books().whole.insert(number) {
        return StatusCode::BAD_REQUEST;
    }
    StatusCode::OK
}

/// Serves on a loopback port, and returns the origin.
async fn serve(server: Arc<Server>) -> Result<String, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/token", post(token))
        .route("/upload/{number}", post(upload))
        .with_state(server);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(origin)
}
