//! An Ethereum node behind a provider of access: twenty calls are made at the same time with a token that
//! has just expired. One refresh, and each call is carried out once.
//!
//! Of alloy's two transports only the one over hyper takes tower layers (feature `hyper`, which brings
//! OpenSSL, whatever TLS is used). It does not ask whether they are ready, so a limit cannot stand beside the
//! layer: see `findings/alloy_hyper_poll_ready.sh`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use alloy::{
    rpc::client::RpcClient,
    transports::{
        TransportError, TransportErrorKind,
        http::{Http, HyperClient},
    },
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use scenery::{AnyError, CALLS, Loopback, Outcome, json_rpc};
use tower::ServiceBuilder;
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer};

// ---- What a user writes: a client with the layer in it, for `ProviderBuilder::connect_client`, say.
fn client(url: &str, state: Arc<RefreshState>) -> Result<RpcClient, AnyError> {
    let layers = ServiceBuilder::new()
        .map_err(|error| -> TransportError { TransportErrorKind::Custom(error).into() })
        .layer(ErrorOnRefusalLayer::new())
        .layer(RefreshLayer::new(state).allow_origin(url)?);
    let http = layers.service(Client::builder(TokioExecutor::new()).build_http());
    let http = HyperClient::<Full<Bytes>, _>::with_service(http);
    Ok(RpcClient::new(Http::with_client(http, url.parse()?), false))
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10));
    let servers = servers.serve(json_rpc::serve).await?;
    let client = client(servers.address(), scenery::credential(&servers)?)?;

    let ok = scenery::at_once(&servers, |number| {
        let client = client.clone();
        async move {
            let placed: Result<usize, _> = client.request("place_order", (number,)).await;
            placed.is_ok_and(|placed| placed == number)
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(client.request::<_, usize>("place_order", (0,)).await))
}
