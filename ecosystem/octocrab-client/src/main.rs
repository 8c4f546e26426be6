//! GitHub's API: the user's token of a GitHub App lives for eight hours, and its refresh token for one use.
//! Twenty requests are sent at the same time with a token that has just expired. One refresh, and each is
//! carried out once.
//!
//! octocrab keeps the tokens of an App's installation itself. Of a user's token it knows no refresh, and
//! puts it on requests as it was given (`user_access_token`): so it is given none. The layer stands below
//! octocrab's own, where requests have their origin. For what GitHub's token endpoint wants see
//! `ClientBuilder::also_rejected`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use octocrab::{
    AuthState, Octocrab, OctocrabBuilder,
    service::middleware::{base_uri::BaseUriLayer, extra_headers::ExtraHeadersLayer},
};
use scenery::{AnyError, CALLS, Loopback, Outcome};
use serde_json::{Value, json};
use tower::Layer;
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer};

// ---- What a user writes: octocrab's stack, with the layer in it.
fn octocrab(url: &str, state: Arc<RefreshState>) -> Result<Octocrab, AnyError> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let headers = vec![(USER_AGENT, HeaderValue::from_static("my-app"))];
    let octocrab = OctocrabBuilder::new_empty()
        .with_service(RefreshLayer::new(state).allow_origin(url)?.layer(http))
        .with_layer(&ErrorOnRefusalLayer::new())
        .with_layer(&BaseUriLayer::new(url.parse()?))
        .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
        .with_auth(AuthState::None);
    Ok(octocrab.build()?)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let octocrab = octocrab(servers.address(), scenery::credential(&servers)?)?;

    let ok = scenery::at_once(&servers, |number| {
        let octocrab = octocrab.clone();
        async move {
            let issue = json!({ "title": format!("order {number}") });
            let opened: Result<Value, _> = octocrab.post("/api/issues", Some(&issue)).await;
            opened.is_ok_and(|opened| opened == issue)
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(octocrab.get::<Value, _, ()>("/api/issues", None).await))
}
