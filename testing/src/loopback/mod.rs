//! An authorization server and an API on loopback TCP, as strict as real ones: refresh
//! tokens are for single use, and one that comes a second time ends the whole session.
//!
//! | | | |
//! |---|---|---|
//! | `POST /token` | the refresh-token and the client-credentials grant | RFC 6749 |
//! | `POST /revoke` | revocation | RFC 7009 |
//! | `/api` and below | reads the body, and echoes it if the token is good | RFC 6750 |
//! | `/stream` | echoes each chunk as it comes, and refuses without having read anything | RFC 6750 |
//!
//! A server that shows something of its own has a handler of its own
//! ([`Options::serve`]), and passes on what it does not answer itself.

mod answer;
mod book;
mod serve;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tower_refresh::{BoxError, RefreshError, RefreshState, Tokens};

pub use self::{
    answer::{Form, ResponseBody, challenge, empty, json, read_form, text},
    book::{Book, Pair, Verdict},
    serve::{BOTH, HangUp, Protocol, serve},
};

use self::serve::Connections;

/// The client that the authorization server knows.
pub const CLIENT_ID: &str = "example";
/// Its secret.
pub const CLIENT_SECRET: &str = "example-secret";

/// What the authorization server says of every access token's life.
const LIFE: Duration = Duration::from_secs(3600);

/// The two servers. They go on until the runtime ends. Clones are the same servers.
#[derive(Clone)]
pub struct Loopback {
    address: SocketAddr,
    origin: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    latency: Duration,
    on_event: Option<OnEvent>,
    book: Mutex<Book>,
    bodies: Mutex<Vec<Bytes>>,
    /// A device code was asked for once.
    device_asked: AtomicBool,
    hold: watch::Sender<Hold>,
    connections: Arc<Connections>,
}

/// Which refusals are held back.
#[derive(Default)]
struct Hold {
    /// Until there are so many.
    together: usize,
    refused: usize,
    /// How many requests marked `x-late` are held, and whether they are answered.
    late: usize,
    answer_late: bool,
}

/// What happens at the servers.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A refresh token was redeemed.
    Redeemed,
    /// A request to `/api` is answered with 401. `late`: it was marked `x-late`.
    Refused {
        /// What comes after `/api`.
        path: &'a str,
        /// Whether it was marked `x-late`.
        late: bool,
    },
    /// A request to `/api` is answered with 200.
    Accepted {
        /// What comes after `/api`.
        path: &'a str,
        /// The whole body.
        body: &'a Bytes,
    },
}

