//! A web application whose sessions are tower-sessions', with a credential for each of them: a browser sends twenty
//! requests at the same time when its session's token has just expired. One refresh, and each is answered.
//!
//! The tokens are not in the session's data: two requests that save them at the same time would lose one of them. The session's
//! id names their record in a store. (`Sessions`, feature `session`, does all of it, with a cookie of its own.)

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use scenery::{AnyError, Loopback};
use tokio::net::TcpListener;
use tower_refresh::{
    FromExtensions, RefreshLayer, RefreshMiddleware, RefreshState, Renewal, Tokens,
    store::{MemoryStores, Stores},
};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

// ---- What a user writes: a credential for each session, found by the session's id.
#[derive(Clone)]
struct Credentials {
    renewal: Renewal,
    stores: Arc<dyn Stores>,
    /// One for each session that is in use; `guide::many` says when they may go.
    states: Arc<Mutex<HashMap<String, Arc<RefreshState>>>>,
}

impl Credentials {
    fn of(&self, session: &str) -> Arc<RefreshState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = || self.renewal.state(self.stores.store(session));
        Arc::clone(states.entry(session.to_owned()).or_insert_with(state))
    }
}

/// Puts the session's credential into the request's extensions.
async fn credential(
    Extension(credentials): Extension<Credentials>,
    session: Session,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(id) = session.id() {
        request.extensions_mut().insert(credentials.of(&id.to_string()));
    }
    next.run(request).await
}

async fn sign_in(
    session: Session,
    credentials: &Credentials,
    tokens: Tokens,
) -> Result<(), AnyError> {
    // A new id, as at every sign-in, and a record that is there before the cookie is.
    session.cycle_id().await?;
    session.save().await?;
    let id = session.id().ok_or("a session that is saved has an id")?;
    credentials.of(&id.to_string()).set(tokens).await?;
    Ok(())
}

fn client() -> ClientWithMiddleware {
    let refresh = RefreshMiddleware::new(RefreshLayer::per_request(FromExtensions));
    ClientBuilder::new(reqwest::Client::new()).with(refresh.error_on_refusal()).build()
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let credentials = Credentials {
        renewal: scenery::renewal(&servers)?,
        stores: Arc::new(MemoryStores::new()),
        states: Arc::default(),
    };
    let address = serve(servers.clone(), credentials).await?;

    scenery::as_a_browser(&servers, &address).await
}

async fn serve(servers: Loopback, credentials: Credentials) -> Result<String, AnyError> {
    let api = servers.api();
    let (client, known) = (client(), credentials.clone());
    let orders = async move |Extension(credential): Extension<Arc<RefreshState>>| {
        let sent = client.get(api).with_extension(credential).send().await;
        sent.map(|answer| (StatusCode::OK, answer.status().to_string()))
            .map_err(|error| (StatusCode::UNAUTHORIZED, scenery::in_one_line(&error)))
    };
    let callback = async move |session: Session| {
        let signed_in = sign_in(session, &known, servers.sign_in()).await;
        signed_in.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    };
    let app = Router::new()
        .route("/orders", get(orders))
        .route("/sign_in", post(callback))
        .layer(middleware::from_fn(credential))
        .layer(Extension(credentials))
        .layer(SessionManagerLayer::new(MemoryStore::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
