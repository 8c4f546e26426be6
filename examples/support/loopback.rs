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
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tower_refresh::Tokens;

/// Serves on loopback until the program ends, HTTP/1 and HTTP/2, as many requests at once
/// as come. Returns `http://127.0.0.1:<port>`.
pub(crate) async fn serve(router: Router) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Without it, small answers on a connection that is used again come late.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(None);
                // How a client leaves is the client's affair.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

/// The two servers. They go on until the program ends.
#[derive(Clone)]
pub(crate) struct Loopback {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    latency: Duration,
    book: Mutex<Book>,
    hold: watch::Sender<Hold>,
}

/// Which refusals are held back.
#[derive(Default)]
struct Hold {
    /// Until there are so many.
    together: usize,
    refused: usize,
    /// How many requests marked `x-late` are held, and whether they are answered.
    late: usize,
    answer_late: bool,
}

/// What the servers know, and what they saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// The one access token that is good.
    access: Option<String>,
    /// The one refresh token that is good.
    refresh: Option<String>,
    minted: u64,
    spent: HashSet<String>,
    /// How many tokens were given out for a refresh token or for client credentials.
    pub(crate) refreshes: usize,
    /// How many refresh tokens came a second time.
    pub(crate) token_reuse: usize,
    /// How many tokens were revoked at their owner's request.
    pub(crate) revoked: usize,
    /// How many requests the API accepted, and how many it refused.
    pub(crate) ok: usize,
    /// See [`Self::ok`].
    pub(crate) unauthorized: usize,
}

/// What the authorization server says of every access token's life.
const LIFE: Duration = Duration::from_secs(3600);

/// The client that the authorization server knows.
pub(crate) const CLIENT_ID: &str = "example";
/// Its secret.
pub(crate) const CLIENT_SECRET: &str = "example-secret";

impl Loopback {
    /// Starts both servers. Every answer takes `latency`.
    pub(crate) async fn start(latency: Duration) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { latency, book: Mutex::default(), hold: watch::Sender::default() });
        let router = Router::new()
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/api", any(api))
            .route("/api/{*path}", any(api))
            .route("/stream", any(stream))
            .with_state(Arc::clone(&shared));
        Ok(Self { address: serve(router).await?, shared })
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where tokens are given out.
    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/token", self.address)
    }

    /// Where tokens are revoked.
    pub(crate) fn revocation_endpoint(&self) -> String {
        format!("{}/revoke", self.address)
    }

    /// A protected resource, which echoes what it is sent.
    pub(crate) fn api(&self) -> String {
        format!("{}/api", self.address)
    }

    /// A protected resource that echoes each chunk as it comes, and refuses without having
    /// read anything.
    pub(crate) fn stream(&self) -> String {
        format!("{}/stream", self.address)
    }

    /// New tokens for a user who has just signed in.
    pub(crate) fn sign_in(&self) -> Tokens {
        let mut book = self.shared.book();
        let (access, refresh) = book.mint();
        Tokens::new(access).with_refresh_token(refresh).with_expires_in(LIFE)
    }

    /// From now on the API refuses every access token that was given out so far.
    pub(crate) fn expire_access_token(&self) {
        self.shared.book().access = None;
    }

    /// Holds refusals back until there are so many, so that all learn of it at once.
    /// Those marked `x-late` do not count.
    pub(crate) fn refuse_together(&self, count: usize) {
        self.shared.hold.send_modify(|hold| hold.together = count);
    }

    /// Waits until a request that is marked `x-late` was refused, and is held back.
    pub(crate) async fn late_refused(&self) {
        // The sender is in `self`: this cannot end in an error.
        let _ = self.shared.hold.subscribe().wait_for(|hold| hold.late > 0).await;
    }

    /// Answers the requests that were marked `x-late`.
    pub(crate) fn answer_late(&self) {
        self.shared.hold.send_modify(|hold| hold.answer_late = true);
    }

    /// Says, when the time has come, whether a request to some other server brings the
    /// good access token.
    pub(crate) async fn judge(&self, headers: &HeaderMap) -> bool {
        self.shared.judge(headers).await
    }

    /// What the servers saw.
    pub(crate) fn book(&self) -> Book {
        self.shared.book().clone()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Says when the time has come whether a request brings the good access token.
    async fn judge(&self, headers: &HeaderMap) -> bool {
        let good = self.book().judge(headers);
        sleep(self.latency).await;
        if !good {
            let late = headers.contains_key("x-late");
            self.hold
                .send_modify(|hold| *(if late { &mut hold.late } else { &mut hold.refused }) += 1);
            let over =
                |hold: &Hold| if late { hold.answer_late } else { hold.refused >= hold.together };
            // The sender is in `self`: this cannot end in an error.
            let _ = self.hold.subscribe().wait_for(over).await;
        }
        good
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

    /// Whether a request brings the good access token.
    fn judge(&mut self, headers: &HeaderMap) -> bool {
        let good = self.access.as_ref().map(|token| format!("Bearer {token}"));
        let brought = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let good = good.is_some() && brought == good.as_deref();
        *(if good { &mut self.ok } else { &mut self.unauthorized }) += 1;
        good
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
            return Json(json!({
                "access_token": access,
                "token_type": "Bearer",
                "expires_in": LIFE.as_secs(),
            }))
            .into_response();
        }
        _ => return refuse("unsupported_grant_type", "there are two kinds"),
    };
    let (access, refresh) = minted;
    Json(json!({
        "access_token": access,
        "refresh_token": refresh,
        "token_type": "Bearer",
        "expires_in": LIFE.as_secs(),
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
    if shared.judge(&headers).await { body.into_response() } else { refuse() }
}

async fn stream(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    if shared.book().judge(&headers) { Response::new(body) } else { refuse() }
}

fn refuse() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}
