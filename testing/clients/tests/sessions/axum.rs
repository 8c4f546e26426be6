//! An application on real sockets: extractors, proxy, WebSockets, streams.

use std::{future::Future, time::Duration};

use ::axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use http::{HeaderMap, Method, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::ServiceBuilder;
use tower_refresh::{
    FromExtensions, RefreshLayer,
    session::{Ended, Identity, ProxyLayer, Session, SessionSlot, Sessions},
};

use testing::sessions::{Browser, ISSUER, Server, World};

/// What has to come comes within a time that no machine needs.
pub(super) async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("it never comes")
}

pub(super) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { ::axum::serve(listener, app).await });
    address
}

/// The API behind: it takes the tokens of the server.
async fn api(server: Server) -> String {
    let check =
        ::axum::middleware::from_fn(move |request: Request, next: ::axum::middleware::Next| {
            let server = server.clone();
            async move {
                let token = request.headers().get(header::AUTHORIZATION);
                let accepted = token.is_some_and(|it| server.accepts(it.to_str().unwrap()));
                match accepted {
                    true => next.run(request).await,
                    false => {
                        (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response()
                    }
                }
            }
        });
    let headers = get(async |headers: HeaderMap| {
        let names: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        names.join("\n")
    });
    let app = Router::new()
        .route("/echo", post(async |body: Bytes| body))
        .route("/headers", headers)
        .route("/moved", get(async || Redirect::to("/headers?a=b")))
        .route("/socket", any(socket))
        .layer(check);
    serve(app).await
}

/// Changes to a protocol that sends back what it is sent.
async fn socket(request: Request) -> Response {
    let asked = request.headers().get(header::UPGRADE).cloned();
    let Some(protocol) = asked else { return StatusCode::BAD_REQUEST.into_response() };
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..count]).await.unwrap();
        }
    });
    let headers = [(header::UPGRADE, protocol), (header::CONNECTION, "upgrade".parse().unwrap())];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The application.
pub(super) async fn app(world: &World, api: &str) -> (String, Sessions) {
    app_with(world, api, |proxy| proxy).await
}

async fn app_with(
    world: &World,
    api: &str,
    change: impl FnOnce(ProxyLayer) -> ProxyLayer,
) -> (String, Sessions) {
    let builder = Sessions::builder(world.renewal(), world.place.clone());
    let sessions = builder.watch_every(Duration::from_millis(50)).build().unwrap();
    let api = format!("http://{api}");
    let proxy = ServiceBuilder::new()
        .layer(change(ProxyLayer::to(&api).unwrap().strip_prefix("/api").unwrap()))
        .layer(
            RefreshLayer::per_request(FromExtensions)
                .allow_origin(&api)
                .unwrap()
                .map_body(Body::new),
        )
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());
    let server = world.server.clone();
    let sign_in = async move |slot: SessionSlot| {
        slot.sign_in(server.sign_in(), Identity::new(ISSUER, "alice")).await.unwrap();
        slot.land("/").unwrap()
    };
    let app = Router::new()
        .route_service("/api/{*path}", proxy)
        .route("/me", get(async |session: Session| session.identity().subject().to_owned()))
        .route("/ended", get(async |session: Session| session.ended().await.as_str()))
        .route_layer(sessions.layer().required())
        .route(
            "/",
            get(async |session: Option<Session>| {
                session.map_or("anonymous".to_owned(), |it| it.identity().subject().to_owned())
            }),
        )
        .route("/sign_in", post(sign_in))
        .route(
            "/sign_out",
            post(async |session: Session| {
                session.sign_out().await.unwrap();
                StatusCode::NO_CONTENT
            }),
        )
        .layer(sessions.layer());
    (serve(app).await, sessions)
}

pub(super) struct Client1 {
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    pub(super) browser: Browser,
}

