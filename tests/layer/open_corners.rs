//! Refusals of which what is promised does not hold yet: each case fails, and is therefore
//! ignored. `cargo test -- --ignored` shows them.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use testing::{secs, token_of};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::ReplayBody, store::MemoryStore};

type Body = Empty<Bytes>;

/// A server whose `/good` routes take the token, and whose other ones refuse whatever they are
/// sent, after a time of their own; and its authorization server.
#[derive(Clone)]
struct Server(Arc<Shared>);

struct Shared {
    valid: Mutex<HashSet<String>>,
    redeems: AtomicUsize,
    /// A redeem ends the access tokens before.
    revokes: bool,
    /// How long a good answer takes. A bad one takes a millisecond.
    good_takes: Duration,
    /// How often a good route has answered 200, and 401.
    good: [AtomicUsize; 2],
}

impl Server {
    fn new(revokes: bool, good_takes: Duration) -> Self {
        Self(Arc::new(Shared {
            valid: Mutex::new(HashSet::from(["0".to_owned()])),
            redeems: AtomicUsize::new(0),
            revokes,
            good_takes,
            good: Default::default(),
        }))
    }

    /// A redeem takes 50 ms.
    async fn redeem(self) -> Tokens {
        let name = (self.0.redeems.fetch_add(1, Relaxed) + 1).to_string();
        sleep(Duration::from_millis(25)).await;
        self.replace_with(&name);
        sleep(Duration::from_millis(25)).await;
        Tokens::new(name).with_refresh_token("r")
    }

    fn replace_with(&self, name: &str) {
        let mut valid = self.0.valid.lock().unwrap();
        if self.0.revokes {
            valid.clear();
        }
        valid.insert(name.to_owned());
    }

    /// As many processes over one store.
    fn states<const N: usize>(&self) -> [Arc<RefreshState>; N] {
        let store = MemoryStore::with_tokens(Tokens::new("0").with_refresh_token("r"));
        std::array::from_fn(|_| {
            let server = self.clone();
            let refresher = move |_: Tokens| {
                let server = server.clone();
                async move { Ok(server.redeem().await) }
            };
            RefreshState::builder(refresher).store(store.clone()).build()
        })
    }

    fn redeems(&self) -> usize {
        self.0.redeems.load(Relaxed)
    }

    fn revoke(&self) {
        self.0.valid.lock().unwrap().clear();
    }

    fn client(
        &self,
        layer: RefreshLayer,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + use<> {
        let server = self.clone();
        layer.layer(service_fn(move |request: Request<ReplayBody<Body>>| {
            let server = server.clone();
            let good = request.uri().path().starts_with("/good");
            let token = token_of(&request).unwrap_or_default().to_owned();
            async move {
                // It is looked at when the request comes.
                let works = good && server.0.valid.lock().unwrap().contains(&token);
                let takes = if works { server.0.good_takes } else { Duration::from_millis(1) };
                sleep(takes).await;
                if good {
                    server.0.good[usize::from(!works)].fetch_add(1, Relaxed);
                }
                let mut response = Response::new(Empty::new());
                if !works {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok(response)
            }
        }))
    }
}

fn to(path: &str) -> Request<Body> {
    Request::get(format!("http://api.example.com{path}")).body(Empty::new()).unwrap()
}

/// "A token that is really revoked while such a pause runs is replaced within a second
/// or two, also with little traffic: when nothing has been accepted with it since". Every request is
/// for a path of its own: two bad ones a second, and a good one a minute. Each silence that was
/// believed and has not helped makes the next one twice as long. Then the token is revoked. Returns
/// how long good requests, two a second, are not helped.
async fn unhelped_after(minutes: u64) -> Duration {
    let server = Server::new(false, Duration::from_millis(1));
    let [state] = server.states();
    let client = server.client(RefreshLayer::new(state));
    client.clone().oneshot(to("/good")).await.unwrap();
    for tick in 0..minutes * 120 {
        client.clone().oneshot(to(&format!("/items/{tick}"))).await.unwrap();
        if tick % 120 == 119 {
            client.clone().oneshot(to(&format!("/good/{tick}"))).await.unwrap();
        }
        sleep(Duration::from_millis(500)).await;
    }
    server.revoke();
    let begun = Instant::now();
    for tick in 0..2000 {
        let response = client.clone().oneshot(to(&format!("/good/late/{tick}"))).await.unwrap();
        if response.status() == 200 {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
#[ignore = "does not hold yet"]
async fn a_revoked_token_is_replaced_soon_whatever_silence_was_believed_before() {
    let mut late = Vec::new();
    for minutes in [0, 1, 5, 20] {
        let unhelped = unhelped_after(minutes).await;
        if unhelped > secs(3) {
            late.push((minutes, unhelped));
        }
    }
    assert!(late.is_empty(), "after so many minutes of bad requests, not helped for: {late:?}");
}

/// Two processes over one store, a server that ends the old access token with a redeem, and bad
/// requests that are not replayed (uploads that are too long to be kept). A refresh that a doubt
/// has had is presumed not to have helped, as no replay answers it; as soon as another process's
/// token is adopted, on account of a good request, it counts as void, and the pause is gone.
#[tokio::test(start_paused = true)]
#[ignore = "does not hold yet"]
async fn two_processes_do_not_lift_each_others_pauses_where_nothing_is_replayed() {
    let server = Server::new(true, Duration::from_millis(1));
    let clients = server.states::<2>().map(|state| {
        let layer = RefreshLayer::new(state).replay_if(|head| head.uri.path() != "/bad");
        server.client(layer)
    });
    for tick in 0..600 {
        // Good, bad, good; and then the other process.
        let path = if tick % 3 == 1 { "/bad" } else { "/good" };
        clients[tick / 3 % 2].clone().oneshot(to(path)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(server.redeems() <= 12, "{} refreshes in half a minute", server.redeems());
}
