//! JSON-RPC over HTTP: twenty calls are made at the same time with a token that has just expired. One refresh,
//! and each call is carried out once.
//!
//! `set_http_middleware` takes the layer as it is. Without `ErrorOnRefusalLayer` a call that could not be
//! helped ends in "Request rejected `401`".

use std::{process::ExitCode, sync::Arc, time::Duration};

use jsonrpsee::{
    core::{client::ClientT, http_helpers::HttpError},
    http_client::{HttpBody, HttpClient, transport::Error},
    rpc_params,
};
use scenery::{AnyError, CALLS, Loopback, Outcome, json_rpc};
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
    let servers =
        Loopback::options().latency(Duration::from_millis(10)).serve(json_rpc::serve).await?;
    let client = Arc::new(client(servers.address(), scenery::credential(&servers)?)?);

    let ok = scenery::at_once(&servers, |number| {
        let client = Arc::clone(&client);
        async move {
            let placed: Result<usize, _> = client.request("place_order", rpc_params![number]).await;
            placed.is_ok_and(|placed| placed == number)
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(client.request::<usize, _>("place_order", rpc_params![0]).await))
}
