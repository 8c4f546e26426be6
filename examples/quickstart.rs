//! A hundred requests, an expired token, one refresh.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --requests 1000 --late
//! ```
//!
//! Starts a strict authorization server and an API on loopback TCP. Refresh tokens
//! are for single use, and spending one twice revokes the whole family, as real
//! servers do. Then it lets the access token expire, fires concurrent POSTs with
//! bodies, and checks at the server that each body came whole, exactly once, with
//! the new token. Exits with 1 if that is not what happened.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{RefreshError, RefreshLayer, RefreshState, Tokens};

type AnyError = Box<dyn Error + Send + Sync>;

/// The straggler would wait for ever for a replay that never succeeds.
const LONGEST: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let options = Options::from_args()?;
    let servers = Arc::new(Servers::new(&options));
    let auth = serve(Arc::clone(&servers), token_endpoint).await?;
    let api = serve(Arc::clone(&servers), upload_endpoint).await?;

    // ---- What a user of the crate writes: who redeems ...
    let plain = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let state = RefreshState::builder(move |spent: Tokens| {
        let (client, uri) = (plain.clone(), format!("{auth}/token"));
        async move {
            let form = format!(
                "grant_type=refresh_token&refresh_token={}",
                spent.refresh_token().unwrap_or_default()
            );
            let request =
                Request::post(uri).body(Full::from(form)).map_err(RefreshError::transient)?;
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
            let answer = String::from_utf8(body.to_vec()).map_err(RefreshError::transient)?;
            let (access, refresh) = answer
                .split_once(' ')
                .ok_or_else(|| RefreshError::transient("malformed answer"))?;
            Ok(Tokens::new(access).with_refresh_token(refresh))
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
    let mut callers = JoinSet::new();
    for number in 0..options.requests {
        let (client, uri) = (client.clone(), format!("{api}/upload/{number}"));
        let servers = Arc::clone(&servers);
        callers.spawn(async move {
            servers.note_sent();
            let request = Request::post(uri).body(Full::<Bytes>::from(body_of(number)))?;
            Ok::<_, AnyError>(client.oneshot(request).await?.status())
        });
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

    let log = servers.log();
    log.draw(options.requests);
    let ok = statuses.get(&StatusCode::OK).copied().unwrap_or_default();
    let unauthorized = log.unauthorized.len();
    let whole_once = (0..options.requests).all(|number| log.accepted.get(&number) == Some(&1));
    println!(
        "requests={} ok={ok} unauthorized={unauthorized} refreshes={} token_reuse={}",
        options.requests, log.refreshes, log.token_reuse
    );
    let as_promised = ok == options.requests
        && unauthorized == options.requests
        && whole_once
        && log.damaged == 0
        && log.refreshes == 1
        && log.token_reuse == 0
        && state.status().counts.refreshes == 1;
    if !as_promised {
        eprintln!(
            "that is not what should have happened: {statuses:?}, {} bodies damaged",
            log.damaged
        );
    }
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Options {
    requests: usize,
    late: bool,
}

impl Options {
    fn from_args() -> Result<Self, AnyError> {
        let mut options = Self { requests: 100, late: false };
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
                other => {
                    return Err(format!(
                        "unknown option {other}; there are --requests N and --late"
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

/// What both servers know, and what they saw.
struct Servers {
    began: Instant,
    state: Mutex<ServerState>,
    /// How many requests have arrived with the expired token. The 401s wait until all
    /// have, so that everyone is refused.
    arrived: watch::Sender<usize>,
    expected: usize,
    /// With `--late`: request 0 is refused only after a replay has succeeded.
    late: bool,
    replayed: watch::Sender<bool>,
}

#[derive(Default)]
struct ServerState {
    issued: u64,
    access: String,
    refresh: String,
    spent: HashSet<String>,
    revoked: bool,
    log: Log,
}

#[derive(Clone, Default)]
struct Log {
    sent: Vec<Duration>,
    unauthorized: Vec<Duration>,
    refreshed: Vec<Duration>,
    ok: Vec<Duration>,
    straggler: Option<Duration>,
    /// How often each request's body arrived whole with a valid token.
    accepted: HashMap<usize, usize>,
    damaged: usize,
    refreshes: usize,
    token_reuse: usize,
}

impl Servers {
    fn new(options: &Options) -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
            arrived: watch::Sender::new(0),
            expected: options.requests,
            late: options.late,
            replayed: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> Log {
        self.state().log.clone()
    }

    fn sign_in(&self) -> Tokens {
        let mut state = self.state();
        state.issue();
        Tokens::new(state.access.clone()).with_refresh_token(state.refresh.clone())
    }

    fn note_sent(&self) {
        let now = self.began.elapsed();
        self.state().log.sent.push(now);
    }

    fn expire_access_token(&self) {
        self.state().access.clear();
    }
}

impl ServerState {
    fn issue(&mut self) {
        self.issued += 1;
        self.access = format!("access-{}", self.issued);
        self.refresh = format!("refresh-{}", self.issued);
    }
}

/// `POST /token`: redeems a refresh token, once.
async fn token_endpoint(
    servers: Arc<Servers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, AnyError> {
    let form = request.into_body().collect().await?.to_bytes();
    let token = std::str::from_utf8(&form)?
        .rsplit_once("refresh_token=")
        .map_or("", |(_, token)| token)
        .to_owned();
    // A redeem takes its time; the burst of 401s goes on meanwhile.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let now = servers.began.elapsed();
    let mut state = servers.state();
    if state.spent.contains(&token) {
        state.log.token_reuse += 1;
        state.revoked = true;
        state.access.clear();
    }
    if state.revoked || token != state.refresh {
        return answer(StatusCode::BAD_REQUEST, "invalid_grant");
    }
    state.spent.insert(token);
    state.issue();
    state.log.refreshes += 1;
    state.log.refreshed.push(now);
    let tokens = format!("{} {}", state.access, state.refresh);
    answer(StatusCode::OK, tokens)
}

/// `POST /upload/N`: takes N's body, with a valid token only.
async fn upload_endpoint(
    servers: Arc<Servers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, AnyError> {
    if request.method() != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let number: usize = request.uri().path().rsplit('/').next().unwrap_or_default().parse()?;
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();

    let valid = !token.is_empty() && servers.state().access == token;
    let straggler = servers.late && number == 0 && !valid;
    if !valid {
        servers.arrived.send_modify(|arrived| *arrived += 1);
        servers.arrived.subscribe().wait_for(|arrived| *arrived >= servers.expected).await?;
    }
    if straggler {
        // Its 401 comes long after the refresh, when others have been replayed.
        servers.replayed.subscribe().wait_for(|replayed| *replayed).await?;
    }
    let now = servers.began.elapsed();
    let mut state = servers.state();
    if !valid {
        state.log.unauthorized.push(now);
        state.log.straggler = state.log.straggler.or(straggler.then_some(now));
        return answer(StatusCode::UNAUTHORIZED, "the token has expired");
    }
    if body == body_of(number) {
        *state.log.accepted.entry(number).or_default() += 1;
    } else {
        state.log.damaged += 1;
    }
    state.log.ok.push(now);
    servers.replayed.send_replace(true);
    answer(StatusCode::OK, "thank you")
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Result<Response<Full<Bytes>>, AnyError> {
    Ok(Response::builder().status(status).body(Full::new(body.into()))?)
}

/// Serves an endpoint on a loopback port, and returns its origin.
async fn serve<F, Fut>(servers: Arc<Servers>, endpoint: F) -> Result<String, AnyError>
where
    F: Fn(Arc<Servers>, Request<Incoming>) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Full<Bytes>>, AnyError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let servers = Arc::clone(&servers);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = endpoint(Arc::clone(&servers), request);
                    async move {
                        let failed = |error: AnyError| {
                            let mut response = Response::new(Full::from(error.to_string()));
                            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                            response
                        };
                        Ok::<_, Infallible>(response.await.unwrap_or_else(failed))
                    }
                });
                // A client that goes away is none of the server's business.
                let _ = http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(None)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(origin)
}

impl Log {
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
            self.accepted.values().filter(|n| **n == 1).count()
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