impl Client1 {
    pub(super) fn new(address: &str, http2: bool) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        Self { address: address.to_owned(), client, browser: Browser::new() }
    }

    pub(super) async fn signed_in(address: &str) -> Self {
        let this = Self::new(address, false);
        let response = this.send(Method::POST, "/sign_in", "").await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        this
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let uri = format!("http://{}{path}", self.address);
        let request =
            Request::builder().method(method).uri(uri).header("sec-fetch-site", "same-origin");
        self.browser.cookie().into_iter().fold(request, |it, cookie| it.header("cookie", cookie))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> http::Response<hyper::body::Incoming> {
        let request = self.request(method, path).body(Full::from(body)).unwrap();
        let response = soon(self.client.request(request)).await.unwrap();
        self.browser.take(response.headers());
        response
    }

    pub(super) async fn text(
        &self,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> (StatusCode, String) {
        let response = self.send(method, path, body).await;
        let status = response.status();
        let bytes = soon(response.into_body().collect()).await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// A connection of its own, which has asked for another protocol.
    async fn upgrade(&self, origin: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let cookie = self.browser.cookie().unwrap();
        let head = format!(
            "GET /api/socket HTTP/1.1\r\nhost: {}\r\nconnection: keep-alive, Upgrade\r\n\
             upgrade: echo\r\norigin: {origin}\r\ncookie: {cookie}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }
}

#[tokio::test]
async fn a_request_goes_through_to_the_api_over_an_expiry_with_its_body() {
    let world = World::new();
    let (address, _) = app(&world, &api(world.server.clone()).await).await;
    let client = Client1::signed_in(&address).await;
    assert_eq!(client.text(Method::GET, "/", "").await.1, "alice");
    assert_eq!(client.text(Method::GET, "/me", "").await.1, "alice");
    for redeems in 1..4 {
        world.server.expire_all();
        let posts = (0..20).map(|_| client.text(Method::POST, "/api/echo", "body"));
        for (status, text) in futures_util::future::join_all(posts).await {
            assert_eq!((status, &*text), (StatusCode::OK, "body"));
        }
        assert_eq!((world.server.redeems(), world.server.reuses()), (redeems, 0));
    }
    let (_, headers) = client.text(Method::GET, "/api/headers", "").await;
    assert!(headers.contains("authorization=\"Bearer access-"), "{headers}");
    assert!(!headers.contains("cookie="), "{headers}");
    // Of others neither, unless it was asked for.
    let request = client.request(Method::GET, "/api/headers").header("cookie", "theme=dark");
    let response =
        soon(client.client.request(request.body(Full::default()).unwrap())).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&bytes).contains("theme"), "{bytes:?}");
    let moved = client.send(Method::GET, "/api/moved", "").await;
    assert_eq!(moved.headers()["location"], "/api/headers?a=b");
    assert_eq!(client.text(Method::POST, "/sign_out", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(client.text(Method::POST, "/api/echo", "body").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(client.text(Method::GET, "/", "").await.1, "anonymous");
}

#[tokio::test]
async fn an_api_that_is_away_is_a_502() {
    let world = World::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let (address, _) = app(&world, &gone).await;
    let client = Client1::signed_in(&address).await;
    assert_eq!(client.text(Method::POST, "/api/echo", "body").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(client.text(Method::GET, "/", "").await.1, "alice");
}

/// The token is checked, and refreshed, when it is opened.
#[tokio::test]
async fn a_socket_goes_through_and_is_closed_when_its_session_ends() {
    let world = World::new();
    let (address, sessions) = app(&world, &api(world.server.clone()).await).await;
    let client = Client1::signed_in(&address).await;
    world.server.expire_all();
    let (head, mut socket) = client.upgrade(&format!("http://{address}")).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: echo"), "{head}");
    assert_eq!(world.server.redeems(), 1);
    let mut buffer = [0; 5];
    for word in [b"hello", b"again"] {
        socket.write_all(word).await.unwrap();
        soon(socket.read_exact(&mut buffer)).await.unwrap();
        assert_eq!(&buffer, word);
    }
    // On another replica.
    let (elsewhere, _) = app(&world, "127.0.0.1:9").await;
    let other = Client1 { address: elsewhere, ..Client1::new(&address, false) };
    *other.browser.cookie.lock().unwrap() = client.browser.cookie();
    assert_eq!(other.text(Method::POST, "/sign_out", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(soon(socket.read(&mut buffer)).await.unwrap_or(0), 0, "it is closed");
    let (head, _) = client.upgrade(&format!("http://{address}")).await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    assert_eq!(sessions.status().ended(Ended::SignedOut), 1);
}

#[tokio::test]
async fn s14_another_sites_page_opens_no_socket() {
    let world = World::new();
    let (address, _) = app(&world, &api(world.server.clone()).await).await;
    let client = Client1::signed_in(&address).await;
    for origin in ["http://evil.test", "null", "http://127.0.0.1:1"] {
        let (head, _) = client.upgrade(origin).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{origin}: {head}");
    }
}

/// A handler's own stream hears of it.
#[tokio::test]
async fn a_handler_hears_of_a_sign_out_elsewhere() {
    let world = World::new();
    let (here, _) = app(&world, "127.0.0.1:9").await;
    let (there, _) = app(&world, "127.0.0.1:9").await;
    let client = Client1::signed_in(&here).await;
    let elsewhere = Client1::new(&there, false);
    *elsewhere.browser.cookie.lock().unwrap() = client.browser.cookie();
    let waiting = tokio::spawn(async move { client.text(Method::GET, "/ended", "").await.1 });
    assert_eq!(elsewhere.text(Method::POST, "/sign_out", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(soon(waiting).await.unwrap(), "signed_out");
}

/// HTTP/2 sends each cookie as a field of its own.
#[tokio::test]
async fn three_cookies_over_http2() {
    let world = World::new();
    let upstream = api(world.server.clone()).await;
    let (address, _) = app_with(&world, &upstream, ProxyLayer::pass_cookies).await;
    let signed_in = Client1::signed_in(&address).await;
    let client = Client1::new(&address, true);
    let request = client.request(Method::GET, "/api/headers").version(Version::HTTP_2);
    let request =
        request.header("cookie", "a=1").header("cookie", signed_in.browser.cookie().unwrap());
    let request = request.header("cookie", "b=2").body(Full::default()).unwrap();
    let response = soon(client.client.request(request)).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let headers = String::from_utf8(bytes.to_vec()).unwrap();
    // One field, as HTTP/1.1 has it.
    assert!(headers.contains("cookie=\"a=1; b=2\""), "{headers}");
    assert!(!headers.contains("__Host"), "{headers}");
}

#[tokio::test]
async fn an_extractor_says_what_is_missing() {
    let route = get(async |session: Session| session.name().to_string());
    let bare = Client1::new(&serve(Router::new().route("/", route.clone())).await, false);
    let (status, text) = bare.text(Method::GET, "/", "").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("sessions.layer()"), "{text}");
    let world = World::new();
    let sessions = world.replica().sessions;
    let app = Router::new().route("/", route).layer(sessions.layer());
    let anonymous = Client1::new(&serve(app).await, false);
    let response = anonymous.send(Method::GET, "/", "").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["cache-control"], "private, no-store");
}
