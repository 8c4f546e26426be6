//! An SDK that is generated from an OpenAPI document: twenty orders are placed at the same time with a
//! token that has just expired. One refresh, and each order is placed once.
//!
//! A generated client holds a `reqwest::Client` and nothing else that sends, so it has no place for a
//! middleware. But its author may say how it sends (`exec`), and what a response means (`post`). `exec` can
//! fail with reqwest's error only, which no other crate can make; `post` can fail with words.

use std::{process::ExitCode, sync::Arc, time::Duration};

use progenitor::progenitor_client::{ClientHooks, ClientInfo, Error, OperationInfo};
use reqwest::{Request, Response};
use scenery::{AnyError, CALLS, Loopback, Outcome, in_one_line};
use tower::{Layer, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, ReqwestLayer, ReqwestRefresh, layer::Refused};

// ---- What a user writes: what sends for the generated client,
type Http = ReqwestRefresh<reqwest::Client>;

mod shop {
    progenitor::generate_api!(spec = "shop.json", inner_type = crate::Http, hooks = Expected);
}

impl ClientHooks<Http> for shop::Client {
    async fn exec(&self, request: Request, _: &OperationInfo) -> reqwest::Result<Response> {
        self.inner().clone().oneshot(request).await
    }

    async fn post<E>(
        &self,
        result: &reqwest::Result<Response>,
        _: &OperationInfo,
    ) -> Result<(), Error<E>> {
        match result.as_ref().ok().and_then(Refused::of) {
            Some(refused) => Err(Error::Custom(in_one_line(&refused))),
            None => Ok(()),
        }
    }
}

// ---- and how one is made.
fn client(base_url: &str, state: Arc<RefreshState>) -> shop::Client {
    let client = reqwest::Client::new();
    let http = ReqwestLayer::new(RefreshLayer::new(state)).layer(client.clone());
    shop::Client::new_with_client(base_url, client, http)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let client = client(&servers.api(), scenery::credential(&servers)?);

    let ok = scenery::at_once(&servers, |number| {
        let client = client.clone();
        async move {
            let Ok(number) = u32::try_from(number) else { return false };
            let placed = client.place_order(&shop::types::Order { number }).await;
            placed.is_ok_and(|placed| placed.number == number)
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(client.place_order(&shop::types::Order { number: 0 }).await))
}
