//! The server's clock is five minutes off, either way, and no storm of refreshes follows. Time
//! is paused, so the servers are services in memory.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    BoxError, RefreshError, RefreshLayer, RefreshState, Refresher, Tokens,
    body::ReplayBody,
    oauth2::{Client, RefreshTokenGrant},
    state::RefreshStateBuilder,
    store::MemoryStore,
};

use super::endpoint::tokens;

/// How long an access token lives, in seconds.
const LIFE: i64 = 300;
const OFF: i64 = 300;

/// An authorization server and an API with a clock of their own. The text of an access token is
/// when it runs out by that clock.
#[derive(Clone)]
struct World {
    shared: Arc<Shared>,
}

struct Shared {
    begun: Instant,
    /// The server's clock when it began, in seconds.
    clock: AtomicI64,
    refreshes: AtomicUsize,
    refused: AtomicUsize,
    refresh_token: Mutex<String>,
}

impl World {
    fn new(off: i64) -> Self {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let shared = Shared {
            begun: Instant::now(),
            clock: AtomicI64::new(ours + off),
            refreshes: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            refresh_token: Mutex::new("refresh-1".to_owned()),
        };
        Self { shared: Arc::new(shared) }
    }

    fn now(&self) -> i64 {
        self.shared.clock.load(SeqCst) + self.shared.begun.elapsed().as_secs() as i64
    }

    fn grant(&self) -> RefreshTokenGrant {
        let this = self.clone();
        let token_endpoint = service_fn(move |_: Request<Full<Bytes>>| {
            let number = this.shared.refreshes.fetch_add(1, SeqCst) + 2;
            let refresh_token = format!("refresh-{number}");
            this.shared.refresh_token.lock().unwrap().clone_from(&refresh_token);
            let (now, end) = (this.now(), this.now() + LIFE);
            let body = format!(
                r#"{{"access_token":"{end}","refresh_token":"{refresh_token}","token_type":"Bearer","expires_in":{LIFE}}}"#
            );
            let date = UNIX_EPOCH + Duration::from_secs(now as u64);
            let response = Response::builder().header("date", httpdate::fmt_http_date(date));
            std::future::ready(response.body(Full::<Bytes>::from(body)).map_err(BoxError::from))
        });
        let client = Client::builder("https://auth.example.com/token", "id").unwrap();
        client.over(token_endpoint).refresh_token_grant()
    }

    /// As [`grant`](Self::grant), for a client that reads the expiry out of the token, as of a
    /// JWT's `exp`.
    fn absolute(&self) -> impl Refresher + use<> {
        let grant = self.grant();
        move |current: Tokens| {
            let grant = grant.clone();
            async move {
                let minted = grant.refresh(current.into()).await?;
                let end: u64 = minted.access_token().parse().map_err(RefreshError::transient)?;
                Ok(minted.with_expires_at(UNIX_EPOCH + Duration::from_secs(end)))
            }
        }
    }

    /// Sends one request through the layer.
    async fn ask(&self, state: &Arc<RefreshState>) -> StatusCode {
        let this = self.clone();
        let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let token =
                request.headers()["authorization"].to_str().unwrap()["Bearer ".len()..].parse();
            let good = token.is_ok_and(|end: i64| end > this.now());
            let mut response = Response::new(Full::<Bytes>::default());
            if !good {
                this.shared.refused.fetch_add(1, SeqCst);
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok::<_, BoxError>(response))
        });
        let client = RefreshLayer::new(Arc::clone(state)).layer(api);
        client.oneshot(Request::new(Full::default())).await.unwrap().status()
    }

    fn refreshes(&self) -> usize {
        self.shared.refreshes.load(SeqCst)
    }
}

fn signed_in(builder: RefreshStateBuilder) -> Arc<RefreshState> {
    builder.tokens(tokens(1)).build()
}

/// `expires_in` counts from the response, so the server's clock does not matter: an hour of
/// requests takes one refresh for each life, and after the first token none is refused.
#[tokio::test(start_paused = true)]
async fn a_relative_end_knows_no_clock() {
    for off in [-OFF, 0, OFF] {
        let world = World::new(off);
        let state = signed_in(RefreshState::builder(world.grant()));
        for _ in 0..360 {
            assert_eq!(world.ask(&state).await, StatusCode::OK);
            advance(Duration::from_secs(10)).await;
        }
        // Renewed from 45 to 60 s before the end.
        assert!((12..=16).contains(&world.refreshes()), "{off}: {}", world.refreshes());
        assert_eq!(world.shared.refused.load(SeqCst), 1, "{off}");
    }
}

/// The server's clock is behind: by ours, a new token has run out when it comes. It is used all
/// the same, until the API refuses it.
#[tokio::test(start_paused = true)]
async fn an_absolute_end_in_the_past_starts_no_storm() {
    let world = World::new(-OFF);
    let state = signed_in(RefreshState::builder(world.absolute()));
    for _ in 0..1000 {
        assert_eq!(world.ask(&state).await, StatusCode::OK);
    }
    assert_eq!(world.refreshes(), 1);
    advance(Duration::from_secs(LIFE as u64 + 1)).await;
    for _ in 0..1000 {
        assert_eq!(world.ask(&state).await, StatusCode::OK);
    }
    assert_eq!(world.refreshes(), 2);
}

/// The server's clock is ahead: by ours, the token lives on when the API refuses it.
#[tokio::test(start_paused = true)]
async fn an_absolute_end_too_late_costs_one_refusal() {
    let world = World::new(OFF);
    let state = signed_in(RefreshState::builder(world.absolute()));
    for round in 1..=3 {
        for _ in 0..1000 {
            assert_eq!(world.ask(&state).await, StatusCode::OK);
        }
        assert_eq!(world.refreshes(), round);
        assert_eq!(world.shared.refused.load(SeqCst), round);
        advance(Duration::from_secs(LIFE as u64 + 1)).await;
    }
}

/// A stored token has an absolute expiry, by the clock of the process that wrote it.
#[tokio::test(start_paused = true)]
async fn a_stored_end_that_is_off_costs_one_refresh_at_most() {
    for (off, refreshes) in [(-OFF, 1), (OFF, 0)] {
        let world = World::new(0);
        let end = SystemTime::now() + Duration::from_secs(LIFE as u64);
        let good = Tokens::new((world.now() + LIFE).to_string()).with_refresh_token("refresh-1");
        let end = if off < 0 { end - Duration::from_secs(2 * OFF as u64) } else { end };
        let store = MemoryStore::with_tokens(good.with_expires_at(end));
        let state = RefreshState::builder(world.grant()).store(store).build();
        for _ in 0..1000 {
            assert_eq!(world.ask(&state).await, StatusCode::OK);
        }
        assert_eq!(world.refreshes(), refreshes, "{off}");
    }
}