type OnEvent = Box<dyn Fn(&Loopback, Event<'_>) + Send + Sync>;

/// How the servers are to be.
#[derive(Default)]
#[must_use]
pub struct Options {
    latency: Duration,
    protocol: Protocol,
    book: Book,
    on_event: Option<OnEvent>,
}

impl Options {
    /// Every answer takes so long.
    pub fn latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// What they speak.
    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The authorization server's book, for its grace period and the life of its tokens.
    pub fn book(self, book: Book) -> Self {
        Self { book, ..self }
    }

    /// Is told what happens, when it happens.
    pub fn on_event(self, tell: impl Fn(&Loopback, Event<'_>) + Send + Sync + 'static) -> Self {
        Self { on_event: Some(Box::new(tell)), ..self }
    }

    /// Starts them.
    pub async fn start(self) -> io::Result<Loopback> {
        self.serve(async |servers, request| servers.answer(request).await).await
    }

    /// Starts them with a handler of one's own, which answers every request.
    pub async fn serve<H, F, B>(self, handler: H) -> io::Result<Loopback>
    where
        H: Fn(Loopback, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::default();
        let servers = Loopback {
            address,
            origin: format!("http://{address}").into(),
            shared: Arc::new(Shared {
                latency: self.latency,
                on_event: self.on_event,
                book: Mutex::new(self.book),
                bodies: Mutex::default(),
                device_asked: AtomicBool::default(),
                hold: watch::Sender::default(),
                connections: Arc::clone(&connections),
            }),
        };
        let shared = servers.clone();
        serve::accept(listener, self.protocol, connections, move |request| {
            handler(shared.clone(), request)
        });
        Ok(servers)
    }
}

impl Loopback {
    /// How they are to be, if not as they come.
    pub fn options() -> Options {
        Options::default()
    }

    /// Starts both servers. Every answer takes `latency`.
    pub async fn start(latency: Duration) -> io::Result<Self> {
        Self::options().latency(latency).start().await
    }

    /// Starts them with a handler of one's own, for tests: it speaks this protocol, and is
    /// not slow.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn serve<H, F, B>(protocol: Protocol, handler: H) -> Self
    where
        H: Fn(Loopback, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::options().protocol(protocol).serve(handler).await.unwrap()
    }

    /// `http://127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.origin
    }

    /// `127.0.0.1:<port>`.
    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    /// Where tokens are given out.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.origin)
    }

    /// Where a device asks for a code (RFC 8628). The user types it in after the first poll.
    pub fn device_authorization_endpoint(&self) -> String {
        format!("{}/device", self.origin)
    }

    /// Where tokens are revoked.
    pub fn revocation_endpoint(&self) -> String {
        format!("{}/revoke", self.origin)
    }

    /// A protected resource, which echoes what it is sent.
    pub fn api(&self) -> String {
        format!("{}/api", self.origin)
    }

    /// A protected resource that echoes each chunk as it comes, and refuses without having
    /// read anything.
    pub fn stream(&self) -> String {
        format!("{}/stream", self.origin)
    }

    /// New tokens for a user who has just signed in.
    pub fn sign_in(&self) -> Tokens {
        self.lock().sign_in().tokens().with_expires_in(LIFE)
    }

    /// A state that is signed in, whose access token has expired already. It redeems in
    /// process.
    pub fn state(&self) -> Arc<RefreshState> {
        let tokens = self.lock().sign_in().tokens();
        self.expire_access_token();
        let this = self.clone();
        RefreshState::builder(move |spent: Tokens| {
            let this = this.clone();
            async move { this.redeem(&spent).await }
        })
        .tokens(tokens)
        .build()
    }

    /// Redeems a refresh token, as the token endpoint does.
    pub async fn redeem(&self, spent: &Tokens) -> Result<Tokens, RefreshError> {
        self.pause().await;
        match self.lock().redeem(spent.refresh_token().unwrap_or_default()) {
            Verdict::Renewed(pair) | Verdict::Again(pair) => Ok(pair.tokens()),
            refused => Err(RefreshError::rejected(format!("invalid_grant: {refused:?}"))),
        }
    }

    /// From now on the API refuses every access token that was given out so far.
    pub fn expire_access_token(&self) {
        self.lock().expire_access_token();
    }

    /// Holds refusals back until there are so many, so that all learn of it at once.
    /// Those marked `x-late` do not count.
    pub fn refuse_together(&self, count: usize) {
        self.shared.hold.send_modify(|hold| hold.together = count);
    }

    /// Waits until a request that is marked `x-late` was refused, and is held back.
    pub async fn late_refused(&self) {
        // The sender is in `self`: this cannot end in an error.
        let _ = self.shared.hold.subscribe().wait_for(|hold| hold.late > 0).await;
    }

    /// Answers the requests that were marked `x-late`.
    pub fn answer_late(&self) {
        self.shared.hold.send_modify(|hold| hold.answer_late = true);
    }

    /// Whether a request brings the good access token.
    pub fn accepts(&self, headers: &HeaderMap) -> bool {
        let brought = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = brought.and_then(|value| value.strip_prefix("Bearer "));
        self.lock().accepts(token.unwrap_or_default())
    }

    /// Says, when the time has come, whether a request brings the good access token.
    pub async fn judge(&self, headers: &HeaderMap) -> bool {
        let good = self.accepts(headers);
        self.pause().await;
        if !good {
            let late = headers.contains_key("x-late");
            let count = |hold: &mut Hold| {
                *(if late { &mut hold.late } else { &mut hold.refused }) += 1;
            };
            self.shared.hold.send_modify(count);
            let over =
                |hold: &Hold| if late { hold.answer_late } else { hold.refused >= hold.together };
            // The sender is in `self`: this cannot end in an error.
            let _ = self.shared.hold.subscribe().wait_for(over).await;
        }
        good
    }

    /// What the servers saw so far.
    pub fn book(&self) -> Book {
        self.lock().clone()
    }

    /// The book itself.
    pub fn lock(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many refresh tokens were redeemed.
    pub fn refreshes(&self) -> usize {
        self.lock().refreshes
    }

    /// The bodies that came whole with the good token, in their order; see
    /// [`strict`](Self::strict).
    pub fn bodies(&self) -> Vec<Bytes> {
        self.shared.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        *self.shared.connections.accepted.borrow()
    }

    /// How many connections are over, now and later.
    pub fn closed(&self) -> watch::Receiver<usize> {
        self.shared.connections.closed.subscribe()
    }

    /// The time that every answer takes.
    async fn pause(&self) {
        if !self.shared.latency.is_zero() {
            sleep(self.shared.latency).await;
        }
    }

    fn tell(&self, event: Event<'_>) {
        if let Some(tell) = &self.shared.on_event {
            tell(self, event);
        }
    }
}

impl Pair {
    /// As a client keeps them.
    pub fn tokens(self) -> Tokens {
        Tokens::new(self.access).with_refresh_token(self.refresh)
    }
}
