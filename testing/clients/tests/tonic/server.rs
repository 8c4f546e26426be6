//! The server: strict, and it notes what it sees.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use testing::{
    Loopback,
    echo::{
        Chunk, Sum,
        echo_server::{Echo, EchoServer},
    },
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use tower_refresh::RefreshState;

/// What came, in the order it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) refused: bool,
    pub(crate) timeout: Option<String>,
    /// The numbers of the chunks that came before the refusal, or in all.
    pub(crate) chunks: Vec<u64>,
}

#[derive(Clone)]
pub(crate) struct Strict {
    pub(crate) address: SocketAddr,
    /// Who gives out the tokens.
    pub(crate) auth: Loopback,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    /// How many chunks of a stream are read before it is refused.
    patience: usize,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

impl Strict {
    /// Refuses whatever comes without the good token as soon as it comes.
    pub(crate) async fn start() -> Self {
        Self::patient(0).await
    }

    /// Refuses streams after so many chunks.
    pub(crate) async fn patient(patience: usize) -> Self {
        let auth = Loopback::start(Duration::ZERO).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let strict = Self { address, auth, attempts: Arc::default(), patience };
        let echo = EchoServer::new(strict.clone());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(Server::builder().add_service(echo).serve_with_incoming(incoming));
        strict
    }

    /// A state whose access token has expired already.
    pub(crate) fn state(&self) -> Arc<RefreshState> {
        self.auth.state()
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) fn refused(&self) -> usize {
        self.attempts().iter().filter(|attempt| attempt.refused).count()
    }

    /// Notes an attempt; its number, and whether its token is good.
    fn begin<T>(&self, request: &Request<T>) -> (usize, Result<(), Status>) {
        let text = |name| request.metadata().get(name)?.to_str().ok().map(str::to_owned);
        let good = self.auth.accepts(&request.metadata().clone().into_headers());
        let timeout = text("grpc-timeout");
        let mut attempts = self.attempts.lock().unwrap();
        attempts.push(Attempt { refused: !good, timeout, chunks: vec![] });
        let refused = || Status::unauthenticated("the token has expired");
        (attempts.len() - 1, if good { Ok(()) } else { Err(refused()) })
    }

    fn note(&self, attempt: usize, chunk: &Chunk) {
        self.attempts.lock().unwrap()[attempt].chunks.push(chunk.number);
    }

    async fn admit(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<(usize, Streaming<Chunk>), Status> {
        let (attempt, verdict) = self.begin(&request);
        let mut chunks = request.into_inner();
        if verdict.is_err() {
            for _ in 0..self.patience {
                let Some(chunk) = chunks.message().await? else { break };
                self.note(attempt, &chunk);
            }
        }
        verdict.map(|()| (attempt, chunks))
    }
}

#[tonic::async_trait]
impl Echo for Strict {
    type CountStream = Chunks;
    type ChatStream = Chunks;

    async fn unary(&self, request: Request<Chunk>) -> Result<Response<Chunk>, Status> {
        self.begin(&request).1?;
        Ok(Response::new(request.into_inner()))
    }

    async fn collect(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Sum>, Status> {
        let (attempt, mut chunks) = self.admit(request).await?;
        let mut sum = Sum::default();
        while let Some(chunk) = chunks.message().await? {
            self.note(attempt, &chunk);
            sum.chunks += 1;
            sum.bytes += chunk.data.len() as u64;
        }
        Ok(Response::new(sum))
    }

    async fn count(&self, request: Request<Chunk>) -> Result<Response<Chunks>, Status> {
        self.begin(&request).1?;
        let chunks = stream::iter(0..request.into_inner().number).map(|n| Ok(crate::chunk(n)));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn chat(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Chunks>, Status> {
        let (attempt, chunks) = self.admit(request).await?;
        let this = self.clone();
        let noted = chunks.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                this.note(attempt, chunk);
            }
        });
        Ok(Response::new(Box::pin(noted)))
    }
}
