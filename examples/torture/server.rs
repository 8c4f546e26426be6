//! The authorization server and the API, over TCP, as a process of their own. They are the
//! ordinary ones, and this is what the torture adds: answers that are lost, held back or a
//! 503, and what the parent and the workers ask and tell.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use hyper::body::Incoming;
use testing::{
    Loopback,
    loopback::{Book, HangUp, ResponseBody, Verdict, empty, read_form, text},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tower_refresh::BoxError;

use crate::{
    INTENT,
    book::{LIFE, Notes},
    children,
};

struct Shared {
    notes: Mutex<Notes>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// Every redeem is told to come again until then.
    busy_until: Option<Instant>,
    /// Of a thousand answers so many are lost, half of them before anything was done.
    lose: u64,
    /// Is told which process has redeemed next, while the answer is held back.
    ambush: Option<oneshot::Sender<u64>>,
}

/// How long the answer to a redeem is held back, for its process to be killed before.
const HELD_BACK: Duration = Duration::from_millis(50);

pub(crate) async fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let grace = arguments.first().ok_or("no grace")?.parse()?;
    let stalls_count = arguments.get(1).is_some_and(|word| word == "stalls-count");
    // A process that redeems has noted it, and is waited for as long as that.
    let notes = Notes::new(stalls_count.then_some(INTENT));
    let shared = Arc::new(Shared { notes: Mutex::new(notes), trouble: Mutex::default() });
    let book = Book::new().grace(Duration::from_millis(grace)).life(LIFE);
    let servers = Loopback::options().book(book).serve(move |servers, request| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(servers, request).await }
    });
    println!("{}", servers.await?.address());
    children::parent_is_gone().await;
    Ok(true)
}

/// An answer that does not get through.
fn lost() -> Response<ResponseBody> {
    let mut response = empty(StatusCode::OK);
    response.extensions_mut().insert(HangUp);
    response
}

impl Shared {
    /// Where both are locked, these are first, and the book of the servers is second.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        &self,
        servers: Loopback,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let path = request.uri().path().to_owned();
        let mut parts = path.split('/').skip(1);
        let (place, event) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let said = match place {
            "token" => return self.token(&servers, request).await,
            "api" => {
                let bearer = request.headers().get(AUTHORIZATION);
                let token = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
                self.notes().brought(&servers.lock(), token.unwrap_or_default());
                return servers.answer(request).await;
            }
            "login" => self.login(&servers),
            "ambush" => self.ambush().await,
            "current" => servers.lock().current().refresh,
            "book" => self.book(&servers.book()),
            // A worker's failure has said what was interrupted.
            "told" => {
                self.notes().told(event.parse().unwrap_or_default());
                String::new()
            }
            "note" => {
                let number = parts.next().and_then(|number| number.parse().ok());
                if !self.note(event, number.unwrap_or_default()) {
                    return empty(StatusCode::NOT_FOUND);
                }
                String::new()
            }
            _ => return empty(StatusCode::NOT_FOUND),
        };
        text(StatusCode::OK, said)
    }

    async fn token(
        &self,
        servers: &Loopback,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let Some(form) = read_form(request).await else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let (busy, lose) = {
            let trouble = self.trouble();
            (trouble.busy_until.is_some_and(|until| until > Instant::now()), trouble.lose)
        };
        if busy {
            self.notes().count("busy");
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        let is_lost = fastrand::u64(..1000) < lose;
        if is_lost && fastrand::bool() {
            self.notes().count("lost_before");
            return lost();
        }
        let worker = form.get("worker").and_then(|worker| worker.parse().ok()).unwrap_or_default();
        let verdict = {
            let (mut notes, mut book) = (self.notes(), servers.lock());
            let verdict = book.redeem(form.get("refresh_token").unwrap_or_default());
            notes.redeemed(&book, &verdict, worker, is_lost);
            verdict
        };
        if let Verdict::Renewed(_) | Verdict::Again(_) = verdict {
            let ambush = self.trouble().ambush.take();
            if let Some(ambush) = ambush {
                let _ = ambush.send(worker);
                sleep(HELD_BACK).await;
            }
        }
        if is_lost {
            self.notes().count("lost_after");
            return lost();
        }
        verdict.response(None)
    }

    fn login(&self, servers: &Loopback) -> String {
        let (mut notes, mut book) = (self.notes(), servers.lock());
        let pair = book.sign_in();
        notes.signed_in();
        format!("{} {}", pair.access, pair.refresh)
    }

    /// Waits for the next redeem, and says whose it is: its answer is held back, for something
    /// to be done to the process that has not saved yet. 0: there was none for a while.
    async fn ambush(&self) -> String {
        let (sender, caught) = oneshot::channel();
        self.trouble().ambush = Some(sender);
        let caught = timeout(Duration::from_secs(1), caught).await;
        caught.ok().and_then(Result::ok).unwrap_or_default().to_string()
    }

    fn book(&self, book: &Book) -> String {
        let notes = self.notes();
        let counts = notes.counts.iter().map(|(name, count)| format!("{name}={count}\n"));
        let dead = u64::from(book.session() > 0 && !book.is_alive());
        let seen = format!(
            "ok={}\nrefused={}\ndead={dead}\nuntold={}\n",
            book.ok,
            book.unauthorized,
            notes.untold()
        );
        counts.chain([seen]).collect()
    }

    /// What the parent is about to do. Whether there is such a thing.
    fn note(&self, event: &str, number: u64) -> bool {
        match event {
            "killed" => self.notes().killed(number),
            "stopped" => self.notes().stopped(number),
            "continued" => self.notes().continued(number),
            "busy" => {
                self.trouble().busy_until = Some(Instant::now() + Duration::from_millis(number));
            }
            "lose" => self.trouble().lose = number,
            _ => return false,
        }
        true
    }
}
