//! A process with many tasks that use the credential, until its parent is gone or says
//! so.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt};
use tower_refresh::{
    BoxError, Credential, FailureKind, RefreshFailure, RefreshLayer, RefreshState, oauth2,
};

use crate::{children, open};

/// What a write past a file size limit is answered with, and fatal if no handler is there.
const SIGXFSZ: i32 = 25;

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    ok: AtomicU64,
    failed: AtomicU64,
}

pub(crate) async fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let [id, address, place, tasks] = arguments else {
        return Err("a worker takes four arguments".into());
    };
    let _disk_full = signal(SignalKind::from_raw(SIGXFSZ))?;
    let client = oauth2::Client::builder(&format!("{address}/token"), "torture")?
        .param("worker", id)?
        .timeout(Duration::from_secs(5))
        .build()?;
    let (losses, lost) = mpsc::unbounded_channel();
    let current = Arc::new(OnceLock::<watch::Receiver<Credential>>::new());
    let seen = Arc::clone(&current);
    let state = RefreshState::builder(client.refresh_token_grant())
        .on_failure(move |event| {
            let interrupted = event.failure.open_redeem().is_some() && !event.repeated;
            if event.kind() == FailureKind::Rejected && interrupted {
                let current = seen.get().map(|current| current.borrow().clone());
                let session = current.and_then(|current| session(current.access_token()?));
                let _ = losses.send(session.unwrap_or_default());
            }
        })
        .store(open(place)?)
        .cool_down(Duration::from_millis(20), Duration::from_millis(200))
        // Tokens this short-lived are refused brand-new on a slow machine.
        .brake(usize::MAX, Duration::from_secs(1), Duration::ZERO)
        .deadline(Duration::from_secs(5))
        .build();
    let _ = current.set(state.subscribe());

    let counts = Arc::new(Counts::default());
    let mut work = JoinSet::new();
    for _ in 0..tasks.parse::<usize>()? {
        let (state, counts) = (Arc::clone(&state), Arc::clone(&counts));
        work.spawn(task(state, counts, address.clone()));
    }
    tokio::spawn(tell(lost, address.clone()));
    let shown = Arc::clone(&counts);
    tokio::spawn(async move {
        loop {
            show(&shown);
            sleep(Duration::from_millis(100)).await;
        }
    });
    children::parent_is_gone().await;
    counts.stop.store(true, Ordering::Relaxed);
    while work.join_next().await.is_some() {}
    timeout(Duration::from_secs(10), state.drain()).await?;
    show(&counts);
    Ok(true)
}

fn show(counts: &Counts) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("{} {}", of(&counts.ok), of(&counts.failed));
}

async fn task(state: Arc<RefreshState>, counts: Arc<Counts>, address: String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = RefreshLayer::new(Arc::clone(&state)).layer(client);
    while !counts.stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(fastrand::u64(..80))).await;
        let request = Request::post(format!("{address}/api")).body(Full::<Bytes>::from("hello"));
        let Ok(request) = request else { return };
        let Ok(Ok(answer)) =
            timeout(Duration::from_secs(20), client.clone().oneshot(request)).await
        else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let ok = answer.status() == StatusCode::OK;
        let failure = answer.extensions().get::<RefreshFailure>().map(RefreshFailure::kind);
        let _ = answer.into_body().collect().await;
        let count = if ok { &counts.ok } else { &counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        if matches!(failure, Some(FailureKind::Rejected | FailureKind::SignedOut)) {
            // The parent will sign in again.
            let _ = state.refresh().await;
        }
    }
}

/// Tells the server of each session of which a failure says that a redeem was left open.
async fn tell(mut lost: mpsc::UnboundedReceiver<String>, address: String) {
    let http = reqwest::Client::new();
    while let Some(session) = lost.recv().await {
        let _ = http.post(format!("{address}/told/{session}")).send().await;
    }
}

/// The session that this access token is of.
fn session(access_token: &str) -> Option<String> {
    access_token.split('-').nth(1).map(str::to_owned)
}
