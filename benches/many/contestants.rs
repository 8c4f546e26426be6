//! Who takes part in `many`.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, yield_now},
};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{FromExtensions, RefreshError, RefreshLayer, RefreshState, Renewal, Tokens};

/// Something to be measured, so many times.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) run: fn(usize),
}

/// The first is what the others are compared with.
pub(crate) const AT_ONCE: &[Contestant] = &[
    Contestant { name: "moka, `get_with`", run: moka },
    Contestant { name: "a map of `Mutex`es", run: mutexes },
    Contestant { name: "this crate", run: states },
];

pub(crate) const IDLE: &[Contestant] = &[
    Contestant { name: "`Arc<Mutex<Session>>`", run: idle_mutexes },
    Contestant { name: "this crate", run: idle_states },
];

pub(crate) const REQUESTS: &[Contestant] = &[
    Contestant { name: "one credential for all", run: |count| requests(count, false) },
    Contestant { name: "`per_request(FromExtensions)`", run: |count| requests(count, true) },
];

const ACCESS: &str = "an access token of thirty bytes";
const REFRESH: &str = "a refresh token of thirty bytes";

fn pair() -> Tokens {
    Tokens::new(ACCESS).with_refresh_token(REFRESH)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The authorization server: answers after a turn of the scheduler.
async fn redeem(_spent: &str) -> (String, String) {
    yield_now().await;
    (ACCESS.to_owned(), REFRESH.to_owned())
}

/// How many credentials are refreshed at once, again and again.
const KEYS: usize = 1_000;

/// Calls this for each of the keys at once, each call in a task of its own, and begins anew until
/// there were so many calls.
fn all_at_once<F>(count: usize, mut round: impl FnMut() -> Box<dyn Fn(usize) -> F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    runtime().block_on(async {
        for _ in 0..count / KEYS {
            let call = round();
            let mut callers = JoinSet::new();
            for key in 0..KEYS {
                callers.spawn(call(key));
            }
            callers.join_all().await;
        }
    });
}

fn moka(count: usize) {
    all_at_once(count, || {
        // What it holds it does not ask for again.
        let cache = moka::future::Cache::<usize, (String, String)>::builder().build();
        Box::new(move |key| {
            let cache = cache.clone();
            async move {
                black_box(cache.get_with(key, redeem(REFRESH)).await);
            }
        })
    });
}

struct Session {
    access: String,
    refresh: String,
}

fn session() -> Session {
    Session { access: ACCESS.to_owned(), refresh: REFRESH.to_owned() }
}

fn mutexes(count: usize) {
    let session = |key| (key, Arc::new(tokio::sync::Mutex::new(session())));
    let sessions: HashMap<usize, _> = (0..KEYS).map(session).collect();
    let sessions = Arc::new(Mutex::new(sessions));
    all_at_once(count, || {
        let sessions = Arc::clone(&sessions);
        Box::new(move |key| {
            let sessions = Arc::clone(&sessions);
            async move {
                let session = sessions.lock().expect("no panic")[&key].clone();
                let mut session = session.lock().await;
                (session.access, session.refresh) = redeem(&session.refresh).await;
            }
        })
    });
}

fn renewal() -> Renewal {
    Renewal::builder(async |spent: Tokens| {
        let (access, refresh) = redeem(spent.refresh_token().unwrap_or_default()).await;
        Ok::<_, RefreshError>(Tokens::new(access).with_refresh_token(refresh))
    })
    .build()
}

fn states(count: usize) {
    let renewal = renewal();
    let states: Arc<[_]> = (0..KEYS).map(|_| renewal.in_memory(pair())).collect();
    all_at_once(count, || {
        let states = Arc::clone(&states);
        Box::new(move |key| {
            let state = Arc::clone(&states[key]);
            async move {
                black_box(state.refresh().await.expect("refreshed"));
            }
        })
    });
}

fn idle_mutexes(count: usize) {
    let sessions: Vec<_> = (0..count).map(|_| Arc::new(Mutex::new(session()))).collect();
    let lock = |session: &Arc<Mutex<Session>>| session.lock().expect("no panic").access.len();
    black_box(sessions.iter().map(lock).sum::<usize>());
}

fn idle_states(count: usize) {
    let renewal = renewal();
    let states: Vec<_> = (0..count).map(|_| renewal.in_memory(pair())).collect();
    let present = |state: &Arc<RefreshState>| state.current().access_token().map_or(0, str::len);
    black_box(states.iter().map(present).sum::<usize>());
}

#[derive(Clone)]
struct Accepts;

impl<B> Service<Request<B>> for Accepts {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(Empty::new())))
    }
}

fn requests(count: usize, per_request: bool) {
    let renewal = renewal();
    let users: Vec<_> = (0..100).map(|_| renewal.in_memory(pair())).collect();
    let layer = match per_request {
        true => RefreshLayer::per_request(FromExtensions),
        false => RefreshLayer::new(renewal.in_memory(pair())),
    };
    let mut service = layer.layer(Accepts);
    runtime().block_on(async {
        for number in 0..count {
            let mut request = Request::new(Full::<Bytes>::default());
            request.extensions_mut().insert(Arc::clone(&users[number % users.len()]));
            let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await;
            black_box(ready.expect("ready").call(request).await.expect("a response"));
        }
    });
}
