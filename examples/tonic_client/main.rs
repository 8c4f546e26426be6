//! A generated tonic client, an expired token, one refresh.
//!
//! ```text
//! cargo run --example tonic_client
//! ```
//!
//! Starts a gRPC server on loopback TCP whose access tokens expire and whose refresh
//! tokens are for single use. When the access token has just expired, a hundred unary
//! calls and a bidirectional stream begin at the same time. The server refuses them all
//! with `UNAUTHENTICATED`, the stream after its first message. Each recovers, and the
//! server checks that every message came whole, exactly once, with the new token. Exits
//! with 1 if that is not what happened.

// Made from echo.proto by
//
//     tonic_prost_build::configure()
//         .bytes(".")
//         .compile_fds(protox::compile(["echo.proto"], ["."])?)?
//
// with tonic-prost-build 0.14 and protox 0.9, so that nobody needs protoc to build this.
#[rustfmt::skip]
#[allow(unreachable_pub, clippy::all)]
mod echo;

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    net::SocketAddr,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::Request;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{
    Response, Status, Streaming,
    body::Body,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::ServiceBuilder;
use tower_refresh::{RefreshError, RefreshLayer, RefreshState, Tokens, body::ReplayBody};

use echo::{
    Chunk, Sum,
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};

type AnyError = Box<dyn Error + Send + Sync>;

/// Unary calls; one stream of as many messages comes on top.
const CALLS: u64 = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Arc::new(Servers::new());
    let address = serve(Arc::clone(&servers)).await?;

    // ---- What a user of the crate writes: who redeems ...
    let authority = Arc::clone(&servers);
    let state = RefreshState::builder(move |spent: Tokens| {
        let authority = Arc::clone(&authority);
        async move { authority.redeem(&spent).await }
    })
    .tokens(servers.sign_in())
    .build();

    // ---- ... and one layer, and one line, between the channel and the generated client.
    let channel = ServiceBuilder::new()
        .layer(RefreshLayer::new(Arc::clone(&state)))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(Channel::from_shared(format!("http://{address}"))?.connect_lazy());
    let client = EchoClient::new(channel);

    println!("{CALLS} unary calls and a stream begin with a token that has just expired");
    servers.expire_access_token();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut client = client.clone();
        calls.spawn(async move {
            let mut request = tonic::Request::new(chunk(number));
            // What the refresh takes of it the replay does not get again.
            request.set_timeout(Duration::from_secs(30));
            Ok::<_, Status>(client.unary(request).await?.into_inner() == chunk(number))
        });
    }
    let mut streaming = client.clone();
    calls.spawn(async move {
        let sent = stream::iter((CALLS..2 * CALLS).map(chunk));
        let mut answers = streaming.chat(sent).await?.into_inner();
        for number in CALLS..2 * CALLS {
            if answers.message().await? != Some(chunk(number)) {
                return Ok(false);
            }
        }
        Ok(answers.message().await?.is_none())
    });
    let mut ok = 0;
    while let Some(call) = calls.join_next().await {
        match call? {
            Ok(true) => ok += 1,
            Ok(false) => eprintln!("a call was answered with something else"),
            Err(status) => eprintln!("a call failed: {status}"),
        }
    }
    state.drain().await;

    let log = servers.lock();
    let Log { refused, refreshes, token_reuse, ref accepted, .. } = *log;
    let whole_once = (0..2 * CALLS).all(|number| accepted.get(&number) == Some(&1));
    println!("each of {} messages was accepted exactly once: {whole_once}", 2 * CALLS);
    println!(
        "calls={} ok={ok} refused={refused} refreshes={refreshes} token_reuse={token_reuse}",
        CALLS + 1
    );
    let as_promised = (ok, refused, refreshes, token_reuse) == (CALLS + 1, CALLS + 1, 1, 0);
    Ok(if as_promised && whole_once { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: Bytes::from(format!("message {number}; ").repeat(50)) }
}

