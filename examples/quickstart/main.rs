//! A hundred requests, an expired token, one refresh.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --requests 1000 --late
//! cargo run --example quickstart -- --html picture.html
//! ```
//!
//! Starts a strict authorization server and an API on loopback TCP. Refresh tokens
//! are for single use, and spending one twice revokes the whole family, as real
//! servers do. Then it lets the access token expire, fires concurrent POSTs with
//! bodies, and checks at the server that each body came whole, exactly once, with
//! the new token. Exits with 1 if that is not what happened.

mod picture;

use std::{
    collections::HashMap,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use testing::{Loopback, loopback::Event};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshError, RefreshLayer, RefreshState, Tokens};

use self::picture::Story;

type AnyError = Box<dyn Error + Send + Sync>;

/// The straggler would wait for ever for a replay that never succeeds.
const LONGEST: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let options = Options::from_args()?;
    let log = Arc::new(Log::new());
    let servers = Loopback::options()
        .latency(Duration::from_millis(20))
        .on_event({
            let log = Arc::clone(&log);
            move |servers, event| log.note(servers, event)
        })
        .start()
        .await?;

    // ---- What a user of the crate writes: who redeems ...
    let plain = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let endpoint = servers.token_endpoint();
    let state = RefreshState::builder(move |spent: Tokens| {
        let (client, uri) = (plain.clone(), endpoint.clone());
        async move {
            let form = format!(
                "grant_type=refresh_token&refresh_token={}",
                spent.refresh_token().unwrap_or_default()
            );
            let request = Request::post(uri)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(form))
                .map_err(RefreshError::transient)?;
            let response = client.request(request).await.map_err(RefreshError::transient)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::BAD_REQUEST => return Err(RefreshError::rejected("invalid_grant")),
                status => {
                    return Err(RefreshError::transient(format!("token endpoint said {status}")));
                }
            }
            let body =
                response.into_body().collect().await.map_err(RefreshError::transient)?.to_bytes();
            let answer: Value = serde_json::from_slice(&body).map_err(RefreshError::transient)?;
            match (answer["access_token"].as_str(), answer["refresh_token"].as_str()) {
                (Some(access), Some(refresh)) => {
                    Ok(Tokens::new(access).with_refresh_token(refresh))
                }
                _ => Err(RefreshError::transient("malformed answer")),
            }
        }
    })
    .tokens(servers.sign_in())
    .build();

    // ---- ... and one layer over any client.
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(Arc::clone(&state)))
        .service(Client::builder(TokioExecutor::new()).http2_only(true).build_http());

    println!("{} requests are sent with a token that has just expired\n", options.requests);
    servers.expire_access_token();
    // So that every request is refused.
    servers.refuse_together(options.requests - usize::from(options.late));
    let mut callers = JoinSet::new();
    for number in 0..options.requests {
        let late = options.late && number == 0;
        let mut request = Request::post(format!("{}/{number}", servers.api()));
        if late {
            request = request.header("x-late", "yes");
        }
        let request = request.body(Full::<Bytes>::from(body_of(number)))?;
        let (client, log) = (client.clone(), Arc::clone(&log));
        callers.spawn(async move {
            log.sent(number);
            Ok::<_, AnyError>(client.oneshot(request).await?.status())
        });
        if late {
            // Its 401 comes long after the refresh, when others have been replayed.
            timeout(LONGEST, servers.late_refused()).await?;
        }
    }
    let mut statuses = HashMap::<StatusCode, usize>::new();
    let answers = async {
        while let Some(done) = callers.join_next().await {
            *statuses.entry(done??).or_default() += 1;
        }
        Ok::<_, AnyError>(())
    };
    match timeout(LONGEST, answers).await {
        Ok(done) => done?,
        Err(_) => eprintln!("not every request was answered within {LONGEST:?}"),
    }
    state.drain().await;

    let (seen, book) = (log.seen(), servers.book());
    seen.draw(options.requests);
    let ok = statuses.get(&StatusCode::OK).copied().unwrap_or_default();
    let whole_once = (0..options.requests).all(|number| seen.whole.get(&number) == Some(&1));
    let line = format!(
        "requests={} ok={ok} unauthorized={} refreshes={} token_reuse={}",
        options.requests, book.unauthorized, book.refreshes, book.token_reuse
    );
    if let Some(file) = &options.html {
        std::fs::write(file, picture::page(&seen.stories, &seen.refreshed, &line))?;
        println!("the picture is in {file}\n");
    }
    println!("{line}");
    let as_promised = ok == options.requests
        && book.unauthorized == options.requests
        && whole_once
        && seen.damaged == 0
        && book.refreshes == 1
        && book.token_reuse == 0
        && state.status().counts.refreshes == 1;
    if !as_promised {
        eprintln!(
            "that is not what should have happened: {statuses:?}, {} bodies damaged",
            seen.damaged
        );
    }
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Options {
    requests: usize,
    late: bool,
    /// Where the picture goes.
    html: Option<String>,
}

