//! A generated tonic client, an expired token, one refresh.
//!
//! ```text
//! cargo run -p examples --example tonic_client
//! ```
//!
//! Starts a gRPC server on loopback TCP whose access tokens expire and whose refresh
//! tokens are for single use. When the access token has just expired, a hundred unary
//! calls and a bidirectional stream begin at the same time. The server refuses them all
//! with `UNAUTHENTICATED`, the stream after its first message. Each recovers, and the
//! server checks that every message came whole, exactly once, with the new token. Exits
//! with 1 if that is not what happened.

use std::{
    collections::HashMap,
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
use testing::{
    Loopback,
    echo::{
        Chunk, Sum,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Response, Status, Streaming,
    body::Body,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::ServiceBuilder;
use tower_refresh::{RefreshLayer, RefreshState, Tokens, body::ReplayBody};

type AnyError = Box<dyn Error + Send + Sync>;

/// Unary calls; one stream of as many messages comes on top.
const CALLS: u64 = 100;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let strict = Strict { servers: servers.clone(), accepted: Arc::default() };
    let address = serve(strict.clone()).await?;

    // ---- What a user of the crate writes: who redeems ...
    let authority = servers.clone();
    let state = RefreshState::builder(async move |spent: Tokens| authority.redeem(&spent).await)
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
    servers.refuse_together(CALLS as usize + 1);
    let mut running = JoinSet::new();
    for number in 0..CALLS {
        let mut client = client.clone();
        running.spawn(async move {
            let mut request = tonic::Request::new(chunk(number));
            // What the refresh takes of it the replay does not get again.
            request.set_timeout(Duration::from_secs(30));
            Ok::<_, Status>(client.unary(request).await?.into_inner() == chunk(number))
        });
    }
    let mut streaming = client.clone();
    running.spawn(async move {
        let sent = stream::iter((CALLS..2 * CALLS).map(chunk));
        let mut answers = streaming.chat(sent).await?.into_inner();
        for number in CALLS..2 * CALLS {
            if answers.message().await? != Some(chunk(number)) {
                return Ok(false);
            }
        }
        Ok(answers.message().await?.is_none())
    });
    let (calls, mut ok) = (running.len(), 0);
    while let Some(call) = running.join_next().await {
        match call? {
            Ok(true) => ok += 1,
            Ok(false) => eprintln!("a call was answered with something else"),
            Err(status) => eprintln!("a call failed: {status}"),
        }
    }
    state.drain().await;

    let whole_once = strict.all_once(2 * CALLS);
    let book = servers.book();
    println!("each of {} messages was accepted exactly once: {whole_once}", 2 * CALLS);
    println!(
        "calls={calls} ok={ok} refused={} refreshes={} token_reuse={}",
        book.unauthorized, book.refreshes, book.token_reuse
    );
    let as_promised =
        (ok, book.unauthorized) == (calls, calls) && (book.refreshes, book.token_reuse) == (1, 0);
    Ok(if as_promised && whole_once { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: Bytes::from(format!("message {number}; ").repeat(50)) }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// The gRPC server, which lets nothing through without the good token.
#[derive(Clone)]
struct Strict {
    servers: Loopback,
    /// How often each message arrived whole with a good token.
    accepted: Arc<Mutex<HashMap<u64, u64>>>,
}

impl Strict {
    /// `UNAUTHENTICATED` without the good token.
    async fn check<T>(&self, request: &tonic::Request<T>) -> Result<(), Status> {
        match self.servers.judge(&request.metadata().clone().into_headers()).await {
            true => Ok(()),
            false => Err(Status::unauthenticated("the token has expired")),
        }
    }

    fn accepted(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, got: &Chunk) {
        if *got == chunk(got.number) {
            *self.accepted().entry(got.number).or_default() += 1;
        }
    }

    fn all_once(&self, messages: u64) -> bool {
        let accepted = self.accepted();
        (0..messages).all(|number| accepted.get(&number) == Some(&1))
    }
}

#[tonic::async_trait]
impl Echo for Strict {
    type CountStream = Chunks;
    type ChatStream = Chunks;

    async fn unary(&self, request: tonic::Request<Chunk>) -> Result<Response<Chunk>, Status> {
        self.check(&request).await?;
        self.accept(request.get_ref());
        Ok(Response::new(request.into_inner()))
    }

    async fn chat(
        &self,
        mut request: tonic::Request<Streaming<Chunk>>,
    ) -> Result<Response<Chunks>, Status> {
        // Refused in the middle: the first message was sent, and is sent again.
        let first = request.get_mut().message().await?;
        self.check(&request).await?;
        let this = self.clone();
        let all = stream::iter(first.map(Ok)).chain(request.into_inner());
        Ok(Response::new(Box::pin(all.inspect(move |got| {
            if let Ok(chunk) = got {
                this.accept(chunk);
            }
        }))))
    }

    async fn collect(&self, _: tonic::Request<Streaming<Chunk>>) -> Result<Response<Sum>, Status> {
        Err(Status::unimplemented("not called here"))
    }

    async fn count(&self, _: tonic::Request<Chunk>) -> Result<Response<Chunks>, Status> {
        Err(Status::unimplemented("not called here"))
    }
}

/// Serves on a loopback port.
async fn serve(strict: Strict) -> Result<SocketAddr, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let echo = EchoServer::new(strict);
    tokio::spawn(Server::builder().add_service(echo).serve_with_incoming(incoming));
    Ok(address)
}