/// What both servers, the one that issues tokens and the one that takes them, know.
struct Servers {
    log: Mutex<Log>,
    /// How many calls have come with the expired token. They are refused when all have
    /// come.
    arrived: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    issued: u64,
    expired: bool,
    spent: HashSet<String>,
    refused: u64,
    refreshes: u64,
    token_reuse: u64,
    /// How often each message arrived whole with a good token.
    accepted: HashMap<u64, u64>,
}

impl Servers {
    fn new() -> Self {
        Self { log: Mutex::default(), arrived: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign_in(&self) -> Tokens {
        self.lock().issue()
    }

    fn expire_access_token(&self) {
        self.lock().expired = true;
    }

    /// Redeems a refresh token, once.
    async fn redeem(&self, spent: &Tokens) -> Result<Tokens, RefreshError> {
        // That takes its time.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut log = self.lock();
        let refresh_token = spent.refresh_token().unwrap_or_default().to_owned();
        let newest = refresh_token == format!("refresh-{}", log.issued);
        if !log.spent.insert(refresh_token) || !newest {
            log.token_reuse += 1;
            return Err(RefreshError::rejected("invalid_grant"));
        }
        log.refreshes += 1;
        Ok(log.issue())
    }

    /// `UNAUTHENTICATED` without the good token.
    async fn check<T>(&self, request: &tonic::Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let good = {
            let log = self.lock();
            !log.expired && token == Some(&format!("Bearer good-{}", log.issued))
        };
        if good {
            return Ok(());
        }
        self.arrived.send_modify(|arrived| *arrived += 1);
        // The sender is in `self`: this cannot end in an error.
        let _ = self.arrived.subscribe().wait_for(|arrived| *arrived > CALLS).await;
        self.lock().refused += 1;
        Err(Status::unauthenticated("the token has expired"))
    }

    fn accept(&self, got: &Chunk) {
        if *got == chunk(got.number) {
            *self.lock().accepted.entry(got.number).or_default() += 1;
        }
    }
}

impl Log {
    fn issue(&mut self) -> Tokens {
        self.issued += 1;
        self.expired = false;
        let number = self.issued;
        Tokens::new(format!("good-{number}")).with_refresh_token(format!("refresh-{number}"))
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

struct Strict(Arc<Servers>);

#[tonic::async_trait]
impl Echo for Strict {
    type CountStream = Chunks;
    type ChatStream = Chunks;

    async fn unary(&self, request: tonic::Request<Chunk>) -> Result<Response<Chunk>, Status> {
        self.0.check(&request).await?;
        self.0.accept(request.get_ref());
        Ok(Response::new(request.into_inner()))
    }

    async fn chat(
        &self,
        mut request: tonic::Request<Streaming<Chunk>>,
    ) -> Result<Response<Chunks>, Status> {
        // Refused in the middle: the first message was sent, and is sent again.
        let first = request.get_mut().message().await?;
        self.0.check(&request).await?;
        let servers = Arc::clone(&self.0);
        let all = stream::iter(first.map(Ok)).chain(request.into_inner());
        Ok(Response::new(Box::pin(all.inspect(move |got| {
            if let Ok(chunk) = got {
                servers.accept(chunk);
            }
        }))))
    }

    async fn collect(&self, _: tonic::Request<Streaming<Chunk>>) -> Result<Response<Sum>, Status> {
        Err(Status::unimplemented("nobody calls this here"))
    }

    async fn count(&self, _: tonic::Request<Chunk>) -> Result<Response<Chunks>, Status> {
        Err(Status::unimplemented("nobody calls this here"))
    }
}

/// Serves on a loopback port.
async fn serve(servers: Arc<Servers>) -> Result<SocketAddr, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let echo = EchoServer::new(Strict(servers));
    tokio::spawn(Server::builder().add_service(echo).serve_with_incoming(incoming));
    Ok(address)
}
