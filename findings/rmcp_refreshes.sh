#!/bin/sh
# rmcp's own OAuth client: sixteen calls that are refused together redeem sixteen refresh tokens, and a call that is
# dropped while the server redeems takes the sign-in with it.
#
# `AuthClient` answers a 401 by a refresh, under a lock, so one could think that the second call finds the
# new token. What it does:
#
#   sixteen calls, one expired token       | redeemed | calls that succeed
#   ---------------------------------------+----------+-------------------
#                                          | 16       | 16
#
#   a call is dropped after the server has redeemed, and before its answer has come;
#   the next call                          | Auth required
#
# Expected, and not seen: one redeem, since those who waited for the lock could see that the token has changed since
# they were refused; and a refresh that goes on when the call that began it is dropped. A tool call is dropped
# whenever its user presses Escape. Only a refusal is answered like this: with an expiry that is known to have passed,
# the second one looks again, and redeems nothing.
#
# Pinned: rmcp 3.11.0 (crates.io).
#
# Needs cargo. Runs without tower-refresh, in a folder of its own. Fails if the behaviour is another one by now.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src

cat >Cargo.toml <<'TOML'
[workspace]
[package]
name = "rmcp-refreshes"
version = "0.1.0"
edition = "2024"
[dependencies]
axum = "=0.8.9"
futures = "0.3"
http = "1"
reqwest = { version = "0.13", default-features = false }
rmcp = { version = "=3.11.0", default-features = false, features = ["auth", "client", "transport-streamable-http-client-reqwest"] }
serde_json = "1"
tokio = { version = "1", features = ["full"] }
TOML

cat >src/main.rs <<'RUST'
use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::{
        auth::{
            AuthClient, AuthorizationManager, AuthorizationMetadata, CredentialStore,
            InMemoryCredentialStore, OAuthClientConfig, StoredCredentials,
        },
        streamable_http_client::StreamableHttpClient,
    },
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::sync::{Barrier, Notify};

const CALLS: usize = 16;

#[derive(Clone)]
struct Server {
    redeemed: Arc<AtomicUsize>,
    good: Arc<Mutex<usize>>,
    together: Arc<Barrier>,
    hold: Option<Arc<Notify>>,
    at_work: Arc<Notify>,
}

fn pair(number: usize) -> serde_json::Value {
    json!({"access_token": format!("access-{number}"), "refresh_token": format!("refresh-{number}"), "token_type": "Bearer", "expires_in": 3600})
}

async fn token(
    State(server): State<Server>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    server.redeemed.fetch_add(1, SeqCst);
    let pair = {
        let mut good = server.good.lock().unwrap();
        // For single use, as RFC 9700 asks of public clients.
        if form.get("refresh_token") != Some(&format!("refresh-{good}")) {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"})))
                .into_response();
        }
        *good += 1;
        pair(*good)
    };
    server.at_work.notify_one();
    if let Some(hold) = &server.hold {
        hold.notified().await;
    }
    Json(pair).into_response()
}

async fn mcp(State(server): State<Server>, headers: HeaderMap) -> Response {
    let brought =
        headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    if brought == "Bearer access-1" {
        server.together.wait().await;
        return (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Bearer error=\"invalid_token\"")],
        )
            .into_response();
    }
    StatusCode::ACCEPTED.into_response()
}

async fn client(
    together: usize,
    hold: Option<Arc<Notify>>,
) -> (Server, AuthClient<reqwest::Client>, Arc<str>) {
    let server = Server {
        redeemed: Arc::default(),
        good: Arc::new(Mutex::new(1)),
        together: Arc::new(Barrier::new(together)),
        hold,
        at_work: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/token", post(token))
        .route("/mcp", post(mcp))
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let store = InMemoryCredentialStore::new();
    let tokens = serde_json::from_value(pair(1)).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    store
        .save(StoredCredentials::new("client".into(), Some(tokens), vec![], Some(now)))
        .await
        .unwrap();
    let mut manager = AuthorizationManager::new(base.as_str()).await.unwrap();
    manager.set_credential_store(store);
    let mut metadata = AuthorizationMetadata::default();
    metadata.authorization_endpoint = format!("{base}/authorize");
    metadata.token_endpoint = format!("{base}/token");
    manager.set_metadata(metadata);
    manager
        .configure_client(OAuthClientConfig::new("client", "http://localhost/callback"))
        .unwrap();
    (server, AuthClient::new(reqwest::Client::new(), manager), format!("{base}/mcp").into())
}

async fn call(client: AuthClient<reqwest::Client>, uri: Arc<str>) -> String {
    let message: ClientJsonRpcMessage =
        serde_json::from_value(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .unwrap();
    match client.post_message(uri, message, None, None, HashMap::new()).await {
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

#[tokio::main]
async fn main() {
    let (server, together, uri) = client(CALLS, None).await;
    let calls = (0..CALLS).map(|_| call(together.clone(), uri.clone()));
    let ok = futures::future::join_all(calls).await.iter().filter(|it| *it == "ok").count();
    println!("calls={CALLS} ok={ok} redeemed={}", server.redeemed.load(SeqCst));

    let hold = Arc::new(Notify::new());
    let (server, dropped, uri) = client(1, Some(hold.clone())).await;
    let first = tokio::spawn(call(dropped.clone(), uri.clone()));
    server.at_work.notified().await;
    first.abort();
    let _ = first.await;
    hold.notify_one();
    hold.notify_one();
    println!("after a call that was dropped: {}", call(dropped, uri).await);
}
RUST

cargo run --quiet >seen
cat seen
cat >expected <<'TEXT'
calls=16 ok=16 redeemed=16
after a call that was dropped: Auth required
TEXT
diff expected seen
