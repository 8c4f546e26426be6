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
use tokio::task::JoinSet;
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

    servers.refuse_together(CALLS);
    let mut running = JoinSet::new();
    for number in 0..CALLS {
        let client = client.clone();
        running.spawn(async move { embed(&client, number).await });
    }
    let ok = running.join_all().await.into_iter().filter(Result::is_ok).count();
    let outcome = Outcome::of(&servers, CALLS, ok.min(servers.bodies().len()));

    servers.refuse_together(0);
    scenery::end_session(&servers);
    let failure = embed(&client, 0).await.err();
    Ok(outcome.report(failure.map(|error| scenery::in_one_line(&error)).unwrap_or_default()))
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
