//! What one route that answers 401 whatever it is sent costs the callers of the others, and how
//! often it has the token refreshed.
//!
//! Eight callers ask the good route one request after the other, one asks the bad route. A
//! response takes a millisecond. Each row compares turns with the bad caller to turns without,
//! one after the other; a minute's refreshes are counted on tokio's paused clock.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::ReplayBody};

const GOOD_CALLERS: usize = 8;
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);

fn main() {
    println!(
        "| a refresh takes | good callers' throughput beside a bad one | refreshes in a minute |"
    );
    println!("|--:|--:|--:|");
    for refresh in [50, 200].map(Duration::from_millis) {
        let mut ratios: Vec<f64> = (0..TURNS).map(|_| beside(refresh)).collect();
        ratios.sort_by(f64::total_cmp);
        let refreshes = refreshes_in_a_minute(refresh);
        let median = 100.0 * ratios[TURNS / 2];
        println!("| {} ms | {median:.0} % | {refreshes} |", refresh.as_millis());
    }
}

/// Good responses with the bad caller over good responses without.
fn beside(refresh: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let alone = runtime.block_on(run(refresh, 0, TURN)).0;
    let beside = runtime.block_on(run(refresh, 1, TURN)).0;
    beside as f64 / alone as f64
}

fn refreshes_in_a_minute(refresh: Duration) -> u64 {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run(refresh, 1, MINUTE)).1
}

/// How many good responses there were, and how many refreshes.
async fn run(refresh: Duration, bad_callers: usize, time: Duration) -> (u64, u64) {
    let (good, refreshes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&refreshes);
    let state = RefreshState::builder(move |_: Tokens| {
        let number = count.fetch_add(1, Relaxed);
        async move {
            sleep(refresh).await;
            Ok(Tokens::new(format!("access-{number}")).with_refresh_token("refresh"))
        }
    })
    .tokens(Tokens::new("access").with_refresh_token("refresh"))
    .build();
    let client = RefreshLayer::new(state).layer(service_fn(server));
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for caller in 0..GOOD_CALLERS + bad_callers {
        let path = if caller < GOOD_CALLERS { "/good" } else { "/bad" };
        let (mut client, good) = (client.clone(), Arc::clone(&good));
        callers.spawn(async move {
            while Instant::now() < end {
                let request = Request::get(format!("http://api.example.com{path}"));
                let request = request.body(Empty::<Bytes>::new()).unwrap();
                let response = client.ready().await.unwrap().call(request).await.unwrap();
                good.fetch_add(u64::from(response.status() == StatusCode::OK), Relaxed);
            }
        });
    }
    callers.join_all().await;
    (good.load(Relaxed), refreshes.load(Relaxed))
}

async fn server(
    request: Request<ReplayBody<Empty<Bytes>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    sleep(Duration::from_millis(1)).await;
    let mut response = Response::new(Empty::new());
    if request.uri().path() == "/bad" {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}
