//! The order of layers, where it matters: what the docs of `tower_refresh::layer` say of layers above
//! and below. Those for buffers, limits and timeouts are in `tests/layer/tower_stack.rs`, those for
//! redirects in `redirects`.

use std::{
    future::{Ready, ready},
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use testing::{Auth, Logs, builder};
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::Policy, service_fn};
use tower_http::{
    decompression::DecompressionLayer,
    trace::{DefaultMakeSpan, TraceLayer},
};
use tower_refresh::{RefreshLayer, Tokens, body::ReplayBody};

type Body = Full<Bytes>;

/// Refuses every token but this, and says 503 to the first request that brings it.
fn server(
    good: &'static str,
    attempts: Arc<AtomicUsize>,
) -> impl tower::Service<
    Request<ReplayBody<Body>>,
    Response = Response<Body>,
    Error = BoxError,
    Future = Ready<Result<Response<Body>, BoxError>>,
> + Clone {
    let busy = Arc::new(AtomicUsize::new(0));
    service_fn(move |request: Request<ReplayBody<Body>>| {
        attempts.fetch_add(1, Relaxed);
        let status = match request.headers()["authorization"] == good {
            false => StatusCode::UNAUTHORIZED,
            true if busy.fetch_add(1, Relaxed) == 0 => StatusCode::SERVICE_UNAVAILABLE,
            true => StatusCode::OK,
        };
        ready(Response::builder().status(status).body(Full::default()).map_err(Into::into))
    })
}

fn request() -> Request<Body> {
    Request::get("http://api.example.com/").body(Full::default()).unwrap()
}

/// Sends again what was answered with 503, up to three times.
#[derive(Clone)]
struct Busy(u32);

impl<B: Clone> Policy<Request<B>, Response<Body>, BoxError> for Busy {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Ready<()>> {
        let busy = result.as_ref().is_ok_and(|response| response.status() == 503);
        self.0 = self.0.checked_sub(1)?;
        busy.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// tower's `Retry` goes above: what it sends again is a request like others, with the token of that
/// moment. (Below, it would have to clone a `ReplayBody`, which cannot be cloned.)
#[tokio::test(start_paused = true)]
async fn a_retry_above_sends_the_new_token_again() {
    let (auth, attempts) = (Auth::new(), Arc::new(AtomicUsize::new(0)));
    let client = ServiceBuilder::new()
        .retry(Busy(3))
        .layer(RefreshLayer::new(builder(&auth).build()))
        .service(server("Bearer access-2", Arc::clone(&attempts)));
    assert_eq!(client.oneshot(request()).await.unwrap().status(), 200);
    assert_eq!(attempts.load(Relaxed), 3, "refused, busy, accepted");
    assert_eq!(auth.count(), 1);
}

/// A rate limit above counts requests, one below counts attempts.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_below_counts_the_replay() {
    for (above, waits) in [(true, false), (false, true)] {
        let (auth, attempts) = (Auth::new(), Arc::new(AtomicUsize::new(0)));
        let hour = Duration::from_secs(3600);
        let refresh = RefreshLayer::new(builder(&auth).build());
        let server = server("Bearer access-2", attempts);
        let begun = Instant::now();
        match above {
            true => {
                let limited = ServiceBuilder::new().rate_limit(1, hour);
                let client = limited.layer(refresh).service(server);
                client.oneshot(request()).await.unwrap();
            }
            false => {
                let limited = ServiceBuilder::new().buffer(8).rate_limit(1, hour).service(server);
                let client = ServiceBuilder::new().layer(refresh).service(limited);
                client.oneshot(request()).await.unwrap();
            }
        }
        assert_eq!(begun.elapsed() >= hour, waits, "above: {above}");
    }
}

/// Decompression may stand on either side.
#[tokio::test(start_paused = true)]
async fn decompression_on_either_side() {
    let server = || {
        service_fn(async |request: Request<ReplayBody<Body>>| {
            let good = request.headers()["authorization"] == "Bearer access-2";
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(if good { b"welcome" } else { b"who are you" })?;
            let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            let response = Response::builder().status(status).header("content-encoding", "gzip");
            Ok::<_, BoxError>(response.body(Full::<Bytes>::from(gzip.finish()?))?)
        })
    };
    let above = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(RefreshLayer::new(builder(&Auth::new()).build()))
        .service(server());
    let response = above.oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "welcome");
    let below = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&Auth::new()).build()))
        .layer(DecompressionLayer::new())
        .service(server());
    let response = below.oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "welcome");
}

/// `Trace` above tells of a request once, below of each attempt; and shows no token even if it shows
/// headers.
#[tokio::test(start_paused = true)]
async fn a_trace_below_tells_of_each_attempt_and_shows_no_token() {
    for (above, spans) in [(true, 1), (false, 2)] {
        let (logs, _guard) = Logs::capture();
        let refreshes = async |_: Tokens| Ok(Tokens::new("SECRET-2"));
        let state =
            tower_refresh::RefreshState::builder(refreshes).tokens(Tokens::new("SECRET-1")).build();
        let refresh = RefreshLayer::new(state);
        let trace = || {
            let span = DefaultMakeSpan::new().level(tracing::Level::INFO).include_headers(true);
            TraceLayer::new_for_http().make_span_with(span)
        };
        let server = service_fn(async |request: Request<ReplayBody<Body>>| {
            let good = request.headers()["authorization"] == "Bearer SECRET-2";
            let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok::<_, BoxError>(Response::builder().status(status).body(Body::default())?)
        });
        let status = match above {
            true => {
                let client = ServiceBuilder::new().layer(trace()).layer(refresh).service(server);
                client.oneshot(request()).await.unwrap().status()
            }
            false => {
                let client = ServiceBuilder::new().layer(refresh).layer(trace()).service(server);
                client.oneshot(request()).await.unwrap().status()
            }
        };
        assert_eq!(status, 200);
        logs.assert_clean();
        let begun = logs.count(&["tower_http", "started processing request"]);
        assert_eq!(begun, spans, "above: {above}\n{}", logs.text());
    }
}
