//! Refresh endpoints that speak JSON and not OAuth: simplejwt's (Django) and Matrix's.
//!
//! ```text
//! cargo run -p examples --example json_endpoint
//! ```
//!
//! Starts both on loopback, sends a hundred requests at once to each while the access token has
//! run out, ends both sessions, and exits with 1 if anything is not as it should be.

use std::{process::ExitCode, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use testing::loopback::{Book, Verdict};
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet, time::timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{BoxError, FailureKind, RefreshError, RefreshLayer, RefreshState, Tokens};

const REQUESTS: usize = 100;

// ---- What a user of the crate writes.

/// A refresh endpoint that takes and gives JSON.
#[derive(Clone)]
struct Endpoint {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: String,
    dialect: Dialect,
}

/// What an endpoint calls things.
#[derive(Clone, Copy)]
struct Dialect {
    sends: &'static str,
    access: &'static str,
    refresh: &'static str,
    /// In milliseconds.
    life: Option<&'static str>,
    /// Where the error's code is, and the code of a refresh token that is dead.
    code: &'static str,
    dead: &'static str,
}

/// The life is in the token itself (a JWT's `exp`): nothing is lost without it, because the
/// token is then used until it is refused.
const SIMPLEJWT: Dialect = Dialect {
    sends: "refresh",
    access: "access",
    refresh: "refresh",
    life: None,
    code: "code",
    dead: "token_not_valid",
};

/// Synapse keeps the old refresh token good until a new one is used: an answer that was lost
/// is asked for again, and no session ends by it.
const MATRIX: Dialect = Dialect {
    sends: "refresh_token",
    access: "access_token",
    refresh: "refresh_token",
    life: Some("expires_in_ms"),
    code: "errcode",
    dead: "M_UNKNOWN_TOKEN",
};

impl Endpoint {
    async fn redeem(self, spent: Tokens) -> Result<Tokens, RefreshError> {
        // A time limit of its own: the state never cuts a refresher off.
        let answer = timeout(Duration::from_secs(30), self.ask(&spent)).await;
        let (status, body) = answer.map_err(RefreshError::transient)??;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        if !status.is_success() {
            let code = text(self.dialect.code).unwrap_or_default();
            // The status alone ends no session: a proxy may have sent it.
            let error = if code == self.dialect.dead {
                RefreshError::rejected(format!("the endpoint said {code}"))
            } else if status.is_client_error() {
                RefreshError::transient(format!("the endpoint said {status}")).unspent()
            } else {
                RefreshError::transient(format!("the endpoint said {status}")).answered()
            };
            return Err(error.with_code(if code.is_empty() { status.as_str() } else { code }));
        }
        let access = text(self.dialect.access);
        let access = access.ok_or_else(|| RefreshError::transient("there is no access token"))?;
        let mut tokens = Tokens::new(access);
        // Without one the old refresh token is kept.
        if let Some(refresh) = text(self.dialect.refresh) {
            tokens = tokens.with_refresh_token(refresh);
        }
        let life = self.dialect.life.and_then(|name| body.get(name)?.as_u64());
        if let Some(life) = life {
            tokens = tokens.with_expires_in(Duration::from_millis(life));
        }
        Ok(tokens)
    }

    async fn ask(&self, spent: &Tokens) -> Result<(StatusCode, Value), RefreshError> {
        let sent = json!({ self.dialect.sends: spent.refresh_token() });
        let request = Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(sent.to_string()))
            .map_err(RefreshError::transient)?;
        let response = self.client.request(request).await.map_err(|error| {
            let was_sent = !error.is_connect();
            let error = RefreshError::transient(error);
            if was_sent { error } else { error.unspent() }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), 1 << 20).collect().await;
        let body = body.map_err(RefreshError::transient)?.to_bytes();
        // serde_json's error would quote the body.
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

fn signed_in(endpoint: Endpoint, tokens: Tokens) -> Arc<RefreshState> {
    RefreshState::builder(move |spent: Tokens| endpoint.clone().redeem(spent))
        .tokens(tokens)
        .build()
}
// ----

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mut as_it_should = true;
    for (name, path, dialect) in [
        ("simplejwt", "/api/token/refresh/", SIMPLEJWT),
        ("matrix", "/_matrix/client/v3/refresh", MATRIX),
    ] {
        let server = Server::start(path, dialect).await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("{}{path}", server.address);
        let pair = server.book.lock().await.sign_in();
        let state = signed_in(Endpoint { client, uri, dialect }, pair.tokens());
        server.book.lock().await.expire_access_token();

        let client = ServiceBuilder::new()
            .layer(RefreshLayer::new(Arc::clone(&state)))
            .service(Client::builder(TokioExecutor::new()).build_http());
        let mut callers = JoinSet::new();
        for _ in 0..REQUESTS {
            let (client, uri) = (client.clone(), format!("{}/data", server.address));
            callers.spawn(async move {
                let request = Request::get(uri).body(Empty::<Bytes>::new())?;
                Ok::<_, BoxError>(client.oneshot(request).await?.status() == StatusCode::OK)
            });
        }
        let mut ok = 0;
        while let Some(done) = callers.join_next().await {
            ok += usize::from(done??);
        }
        let life = state.current().expires_at().is_some();
        let (refreshes, refresh) = {
            let book = server.book.lock().await;
            (book.refreshes, book.current().refresh)
        };

        server.book.lock().await.revoke(&refresh);
        let ended = state.refresh().await.err().map(|failure| failure.kind());
        println!("{name}: requests={REQUESTS} ok={ok} refreshes={refreshes} life={life}");
        as_it_should &= ok == REQUESTS && refreshes == 1 && life == dialect.life.is_some();
        as_it_should &= ended == Some(FailureKind::Rejected);
    }
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A service with such an endpoint.
struct Server {
    address: String,
    book: Arc<Mutex<Book>>,
}

type Shared = State<(Arc<Mutex<Book>>, Dialect)>;

impl Server {
    async fn start(path: &str, dialect: Dialect) -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let book = Arc::new(Mutex::new(Book::new()));
        let router = Router::new()
            .route(path, post(refresh))
            .route("/data", get(data))
            .with_state((Arc::clone(&book), dialect));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, book })
    }
}

async fn refresh(State((book, dialect)): Shared, sent: Bytes) -> (StatusCode, String) {
    let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
    let spent = sent.get(dialect.sends).and_then(Value::as_str).unwrap_or_default();
    match book.lock().await.redeem(spent) {
        Verdict::Renewed(pair) | Verdict::Again(pair) => {
            let mut body = json!({ dialect.access: pair.access, dialect.refresh: pair.refresh });
            if let Some(name) = dialect.life {
                body[name] = json!(3_600_000);
            }
            (StatusCode::OK, body.to_string())
        }
        _ => (StatusCode::UNAUTHORIZED, json!({ dialect.code: dialect.dead }).to_string()),
    }
}

async fn data(State((book, _)): Shared, headers: HeaderMap) -> StatusCode {
    let brought = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = brought.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if book.lock().await.accepts(token) { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}
