//! The API that the application calls for its users: it checks each token, and counts.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    server::Server,
    timeline::{REQUEST_ID, Timeline},
};

/// Where it is, and what it has counted. Clones are the same.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) origin: Arc<str>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Clone)]
struct Shared {
    server: Server,
    latency: Duration,
    timeline: Timeline,
    /// The ids of requests that were refused: one that comes again is a replay.
    refused: Arc<Mutex<HashSet<String>>>,
    counts: Arc<Counts>,
}

impl Api {
    /// How many requests it has refused.
    pub(crate) fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// How many it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }
}

/// Starts it. Every answer takes so long.
pub(crate) async fn start(
    server: Server,
    latency: Duration,
    timeline: Timeline,
) -> std::io::Result<Api> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?).into();
    let counts = Arc::<Counts>::default();
    let refused = Arc::default();
    let shared = Shared { server, latency, timeline, refused, counts: Arc::clone(&counts) };
    let router = Router::new().route("/{*path}", get(answer).post(answer)).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(Api { origin, counts })
}

async fn answer(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let id = text(REQUEST_ID).unwrap_or_default().to_owned();
    let token = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    let Some((sid, is_good)) = shared.server.look_at(token.unwrap_or_default()) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let is_replay = {
        let mut refused = shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_replay = refused.remove(&id);
        if !is_good {
            refused.insert(id.clone());
        }
        is_replay
    };
    if is_replay {
        shared.timeline.tell(&sid, "replayed", &id);
    }
    sleep(shared.latency).await;
    if !is_good {
        shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        shared.timeline.tell(&sid, "refused", &id);
        let challenge = [(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
    Json(json!({ "path": path, "request": id })).into_response()
}
