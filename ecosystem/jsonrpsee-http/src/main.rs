//! JSON-RPC over HTTP: twenty calls are made at the same time with a token that has just expired. One refresh,
//! and each call is carried out once.
//!
//! `set_http_middleware` takes the layer as it is. Without `ErrorOnRefusalLayer` a call that could not be
//! helped ends in "Request rejected `401`".

use std::{process::ExitCode, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jsonrpsee::{
    core::{client::ClientT, http_helpers::HttpError},
    http_client::{HttpBody, HttpClient, transport::Error},
    rpc_params,
};
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceBuilder;
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer};

// ---- What a user writes: a client with the layer in it.
fn client(url: &str, state: Arc<RefreshState>) -> Result<impl ClientT + use<>, AnyError> {
    let layers = ServiceBuilder::new()
        .map_err(|error: AnyError| Error::Http(HttpError::Stream(error)))
        .layer(ErrorOnRefusalLayer::new())
        .layer(RefreshLayer::new(state).allow_origin(url)?.map_body(HttpBody::new));
    Ok(HttpClient::builder().set_http_middleware(layers).build(url)?)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(serve).await?;
    let client = Arc::new(client(servers.address(), scenery::credential(&servers)?)?);

    servers.refuse_together(CALLS);
    let mut running = JoinSet::new();
    for number in 0..CALLS {
        let client = Arc::clone(&client);
        running.spawn(async move {
            let placed: Result<usize, _> = client.request("place_order", rpc_params![number]).await;
            placed.is_ok_and(|placed| placed == number)
        });
    }
    let ok = running.join_all().await.into_iter().filter(|ok| *ok).count();
    let outcome = Outcome::of_requests(&servers, CALLS, ok);

    servers.refuse_together(0);
    scenery::end_session(&servers);
    let failure = client.request::<usize, _>("place_order", rpc_params![0]).await.err();
    Ok(outcome.report(failure.map(|error| scenery::in_one_line(&error)).unwrap_or_default()))
}

/// A server that carries no call out without the good token. Its answer is the first parameter.
async fn serve(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if request.uri().path() != "/" {
        return servers.answer(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return loopback::empty(StatusCode::BAD_REQUEST);
    };
    if !servers.judge(&head.headers).await {
        return loopback::challenge();
    }
    let call: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": call["params"][0] });
    loopback::json(StatusCode::OK, answer.to_string())
}
