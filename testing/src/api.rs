//! What stands behind the layer: a mock that answers by hand, and a strict API.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tower::{Layer, Service};
use tower_refresh::{RefreshLayer, body::ReplayBody, layer::Refresh};
use tower_test::mock;

use super::{Gate, secs};

/// What requests and responses carry.
pub type Body = Full<Bytes>;
/// A request as the layer sends it on.
pub type Request = http::Request<ReplayBody<Body>>;
/// A response of these services.
pub type Response = http::Response<Body>;
/// A service whose handle answers.
pub type Mock = mock::Mock<Request, Response>;
/// Answers what reaches a [`Mock`].
pub type MockHandle = mock::Handle<Request, Response>;

/// The layer over a service that is answered by hand.
pub fn mock(layer: &RefreshLayer) -> (Refresh<Mock>, MockHandle) {
    let (mock, handle) = mock::pair();
    (layer.layer(mock), handle)
}

/// The next request that reaches a mock. A test in which none does must fail, and
/// not hang: paused time runs to this end when all are idle.
pub async fn next<Req, Res>(handle: &mut mock::Handle<Req, Res>) -> (Req, mock::SendResponse<Res>) {
    let next = timeout(secs(600), handle.next_request()).await;
    next.expect("no request comes").expect("the service is gone")
}

/// A response without a body.
pub fn answer(status: u16) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// A request without a body.
pub fn get(uri: &str) -> http::Request<Body> {
    http::Request::get(uri).body(Body::default()).unwrap()
}

/// A request with this body.
pub fn post(body: &'static str) -> http::Request<Body> {
    http::Request::builder().method(Method::POST).uri("/").body(Full::from(body)).unwrap()
}

/// The access token a request carries.
pub fn token_of<B>(request: &http::Request<B>) -> Option<&str> {
    bearer(request.headers())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().unwrap().strip_prefix("Bearer ")
}

/// Accepts one access token and says 401 to others, when it has read the whole body.
/// Panics if it is called without having been made ready, and knows how many of its clones
/// are ready and not called.
pub struct Api {
    shared: Arc<Shared>,
    ready: bool,
}

struct Shared {
    accepts: Mutex<String>,
    seen: Mutex<Vec<(Option<String>, StatusCode, Bytes)>>,
    reserved: AtomicUsize,
    gate: Gate,
}

impl Api {
    /// One that accepts this access token.
    pub fn accepting(token: &str) -> Self {
        let shared = Shared {
            accepts: Mutex::new(token.to_owned()),
            seen: Mutex::default(),
            reserved: AtomicUsize::new(0),
            gate: Gate::new(),
        };
        Self { shared: Arc::new(shared), ready: false }
    }

    /// Accepts this access token from now on, and no other.
    pub fn accept(&self, token: &str) {
        token.clone_into(&mut self.shared.accepts.lock().unwrap());
    }

    /// Requests wait here before they are answered.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// How many services were made ready and neither called nor dropped.
    pub fn reserved(&self) -> usize {
        self.shared.reserved.load(SeqCst)
    }

    /// The bodies that were answered with `status`.
    pub fn bodies(&self, status: u16) -> Vec<Bytes> {
        let seen = self.shared.seen.lock().unwrap();
        let of = seen.iter().filter(|(_, with, _)| *with == status);
        of.map(|(_, _, body)| body.clone()).collect()
    }

    /// The token of every request, in the order they were answered.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.shared.seen.lock().unwrap().iter().map(|(token, _, _)| token.clone()).collect()
    }

    /// How many requests were answered with `status`.
    pub fn count(&self, status: u16) -> usize {
        self.bodies(status).len()
    }

    fn unready(&mut self) {
        if std::mem::take(&mut self.ready) {
            self.shared.reserved.fetch_sub(1, SeqCst);
        }
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.unready();
    }
}

impl<B> Service<http::Request<B>> for Api
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !std::mem::replace(&mut self.ready, true) {
            self.shared.reserved.fetch_add(1, SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.unready();
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let token = token_of(&request).map(str::to_owned);
            let Ok(body) = request.into_body().collect().await else {
                return Ok(answer(400));
            };
            shared.gate.pass().await;
            let good = token.as_ref() == Some(&*shared.accepts.lock().unwrap());
            let response = answer(if good { 200 } else { 401 });
            shared.seen.lock().unwrap().push((token, response.status(), body.to_bytes()));
            Ok(response)
        })
    }
}
