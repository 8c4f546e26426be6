//! A thousand requests at once through each of the four stacks, over HTTP/1 and HTTP/2,
//! against a strict server that rotates: one refresh, no reuse, no failure. And with one
//! straggler, whose 401 comes when everything is over: still one.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest_middleware::ClientBuilder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testing::{
    echo::{
        Chunk, Sum,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
    loopback::{self, CLIENT_ID, Loopback},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Response, Status, Streaming, service::Routes, transport::Channel};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshMiddleware, RefreshState, body::ReplayBody, oauth2};

type AnyError = Box<dyn Error + Send + Sync>;

const REQUESTS: usize = 1000;

/// A thousand connections take two thousand files and more, which is above some defaults.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// Servers, and a credential whose access token was revoked there although its life is
/// far from over.
async fn start() -> (Loopback, Arc<RefreshState>) {
    allow_files();
    let servers = Loopback::start(Duration::from_millis(20)).await.unwrap();
    let client = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID).unwrap();
    let grant = client.build().unwrap().refresh_token_grant();
    let state = RefreshState::builder(grant).tokens(servers.sign_in()).build();
    servers.expire_access_token();
    assert!(state.current().expires_at().is_some());
    (servers, state)
}

/// The body of one request.
fn body(number: usize) -> Bytes {
    format!("{number} ").repeat(100).into()
}

/// Sends them all, each by `send`: its body, and whether it is the straggler.
async fn herd<F, Fut>(servers: &Loopback, straggler: bool, send: F)
where
    F: Fn(Bytes, bool) -> Fut,
    Fut: Future<Output = Result<Bytes, AnyError>> + Send + 'static,
{
    let late = if straggler {
        let late = tokio::spawn(send(body(REQUESTS), true));
        servers.late_refused().await;
        Some(late)
    } else {
        None
    };
    servers.refuse_together(REQUESTS);
    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        let sent = send(body(number), false);
        callers.spawn(async move { assert_eq!(sent.await.unwrap(), body(number)) });
    }
    // Not for ever, so that a test fails rather than hangs.
    timeout(Duration::from_secs(120), callers.join_all()).await.expect("it hangs");
    if let Some(late) = late {
        servers.answer_late();
        assert_eq!(late.await.unwrap().unwrap(), body(REQUESTS));
    }
    let (book, all) = (servers.book(), REQUESTS + usize::from(straggler));
    assert_eq!((book.unauthorized, book.ok), (all, all));
    assert_eq!((book.refreshes, book.token_reuse), (1, 0));
}

fn post<B>(uri: String, late: bool, body: B) -> Request<B> {
    let mut request = Request::post(uri);
    if late {
        request = request.header("x-late", "yes");
    }
    request.body(body).unwrap()
}

async fn read(
    response: http::Response<impl http_body::Body<Data = Bytes, Error: Into<AnyError>>>,
) -> Result<Bytes, AnyError> {
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string().into());
    }
    Ok(response.into_body().collect().await.map_err(Into::into)?.to_bytes())
}

fn client<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

async fn serve(router: Router) -> String {
    let answer = move |request: Request<Incoming>| {
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    format!("http://{}", loopback::serve(answer).await.unwrap())
}

/// Runs a test over both protocols, with the straggler and without.
async fn each<Fut: Future<Output = ()>>(test: impl Fn(bool, bool) -> Fut) {
    for http2 in [false, true] {
        for straggler in [false, true] {
            test(http2, straggler).await;
        }
    }
}

#[tokio::test]
async fn hyper() {
    each(async |http2, straggler| {
        let (servers, state) = start().await;
        let service = ServiceBuilder::new().layer(RefreshLayer::new(state)).service(client(http2));
        let uri = servers.api();
        herd(&servers, straggler, move |body, late| {
            let request = post(uri.clone(), late, Full::new(body));
            let service = service.clone();
            async move { read(service.oneshot(request).await?).await }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn reqwest() {
    each(async |http2, straggler| {
        let (servers, state) = start().await;
        let client = reqwest::Client::builder().no_proxy();
        let client = if http2 { client.http2_prior_knowledge() } else { client.http1_only() };
        let client = ClientBuilder::new(client.build().unwrap())
            .with(RefreshMiddleware::new(RefreshLayer::new(state)))
            .build();
        let uri = servers.api();
        herd(&servers, straggler, move |body, late| {
            let mut request = client.post(&uri).body(body);
            if late {
                request = request.header("x-late", "yes");
            }
            async move { read(request.send().await?.into()).await }
        })
        .await;
    })
    .await;
}

/// Lets `unary` through with a good token.
struct Strict(Loopback);

type Never = futures_util::stream::Empty<Result<Chunk, Status>>;

#[tonic::async_trait]
impl Echo for Strict {
    type CountStream = Never;
    type ChatStream = Never;

    async fn unary(&self, request: tonic::Request<Chunk>) -> Result<Response<Chunk>, Status> {
        let (metadata, _, chunk) = request.into_parts();
        match self.0.judge(&metadata.into_headers()).await {
            true => Ok(Response::new(chunk)),
            false => Err(Status::unauthenticated("the token has expired")),
        }
    }

    async fn collect(&self, _: tonic::Request<Streaming<Chunk>>) -> Result<Response<Sum>, Status> {
        Err(Status::unimplemented("nobody calls this here"))
    }

    async fn count(&self, _: tonic::Request<Chunk>) -> Result<Response<Never>, Status> {
        Err(Status::unimplemented("nobody calls this here"))
    }

    async fn chat(&self, _: tonic::Request<Streaming<Chunk>>) -> Result<Response<Never>, Status> {
        Err(Status::unimplemented("nobody calls this here"))
    }
}

/// gRPC is HTTP/2.
#[tokio::test]
async fn tonic() {
    for straggler in [false, true] {
        let (servers, state) = start().await;
        let routes = Routes::new(EchoServer::new(Strict(servers.clone())));
        let uri = serve(routes.into_axum_router()).await;
        let channel = ServiceBuilder::new()
            .layer(RefreshLayer::new(state))
            .map_request(|r: Request<ReplayBody<tonic::body::Body>>| r.map(tonic::body::Body::new))
            .service(Channel::from_shared(uri).unwrap().connect_lazy());
        let client = EchoClient::new(channel);
        herd(&servers, straggler, move |data, late| {
            let mut request = tonic::Request::new(Chunk { number: 0, data });
            if late {
                request.metadata_mut().insert("x-late", "yes".parse().unwrap());
            }
            let mut client = client.clone();
            async move { Ok(client.unary(request).await?.into_inner().data) }
        })
        .await;
    }
}

/// The layer on an axum router that forwards, over one protocol on both sides.
#[tokio::test]
async fn axum() {
    each(async |http2, straggler| {
        let (servers, state) = start().await;
        let (upstream, uri) = (client::<Body>(http2), servers.api());
        let forward = async move |mut request: Request<Body>| {
            *request.uri_mut() = uri.parse().unwrap();
            request.headers_mut().remove("host");
            *request.version_mut() = http::Version::default();
            upstream.request(request).await.map_err(|_| StatusCode::BAD_GATEWAY)
        };
        let router = Router::new().fallback(forward).layer(RefreshLayer::new(state));
        let gateway = serve(router).await;
        let client = client(http2);
        herd(&servers, straggler, move |body, late| {
            let request = post(gateway.clone(), late, Full::new(body));
            let client = client.clone();
            async move { read(client.request(request).await?).await }
        })
        .await;
    })
    .await;
}
