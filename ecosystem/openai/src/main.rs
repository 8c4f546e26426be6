//! async-openai against a gateway that wants a token of the company's provider: twenty requests at the same time with
//! a token that has just expired. One refresh, and each is answered.
//!
//! `OpenAIConfig` puts an `Authorization` of its own on every request, without a key, too, and this crate leaves such
//! a request alone. So it is taken off below.

use std::{process::ExitCode, sync::Arc, time::Duration};

use async_openai::{
    Client, config::OpenAIConfig, error::OpenAIError, middleware::HttpRequestFactory,
    types::embeddings::CreateEmbeddingRequestArgs,
};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, ReqwestLayer, layer::ErrorOnRefusalLayer};

// ---- What a user writes: the layer over reqwest's client, and a service that builds the requests for it.
fn client(gateway: String, state: Arc<RefreshState>) -> Client<OpenAIConfig> {
    let http = ServiceBuilder::new()
        .layer(ErrorOnRefusalLayer::new())
        .layer(ReqwestLayer::new(RefreshLayer::new(state)))
        .service(reqwest::Client::new());
    let send = service_fn(move |factory: HttpRequestFactory| {
        let http = http.clone();
        async move {
            let mut request = factory.build().await?;
            request.headers_mut().remove(AUTHORIZATION);
            http.oneshot(request).await.map_err(OpenAIError::from)
        }
    });
    Client::with_config(OpenAIConfig::new().with_api_base(gateway)).with_http_service(send)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(gateway).await?;
    let client = client(format!("{}/v1", servers.address()), scenery::credential(&servers)?);

    let ok = scenery::at_once(&servers, |number| {
        let client = client.clone();
        async move { embed(&client, number).await.is_ok() }
    });
    let outcome = Outcome::of(&servers, CALLS, ok.await.min(servers.bodies().len()));

    scenery::end_session(&servers);
    Ok(outcome.report_error(embed(&client, 0).await))
}

async fn embed(client: &Client<OpenAIConfig>, number: usize) -> Result<(), OpenAIError> {
    let request = CreateEmbeddingRequestArgs::default()
        .model("small")
        .input(format!("order {number}"))
        .build()?;
    client.embeddings().create(request).await.map(drop)
}

async fn gateway(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if request.uri().path() != "/v1/embeddings" {
        return servers.answer(request).await;
    }
    if !servers.judge(request.headers()).await {
        return loopback::challenge();
    }
    match servers.strict(request).await {
        answer if answer.status() == StatusCode::OK => loopback::json(
            StatusCode::OK,
            r#"{"object":"list","model":"small","data":[],"usage":{"prompt_tokens":1,"total_tokens":1}}"#.into(),
        ),
        refused => refused,
    }
}
