//! A container at Azure: twenty objects are put at the same time with a token that has just expired. One
//! refresh, and each object is put once.
//!
//! object_store has a trait for credentials, `CredentialProvider`, which ten lines make of `state.token()`. It
//! waits while a token is renewed at its expiry. But it does not hear of a 401: that is the caller's
//! (`Error::Unauthenticated`), and the next call brings the same token again. And what is tried again after a
//! 503, for three minutes by default, brings the token that it had. Here both get the token to use now.
//!
//! The client is used for more than objects, for a cloud's metadata service, say: `allow_origin` keeps the
//! token from there. At Google a `put` asks that service even with `with_skip_signature`: see
//! `findings/object_store_skip_signature.sh`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Request, Response, StatusCode, header::ETAG};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt,
    azure::MicrosoftAzureBuilder,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpService, ReqwestConnector,
    },
};
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer};

// ---- What a user writes: the layer, before the client that the store would have had,
#[derive(Debug)]
struct Connector(RefreshLayer);

#[derive(Debug)]
struct Http {
    client: HttpClient,
    layer: RefreshLayer,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Http { client, layer: self.0.clone() }))
    }
}

#[async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = service_fn(|request| self.client.execute(request));
        let layer =
            self.layer.clone().try_clone_bodies(|body: &HttpRequestBody| Some(body.clone()));
        let sent = ErrorOnRefusalLayer::new().layer(layer.layer(client)).oneshot(request);
        sent.await.map_err(|error| match error.downcast::<HttpError>() {
            Ok(error) => *error,
            Err(error) => HttpError::new_boxed(HttpErrorKind::Unknown, error),
        })
    }
}

// ---- and a store that leaves the token to it.
fn container(url: &str, state: Arc<RefreshState>) -> Result<impl ObjectStore, AnyError> {
    let layer = RefreshLayer::new(state).allow_origin(url)?;
    let store = MicrosoftAzureBuilder::new()
        .with_account("shop")
        .with_container_name("orders")
        .with_endpoint(url.to_owned())
        .with_allow_http(true)
        .with_http_connector(Connector(layer))
        .with_skip_signature(true);
    Ok(store.build()?)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(keep).await?;
    let container = Arc::new(container(servers.address(), scenery::credential(&servers)?)?);

    let ok = scenery::at_once(&servers, |number| {
        let container = Arc::clone(&container);
        async move {
            let (path, order) = (format!("{number}").into(), format!("order {number}").into());
            container.put(&path, order).await.is_ok()
        }
    });
    let outcome = Outcome::of(&servers, CALLS, ok.await.min(servers.bodies().len()));

    scenery::end_session(&servers);
    let failure = container.put(&"one more".into(), "one more".into()).await.err();
    // The error says how long it took, too.
    let why = failure.as_ref().and_then(|error| scenery::refused(error));
    Ok(outcome.report(why.map(|why| scenery::in_one_line(why)).unwrap_or_default()))
}

/// A cloud that keeps no object without the good token.
async fn keep(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if !request.uri().path().starts_with("/orders/") {
        return servers.answer(request).await;
    }
    if !servers.judge(request.headers()).await {
        return loopback::challenge();
    }
    let mut answer = servers.strict(request).await;
    if answer.status() == StatusCode::OK {
        answer.headers_mut().insert(ETAG, HeaderValue::from_static("\"1\""));
    }
    answer
}
