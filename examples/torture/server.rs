//! The authorization server and the API, over TCP, as a process of their own.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tower::{ServiceExt, service_fn};
use tower_refresh::BoxError;

use crate::{
    INTENT,
    book::{Book, Verdict},
    children,
};

struct Shared {
    book: Mutex<Book>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// Everyone is told to come again until then.
    busy_until: Option<Instant>,
    /// Of a thousand answers so many are lost, half of them before anything was done.
    lose: u64,
    /// Is told who has redeemed next, while the answer is held back.
    ambush: Option<oneshot::Sender<u64>>,
}

/// How long the answer to a redeem is held back, for its process to be killed before.
const HELD_BACK: Duration = Duration::from_millis(50);

/// Marks an answer that does not get through.
#[derive(Clone)]
struct Lost;

pub(crate) async fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let grace = arguments.first().ok_or("no grace")?.parse()?;
    let stalls_count = arguments.get(1).is_some_and(|word| word == "stalls-count");
    // Whoever redeems has noted it, and is waited for as long as that.
    let book = Book::new(Duration::from_millis(grace), stalls_count.then_some(INTENT));
    let shared = Arc::new(Shared { book: Mutex::new(book), trouble: Mutex::default() });
    let router = Router::new()
        .route("/token", post(token))
        .route("/api", any(api))
        .route("/login", get(login))
        .route("/told/{family}", post(told))
        .route("/ambush", get(ambush))
        .route("/book", get(book_of))
        .route("/current", get(current))
        .route("/note/{event}/{number}", get(note))
        .with_state(shared);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(serve(listener, router));
    children::parent_is_gone().await;
    Ok(true)
}

async fn serve(listener: TcpListener, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.clone().oneshot(request);
        async move {
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            match answer.extensions().get::<Lost>() {
                // An error of the service, and the end of its connection.
                Some(Lost) => Err(io::Error::other("lost")),
                None => Ok(answer),
            }
        }
    });
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Redeem {
    refresh_token: String,
    worker: u64,
}

async fn token(State(shared): State<Arc<Shared>>, Form(redeem): Form<Redeem>) -> Response {
    let (busy, lose) = {
        let trouble = shared.trouble();
        (trouble.busy_until.is_some_and(|until| until > Instant::now()), trouble.lose)
    };
    let mut held_back = false;
    if busy {
        shared.book().count("busy");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let lost = fastrand::u64(..1000) < lose;
    if lost && fastrand::bool() {
        shared.book().count("lost_before");
        return (axum::Extension(Lost), ()).into_response();
    }
    let verdict = shared.book().redeem(&redeem.refresh_token, redeem.worker, lost);
    if let (Verdict::Pair(..), Some(ambush)) = (&verdict, shared.trouble().ambush.take()) {
        let _ = ambush.send(redeem.worker);
        held_back = true;
    }
    if held_back {
        sleep(HELD_BACK).await;
    }
    let answer = match verdict {
        Verdict::Pair(access, refresh) => Json(json!({
            "access_token": access,
            "token_type": "Bearer",
            "refresh_token": refresh,
        }))
        .into_response(),
        Verdict::InvalidGrant => {
            (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response()
        }
    };
    if lost {
        shared.book().count("lost_after");
        return (axum::Extension(Lost), ()).into_response();
    }
    answer
}

async fn api(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if shared.book().accepts(token) {
        return "hello".into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

async fn login(State(shared): State<Arc<Shared>>) -> String {
    let (access, refresh) = shared.book().sign_in();
    format!("{access} {refresh}")
}

/// A worker's failure has said what was interrupted.
async fn told(State(shared): State<Arc<Shared>>, Path(family): Path<u64>) {
    shared.book().told(family);
}

/// Waits for the next redeem, and says whose it is: its answer is held back, for something
/// to be done to the process that has not saved yet. 0: there was none for a while.
async fn ambush(State(shared): State<Arc<Shared>>) -> String {
    let (sender, caught) = oneshot::channel();
    shared.trouble().ambush = Some(sender);
    let caught = timeout(Duration::from_secs(1), caught).await;
    caught.ok().and_then(Result::ok).unwrap_or_default().to_string()
}

async fn current(State(shared): State<Arc<Shared>>) -> String {
    shared.book().current()
}

async fn book_of(State(shared): State<Arc<Shared>>) -> String {
    let book = shared.book();
    let counts = book.counts.iter().map(|(name, count)| format!("{name}={count}\n"));
    let dead = format!("dead={}\n", u64::from(book.is_dead()));
    let untold = format!("untold={}\n", book.untold());
    counts.chain([dead, untold]).collect()
}

async fn note(
    State(shared): State<Arc<Shared>>,
    Path((event, number)): Path<(String, u64)>,
) -> StatusCode {
    match event.as_str() {
        "killed" => shared.book().killed(number),
        "stopped" => shared.book().stopped(number),
        "continued" => shared.book().continued(number),
        "busy" => {
            shared.trouble().busy_until = Some(Instant::now() + Duration::from_millis(number));
        }
        "lose" => shared.trouble().lose = number,
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::NO_CONTENT
}
