//! Who takes part in `herd`: ways to wait for one refresh and to send again.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    time::Instant,
};

use benches::time::now;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{Empty, Full};
use tokio::{sync::Notify, task::JoinSet};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, Tokens};

/// The names of the contestants.
pub(crate) const NAMES: [&str; 3] =
    ["list of wakers (the floor)", "this layer", "Mutex, double check"];

/// What one herd shares: the server, the refresh that is held, and the clock.
#[derive(Default)]
pub(crate) struct Stage {
    /// Requests that are with the server for the first time.
    sent: AtomicUsize,
    /// Lets the server answer these.
    answer: Notify,
    /// Requests that were refused.
    refused: AtomicUsize,
    /// Lets the refresh end.
    release: Notify,
    refreshes: AtomicUsize,
    /// When it ended.
    ended: Mutex<Option<Instant>>,
    /// Requests that were accepted.
    accepted: AtomicUsize,
    /// When the last one was.
    last: Mutex<Option<Instant>>,
}

impl Stage {
    /// The server: refuses the old token once it is told to, and accepts the new one
    /// at once. Of the request it keeps nothing.
    async fn serve<B>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Empty<Bytes>>, Infallible> {
        let fresh = request.headers().get(AUTHORIZATION).is_some_and(|value| value == "Bearer new");
        drop(request);
        let mut response = Response::new(Empty::new());
        if !fresh {
            // The permit is taken from the moment of asking: no request misses it.
            let answer = self.answer.notified();
            self.sent.fetch_add(1, SeqCst);
            answer.await;
            self.refused.fetch_add(1, SeqCst);
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    }

    /// The refresh: waits until it is released, and notes when it ends.
    async fn refresh(&self) {
        self.refreshes.fetch_add(1, SeqCst);
        self.release.notified().await;
        set(&self.ended, now());
    }

    /// A request has its final response.
    fn done(&self, response: &Response<Empty<Bytes>>, of: usize) {
        assert_eq!(response.status(), StatusCode::OK);
        if self.accepted.fetch_add(1, SeqCst) + 1 == of {
            set(&self.last, now());
        }
    }

    /// Until so many requests are with the server.
    pub(crate) async fn all_sent(&self, count: usize) {
        until(|| self.sent.load(SeqCst) == count).await;
    }

    /// Lets the server refuse them all, until the last of them waits.
    pub(crate) async fn all_refused(&self, count: usize) {
        self.answer.notify_waiters();
        // From its 401 on, a request goes on to wait without a pause; the last may
        // need a moment.
        until(|| self.refused.load(SeqCst) == count && self.refreshes.load(SeqCst) > 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    /// Ends the refresh.
    pub(crate) fn release(&self) {
        self.release.notify_one();
    }

    /// Milliseconds from the refresh's end to the last response.
    pub(crate) fn took(&self) -> f64 {
        let [ended, last] =
            [&self.ended, &self.last].map(|at| *at.lock().unwrap_or_else(PoisonError::into_inner));
        let (ended, last) = ended.zip(last).expect("both have happened");
        1e3 * (last - ended).as_secs_f64()
    }

    pub(crate) fn refreshes(&self) -> usize {
        self.refreshes.load(SeqCst)
    }
}

fn set(clock: &Mutex<Option<Instant>>, now: Instant) {
    *clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::post("https://api.example.com/v1/orders?draft=1")
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("user-agent", "orders/1.4 (linux)")
        .header("x-request-id", "01JAB3ZK5W8M7Q2T4V6X9YC0DE")
        .header("idempotency-key", "5f0c9c1e-9a3d-4a5e-8f6b-2d7c1b0a9e84")
        .body(Full::from("body"))
        .expect("a valid request")
}

/// Starts a herd: so many tasks, each with one request.
pub(crate) fn start(name: &str, count: usize, stage: &Arc<Stage>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    match name {
        "this layer" => {
            let refreshing = Arc::clone(stage);
            let state = RefreshState::builder(move |_: Tokens| {
                let stage = Arc::clone(&refreshing);
                async move {
                    stage.refresh().await;
                    Ok(Tokens::new("new"))
                }
            })
            .tokens(Tokens::new("old"))
            .build();
            let serving = Arc::clone(stage);
            let service = RefreshLayer::new(state)
                .layer(service_fn(move |request| Arc::clone(&serving).serve(request)));
            for _ in 0..count {
                let (service, stage) = (service.clone(), Arc::clone(stage));
                tasks.spawn(async move {
                    let Ok(response) = service.oneshot(request()).await;
                    stage.done(&response, count);
                });
            }
        }
        "Mutex, double check" => {
            let token = Arc::new(tokio::sync::Mutex::new("Bearer old"));
            for _ in 0..count {
                let (token, stage) = (Arc::clone(&token), Arc::clone(stage));
                tasks.spawn(async move {
                    let refresh = async {
                        let mut token = token.lock().await;
                        if *token == "Bearer old" {
                            stage.refresh().await;
                            *token = "Bearer new";
                        }
                    };
                    let response = twice(&stage, refresh).await;
                    stage.done(&response, count);
                });
            }
        }
        _ => {
            let list = Arc::new(List(Mutex::new(Some(Vec::new()))));
            let (refresher, refreshing) = (Arc::clone(&list), Arc::clone(stage));
            tasks.spawn(async move {
                refreshing.refresh().await;
                refresher.wake_all();
            });
            for _ in 0..count {
                let (list, stage) = (Arc::clone(&list), Arc::clone(stage));
                tasks.spawn(async move {
                    let response = twice(&stage, list.wait()).await;
                    stage.done(&response, count);
                });
            }
        }
    }
    tasks
}

/// Sends a request with the old token, refreshes, and sends it with the new one.
async fn twice(stage: &Arc<Stage>, refresh: impl Future<Output = ()>) -> Response<Empty<Bytes>> {
    let mut request = request();
    let mut again = request.clone();
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer old"));
    let Ok(response) = Arc::clone(stage).serve(request).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    refresh.await;
    again.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer new"));
    let Ok(response) = Arc::clone(stage).serve(again).await;
    response
}

/// The floor: wakers in a list, which is gone once they were woken.
struct List(Mutex<Option<Vec<Waker>>>);

impl List {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| match &mut *self.lock() {
            None => Poll::Ready(()),
            Some(wakers) => {
                wakers.push(cx.waker().clone());
                Poll::Pending
            }
        })
    }

    fn wake_all(&self) {
        let wakers = self.lock().take();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
