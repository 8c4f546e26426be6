//! The authorization server and the API, for many users: each sign-in is a family of tokens, and a
//! refresh token that comes a second time ends its family.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use tower_refresh::BoxError;

/// Access tokens live so long.
const LIFE: Duration = Duration::from_millis(300);

#[derive(Clone)]
pub(crate) struct Server {
    address: Arc<str>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
pub(crate) struct Book {
    families: HashMap<u64, Family>,
    /// A replica that is stopped for so long loses its lease. `None`: never.
    patience: Option<Duration>,
    killed: HashSet<u64>,
    stalls: Vec<Stall>,
    busy_until: Option<Instant>,
    pub(crate) redeems: u64,
    pub(crate) reuse: u64,
    pub(crate) unavoidable: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

struct Family {
    user: String,
    number: u64,
    minted: Instant,
    fate: Fate,
    /// Whether the current pair was seen in use, which is to say that it was saved.
    seen: bool,
    last: Option<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Alive,
    Revoked,
    /// By a token that came again, and nobody could help it.
    Unavoidable,
    /// By a token that came again.
    Reused,
}

struct Stall {
    who: u64,
    from: Instant,
    until: Option<Instant>,
}

impl Book {
    /// Whether no client could help it that this token comes again, from this replica. Either nobody
    /// has the pair that was given for it: the replica that redeemed it was killed, or stopped for too
    /// long. Or the one that brings it now was stopped for too long right before it sent the token:
    /// another one has had to take it for dead.
    fn excuse(&self, family: &Family, number: u64, by: u64) -> bool {
        let Some((first, at)) = family.last.filter(|_| number + 1 == family.number) else {
            return false;
        };
        let stalled = |who: u64| {
            self.stalls.iter().any(|stall| {
                let until = stall.until.unwrap_or_else(Instant::now);
                let lost = self.patience.is_some_and(|patience| until - stall.from >= patience);
                stall.who == who && until >= at && lost
            })
        };
        stalled(by) || (!family.seen && (self.killed.contains(&first) || stalled(first)))
    }

    fn pair(&self, family: u64) -> serde_json::Value {
        let number = self.families[&family].number;
        json!({
            "access_token": format!("a.{family}.{number}"),
            "refresh_token": format!("r.{family}.{number}"),
            "token_type": "Bearer",
        })
    }
}

/// The family and the number of a token.
fn parse(token: &str) -> Option<(u64, u64)> {
    let (family, number) = token[token.find('.')? + 1..].split_once('.')?;
    Some((family.parse().ok()?, number.parse().ok()?))
}

impl Server {
    pub(crate) async fn start(patience: Option<Duration>) -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?).into();
        let book = Arc::new(Mutex::new(Book { patience, ..Book::default() }));
        let server = Self { address, book };
        let app = Router::new()
            .route("/login/{user}", post(login))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/api", get(api))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(server)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn killed(&self, who: u64) {
        self.book().killed.insert(who);
    }

    pub(crate) fn stopped(&self, who: u64) {
        self.book().stalls.push(Stall { who, from: Instant::now(), until: None });
    }

    pub(crate) fn continued(&self, who: u64) {
        for stall in self.book().stalls.iter_mut().filter(|stall| stall.who == who) {
            stall.until.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn busy_for(&self, time: Duration) {
        self.book().busy_until = Some(Instant::now() + time);
    }

    /// What has become of this family.
    pub(crate) fn fate(&self, family: u64) -> Option<Fate> {
        Some(self.book().families.get(&family)?.fate)
    }
}

async fn login(State(server): State<Server>, Path(user): Path<String>) -> Response {
    let mut book = server.book();
    let family = book.families.len() as u64 + 1;
    let begun = Family {
        user,
        number: 1,
        minted: Instant::now(),
        fate: Fate::Alive,
        seen: true,
        last: None,
    };
    book.families.insert(family, begun);
    Json(book.pair(family)).into_response()
}

async fn token(
    State(server): State<Server>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut book = server.book();
    if book.busy_until.is_some_and(|until| until > Instant::now()) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let refused =
        || (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    let brought = form.get("refresh_token").and_then(|token| parse(token));
    let by = form.get("worker").and_then(|worker| worker.parse().ok()).unwrap_or_default();
    let Some((id, number)) = brought else { return refused() };
    let Some(family) = book.families.get(&id) else { return refused() };
    if family.fate != Fate::Alive {
        return refused();
    }
    if number != family.number {
        let fate = if book.excuse(family, number, by) { Fate::Unavoidable } else { Fate::Reused };
        match fate {
            Fate::Unavoidable => book.unavoidable += 1,
            _ => {
                book.reuse += 1;
                let family = &book.families[&id];
                let last = family.last.map(|(by, at)| (by, at.elapsed().as_millis()));
                let (current, seen) = (family.number, family.seen);
                eprintln!(
                    "family {id}: refresh token {number} came again, by replica {by}; the current one \
                     is {current}, was redeemed by replica and milliseconds ago {last:?}, and is in \
                     use: {seen}"
                );
            }
        }
        if let Some(family) = book.families.get_mut(&id) {
            family.fate = fate;
        }
        return refused();
    }
    book.redeems += 1;
    if let Some(family) = book.families.get_mut(&id) {
        let now = Instant::now();
        (family.number, family.minted) = (number + 1, now);
        (family.seen, family.last) = (false, Some((by, now)));
    }
    Json(book.pair(id)).into_response()
}

async fn revoke(
    State(server): State<Server>,
    Form(form): Form<HashMap<String, String>>,
) -> StatusCode {
    let family = form.get("token").and_then(|token| parse(token));
    let mut book = server.book();
    if let Some(family) = family.and_then(|(family, _)| book.families.get_mut(&family)) {
        if family.fate == Fate::Alive {
            family.fate = Fate::Revoked;
        }
    }
    StatusCode::OK
}

/// Says whose token it is.
async fn api(State(server): State<Server>, headers: HeaderMap) -> Response {
    let bearer =
        headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
    let mut book = server.book();
    let found = bearer.and_then(parse);
    let family = found.and_then(|(family, _)| book.families.get_mut(&family));
    match (family, found) {
        (Some(family), Some((_, number)))
            if family.fate == Fate::Alive && number == family.number =>
        {
            // Even one that is late: the replica that has it has saved it.
            family.seen = true;
            if family.minted.elapsed() < LIFE {
                let answer = family.user.clone();
                book.accepted += 1;
                return answer.into_response();
            }
        }
        _ => {}
    }
    book.refused += 1;
    (StatusCode::UNAUTHORIZED, [("of-api", "1"), ("www-authenticate", "Bearer")]).into_response()
}
