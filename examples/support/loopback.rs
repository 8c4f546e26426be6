//! An authorization server and an API on loopback TCP, as strict as real ones: refresh
//! tokens are for single use, and one that comes a second time revokes the whole family.
//! Both speak HTTP/1 and HTTP/2.

#![allow(dead_code)] // each example uses its part

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Form, Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tower_refresh::Tokens;

/// The two servers. They go on until the program ends.
#[derive(Clone)]
pub struct Loopback {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    latency: Duration,
    book: Mutex<Book>,
    /// Whether requests marked `x-late` are answered.
    late: watch::Sender<bool>,
}

/// What the servers know, and what they saw.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The one access token that is good.
    access: Option<String>,
    /// The one refresh token that is good.
    refresh: Option<String>,
    minted: u64,
    spent: HashSet<String>,
    /// How many tokens were given out for a refresh token or for client credentials.
    pub refreshes: usize,
    /// How many refresh tokens came a second time.
    pub token_reuse: usize,
    /// How many tokens were revoked at their owner's request.
    pub revoked: usize,
    /// How many requests the API accepted, and how many it refused.
    pub ok: usize,
    /// See [`Self::ok`].
    pub unauthorized: usize,
}

/// The client that the authorization server knows.
pub const CLIENT_ID: &str = "example";
/// Its secret.
pub const CLIENT_SECRET: &str = "example-secret";

impl Loopback {
    /// Starts both servers. Every answer takes `latency`.
    pub async fn start(latency: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let (book, late) = (Mutex::default(), watch::Sender::new(false));
        let shared = Arc::new(Shared { latency, book, late });
        let router = Router::new()
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/api", any(api))
            .route("/api/{*path}", any(api))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where tokens are given out.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.address)
    }

    /// Where tokens are revoked.
    pub fn revocation_endpoint(&self) -> String {
        format!("{}/revoke", self.address)
    }

    /// A protected resource, which echoes what it is sent.
    pub fn api(&self) -> String {
        format!("{}/api", self.address)
    }

    /// New tokens for a user who has just signed in.
    pub fn sign_in(&self) -> Tokens {
        let mut book = self.shared.book();
        let (access, refresh) = book.mint();
        Tokens::new(access).with_refresh_token(refresh)
    }

    /// From now on the API refuses every access token that was given out so far.
    pub fn expire_access_token(&self) {
        self.shared.book().access = None;
    }

    /// Answers the requests that were marked `x-late` and are held back so far.
    pub fn answer_late(&self) {
        self.shared.late.send_replace(true);
    }

    /// What the servers saw.
    pub fn book(&self) -> Book {
        self.shared.book().clone()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn mint(&mut self) -> (String, String) {
        self.minted += 1;
        let (access, refresh) =
            (format!("access-{}", self.minted), format!("refresh-{}", self.minted));
        self.access = Some(access.clone());
        self.refresh = Some(refresh.clone());
        (access, refresh)
    }

    fn redeem(&mut self, token: &str) -> Result<(String, String), &'static str> {
        if self.spent.contains(token) {
            // Somebody has stolen it: nobody gets anything any more.
            self.token_reuse += 1;
            (self.access, self.refresh) = (None, None);
            return Err("the refresh token was used before");
        }
        if self.refresh.as_deref() != Some(token) {
            return Err("the refresh token is not known");
        }
        self.spent.insert(token.to_owned());
        self.refreshes += 1;
        Ok(self.mint())
    }
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    refresh_token: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

async fn token(State(shared): State<Arc<Shared>>, Form(form): Form<TokenRequest>) -> Response {
    sleep(shared.latency).await;
    let refuse = |error, description| {
        let words = json!({ "error": error, "error_description": description });
        (StatusCode::BAD_REQUEST, Json(words)).into_response()
    };
    let mut book = shared.book();
    let minted = match (&*form.grant_type, &form.refresh_token) {
        ("refresh_token", Some(token)) => match book.redeem(token) {
            Ok(minted) => minted,
            Err(description) => return refuse("invalid_grant", description),
        },
        ("client_credentials", None) => {
            let secret = form.client_secret.as_deref();
            if form.client_id.as_deref() != Some(CLIENT_ID) || secret != Some(CLIENT_SECRET) {
                return refuse("invalid_client", "no such client");
            }
            book.refreshes += 1;
            let (access, _) = book.mint();
            let answer = json!({ "access_token": access, "token_type": "Bearer", "expires_in": 3600 });
            return Json(answer).into_response();
        }
        _ => return refuse("unsupported_grant_type", "there are two kinds"),
    };
    let (access, refresh) = minted;
    Json(json!({
        "access_token": access,
        "refresh_token": refresh,
        "token_type": "Bearer",
        "expires_in": 3600,
    }))
    .into_response()
}

#[derive(Deserialize)]
struct RevocationRequest {
    token: String,
}

async fn revoke(State(shared): State<Arc<Shared>>, Form(form): Form<RevocationRequest>) {
    let mut book = shared.book();
    let known = |held: &Option<String>| held.as_ref() == Some(&form.token);
    if known(&book.refresh) || known(&book.access) {
        book.revoked += 1;
        (book.access, book.refresh) = (None, None);
    }
}

/// Reads the whole body, and echoes it if the token is good.
async fn api(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let good = {
        let mut book = shared.book();
        let good = book.access.as_ref().map(|token| format!("Bearer {token}"));
        let brought = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let good = good.is_some() && brought == good.as_deref();
        *(if good { &mut book.ok } else { &mut book.unauthorized }) += 1;
        good
    };
    sleep(shared.latency).await;
    if good {
        return body.into_response();
    }
    if headers.contains_key("x-late") {
        // An error would mean that the server is gone.
        let _ = shared.late.subscribe().wait_for(|answered| *answered).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}
