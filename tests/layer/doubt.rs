//! Refusals that are not about the token: a route that answers 401 whatever it is sent, beside
//! one that takes the token.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use testing::{secs, token_of};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshLayer, RefreshState, Tokens,
    body::ReplayBody,
    layer::{ResponseHead, Verdict, classify},
};

/// How long a redeem takes.
const REDEEM: Duration = Duration::from_millis(50);

type Body = Empty<Bytes>;

/// A server with a good route and bad ones, and its authorization server.
#[derive(Clone)]
struct Server(Arc<Shared>);

struct Shared {
    state: Arc<RefreshState>,
    valid: Arc<Mutex<Option<String>>>,
    redeems: Arc<AtomicUsize>,
}

impl Server {
    /// Tokens live that long.
    fn new(life: Option<Duration>) -> Self {
        let valid = Arc::new(Mutex::new(Some("0".to_owned())));
        let redeems = Arc::new(AtomicUsize::new(0));
        let living = move |name: String| match life {
            Some(life) => Tokens::new(name).with_refresh_token("r").with_expires_in(life),
            None => Tokens::new(name).with_refresh_token("r"),
        };
        let (minted, count) = (Arc::clone(&valid), Arc::clone(&redeems));
        let refresher = move |_: Tokens| {
            let (minted, count) = (Arc::clone(&minted), Arc::clone(&count));
            async move {
                let name = (count.fetch_add(1, Relaxed) + 1).to_string();
                sleep(REDEEM).await;
                *minted.lock().unwrap() = Some(name.clone());
                Ok(living(name))
            }
        };
        let state = RefreshState::builder(refresher).tokens(living("0".to_owned())).build();
        Self(Arc::new(Shared { state, valid, redeems }))
    }

    fn revoke(&self) {
        *self.0.valid.lock().unwrap() = None;
    }

    fn redeems(&self) -> usize {
        self.0.redeems.load(Relaxed)
    }

    fn layer(&self) -> RefreshLayer {
        RefreshLayer::new(Arc::clone(&self.0.state))
    }

