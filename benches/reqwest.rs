//! What a request costs in reqwest's client that is not refused.
//!
//! ```text
//! cargo bench -p benches --bench reqwest --features reqwest
//! ```
//!
//! A POST of 1 KiB with five ordinary headers, as in `hot_path`, goes to a last middleware (or
//! service) that reads the body to its end and says 200, with the URL that every response from a
//! network has. The contestants are called as reqwest calls them.
//!
//! *Overhead* is what a contestant costs above the client or service that is bare, as a share of
//! what a hand-written middleware costs above the bare client: it clones the request, puts on a
//! prebuilt header from a watch channel, and would refresh under a mutex and send the clone. That
//! one is 1.00. Instructions and allocations are exact and come from valgrind; times are the best
//! of many rounds in which the contestants take turns, and hold as ratios only.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use benches::{
    time::{least, thread_cpu},
    valgrind::{self, Cost},
};
use bytes::Bytes;
use http::{Extensions, HeaderValue, StatusCode, header};
use http_body::Body as _;
use reqwest::{Method, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tokio::sync::{Mutex, watch};
use tower::{Layer, Service};
use tower_refresh::{RefreshLayer, RefreshMiddleware, RefreshState, ReqwestLayer, Tokens};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvcmRlcnMiLCJleHAiOjE3fQ.c2lnbmF0dXJl";

/// In this order: [`CLIENT`] is the one whose overhead is 0, [`BY_HAND`] the one whose is 1.
const NAMES: [&str; 5] =
    ["bare client", "hand-written middleware", "RefreshMiddleware", "bare service", "ReqwestLayer"];

const CLIENT: usize = 0;
const BY_HAND: usize = 1;
const SERVICE: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, _child, contestant, count] = args.as_slice() {
        let number = |text: &String| text.parse::<usize>().expect("a number");
        contestant_of(number(contestant))(number(count));
        return;
    }

    let times = times();
    let costs = valgrind::is_here().then(costs);
    println!("| contestant | instructions | allocations | bytes allocated | overhead | by time |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (i, name) in NAMES.iter().enumerate() {
        let bare = if i < SERVICE { CLIENT } else { SERVICE };
        let share = |of: &dyn Fn(usize) -> f64| (of(i) - of(bare)) / (of(BY_HAND) - of(CLIENT));
        let time = share(&|i| times[i]);
        match &costs {
            Some(costs) => {
                let Cost { instructions, allocations, bytes } = costs[i];
                // What the bare request allocates is its own.
                let (allocations, bytes) =
                    (allocations - costs[bare].allocations, bytes - costs[bare].bytes);
                let overhead = share(&|i| costs[i].instructions);
                println!(
                    "| {name} | {instructions:.0} | {allocations:.2} | {bytes:.0} | {overhead:.2} | {time:.2} |"
                );
            }
            None => println!("| {name} | | | | | {time:.2} |"),
        }
    }
}

/// Nanoseconds a request, in the order of [`NAMES`].
fn times() -> Vec<f64> {
    const ROUNDS: usize = 310;
    const COUNT: usize = 500;
    let mut contestants: Vec<_> = (0..NAMES.len()).map(contestant_of).collect();
    let mut times = vec![Vec::new(); NAMES.len()];
    for _ in 0..ROUNDS {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = thread_cpu();
            contestant(COUNT);
            times.push((thread_cpu() - start).as_nanos() as f64 / COUNT as f64);
        }
    }
    times.into_iter().map(least).collect()
}

fn costs() -> Vec<Cost> {
    let cost = |contestant: usize| valgrind::cost(&["child", &contestant.to_string()], 500, true);
    (0..NAMES.len()).map(cost).collect()
}

/// Sends so many requests, one after the other.
type Contestant = Box<dyn FnMut(usize)>;

fn contestant_of(place: usize) -> Contestant {
    let http = reqwest::Client::new();
    let client = ClientBuilder::new(http);
    match NAMES[place] {
        "bare client" => through_client(client.with(Answers).build()),
        "hand-written middleware" => {
            through_client(client.with(ByHand::new()).with(Answers).build())
        }
        "RefreshMiddleware" => {
            through_client(client.with(RefreshMiddleware::new(layer())).with(Answers).build())
        }
        "bare service" => through_service(Answers),
        _ => through_service(ReqwestLayer::new(layer()).layer(Answers)),
    }
}