impl Options {
    fn from_args() -> Result<Self, AnyError> {
        let mut options = Self { requests: 100, late: false, html: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--late" => options.late = true,
                "--requests" => {
                    let number = args.next().and_then(|number| number.parse().ok());
                    // More at once is too much for the one connection they share.
                    options.requests = number
                        .filter(|number| (1..=2000).contains(number))
                        .ok_or("--requests takes a number from 1 to 2000")?;
                }
                "--html" => {
                    options.html = Some(args.next().ok_or("--html takes the name of a file")?);
                }
                other => {
                    return Err(format!(
                        "unknown option {other}; there are --requests N, --late and --html FILE"
                    )
                    .into());
                }
            }
        }
        if options.late && options.requests < 2 {
            return Err("--late takes at least two requests: one is late for the others".into());
        }
        Ok(options)
    }
}

/// Some kilobytes that no two requests share.
fn body_of(number: usize) -> String {
    format!("upload {number}; ").repeat(200 + number % 50)
}

/// When what happened.
struct Log {
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    sent: Vec<Duration>,
    unauthorized: Vec<Duration>,
    refreshed: Vec<Duration>,
    ok: Vec<Duration>,
    straggler: Option<Duration>,
    /// Of each request.
    stories: Vec<Story>,
    /// How often each request's body arrived whole with a valid token.
    whole: HashMap<usize, usize>,
    damaged: usize,
}

impl Log {
    fn new() -> Self {
        Self { began: Instant::now(), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, number: usize) {
        let now = self.began.elapsed();
        let mut seen = self.seen();
        seen.sent.push(now);
        seen.story(number).sent = Some(now);
    }

    /// What the servers tell.
    fn note(&self, servers: &Loopback, event: Event<'_>) {
        let now = self.began.elapsed();
        let mut seen = self.seen();
        match event {
            Event::Redeemed => seen.refreshed.push(now),
            Event::Refused { path, late } => {
                seen.unauthorized.push(now);
                if let Ok(number) = path.trim_start_matches('/').parse() {
                    seen.story(number).refused = Some(now);
                }
                seen.straggler = seen.straggler.or(late.then_some(now));
            }
            Event::Accepted { path, body } => {
                let number = path.trim_start_matches('/').parse();
                match number {
                    Ok(number) if *body == body_of(number) => {
                        *seen.whole.entry(number).or_default() += 1;
                        seen.story(number).accepted = Some(now);
                    }
                    _ => seen.damaged += 1,
                }
                seen.ok.push(now);
                servers.answer_late();
            }
        }
    }
}

impl Seen {
    fn story(&mut self, number: usize) -> &mut Story {
        if self.stories.len() <= number {
            self.stories.resize_with(number + 1, Story::default);
        }
        &mut self.stories[number]
    }

    /// The timeline: when callers sent, and what the servers saw.
    fn draw(&self, requests: usize) {
        let all = [&self.sent, &self.unauthorized, &self.refreshed, &self.ok];
        let end = all.into_iter().flatten().max().copied().unwrap_or_default();
        row("sent", self.sent.len(), &self.sent, end, '>', "while the token has expired");
        row("401", self.unauthorized.len(), &self.unauthorized, end, 'x', "the token has expired");
        row(
            "refresh",
            self.refreshed.len(),
            &self.refreshed,
            end,
            'R',
            "at the authorization server",
        );
        row(
            "replayed, 200",
            self.ok.len(),
            &self.ok,
            end,
            'o',
            "each body whole, with the new token",
        );
        if let Some(at) = self.straggler {
            row("straggler's 401", 1, &[at], end, '!', "a newer token is there: no second refresh");
        }
        println!("{:>18}0 ms{:>width$}", "", format!("{} ms", end.as_millis()), width = WIDTH - 3);
        println!(
            "\n{} of {requests} bodies arrived whole, exactly once\n",
            self.whole.values().filter(|n| **n == 1).count()
        );
    }
}

const WIDTH: usize = 50;

fn row(name: &str, count: usize, moments: &[Duration], end: Duration, mark: char, note: &str) {
    let mut line = ['·'; WIDTH];
    for moment in moments {
        let share = moment.as_secs_f64() / end.as_secs_f64().max(f64::MIN_POSITIVE);
        line[((share * WIDTH as f64) as usize).min(WIDTH - 1)] = mark;
    }
    println!("{name:>16}  {}  {count:>5}  {note}", line.iter().collect::<String>());
}
