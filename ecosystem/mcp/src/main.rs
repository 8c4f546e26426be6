//! An MCP client by `rmcp`, over Streamable HTTP: fifteen tools are called at the same time with a token that has
//! just expired, and another call is dropped while the server redeems the refresh token. One refresh, each tool
//! is called once, and nothing is lost.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use rmcp::{
    ServerHandler, ServiceExt,
    handler::server::wrapper::Parameters,
    model::{CallToolRequestParams, ClientJsonRpcMessage},
    schemars, tool, tool_handler, tool_router,
    transport::{
        StreamableHttpClientTransport, StreamableHttpService,
        streamable_http_client::{
            StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
            StreamableHttpPostResponse, StreamableHttpResponseLimits,
        },
        streamable_http_server::{StreamableHttpServerConfig, session::local::LocalSessionManager},
    },
};
use scenery::{AnyError, Loopback, Outcome, loopback};
use sse_stream::{Error as SseError, Sse};
use tokio::{sync::watch, task::JoinSet};
use tower::ServiceExt as _;
use tower_refresh::{Credential, RefreshState};

// ---- What a user writes: a client around another, whose tokens are kept alive.
#[derive(Clone)]
struct Refreshing<C> {
    client: C,
    state: Arc<RefreshState>,
}

type Headers = HashMap<HeaderName, HeaderValue>;

impl<C: StreamableHttpClient + Sync> Refreshing<C> {
    async fn attempt<T, F>(
        &self,
        call: impl Fn(Option<String>) -> F,
    ) -> Result<T, StreamableHttpError<C::Error>>
    where
        F: Future<Output = Result<T, StreamableHttpError<C::Error>>>,
    {
        let token = |credential: Credential| credential.access_token().map(str::to_owned);
        let refused =
            |outcome: &Result<T, _>| matches!(outcome, Err(StreamableHttpError::AuthRequired(_)));
        let outcome = self.state.attempt(|credential| call(token(credential)), refused).await;
        outcome.unwrap_or_else(|error| Err(io::Error::other(error.failure().clone()).into()))
    }
}

impl<C: StreamableHttpClient + Sync> StreamableHttpClient for Refreshing<C> {
    type Error = C::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, None, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        self.attempt(|token| {
            let (uri, message, session) = (uri.clone(), message.clone(), session.clone());
            let headers = headers.clone();
            self.client
                .post_message_with_response_limits(uri, message, session, token, headers, limits)
        })
        .await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<C::Error>> {
        self.attempt(|token| {
            let (uri, session, last_event) = (uri.clone(), session.clone(), last_event.clone());
            self.client.get_stream(uri, session, last_event, token, headers.clone())
        })
        .await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: Headers,
    ) -> Result<(), StreamableHttpError<C::Error>> {
        self.attempt(|token| {
            self.client.delete_session(uri.clone(), session.clone(), token, headers.clone())
        })
        .await
    }
}

fn transport(
    uri: String,
    state: Arc<RefreshState>,
) -> StreamableHttpClientTransport<Refreshing<reqwest::Client>> {
    let client = Refreshing { client: reqwest::Client::new(), state };
    StreamableHttpClientTransport::with_client(
        client,
        StreamableHttpClientTransportConfig::with_uri(uri),
    )
}
// ---- That is all.

/// And one that is dropped: rmcp sends sixteen requests at once, if it is not told otherwise.
const CALLS: usize = 15;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let shop = Shop::default();
    let redeemed = watch::Sender::new(false);
    let tell = redeemed.clone();
    let (serve, sessions) = (shop.clone(), Arc::<LocalSessionManager>::default());
    let servers = Loopback::options()
        .latency(Duration::from_millis(10))
        .on_event(move |_, event| {
            if let loopback::Event::Redeemed = event {
                tell.send_replace(true);
            }
        })
        .serve(move |servers, request| mcp(serve.clone(), sessions.clone(), servers, request))
        .await?;
    let state = scenery::signed_in(&servers)?;
    let client = ().serve(transport(format!("{}/mcp", servers.address()), state)).await?;

    servers.expire_access_token();
    servers.refuse_together(CALLS + 1);
    let order = |number| {
        let client = client.clone();
        async move { client.call_tool(params(number)).await }
    };
    let dropped = tokio::spawn(order(CALLS));
    let mut running: JoinSet<_> = (0..CALLS).map(order).collect();
    // The server has redeemed, and its answer is on its way.
    redeemed.subscribe().wait_for(|redeemed| *redeemed).await?;
    dropped.abort();
    let mut ok = 0;
    while let Some(called) = running.join_next().await {
        ok += usize::from(called?.is_ok());
    }
    let orders = shop.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let outcome = Outcome::of(&servers, CALLS, ok.min(orders.range(..CALLS).count()));

    scenery::end_session(&servers);
    Ok(outcome.report_error(client.call_tool(params(99)).await))
}

fn params(number: usize) -> CallToolRequestParams {
    let arguments = [("number".to_owned(), number.into())].into_iter().collect();
    CallToolRequestParams::new("order").with_arguments(arguments)
}

/// A server with one tool.
#[derive(Clone, Default)]
struct Shop {
    orders: Arc<Mutex<BTreeSet<usize>>>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Order {
    number: usize,
}

#[tool_router]
impl Shop {
    #[tool(description = "Orders something, once")]
    fn order(&self, Parameters(Order { number }): Parameters<Order>) -> Result<String, String> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.insert(number) {
            Ok("ordered".into())
        } else {
            Err("this was ordered before".into())
        }
    }
}

#[tool_handler]
impl ServerHandler for Shop {}

async fn mcp(
    shop: Shop,
    sessions: Arc<LocalSessionManager>,
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if request.uri().path() != "/mcp" {
        return servers.answer(request).await;
    }
    if !servers.judge(request.headers()).await {
        return loopback::challenge();
    }
    let service = StreamableHttpService::new(
        move || Ok(shop.clone()),
        sessions,
        StreamableHttpServerConfig::default(),
    );
    let Ok(response) = service.oneshot(request).await;
    response.map(|body| body.map_err(|never| match never {}).boxed())
}
