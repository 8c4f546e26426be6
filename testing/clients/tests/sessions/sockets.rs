//! WebSockets over HTTP/2 (RFC 8441), through the proxy to a server that has them over HTTP/1.1.

use ::axum::{
    Router,
    extract::{
        Request,
        ws::{WebSocket, WebSocketUpgrade},
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2::SendRequest, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::axum::{Client1, app, serve, soon};
use testing::{
    Gate,
    sessions::{Server, World},
};

/// The API behind, with sockets of several kinds: what it has been asked for comes here, and its sockets
/// pass the gate when they are closed.
async fn api(server: Server) -> (String, mpsc::UnboundedReceiver<(Method, HeaderMap)>, Gate) {
    let (sender, asked) = mpsc::unbounded_channel();
    let closed = Gate::new();
    let closing = closed.clone();
    let echo = get(async |upgrade: WebSocketUpgrade| {
        upgrade.protocols(["chat"]).on_upgrade(async move |mut socket: WebSocket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            closing.pass().await;
        })
    });
    // Changes to this protocol, by this key or by that of the request.
    let changes = |protocol: &str, key: Option<&'static str>| {
        let protocol = protocol.to_owned();
        get(async move |headers: HeaderMap| {
            let key = key.map_or(headers["sec-websocket-key"].as_bytes(), str::as_bytes);
            let headers = [
                (header::CONNECTION, "upgrade".to_owned()),
                (header::UPGRADE, protocol),
                (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key)),
            ];
            (StatusCode::SWITCHING_PROTOCOLS, headers)
        })
    };
    let check = from_fn(move |request: Request, next: Next| {
        let token = request.headers().get(header::AUTHORIZATION);
        let accepted = token.is_some_and(|it| server.accepts(it.to_str().unwrap()));
        let _ = sender.send((request.method().clone(), request.headers().clone()));
        async move {
            if accepted {
                next.run(request).await
            } else {
                StatusCode::UNAUTHORIZED.into_response()
            }
        }
    });
    let router = Router::new()
        .route("/socket", echo)
        .route("/its_key", changes("WebSocket", None))
        .route("/another_key", changes("websocket", Some("dGhlIHNhbXBsZSBub25jZQ==")))
        .route("/another_protocol", changes("echo", None))
        .route("/page", get(async || "a page"))
        .route("/nothing", get(async || StatusCode::NO_CONTENT))
        .route("/forbidden", get(async || (StatusCode::FORBIDDEN, "not you")))
        .layer(check);
    (serve(router).await, asked, closed)
}

/// A browser's connection.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    address: String,
    cookie: Option<String>,
}

impl Connection {
    /// It has been used before, so that the server's settings are known.
    async fn open(client: &Client1, address: &str) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let page = Request::get(format!("http://{address}/")).body(Empty::new()).unwrap();
        assert_eq!(soon(sender.send_request(page)).await.unwrap().status(), StatusCode::OK);
        Self { sender, address: address.to_owned(), cookie: client.browser.cookie() }
    }

    /// Asks for a socket as Chromium does, of this protocol and from a page of this origin.
    async fn connect(
        &self,
        path: &str,
        protocol: Option<&'static str>,
        origin: &str,
    ) -> Response<Incoming> {
        let mut request = Request::connect(format!("http://{}{path}", self.address))
            .header("origin", origin)
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat");
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let mut request = request.body(Empty::new()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        soon(self.sender.clone().send_request(request)).await.unwrap()
    }

    async fn socket(&self, path: &str) -> Response<Incoming> {
        self.connect(path, Some("websocket"), &format!("http://{}", self.address)).await
    }
}

async fn talk(response: Response<Incoming>) -> WebSocketStream<TokioIo<Upgraded>> {
    let io = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for word in ["hello".to_owned(), "again".repeat(100_000)] {
        socket.send(Message::text(&word)).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text(word));
    }
    socket
}

#[tokio::test]
async fn a_socket_over_http2_goes_through_over_an_expiry_and_is_closed_with_its_session() {
    let world = World::new();
    let (api, mut asked, closed) = api(world.server.clone()).await;
    let (address, _) = app(&world, &api).await;
    let client = Client1::signed_in(&address).await;
    let connection = Connection::open(&client, &address).await;
    world.server.expire_all();
    let response = connection.socket("/api/socket").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(world.server.redeems(), 1);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert_eq!(response.headers().get(name), None, "{name}");
    }
    // The refused one, and the one that was sent again.
    let (method, headers) = asked.recv().await.unwrap();
    let key = headers["sec-websocket-key"].clone();
    assert_eq!((method, &headers["sec-websocket-version"]), (Method::GET, &"13".parse().unwrap()));
    assert_eq!(headers.get("cookie"), None);
    asked.recv().await.unwrap();
    let mut socket = talk(response).await;
    // Another one beside it, over the same connection, which the browser closes.
    let other = connection.socket("/api/socket").await;
    assert_ne!(asked.recv().await.unwrap().1["sec-websocket-key"], key);
    drop(talk(other).await);
    soon(closed.arrived(1)).await;
    // On another replica.
    let (elsewhere, _) = app(&world, &api).await;
    let there = Client1::new(&elsewhere, false);
    *there.browser.cookie.lock().unwrap() = client.browser.cookie();
    assert_eq!(there.text(Method::POST, "/sign_out", "").await.0, StatusCode::NO_CONTENT);
    let end = soon(socket.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "it is closed, and not with: {end:?}");
    soon(closed.arrived(2)).await;
    assert_eq!(connection.socket("/api/socket").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn s14_another_sites_page_opens_no_socket_over_http2() {
    let world = World::new();
    let (api, mut asked, _) = api(world.server.clone()).await;
    let (address, _) = app(&world, &api).await;
    let connection = Connection::open(&Client1::signed_in(&address).await, &address).await;
    for origin in ["http://evil.test", "null", "http://127.0.0.1:1"] {
        let response = connection.connect("/api/socket", Some("websocket"), origin).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{origin}");
    }
    assert!(asked.try_recv().is_err(), "it has come to the API");
    assert_eq!(connection.socket("/api/socket").await.status(), StatusCode::OK);
}

/// An answer of 2xx is an open socket to a browser: only a server that has changed to it may have one.
#[tokio::test]
async fn what_is_no_socket_at_the_server_behind_is_none_over_http2() {
    let world = World::new();
    let (api, _asked, _) = api(world.server.clone()).await;
    let (address, _) = app(&world, &api).await;
    let connection = Connection::open(&Client1::signed_in(&address).await, &address).await;
    for (path, status) in [
        ("/api/its_key", StatusCode::OK),
        ("/api/another_key", StatusCode::BAD_GATEWAY),
        ("/api/another_protocol", StatusCode::BAD_GATEWAY),
        ("/api/page", StatusCode::BAD_GATEWAY),
        ("/api/nothing", StatusCode::BAD_GATEWAY),
        ("/api/forbidden", StatusCode::FORBIDDEN),
        ("/api/nowhere", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(connection.socket(path).await.status(), status, "{path}");
    }
    let origin = format!("http://{address}");
    let udp = connection.connect("/api/socket", Some("connect-udp"), &origin).await;
    assert_eq!(udp.status(), StatusCode::NOT_IMPLEMENTED);
}