fn layer() -> RefreshLayer {
    let state = RefreshState::builder(async |_: Tokens| panic!("nothing is refreshed here"));
    RefreshLayer::new(state.tokens(Tokens::new(TOKEN)).build())
}

fn through_client(client: ClientWithMiddleware) -> Contestant {
    let template = Template::new();
    Box::new(move |count| {
        for _ in 0..count {
            check(at_once(client.execute(black_box(template.request()))));
        }
    })
}

fn through_service<S>(mut service: S) -> Contestant
where
    S: Service<Request, Response = Response, Error: std::fmt::Debug> + 'static,
{
    let template = Template::new();
    Box::new(move |count| {
        for _ in 0..count {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            check(at_once(service.call(black_box(template.request()))));
        }
    })
}

fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => black_box(output),
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

fn check<E: std::fmt::Debug>(response: Result<Response, E>) {
    assert_eq!(response.expect("a response").status(), StatusCode::OK);
}

/// Builds requests.
struct Template {
    url: Url,
    body: Bytes,
}

impl Template {
    fn new() -> Self {
        Self {
            url: "https://api.example.com/v1/orders?draft=1".parse().expect("a valid URL"),
            body: Bytes::from(vec![7; 1 << 10]),
        }
    }

    fn request(&self) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("orders/1.4 (linux)"));
        for (name, value) in [
            ("x-request-id", "01JAB3ZK5W8M7Q2T4V6X9YC0DE"),
            ("idempotency-key", "5f0c9c1e-9a3d-4a5e-8f6b-2d7c1b0a9e84"),
        ] {
            // Memory of the request's own, as in `hot_path`.
            let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a valid name");
            headers.insert(name, HeaderValue::from_str(value).expect("a valid value"));
        }
        *request.body_mut() = Some(self.body.clone().into());
        request
    }
}

/// Answers every request with a 200: the network.
#[derive(Clone)]
struct Answers;

impl Answers {
    fn answer(mut request: Request) -> Response {
        if let Some(body) = request.body_mut() {
            let mut cx = Context::from_waker(Waker::noop());
            // As hyper does: a body that says it is empty is not polled.
            while !body.is_end_stream() {
                let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) else {
                    break;
                };
                black_box(&frame);
            }
        }
        let response = http::Response::builder().url(request.url().clone()).body("");
        response.expect("a valid response").into()
    }
}

#[async_trait]
impl Middleware for Answers {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        Ok(Self::answer(request))
    }
}

impl Service<Request> for Answers {
    type Response = Response;
    type Error = reqwest::Error;
    type Future = Ready<Result<Response, reqwest::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(Ok(Self::answer(request)))
    }
}

/// What people write today.
struct ByHand {
    token: watch::Sender<HeaderValue>,
    refresh: Mutex<fn() -> Result<HeaderValue, Infallible>>,
}

impl ByHand {
    fn new() -> Self {
        let mut value = HeaderValue::try_from(format!("Bearer {TOKEN}")).expect("a valid value");
        value.set_sensitive(true);
        let refresh = || panic!("nothing is refreshed here");
        Self { token: watch::Sender::new(value), refresh: Mutex::new(refresh) }
    }

    fn attach(&self, request: &mut Request) -> HeaderValue {
        let token = self.token.borrow().clone();
        request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        token
    }
}

#[async_trait]
impl Middleware for ByHand {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let again = request.try_clone();
        let used = self.attach(&mut request);
        let response = next.clone().run(request, extensions).await?;
        let Some(mut again) = again else { return Ok(response) };
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let refresh = self.refresh.lock().await;
        if *self.token.borrow() == used {
            match refresh() {
                Ok(token) => drop(self.token.send_replace(token)),
                Err(never) => match never {},
            }
        }
        drop(refresh);
        self.attach(&mut again);
        next.run(again, extensions).await
    }
}
