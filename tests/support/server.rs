//! A real HTTP server on loopback, and what it saw.

#![allow(dead_code)] // each test binary uses its part

use std::{
    collections::HashSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::watch};
use tower_refresh::{RefreshError, RefreshState, Tokens};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A server whose good token is `token()`, and which counts.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Connections accepted so far, and those that are over.
    pub(crate) connections: AtomicUsize,
    pub(crate) closed: watch::Sender<usize>,
    /// Bodies that came whole with the good token.
    pub(crate) bodies: Mutex<Vec<Bytes>>,
    good: Mutex<String>,
    spent: Mutex<HashSet<String>>,
    pub(crate) refreshes: AtomicUsize,
}

impl Seen {
    pub(crate) fn accepts<B>(&self, request: &Request<B>) -> bool {
        let good = format!("Bearer {}", self.good.lock().unwrap());
        request.headers().get(AUTHORIZATION).is_some_and(|value| value == good.as_str())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn refreshes(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// Redeems, once for each refresh token.
    pub(crate) fn redeem(&self, spent: &Tokens) -> Result<Tokens, RefreshError> {
        let refresh = spent.refresh_token().unwrap_or_default().to_owned();
        let number = self.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(self.spent.lock().unwrap().insert(refresh), "a refresh token was spent twice");
        let good = format!("good-{number}");
        self.good.lock().unwrap().clone_from(&good);
        Ok(Tokens::new(good).with_refresh_token(format!("refresh-{number}")))
    }

    /// A state whose access token has expired already.
    pub(crate) fn state(self: &Arc<Self>) -> Arc<RefreshState> {
        let seen = Arc::clone(self);
        RefreshState::builder(move |spent: Tokens| {
            let seen = Arc::clone(&seen);
            async move { seen.redeem(&spent) }
        })
        .tokens(Tokens::new("expired").with_refresh_token("refresh-0"))
        .build()
    }
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

pub(crate) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
}

/// Serves `handler` until the test is over.
pub(crate) async fn serve<F, Fut>(protocol: Protocol, handler: F) -> Server
where
    F: Fn(Arc<Seen>, Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), seen: Arc::default() };
    *server.seen.good.lock().unwrap() = "not issued yet".into();
    let seen = Arc::clone(&server.seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let (seen, handler) = (Arc::clone(&seen), handler.clone());
            tokio::spawn(async move {
                let shared = Arc::clone(&seen);
                let service = service_fn(move |request| {
                    let response = handler(Arc::clone(&shared), request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let io = TokioIo::new(stream);
                // How a client leaves is the client's affair.
                let _ = match protocol {
                    Protocol::Http1 => {
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await
                    }
                    Protocol::Http2 => {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    }
                };
                seen.closed.send_modify(|closed| *closed += 1);
            });
        }
    });
    server
}

/// Reads the whole body; 401 without the good token.
pub(crate) async fn strict(seen: Arc<Seen>, request: Request<Incoming>) -> Response<Body> {
    let good = seen.accepts(&request);
    let Ok(body) = request.into_body().collect().await else {
        return respond(StatusCode::BAD_REQUEST, "");
    };
    if !good {
        return respond(StatusCode::UNAUTHORIZED, "the token has expired");
    }
    seen.bodies.lock().unwrap().push(body.to_bytes());
    respond(StatusCode::OK, "thank you")
}
