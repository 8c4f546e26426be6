//! What the layer costs a client on a real socket.
//!
//! ```text
//! cargo bench -p benches --bench end_to_end
//! ```
//!
//! hyper-util's client sends POSTs with a body of 1 KiB over loopback, 32 in flight,
//! to a server in another process; both run on one thread. Counted is what the
//! client's process does: time of the processor, the kernel's part included, and over
//! HTTP/1 instructions, by callgrind, the kernel's part not included. A third row has no
//! sockets: client and server talk in memory, in one process, and both count. The contestants
//! take turns; shown are medians, and ratios to tower-http's `AddAuthorizationLayer`.

mod memory;
mod server;

use benches::{
    time::{median, process_cpu},
    valgrind,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use tokio::{runtime::Runtime, task::JoinSet};
use tower::{Layer, Service, ServiceExt};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{RefreshLayer, RefreshState, Tokens};

use server::Server;

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvcmRlcnMiLCJleHAiOjE3fQ.c2lnbmF0dXJl";
const IN_FLIGHT: u64 = 32;
const IN_MEMORY: &str = "HTTP/1 in memory";
const NAMES: [&str; 5] = [
    "AddAuthorization",
    "bare client",
    "this layer",
    "this layer, marks",
    "this layer, clone_bodies",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, role, protocol] if role == "server" => return server::serve(protocol),
        [_, _client, protocol, address, contestant, count] => {
            let contestant: usize = contestant.parse().expect("a number");
            let count: u64 = count.parse().expect("a number");
            let runtime = runtime();
            run(&runtime, NAMES[contestant], protocol, address, count);
            return;
        }
        _ => {}
    }

    println!("processor time of the client's process, and its instructions, a request\n");
    println!(
        "| protocol | contestant | time to AddAuthorization | instructions | to AddAuthorization |"
    );
    println!("|---|---|--:|--:|--:|");
    let counts = valgrind::is_here();
    for protocol in ["HTTP/1", "HTTP/2", IN_MEMORY] {
        let server = (protocol != IN_MEMORY).then(|| Server::start(protocol));
        let address = server.as_ref().map_or("in.memory", |server| &server.address);
        let times = times(protocol, address);
        let instructions =
            (counts && protocol != "HTTP/2").then(|| instructions(protocol, address));
        for (i, name) in NAMES.iter().enumerate() {
            print!("| {protocol} | {name} | {:.3} |", times[i] / times[0]);
            match &instructions {
                Some(counts) => println!(" {:.0} | {:.3} |", counts[i], counts[i] / counts[0]),
                None => println!(" | |"),
            }
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Processor seconds, in the order of [`NAMES`].
fn times(protocol: &str, address: &str) -> Vec<f64> {
    const ROUNDS: usize = 21;
    const COUNT: u64 = 6_400;
    let runtime = runtime();
    let mut times = vec![Vec::new(); NAMES.len()];
    for round in 0..=ROUNDS {
        for (name, times) in NAMES.iter().zip(&mut times) {
            let start = process_cpu();
            run(&runtime, name, protocol, address, COUNT);
            // The first round warms up.
            if round > 0 {
                times.push((process_cpu() - start).as_secs_f64());
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// Instructions a request, in the order of [`NAMES`]. How many requests are found
/// ready at one time differs from run to run, hence the median of several.
fn instructions(protocol: &str, address: &str) -> Vec<f64> {
    const ROUNDS: usize = 3;
    let mut counts = vec![Vec::new(); NAMES.len()];
    for _ in 0..ROUNDS {
        for (i, counts) in counts.iter_mut().enumerate() {
            let args = ["client", protocol, address, &i.to_string()];
            counts.push(valgrind::cost(&args, 3_200, false).instructions);
        }
    }
    counts.into_iter().map(median).collect()
}

fn run(runtime: &Runtime, name: &str, protocol: &str, address: &str, count: u64) {
    let uri = format!("http://{address}/v1/orders?draft=1");
    if protocol == IN_MEMORY {
        return run_over(runtime, memory::Connector, name, protocol, &uri, count);
    }
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    run_over(runtime, connector, name, protocol, &uri, count);
}

fn run_over<C>(runtime: &Runtime, to: C, name: &str, protocol: &str, uri: &str, count: u64)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let layer = || {
        let state = RefreshState::builder(async |_: Tokens| panic!("nothing is refreshed here"));
        RefreshLayer::new(state.tokens(Tokens::new(TOKEN)).build())
    };
    match name {
        "AddAuthorization" => {
            let client = client::<_, Full<Bytes>>(to, protocol);
            let service = AddAuthorizationLayer::bearer(TOKEN).layer(client);
            runtime.block_on(send(service, uri, count));
        }
        "bare client" => {
            runtime.block_on(send(client::<_, Full<Bytes>>(to, protocol), uri, count));
        }
        "this layer" => runtime.block_on(send(layer().layer(client(to, protocol)), uri, count)),
        "this layer, marks" => {
            let layer = layer().mark_attempts(true);
            runtime.block_on(send(layer.layer(client(to, protocol)), uri, count));
        }
        _ => {
            let layer = layer().clone_bodies();
            runtime.block_on(send(layer.layer(client(to, protocol)), uri, count));
        }
    }
}

fn client<C, B>(connector: C, protocol: &str) -> Client<C, B>
where
    C: Connect + Clone,
    B: Body + Send,
    B::Data: Send,
{
    let mut builder = Client::builder(TokioExecutor::new());
    builder.http2_only(protocol == "HTTP/2");
    builder.build(connector)
}

/// Sends so many requests, 32 at a time: tasks with a clone of the service each, that
/// send one after the other.
async fn send<S>(service: S, uri: &str, count: u64)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Send,
{
    let body = Bytes::from(vec![7; 1 << 10]);
    let mut tasks = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (mut service, uri, body) = (service.clone(), uri.to_owned(), body.clone());
        tasks.spawn(async move {
            for _ in 0..count / IN_FLIGHT {
                let request = Request::post(&*uri)
                    .header("accept", "application/json")
                    .header("content-type", "application/json")
                    .header("user-agent", "orders/1.4 (linux)")
                    .header("x-request-id", "01JAB3ZK5W8M7Q2T4V6X9YC0DE")
                    .header("idempotency-key", "5f0c9c1e-9a3d-4a5e-8f6b-2d7c1b0a9e84")
                    .body(Full::new(body.clone()))
                    .expect("a valid request");
                let service = service.ready().await.expect("ready");
                let response = service.call(request).await.expect("a response");
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body().collect().await.expect("a body");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
}
