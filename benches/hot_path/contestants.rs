//! Who takes part in `hot_path`.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Empty;
use tokio::sync::watch;
use tower::{Layer, Service, retry};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{RefreshLayer, RefreshState, Tokens};

use crate::traffic::{Chunks, Reader, Template};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvcmRlcnMiLCJleHAiOjE3fQ.c2lnbmF0dXJl";

/// A service under measurement, whatever its type.
pub(crate) trait Contestant: Send {
    /// Sends so many requests through one service, one after the other.
    fn kept(&mut self, template: &Template, count: u64);

    /// The same through a clone for each request.
    fn cloned(&mut self, template: &Template, count: u64);

    /// Another handle, for another thread.
    fn another(&self) -> Box<dyn Contestant>;
}

impl<S> Contestant for S
where
    S: Service<Request<Chunks>, Response = Response<Empty<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
{
    fn kept(&mut self, template: &Template, count: u64) {
        for _ in 0..count {
            send(self, template);
        }
    }

    fn cloned(&mut self, template: &Template, count: u64) {
        for _ in 0..count {
            send(&mut self.clone(), template);
        }
    }

    fn another(&self) -> Box<dyn Contestant> {
        Box::new(self.clone())
    }
}

fn send<S>(service: &mut S, template: &Template)
where
    S: Service<Request<Chunks>, Response = Response<Empty<Bytes>>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let response = pin!(service.call(black_box(template.request()))).poll(&mut cx);
    let Poll::Ready(Ok(response)) = black_box(response) else {
        panic!("nothing here has to wait");
    };
    assert_eq!(response.status(), StatusCode::OK);
}

/// The name of the one whose overhead is 0.
pub(crate) const BARE: &str = "bare service";

/// The name of the one whose overhead is 1.
pub(crate) const RETRY: &str = "Retry, prebuilt header from watch";

/// The name of the one that only reads the watch channel.
pub(crate) const WATCH: &str = "prebuilt header from watch, no replay";

/// The name of this layer where it only reads the token.
pub(crate) const ATTACH: &str = "this layer, replay_if(false)";

/// The name of this layer at its leanest.
pub(crate) const LEAN: &str = "this layer, clone_bodies";

/// All contestants, made anew: nothing is shared between two calls.
pub(crate) fn all() -> Vec<(&'static str, Box<dyn Contestant>)> {
    let layer = || RefreshLayer::new(state(Tokens::new(TOKEN)));
    let hour = Duration::from_secs(3600);
    vec![
        (BARE, Box::new(Reader)),
        (
            "AddAuthorization (orientation)",
            Box::new(AddAuthorizationLayer::bearer(TOKEN).layer(Reader)),
        ),
        (WATCH, Box::new(Attach::new(prebuilt(), HeaderValue::clone))),
        (RETRY, Box::new(retry::Retry::new(Once, Attach::new(prebuilt(), HeaderValue::clone)))),
        (
            "Retry, format! each time",
            Box::new(retry::Retry::new(
                Once,
                Attach::new(TOKEN.to_owned(), |token| {
                    HeaderValue::try_from(format!("Bearer {token}")).expect("a valid value")
                }),
            )),
        ),
        ("this layer", Box::new(layer().layer(Reader))),
        ("this layer, marks", Box::new(layer().mark_attempts(true).layer(Reader))),
        (
            "this layer, clone_bodies, marks",
            Box::new(layer().clone_bodies().mark_attempts(true).layer(Reader)),
        ),
        (LEAN, Box::new(layer().clone_bodies().layer(Reader))),
        (
            "the same, the token's end known",
            Box::new(
                RefreshLayer::new(state(Tokens::new(TOKEN).with_expires_in(hour)))
                    .clone_bodies()
                    .layer(Reader),
            ),
        ),
        (ATTACH, Box::new(layer().replay_if(|_| false).layer(Reader))),
    ]
}

fn prebuilt() -> HeaderValue {
    let mut value = HeaderValue::try_from(format!("Bearer {TOKEN}")).expect("a valid value");
    value.set_sensitive(true);
    value
}

fn state(tokens: Tokens) -> Arc<RefreshState> {
    RefreshState::builder(async |_: Tokens| panic!("nothing is refreshed here"))
        .tokens(tokens)
        .build()
}

/// What people write today, the inner half: the token is read from a watch channel
/// and put on the request.
#[derive(Clone)]
struct Attach<T> {
    inner: Reader,
    token: watch::Receiver<T>,
    header: fn(&T) -> HeaderValue,
}

impl<T> Attach<T> {
    fn new(token: T, header: fn(&T) -> HeaderValue) -> Self {
        // Without a sender the value stays for ever, and is read at the same cost.
        Self { inner: Reader, token: watch::Sender::new(token).subscribe(), header }
    }
}

impl<T> Service<Request<Chunks>> for Attach<T> {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = <Reader as Service<Request<Chunks>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Reader as Service<Request<Chunks>>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request<Chunks>) -> Self::Future {
        let value = (self.header)(&self.token.borrow());
        request.headers_mut().insert(AUTHORIZATION, value);
        self.inner.call(request)
    }
}

/// What people write today, the outer half: clones every request, and sends it again
/// if the answer is 401.
#[derive(Clone)]
struct Once;

impl retry::Policy<Request<Chunks>, Response<Empty<Bytes>>, Infallible> for Once {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut Request<Chunks>,
        result: &mut Result<Response<Empty<Bytes>>, Infallible>,
    ) -> Option<Ready<()>> {
        let refused =
            matches!(result, Ok(response) if response.status() == StatusCode::UNAUTHORIZED);
        refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Chunks>) -> Option<Request<Chunks>> {
        Some(request.clone())
    }
}
