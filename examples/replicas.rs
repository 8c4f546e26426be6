//! Three replicas of a service share one credential in Redis.
//!
//! ```text
//! cargo run -p examples --example replicas
//! ```
//!
//! To copy it, turn on the features `oauth2-client`, `redis`.
//!
//! Starts a Redis server of its own (`apt-get install redis-server`), an authorization
//! server, an API, and three replicas of an axum service that calls the API. Each replica
//! has an HTTP server, a connection to Redis and a `RefreshState` of its own. Then the
//! access token expires, and a hundred requests at once, spread over the three, are refused
//! by the API at the same time: one refresh among them. Exits with 1 if anything is not as
//! it should be.

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use testing::{
    RedisServer,
    loopback::{CLIENT_ID, Loopback},
};
use tokio::{net::TcpListener, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    RefreshLayer, RefreshState,
    body::ReplayBody,
    layer::Refresh,
    oauth2,
    store::{Keyring, RedisStores},
};

type AnyError = Box<dyn Error + Send + Sync>;
type Api = Refresh<Client<HttpConnector, ReplayBody<Full<bytes::Bytes>>>>;

const REPLICAS: usize = 3;
const REQUESTS: usize = 100;

/// One of them, as it would be started on a machine of its own.
async fn replica(
    redis: &str,
    key: [u8; 32],
    servers: &Loopback,
) -> Result<(String, Arc<RefreshState>), AnyError> {
    let stores = RedisStores::builder(redis, Keyring::new(key)).build()?;
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.build()?;
    let state =
        RefreshState::builder(oauth.refresh_token_grant()).store(stores.store("orders")).build();
    let api = ServiceBuilder::new()
        .layer(RefreshLayer::new(Arc::clone(&state)).allow_origin(servers.address())?)
        .service(Client::builder(TokioExecutor::new()).build_http());
    let router = Router::new().route("/orders", get(orders)).with_state((api, servers.api()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((address, state))
}

/// Asks the API, with the replica's token.
async fn orders(State((api, uri)): State<(Api, String)>) -> Response {
    let asked = Request::post(uri).body(Full::from("orders"));
    let asked = asked.map_err(AnyError::from);
    let answer = async { Ok::<_, AnyError>(api.oneshot(asked?).await?) };
    match answer.await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let redis = RedisServer::start();
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let (mut addresses, mut states) = (Vec::new(), Vec::new());
    for _ in 0..REPLICAS {
        let (address, state) = replica(&redis.url(), key, &servers).await?;
        addresses.push(address);
        states.push(state);
    }

    // The user signs in at one of them; the others find the tokens in Redis.
    states[0].set(servers.sign_in()).await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    for address in &addresses {
        if !ask(client.clone(), format!("{address}/orders")).await? {
            return Err("a replica has no token".into());
        }
    }

    println!("{REQUESTS} requests come to {REPLICAS} replicas whose token has just expired");
    servers.expire_access_token();
    servers.refuse_together(REQUESTS);
    let mut requests = JoinSet::new();
    for address in addresses.iter().cycle().take(REQUESTS) {
        requests.spawn(ask(client.clone(), format!("{address}/orders")));
    }
    let mut failed = 0;
    while let Some(done) = requests.join_next().await {
        failed += usize::from(!done??);
    }
    for state in &states {
        state.drain().await;
    }

    let book = servers.book();
    for (number, state) in states.iter().enumerate() {
        let status = state.status();
        let (refreshes, generation) = (status.counts.refreshes, status.generation);
        println!("replica {}: generation {generation}, {refreshes} refreshes", number + 1);
    }
    println!(
        "replicas={REPLICAS} requests={REQUESTS} refreshes={} token_reuse={} failed={failed}",
        book.refreshes, book.token_reuse
    );
    let as_it_should = (book.refreshes, book.token_reuse, failed) == (1, 0, 0)
        && book.unauthorized == REQUESTS
        && states.iter().map(|state| state.status().counts.refreshes).sum::<u64>() == 1;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the answer is what the API says.
async fn ask(
    client: Client<HttpConnector, Empty<bytes::Bytes>>,
    uri: String,
) -> Result<bool, AnyError> {
    let response = client.get(uri.parse()?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(status == StatusCode::OK && *body == *b"orders")
}
