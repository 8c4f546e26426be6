//! Millions of requests through the layer while the token dies again and again. To be run by hand:
//!
//! ```text
//! cargo bench -p benches --bench soak -- REQUESTS SEED
//! ```
//!
//! Without arguments five million, with a seed of the clock's, which is printed. Two hundred callers
//! on a runtime of two threads send requests without a body, with 1 KiB, or with a stream of
//! chunks; some hang up in the middle. The server is a service in this process. It refuses a token
//! after so many requests, or because it was revoked in some other moment, and answers a refusal
//! sometimes before it has read the request. Each refresh spends the refresh token.
//!
//! It fails (exit code 1) if
//!
//! - a response is not 200 and nothing that the server has done explains it,
//! - a body arrives that is not the one that was sent,
//! - a refresh token is redeemed a second time,
//! - the resident memory at the end is not within 2 % of what it was at a tenth of the way.

use std::{
    convert::Infallible,
    fmt,
    fs::read_to_string,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use benches::time::now;
use bytes::{Buf, Bytes};
use fastrand::Rng;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio::{
    runtime,
    task::{JoinSet, yield_now},
    time::sleep,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    FailureKind, RefreshError, RefreshFailure, RefreshLayer, RefreshState, Tokens,
    body::{NotReplayable, ReplayBody},
    layer::Attempt,
};

const CALLERS: u64 = 200;

/// How long a refresh takes: so long that nearly all callers have come to wait for it.
const REDEEM: Duration = Duration::from_millis(10);

/// How long a caller whose request was refused waits before the next: the layer has given up on a
/// refresh for some time.
const REST: Duration = Duration::from_millis(100);

/// How far the resident memory at the end may be from that at a tenth of the way.
const TOLERANCE: f64 = 0.02;

fn main() -> ExitCode {
    // One heap for both threads: with two, how much of each lies idle is a matter of luck.
    const ONE_HEAP: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
    if std::env::var_os(ONE_HEAP.0).is_none() {
        let this = std::env::current_exe().expect("the path of this binary");
        let mut child = Command::new(this);
        let status = child.args(std::env::args_os().skip(1)).env(ONE_HEAP.0, ONE_HEAP.1).status();
        let passed = status.expect("it runs").success();
        return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // cargo gives an argument of its own.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let count: u64 = numbers.next().unwrap_or(5_000_000);
    let seed: u64 = numbers.next().unwrap_or_else(|| fastrand::u64(..) >> 32);
    println!("seed {seed}");
    let start = now();
    let soak = Arc::new(Soak::new(count, seed));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(run(&soak));
    println!("{soak}, {} s", start.elapsed().as_secs());
    if soak.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(soak: &Arc<Soak>) {
    let state = RefreshState::builder({
        let soak = Arc::clone(soak);
        move |spent: Tokens| {
            let soak = Arc::clone(&soak);
            async move {
                sleep(REDEEM).await;
                soak.redeem(&spent)
            }
        }
    })
    .tokens(tokens(1))
    // The default is for servers that are in their right mind.
    .brake(100, Duration::from_secs(1), Duration::from_millis(100))
    .build();
    let server = {
        let soak = Arc::clone(soak);
        service_fn(move |request| serve(Arc::clone(&soak), request))
    };
    let client = RefreshLayer::new(Arc::clone(&state)).layer(server);

    let revoker = tokio::spawn(revoke(Arc::clone(soak)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(Arc::clone(soak), client.clone(), caller));
    }
    callers.join_all().await;
    revoker.abort();
    state.drain().await;
}

/// What all have in common.
struct Soak {
    count: u64,
    seed: u64,
    /// How many requests were begun.
    begun: AtomicU64,
    server: Mutex<Server>,
    ends: Mutex<Ends>,
    /// Resident pages at a tenth of the way, and at its end.
    resident: [AtomicU64; 2],
}

/// What the server knows. Tokens have numbers, and only the newest can be good.
struct Server {
    rng: Rng,
    newest: u64,
    /// How many requests the newest token is still good for. None: it was revoked.
    left: Option<u64>,
    /// How the last tokens have died, by their numbers.
    deaths: [Option<Death>; 1 << 12],
    /// How many requests came that were sent again.
    replays: u64,
    redeemed_again: u64,
    /// How many bodies arrived that were not those that were sent.
    damaged: u64,
}

#[derive(Clone, Copy)]
enum Death {
    Count,
    Revoked,
}

/// In a refusal's extensions.
#[derive(Clone, Copy)]
struct Refusal {
    attempt: u8,
    death: Option<Death>,
}

/// How requests have ended.
#[derive(Default)]
struct Ends {
    good: u64,
    hung_up: u64,
    /// A second rotation during the replay: its token was used up before it arrived,
    used_up_again: u64,
    /// or was revoked.
    revoked_again: u64,
    /// The layer has waited with a refresh, as the last ones did not help.
    doubted: u64,
    braked: u64,
    unexplained: Vec<String>,
}

impl Soak {
    fn new(count: u64, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let server = Server {
            left: Some(life(&mut rng, 1)),
            rng,
            newest: 1,
            deaths: [None; 1 << 12],
            replays: 0,
            redeemed_again: 0,
            damaged: 0,
        };
        Self {
            count,
            seed,
            begun: AtomicU64::new(0),
            server: Mutex::new(server),
            ends: Mutex::default(),
            resident: Default::default(),
        }
    }

    /// `false`: there were enough.
    fn begin(&self) -> bool {
        let number = self.begun.fetch_add(1, Relaxed);
        if number == self.count / 10 {
            self.resident[0].store(resident(), Relaxed);
        }
        if number == self.count {
            self.resident[1].store(resident(), Relaxed);
        }
        number < self.count
    }

    fn redeem(&self, spent: &Tokens) -> Result<Tokens, RefreshError> {
        let mut server = self.server.lock().unwrap();
        if spent.refresh_token() != tokens(server.newest).refresh_token() {
            server.redeemed_again += 1;
            return Err(RefreshError::rejected("spent"));
        }
        server.die(Death::Revoked);
        server.newest += 1;
        let newest = server.newest;
        server.left = Some(life(&mut server.rng, newest));
        Ok(tokens(server.newest))
    }

    /// How much the resident memory has grown since a tenth of the way.
    fn growth(&self) -> f64 {
        let [before, after] = self.resident.each_ref().map(|pages| pages.load(Relaxed) as f64);
        after / before - 1.0
    }

    fn is_passed(&self) -> bool {
        let server = self.server.lock().unwrap();
        self.ends.lock().unwrap().unexplained.is_empty()
            && (server.redeemed_again, server.damaged) == (0, 0)
            && self.growth().abs() <= TOLERANCE
    }
}

fn tokens(number: u64) -> Tokens {
    Tokens::new(format!("access-{number}")).with_refresh_token(format!("refresh-{number}"))
}

/// How many requests a token is good for: mostly thousands, sometimes so few that not all replays
/// of a burst are accepted. The first ones are so, that all that can happen happens early.
fn life(rng: &mut Rng, number: u64) -> u64 {
    let most = if number <= 100 || rng.u8(..32) == 0 { 200 } else { 10_000 };
    rng.u64(1..=most)
}

/// Resident pages of this process.
fn resident() -> u64 {
    let statm = read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.expect("the second number")
}

impl Server {
    fn die(&mut self, death: Death) {
        if self.left.take().is_some() {
            let place = self.place(self.newest);
            self.deaths[place] = Some(death);
        }
    }

    fn place(&self, token: u64) -> usize {
        token as usize % self.deaths.len()
    }

    /// Whether the request's token is good, or how it has died.
    fn check<B>(&mut self, request: &Request<B>) -> Result<(), Refusal> {
        let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let number = value.and_then(|value| value.strip_prefix("Bearer access-")?.parse().ok());
        let attempt = request.extensions().get::<Attempt>().map_or(1, Attempt::number);
        self.replays += u64::from(attempt == 2);
        match self.left {
            Some(left) if number == Some(self.newest) => {
                self.left = Some(left - 1);
                if left == 1 {
                    self.die(Death::Count);
                }
                Ok(())
            }
            _ => {
                let known = number.filter(|number| *number <= self.newest);
                let death = known.and_then(|number| self.deaths[self.place(number)]);
                Err(Refusal { attempt, death })
            }
        }
    }
}

/// Revokes tokens in moments that have nothing to do with requests.
async fn revoke(soak: Arc<Soak>) {
    let mut rng = Rng::with_seed(soak.seed ^ u64::MAX);
    loop {
        sleep(Duration::from_millis(rng.u64(1..100))).await;
        soak.server.lock().unwrap().die(Death::Revoked);
    }
}

async fn serve(
    soak: Arc<Soak>,
    request: Request<ReplayBody<Sent>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (checked, chance) = {
        let mut server = soak.server.lock().unwrap();
        (server.check(&request), server.rng.u8(..))
    };
    let mut response = Response::new(Empty::new());
    if let Err(refusal) = checked {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.extensions_mut().insert(refusal);
        if chance < 128 {
            return Ok(response);
        }
    }
    let mut expected =
        request.extensions().get::<Sent>().expect("every request has one").rest.clone();
    let mut body = request.into_body();
    let mut is_whole = true;
    while let Some(Ok(Ok(data))) = body.frame().await.map(|frame| frame.map(Frame::into_data)) {
        is_whole &= expected.starts_with(&data);
        expected.advance(data.len().min(expected.len()));
    }
    if !is_whole || !expected.is_empty() {
        soak.server.lock().unwrap().damaged += 1;
    }
    for _ in 0..chance % 4 {
        yield_now().await;
    }
    Ok(response)
}

/// A request's body, a part of [`TEXT`] in chunks.
#[derive(Clone)]
struct Sent {
    rest: Bytes,
    chunk: usize,
    /// Whether each chunk has to be waited for, and the size is not known before.
    is_stream: bool,
    is_there: bool,
}

static TEXT: [u8; 1 << 13] = {
    let mut text = [0; 1 << 13];
    let mut i = 0;
    while i < text.len() {
        text[i] = ((i * 167) >> 3) as u8;
        i += 1;
    }
    text
};

impl Sent {
    fn new(rng: &mut Rng) -> Self {
        let (length, chunk, is_stream) = match rng.u8(..3) {
            0 => (0, 1, false),
            1 => (1 << 10, 1 << 10, false),
            _ => (rng.usize(1..2_000), 256, true),
        };
        let begin = rng.usize(..TEXT.len() - length);
        let rest = Bytes::from_static(&TEXT[begin..begin + length]);
        Self { rest, chunk, is_stream, is_there: false }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_stream && !self.is_there {
            self.is_there = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_there = false;
        let length = self.chunk.min(self.rest.remaining());
        let data = self.rest.split_to(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_stream && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_stream {
            true => SizeHint::new(),
            false => SizeHint::with_exact(self.rest.len() as u64),
        }
    }
}

/// One of those who send requests, one after the other.
async fn call<S>(soak: Arc<Soak>, mut client: S, number: u64)
where
    S: Service<Request<Sent>, Response = Response<Empty<Bytes>>, Error = Infallible> + Clone,
{
    let mut rng = Rng::with_seed(soak.seed.wrapping_add(1 + number));
    while soak.begin() {
        let body = Sent::new(&mut rng);
        let request = Request::post("https://api.example.com/v1/orders").extension(body.clone());
        let request = request.body(body).expect("a valid request");
        // Every fourth caller has a service for each request.
        let mut clone = (number % 4 == 0).then(|| client.clone());
        let service = clone.as_mut().unwrap_or(&mut client);
        let response = service.ready().await.expect("ready").call(request);
        let patience = if rng.u8(..50) == 0 { rng.usize(..8) } else { usize::MAX };
        let response = within(response, patience).await;
        let is_refused = matches!(&response, Some(Ok(response)) if !response.status().is_success());
        soak.ends.lock().unwrap().note(response);
        if is_refused {
            sleep(REST).await;
        }
    }
}

/// The output of a future, unless it has to be waited for more often than that: then it is dropped.
async fn within<F: Future>(future: F, mut patience: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match (future.as_mut().poll(cx), patience.checked_sub(1)) {
        (Poll::Ready(output), _) => Poll::Ready(Some(output)),
        (Poll::Pending, None) => Poll::Ready(None),
        (Poll::Pending, Some(left)) => {
            patience = left;
            Poll::Pending
        }
    })
    .await
}

impl Ends {
    fn note(&mut self, response: Option<Result<Response<Empty<Bytes>>, Infallible>>) {
        let Some(Ok(response)) = response else {
            self.hung_up += 1;
            return;
        };
        let extensions = response.extensions();
        let refusal = extensions.get::<Refusal>().copied();
        let failure = extensions.get::<RefreshFailure>().map(RefreshFailure::kind);
        let not_replayed = extensions.get::<NotReplayable>().copied();
        match (response.status(), refusal, failure, not_replayed) {
            (StatusCode::OK, ..) => self.good += 1,
            // There is one replay, and its token has died as well.
            (_, Some(Refusal { attempt: 2, death: Some(death) }), None, None) => match death {
                Death::Count => self.used_up_again += 1,
                Death::Revoked => self.revoked_again += 1,
            },
            (_, Some(Refusal { death: Some(_), .. }), Some(FailureKind::Doubted), None) => {
                self.doubted += 1;
            }
            (_, Some(Refusal { death: Some(_), .. }), Some(FailureKind::Braked), None) => {
                self.braked += 1;
            }
            (status, refusal, failure, not_replayed) => {
                let attempt = refusal.map(|refusal| refusal.attempt);
                let known = refusal.is_some_and(|refusal| refusal.death.is_some());
                self.unexplained.push(format!(
                    "{status}, attempt {attempt:?}, token known: {known}, {failure:?}, {not_replayed:?}"
                ));
            }
        }
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, ends) = (self.server.lock().unwrap(), self.ends.lock().unwrap());
        for unexplained in ends.unexplained.iter().take(20) {
            writeln!(f, "unexplained: {unexplained}")?;
        }
        write!(
            f,
            "{} requests: {} good, {} hung up; refused: {} of a second rotation during the replay ({} \
             by count, {} revoked), {} in doubt, {} braked, {} unexplained; {} refreshes, {} \
             replays, {} refresh tokens redeemed again, {} bodies damaged; resident {} pages at \
             10 %, {:+.2} % at the end",
            self.count,
            ends.good,
            ends.hung_up,
            ends.used_up_again + ends.revoked_again,
            ends.used_up_again,
            ends.revoked_again,
            ends.doubted,
            ends.braked,
            ends.unexplained.len(),
            server.newest - 1,
            server.replays,
            server.redeemed_again,
            server.damaged,
            self.resident[0].load(Relaxed),
            100.0 * self.growth(),
        )
    }
}
