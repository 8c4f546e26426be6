//! GraphQL by cynic, at a server that refuses a token inside a 200: twenty mutations at the same time with a token that
//! has just expired. One refresh, and each is made once.

use std::{process::ExitCode, sync::Arc, time::Duration};

use cynic::{GraphQlResponse, MutationBuilder};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use serde_json::{Value, json};
use tower_refresh::{
    RefreshLayer, RefreshMiddleware, RefreshState,
    in_body::{GraphQl, InBodyLayer},
};

#[cynic::schema("shop")]
mod schema {}

#[derive(cynic::QueryVariables)]
struct Order {
    number: i32,
}

#[derive(cynic::QueryFragment)]
#[cynic(schema = "shop", graphql_type = "Mutation", variables = "Order")]
struct Ordered {
    #[arguments(number: $number)]
    order: i32,
}

// ---- What a user writes: a middleware that looks into 200s, and a line that sends an operation.
fn client(state: Arc<RefreshState>) -> ClientWithMiddleware {
    let refresh = RefreshMiddleware::new(RefreshLayer::new(state))
        .in_body(InBodyLayer::new().rule(GraphQl::new()))
        .error_on_refusal();
    ClientBuilder::new(reqwest::Client::new()).with(refresh).build()
}

async fn order(client: &ClientWithMiddleware, uri: &str, number: i32) -> Result<i32, AnyError> {
    let sent = client.post(uri).json(&Ordered::build(Order { number })).send().await?;
    let answer: GraphQlResponse<Ordered> = sent.json().await?;
    Ok(answer.data.ok_or("no data")?.order)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(shop).await?;
    let client = client(scenery::credential(&servers)?);
    let uri = format!("{}/graphql", servers.address());

    let ok = scenery::at_once(&servers, |number| {
        let (client, uri, number) = (client.clone(), uri.clone(), number as i32);
        async move { order(&client, &uri, number).await.is_ok_and(|it| it == number) }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(order(&client, &uri, 99).await))
}

async fn shop(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if request.uri().path() != "/graphql" {
        return servers.answer(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return loopback::empty(StatusCode::BAD_REQUEST) };
    let answer = match servers.judge(&head.headers).await {
        true => match serde_json::from_slice::<Value>(&body.to_bytes()) {
            Ok(sent) => json!({ "data": { "order": sent["variables"]["number"] } }),
            Err(_) => json!({ "errors": [{ "message": "this is not an operation" }] }),
        },
        false => json!({ "errors": [{
            "message": "the token has expired",
            "extensions": { "code": "UNAUTHENTICATED" },
        }] }),
    };
    loopback::json(StatusCode::OK, answer.to_string())
}
