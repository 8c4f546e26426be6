//! A refresher of one's own, without OAuth: a session is opened with an API key, and its id
//! goes into a header of its own.
//!
//! ```text
//! cargo run -p examples --example custom_refresher
//! ```
//!
//! Starts such a service on loopback, which forgets its sessions between two rounds of a
//! hundred requests. Exits with 1 if anything is not as it should be.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing::get, routing::post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    BoxError, BoxFuture, RefreshError, RefreshLayer, RefreshState, Refresher, Tokens,
    refresher::RefreshRequest,
};

const REQUESTS: usize = 100;
const SESSION: HeaderName = HeaderName::from_static("x-session");

// ---- What a user of the crate writes.

/// Opens a session with an API key.
struct OpenSession {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: String,
    api_key: String,
}

impl OpenSession {
    async fn open(&self) -> Result<Tokens, RefreshError> {
        let request = Request::post(&self.uri)
            .header("x-api-key", &self.api_key)
            .body(Empty::new())
            .map_err(RefreshError::rejected)?;
        let response = self.client.request(request).await.map_err(RefreshError::transient)?;
        match response.status() {
            StatusCode::OK => {}
            // The key is not good: trying again would not help.
            StatusCode::FORBIDDEN => return Err(RefreshError::rejected("the key is not known")),
            // The service's own word for it goes into the log, and its error does not.
            status => {
                let error = RefreshError::transient(format!("the service said {status}"));
                return Err(error.answered().with_code(status.as_str()));
            }
        }
        let body = Limited::new(response.into_body(), 1024).collect();
        let body = body.await.map_err(RefreshError::transient)?.to_bytes();
        let id = std::str::from_utf8(&body).map_err(RefreshError::transient)?;
        Ok(Tokens::new(id).with_expires_in(Duration::from_secs(600)))
    }
}

impl Refresher for OpenSession {
    fn refresh(&self, _: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async {
            let opened = timeout(Duration::from_secs(10), self.open()).await;
            opened.unwrap_or_else(|_| Err(RefreshError::transient("no answer within 10 s")))
        })
    }

    fn needs_tokens(&self) -> bool {
        false
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let server = Server::start().await?;
    let plain = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("{}/sessions", server.address);
    let refresher = OpenSession { client: plain.clone(), uri, api_key: "my-key".into() };
    let state = RefreshState::builder(refresher).build();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state).attach_header(SESSION))
        .service(Client::builder(TokioExecutor::new()).build_http());
    // ----

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
        server.sessions.forget();
    }
    let opened = server.sessions.opened.load(SeqCst);
    println!("requests={} ok={ok} sessions={opened}", 2 * REQUESTS);
    let as_it_should = ok == 2 * REQUESTS && opened == 2;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A service that wants a session.
struct Server {
    address: String,
    sessions: Arc<Sessions>,
}

#[derive(Default)]
struct Sessions {
    opened: AtomicUsize,
    /// The session that is known, by its number.
    good: AtomicUsize,
}

impl Sessions {
    fn forget(&self) {
        self.good.store(0, SeqCst);
    }
}

impl Server {
    async fn start() -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let sessions = Arc::new(Sessions::default());
        let router = Router::new()
            .route("/sessions", post(open))
            .route("/data", get(data))
            .with_state(Arc::clone(&sessions));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, sessions })
    }
}

async fn open(
    State(sessions): State<Arc<Sessions>>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    if headers.get("x-api-key").is_none_or(|key| key != "my-key") {
        return Err(StatusCode::FORBIDDEN);
    }
    let number = sessions.opened.fetch_add(1, SeqCst) + 1;
    sessions.good.store(number, SeqCst);
    Ok(format!("session-{number}"))
}

async fn data(State(sessions): State<Arc<Sessions>>, headers: HeaderMap) -> StatusCode {
    let good = sessions.good.load(SeqCst);
    let good = headers.get(SESSION).is_some_and(|id| id == format!("session-{good}").as_str());
    if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}
