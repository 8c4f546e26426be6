//! What a browser's request costs that has a session.
//!
//! ```text
//! cargo bench -p benches --bench sessions --features sessions
//! ```
//!
//! - **A request** with a session that lives, in memory, to a handler that asks who it is: over
//!   tower-sessions 0.15 with its memory store, and beside what people write by hand. This crate looks
//!   at its store for each request, and then believes a look for ten seconds.
//! - `redis.rs`: **the same over Redis**, beside tower-sessions with its Redis store.
//! - **A herd**: a thousand sessions expire together, and the server answers after 50 ms.
//! - `pauses.rs`: for how long **one request has to wait** while 100 000 sessions are signed in, loaded
//!   and dropped.
//! - `unknown.rs`: **cookies that name nothing**, as many as the machine can send.
//!
//! With `-- requests`, `redis`, `herd`, `pauses` or `unknown` behind the command, that part alone.
//!
//! Instructions and allocations are counted by valgrind; times are the least of several rounds in
//! which the contestants take turns.

mod pauses;
mod redis;
mod unknown;

use std::{
    collections::HashMap,
    convert::Infallible,
    hint::black_box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use benches::{
    time::{least, process_cpu},
    valgrind,
};
use bytes::Bytes;
use http::{Request, Response, header::COOKIE};
use http_body_util::Full;
use tokio::{runtime::Builder, task::JoinSet, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    RefreshError, RefreshState, Renewal, Tokens,
    seal::Keyring,
    session::{Identity, SessionSlot, Sessions},
    store::{MemoryStores, Stores},
};
use tower_sessions::{MemoryStore, SessionManagerLayer, session::Record};

struct Contestant {
    name: &'static str,
    run: fn(usize),
}

const CONTESTANTS: &[Contestant] = &[
    Contestant { name: "no session: the request and the handler alone", run: nobody },
    Contestant { name: "tower-sessions 0.15, memory store", run: tower_sessions },
    Contestant { name: "by hand: a map of `Mutex`es", run: by_hand },
    Contestant { name: "this crate", run: |count| this_crate(count, Duration::ZERO) },
    Contestant {
        name: "this crate, `trust_for`",
        run: |count| this_crate(count, Duration::from_secs(10)),
    },
    Contestant { name: "this crate, sealed", run: sealed },
];

const ACCESS: &str = "an access token of thirty bytes";
const REFRESH: &str = "a refresh token of thirty bytes";

fn block_on<F: Future>(future: F) -> F::Output {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// So many requests with this cookie.
async fn requests<S>(mut app: S, count: usize, cookie: &str)
where
    S: Service<Request<Full<Bytes>>, Error = Infallible>,
{
    for _ in 0..count {
        let request = Request::get("/api/orders")
            .header("host", "app.example.com")
            .header("accept", "application/json")
            .header("sec-fetch-site", "same-origin")
            .header(COOKIE, format!("theme=dark; {cookie}"))
            .body(Full::default())
            .expect("a request");
        let response = app.ready().await.expect("ready").call(request).await.expect("a response");
        black_box(response);
    }
}

fn body(text: &str) -> Response<Full<Bytes>> {
    Response::new(Full::from(Bytes::copy_from_slice(text.as_bytes())))
}

fn nobody(count: usize) {
    let app = service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(body("alice")));
    block_on(requests(app, count, &format!("id={}", "a".repeat(43))));
}

fn tower_sessions(count: usize) {
    use tower_sessions::SessionStore;

    block_on(async {
        let store = MemoryStore::default();
        let mut record =
            Record { id: Default::default(), data: HashMap::new(), expiry_date: time_from_now() };
        for (name, value) in [("sub", "alice"), ("access", ACCESS), ("refresh", REFRESH)] {
            record.data.insert(name.to_owned(), value.into());
        }
        store.create(&mut record).await.expect("a store");
        let app = SessionManagerLayer::new(store).layer(service_fn(
            async |request: Request<Full<Bytes>>| {
                let session =
                    request.extensions().get::<tower_sessions::Session>().expect("a session");
                let name = session.get::<String>("sub").await.expect("a store").expect("a name");
                black_box(session.get::<String>("access").await.expect("a store"));
                Ok::<_, Infallible>(body(&name))
            },
        ));
        requests(app, count, &format!("id={}", record.id)).await;
    });
}

fn time_from_now() -> tower_sessions::cookie::time::OffsetDateTime {
    tower_sessions::cookie::time::OffsetDateTime::now_utc() + Duration::from_secs(3600)
}

/// Without a store, an end, or an answer to anything that goes wrong.
fn by_hand(count: usize) {
    struct Session {
        name: String,
        access: String,
    }
    type All = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<Session>>>>>;

    let all = All::default();
    let id = "a".repeat(43);
    let session = Session { name: "alice".to_owned(), access: ACCESS.to_owned() };
    all.lock().expect("not poisoned").insert(id.clone(), Arc::new(session.into()));
    let app = service_fn(move |request: Request<Full<Bytes>>| {
        let all = Arc::clone(&all);
        async move {
            let cookies = request.headers().get(COOKIE).expect("cookies").to_str().expect("text");
            let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
            let id = pairs.filter(|(name, _)| *name == "sid").map(|(_, value)| value).next();
            let session = all.lock().expect("not poisoned").get(id.expect("a cookie")).cloned();
            let session = session.expect("a session");
            let session = session.lock().await;
            black_box(session.access.clone());
            Ok::<_, Infallible>(body(&session.name))
        }
    });
    block_on(requests(app, count, &format!("sid={id}")));
}

fn sessions(stores: impl Stores, trust_for: Duration) -> Sessions {
    let renewal = Renewal::builder(async |_: Tokens| Ok::<_, RefreshError>(pair()));
    Sessions::builder(renewal, stores).trust_for(trust_for).build().expect("sessions")
}

fn pair() -> Tokens {
    Tokens::new(ACCESS).with_refresh_token(REFRESH)
}

/// Signs in, and returns the cookie.
async fn sign_in(sessions: &Sessions, user: &str) -> String {
    let identity = Identity::new("https://id.example.com", user);
    let app = sessions.layer().layer(service_fn(move |request: Request<Full<Bytes>>| {
        let slot = request.extensions().get::<SessionSlot>().expect("a slot").clone();
        let identity = identity.clone();
        async move {
            slot.sign_in(pair(), identity).await.expect("a session");
            Ok::<_, Infallible>(body(""))
        }
    }));
    let request = Request::post("/").body(Full::default()).expect("a request");
    let response = app.oneshot(request).await.expect("a response");
    let set = response.headers()["set-cookie"].to_str().expect("text");
    set.split(';').next().expect("a pair").to_owned()
}

/// The handler of this crate's contestants.
async fn whoami(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let slot = request.extensions().get::<SessionSlot>().expect("a slot");
    let session = slot.session().expect("a session");
    black_box(session.state().current());
    Ok(body(session.identity().subject()))
}

fn this_crate(count: usize, trust_for: Duration) {
    block_on(async {
        let sessions = sessions(MemoryStores::new(), trust_for);
        let cookie = sign_in(&sessions, "alice").await;
        requests(sessions.layer().layer(service_fn(whoami)), count, &cookie).await;
    });
}

fn sealed(count: usize) {
    block_on(async {
        let renewal = Renewal::builder(async |_: Tokens| Ok::<_, RefreshError>(pair()));
        let sealed = Sessions::sealed(renewal, Keyring::new([7; 32]));
        let sessions = sealed.remember(MemoryStores::new()).build().expect("sessions");
        let cookie = sign_in(&sessions, "alice").await;
        requests(sessions.layer().layer(service_fn(whoami)), count, &cookie).await;
    });
}

fn print_requests() {
    const COUNT: usize = 10_000;
    const ROUNDS: usize = 11;
    let mut times = vec![Vec::new(); CONTESTANTS.len()];
    for _ in 0..ROUNDS {
        for (contestant, times) in CONTESTANTS.iter().zip(&mut times) {
            let start = process_cpu();
            (contestant.run)(COUNT);
            times.push((process_cpu() - start).as_secs_f64());
        }
    }
    let times: Vec<f64> = times.into_iter().map(least).collect();
    let is_here = valgrind::is_here();
    let costs = (0..CONTESTANTS.len())
        .map(|at| is_here.then(|| valgrind::cost(&[&at.to_string()], 2_000, true)));
    let costs: Vec<_> = costs.collect();
    println!("a request; ratios to tower-sessions are of what a session adds to the first line\n");
    println!("| contestant | instructions | ratio | allocations | ratio | time |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (at, Contestant { name, .. }) in CONTESTANTS.iter().enumerate() {
        let ratio = |of: [f64; 3]| (of[2] - of[0]) / (of[1] - of[0]);
        let time = ratio([times[0], times[1], times[at]]);
        match (&costs[at], &costs[0], &costs[1]) {
            (Some(cost), Some(nobody), Some(theirs)) => {
                let all = [nobody, theirs, cost];
                let instructions = ratio(all.map(|it| it.instructions));
                let allocations = ratio(all.map(|it| it.allocations));
                println!(
                    "| {name} | {:.0} | {instructions:.2} | {:.1} | {allocations:.2} | {time:.2} |",
                    cost.instructions, cost.allocations
                );
            }
            _ => println!("| {name} | | | | | {time:.2} |"),
        }
    }
    println!();
}

/// A thousand sessions over an expiry, with ten requests each.
fn print_herd() {
    const LATENCY: Duration = Duration::from_millis(50);
    const SESSIONS: usize = 1_000;
    const SINGLES: usize = 10;

    static REDEEMS: AtomicUsize = AtomicUsize::new(0);
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (single, herd, nothing) = runtime.block_on(async {
        let renewal = Renewal::builder(async |_: Tokens| {
            REDEEMS.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LATENCY).await;
            Ok::<_, RefreshError>(Tokens::new("the second").with_refresh_token(REFRESH))
        });
        let sessions = Sessions::builder(renewal, MemoryStores::new()).build().expect("sessions");
        let app =
            sessions.layer().required().layer(service_fn(async |request: Request<Full<Bytes>>| {
                let state = request.extensions().get::<Arc<RefreshState>>().expect("a session");
                // The API refuses the first one, and no other.
                if state.current().access_token() == Some(ACCESS) {
                    state.challenged(state.current().generation()).await.expect("a token");
                }
                Ok::<_, Infallible>(body(""))
            }));
        let mut cookies = Vec::new();
        for _ in 0..SESSIONS + SINGLES {
            cookies.push(sign_in(&sessions, "alice").await);
        }
        let run = async |cookies: Vec<String>, each: usize| {
            let start = Instant::now();
            let mut tabs = JoinSet::new();
            for cookie in cookies {
                for _ in 0..each {
                    let (app, cookie) = (app.clone(), cookie.clone());
                    tabs.spawn(async move { requests(app, 1, &cookie).await });
                }
            }
            tabs.join_all().await;
            start.elapsed()
        };
        let mut slowest = Duration::ZERO;
        for single in cookies.split_off(SESSIONS) {
            slowest = slowest.max(run(vec![single], 10).await);
        }
        REDEEMS.store(0, Ordering::Relaxed);
        let herd = run(cookies.clone(), 10).await;
        // The same requests, with nothing to be refreshed.
        (slowest, herd, run(cookies, 10).await)
    });
    let redeems = REDEEMS.load(Ordering::Relaxed);
    println!("a herd: {SESSIONS} sessions, 10 requests each, over one expiry\n");
    println!(
        "| refreshes | last answer over the slowest single one | without what the requests take by themselves |"
    );
    println!("|--:|--:|--:|");
    let [single, herd, nothing] = [single, herd, nothing].map(|it| it.as_secs_f64());
    println!("| {redeems} | {:.2} | {:.2} |\n", herd / single, (herd - nothing) / single);
}

/// What is measured, by name.
const PARTS: &[(&str, fn())] = &[
    ("requests", print_requests),
    ("redis", redis::print),
    ("herd", print_herd),
    ("pauses", pauses::print),
    ("unknown", unknown::print),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, contestant, count] = args.as_slice() {
        if let (Ok(contestant), Ok(count)) = (contestant.parse::<usize>(), count.parse()) {
            (CONTESTANTS[contestant].run)(count);
            return;
        }
    }
    let is_named = |name: &str| args.iter().any(|arg| arg == name);
    let is_any_named = PARTS.iter().any(|(name, _)| is_named(name));
    for (_, print) in PARTS.iter().filter(|(name, _)| is_named(name) || !is_any_named) {
        print();
    }
}
