//! A server with routes that take the token and routes that refuse whatever they are sent, and its
//! authorization server.

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
use testing::token_of;
use tokio::time::sleep;
use tower::{Layer, Service, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::ReplayBody, store::MemoryStore};

pub(crate) type Body = Empty<Bytes>;

/// A server whose `/good` routes take the token, and whose other ones refuse whatever they are
/// sent, after a time of their own; and its authorization server.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

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
    pub(crate) fn new(revokes: bool, good_takes: Duration) -> Self {
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
    pub(crate) fn states<const N: usize>(&self) -> [Arc<RefreshState>; N] {
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

    pub(crate) fn redeems(&self) -> usize {
        self.0.redeems.load(Relaxed)
    }

    /// How often a good route has taken a token.
    pub(crate) fn good_answers(&self) -> usize {
        self.0.good[0].load(Relaxed)
    }

    /// How often a good route has refused one.
    pub(crate) fn good_refusals(&self) -> usize {
        self.0.good[1].load(Relaxed)
    }

    pub(crate) fn revoke(&self) {
        self.0.valid.lock().unwrap().clear();
    }

    pub(crate) fn client(
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

pub(crate) fn to(path: &str) -> Request<Body> {
    Request::get(format!("http://api.example.com{path}")).body(Empty::new()).unwrap()
}