    fn client(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + use<> {
        self.client_of(self.layer())
    }

    /// Every response takes a millisecond.
    fn client_of(
        &self,
        layer: RefreshLayer,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + use<> {
        let valid = Arc::clone(&self.0.valid);
        layer.layer(service_fn(move |request: Request<ReplayBody<Body>>| {
            let works = valid.lock().unwrap().as_deref()
                == token_of(&request).filter(|_| request.uri().path() == "/good");
            async move {
                sleep(Duration::from_millis(1)).await;
                let mut response = Response::new(Empty::new());
                if !works {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok(response)
            }
        }))
    }

    /// So many requests at once.
    async fn ask(&self, path: &'static str, many: usize) -> Vec<Response<Body>> {
        let client = self.client();
        let asked = (0..many).map(|_| client.clone().oneshot(request(path)));
        join_all(asked).await.into_iter().map(|response| response.unwrap()).collect()
    }

    async fn assert_good(&self, many: usize) {
        for response in self.ask("/good", many).await {
            assert_eq!(response.status(), 200);
        }
    }
}

fn request(path: &str) -> Request<Body> {
    Request::get(format!("http://api.example.com{path}")).body(Empty::new()).unwrap()
}

fn reason(response: &Response<Body>) -> Option<FailureKind> {
    response.extensions().get::<RefreshFailure>().map(RefreshFailure::kind)
}

const CALLERS: [usize; 2] = [1, 100];

#[tokio::test(start_paused = true)]
async fn requests_whose_token_is_accepted_do_not_wait_for_the_refresh_of_a_doubt() {
    for many in CALLERS {
        let server = Server::new(None);
        server.assert_good(many).await;
        let bad = tokio::spawn({
            let server = server.clone();
            async move { server.ask("/bad", many).await }
        });
        sleep(Duration::from_millis(2)).await;
        assert_eq!(server.redeems(), 1, "a doubt may start a refresh");
        let begun = Instant::now();
        server.assert_good(many).await;
        assert!(begun.elapsed() < REDEEM / 2, "the requests were held");
        for response in bad.await.unwrap() {
            assert_eq!(response.status(), 401);
        }
    }
}

/// Ten times a second, for as long as it takes to see the pauses grow to their limit.
#[tokio::test(start_paused = true)]
async fn refreshes_that_do_not_help_become_rare() {
    for many in CALLERS {
        for bad_first in [true, false] {
            let server = Server::new(None);
            let mut counts = Vec::new();
            for minute in 0..30 {
                for tick in 0..600 {
                    let bad = bad_first == (tick % 2 == 0);
                    let path = if bad { "/bad" } else { "/good" };
                    // A hundred at once now and then: it is about the order, not the load.
                    let many = if tick % 100 < 2 && minute < 2 { many } else { 1 };
                    let begun = Instant::now();
                    for response in server.ask(path, many).await {
                        assert_eq!(response.status(), if bad { 401 } else { 200 });
                    }
                    sleep(Duration::from_millis(100).saturating_sub(begun.elapsed())).await;
                }
                counts.push(server.redeems());
            }
            assert!(counts[0] <= 12, "{} in the first minute", counts[0]);
            assert!(counts[29] - counts[19] <= 3, "in ten minutes: {counts:?}");
        }
    }
}

/// Whatever the bad route has done before, and however many ask.
#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_replaced_within_two_seconds_of_its_first_refusal() {
    for many in CALLERS {
        for bad in [0, 1, 5, 30] {
            for good_between in [true, false] {
                let server = Server::new(None);
                server.assert_good(many).await;
                for _ in 0..bad {
                    server.ask("/bad", many).await;
                    if good_between {
                        server.assert_good(1).await;
                    }
                    sleep(secs(1)).await;
                }
                server.assert_good(1).await;
                server.revoke();
                let mut helped = false;
                for _ in 0..3 {
                    server.ask("/bad", 1).await;
                    let responses = server.ask("/good", many).await;
                    helped = responses.iter().all(|response| response.status() == 200);
                    if helped {
                        break;
                    }
                    sleep(Duration::from_millis(950)).await;
                }
                assert!(helped, "{many} callers, {bad} bad requests, {good_between}");
            }
        }
    }
}

/// A minute lies between two requests: there is no second one that could tell of silence.
#[tokio::test(start_paused = true)]
async fn with_little_traffic_a_route_that_refuses_what_it_has_accepted_is_believed() {
    let server = Server::new(None);
    server.assert_good(1).await;
    for _ in 0..8 {
        server.ask("/bad", 1).await;
        server.assert_good(1).await;
        sleep(secs(60)).await;
    }
    server.ask("/bad", 1).await;
    server.assert_good(1).await;
    let redeems = server.redeems();
    server.revoke();
    server.assert_good(1).await;
    assert_eq!(server.redeems(), redeems + 1);
}

#[tokio::test(start_paused = true)]
async fn neither_pause_nor_brake_keeps_a_token_that_has_run_out() {
    for many in CALLERS {
        for good_first in [true, false] {
            let server = Server::new(Some(secs(100)));
            if good_first {
                server.assert_good(many).await;
            }
            for _ in 0..99 {
                server.ask("/bad", many).await;
                sleep(Duration::from_millis(10)).await;
            }
            let redeems = server.redeems();
            sleep(secs(101)).await;
            server.revoke();
            server.assert_good(many).await;
            assert_eq!(server.redeems(), redeems + 1);
        }
    }
}

/// The refusals of an upload that cannot be sent again count as others do.
#[tokio::test(start_paused = true)]
async fn a_refresh_without_a_replay_is_presumed_not_to_have_helped() {
    let server = Server::new(None);
    let client = server.client_of(server.layer().replay_if(|_| false));
    for tick in 0..600 {
        let path = if tick % 2 == 0 { "/good" } else { "/bad" };
        client.clone().oneshot(request(path)).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!((1..=12).contains(&server.redeems()), "{}", server.redeems());
}

#[tokio::test(start_paused = true)]
async fn the_caller_is_told_that_the_refusal_is_in_doubt() {
    let server = Server::new(None);
    server.assert_good(1).await;
    assert_eq!(reason(&server.ask("/bad", 1).await[0]), None, "it was refreshed");
    server.assert_good(1).await;
    let response = server.ask("/bad", 1).await.remove(0);
    assert_eq!(reason(&response), Some(FailureKind::Doubted));
    let failure = response.extensions().get::<RefreshFailure>().unwrap();
    assert!(failure.retry_at().is_some_and(|at| at > Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_count_starts_nothing_and_is_the_callers() {
    let server = Server::new(None);
    let layer = server.layer().refresh_if(|head| head.uri.path() != "/login");
    let client = server.client_of(layer);
    for _ in 0..3 {
        let response = client.clone().oneshot(request("/login")).await.unwrap();
        assert_eq!((response.status().as_u16(), reason(&response)), (401, None));
    }
    assert_eq!(server.redeems(), 0);
    // Nor does its acceptance: the brake and doubts know nothing of it.
    client.oneshot(request("/bad")).await.unwrap();
    assert_eq!(server.redeems(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_count_waits_for_a_token_like_others() {
    let server = Server::new(Some(secs(100)));
    sleep(secs(200)).await;
    let client = server.client_of(server.layer().refresh_if(|_| false));
    assert_eq!(client.clone().oneshot(request("/good")).await.unwrap().status(), 200);
    server.revoke();
    assert_eq!(client.oneshot(request("/good")).await.unwrap().status(), 401);
    assert_eq!(server.redeems(), 1);
}

/// For the first attempt and for the replay.
#[tokio::test(start_paused = true)]
async fn a_classifier_sees_the_uri_of_the_request() {
    let server = Server::new(None);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = server.layer().classify({
        let seen = Arc::clone(&seen);
        move |head: &ResponseHead<'_>| {
            let uri = head.uri().expect("the layer knows it").to_string();
            let foreign = uri.ends_with("/login");
            seen.lock().unwrap().push(uri);
            if foreign { Verdict::Ignore } else { classify(head) }
        }
    });
    let client = server.client_of(layer);
    server.revoke();
    client.clone().oneshot(request("/login")).await.unwrap();
    assert_eq!(server.redeems(), 0);
    client.oneshot(request("/good")).await.unwrap();
    assert_eq!(server.redeems(), 1);
    let [login, good] = ["login", "good"].map(|path| format!("http://api.example.com/{path}"));
    assert_eq!(*seen.lock().unwrap(), [login, good.clone(), good]);
}
