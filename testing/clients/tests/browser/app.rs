//! The application under test, on real sockets, with an API behind it.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Query, Request, State,
        ws::{WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, Method, StatusCode, Version, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use futures_util::{StreamExt, stream};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::{
    Gate, Provider,
    sessions::{ISSUER, Mode, Server, World},
};
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceBuilder;
use tower_refresh::{
    FromExtensions, RefreshLayer,
    seal::Keyring,
    session::{Identity, ProxyLayer, SealedBuilder, Session, SessionCookie, SessionSlot, Sessions},
};

use super::{
    provider::{BACK_CHANNEL, back_channel, keys},
    tls::serve,
};

/// How an application differs from others.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) is_strict: bool,
    /// Without `Secure` and without a prefix.
    pub(crate) is_insecure: bool,
    pub(crate) is_tls: bool,
    /// And lets WebSockets be opened over HTTP/2 (RFC 8441).
    pub(crate) has_http2_sockets: bool,
    /// The cookie is called so: another replica at another port has the same one.
    pub(crate) name: Option<String>,
    /// Where users sign in, and how they come back from there.
    pub(crate) provider: Option<(String, &'static str)>,
    /// How long a response is on its way at most, if the sessions are sealed. `None`: as it comes.
    pub(crate) transit: Option<Duration>,
}

/// One replica. Clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) origin: String,
    /// Of the cookie, without a prefix.
    pub(crate) name: String,
    pub(crate) sessions: Sessions,
    /// `/held` waits here.
    pub(crate) held: Gate,
    /// Every response waits here, as it goes out, whose path ends with `/late`.
    pub(crate) late: Gate,
    server: Server,
    provider: Option<(String, &'static str)>,
    /// Whose logout tokens are believed.
    pub(crate) signer: Provider,
    sign_ins: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    /// Ends every event stream.
    cut: watch::Sender<()>,
}

/// A request that has come.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) version: Version,
    /// Its fields of this name.
    pub(crate) cookies: Vec<String>,
    pub(crate) is_prefetch: bool,
    pub(crate) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    UnderWay,
    Answered(StatusCode),
    /// The browser has gone away before.
    Dropped,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub(crate) async fn start(world: &World) -> Self {
        Self::with(world, Setup::default()).await
    }

    pub(crate) async fn with(world: &World, setup: Setup) -> Self {
        let listener = listen().await;
        let port = listener.local_addr().unwrap().port();
        let name = setup.name.unwrap_or_else(|| format!("sid-{port}"));
        let cookie = match setup.is_insecure {
            true => SessionCookie::insecure_for_development(&name).unwrap(),
            false => SessionCookie::host(&name).unwrap(),
        };
        let cookie = if setup.is_strict { cookie.strict() } else { cookie };
        let builder = match world.mode {
            Mode::Opaque => Sessions::builder(world.renewal(), world.place.clone()),
            Mode::Sealed => {
                let sealed = world.sealing(Keyring::new([7; 32]));
                let sealed = setup.transit.into_iter().fold(sealed, SealedBuilder::transit);
                sealed.remember(world.place.clone())
            }
        };
        let sessions =
            builder.cookie(cookie).watch_every(Duration::from_millis(50)).build().unwrap();
        let scheme = if setup.is_tls { "https" } else { "http" };
        let app = Self(Arc::new(Shared {
            origin: format!("{scheme}://localhost:{port}"),
            name,
            sessions,
            held: Gate::new(),
            late: Gate::new(),
            server: world.server.clone(),
            provider: setup.provider,
            signer: Provider::new(),
            sign_ins: AtomicUsize::new(0),
            seen: Mutex::default(),
            cut: watch::Sender::new(()),
        }));
        let router = app.router(&api(world.server.clone()).await, keys(&app.signer).await);
        match setup.is_tls {
            true => serve(listener, router, setup.has_http2_sockets),
            false => drop(tokio::spawn(async move { axum::serve(listener, router).await })),
        }
        app
    }

    /// Another replica, at another port of the host: the browser's cookie is good there, too.
    pub(crate) async fn replica(&self, world: &World) -> Self {
        let name = Some(self.name.clone());
        Self::with(world, Setup { name, ..Setup::default() }).await
    }

    fn router(&self, api: &str, keys: String) -> Router {
        let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let proxy = |prefix| {
            ServiceBuilder::new()
                .layer(ProxyLayer::to(api).unwrap().strip_prefix(prefix).unwrap())
                .layer(
                    RefreshLayer::per_request(FromExtensions)
                        .allow_origin(api)
                        .unwrap()
                        .map_body(Body::new),
                )
                .service(client.clone())
        };
        let me = get(async |session: Session| session.identity().subject().to_owned());
        let pages = Router::new()
            .route("/private", get(async |session: Session| private(&session, "")))
            .route("/checked", get(async |session: Session| private(&session, CHECK)))
            .route_layer(self.sessions.layer().sign_in_at("/login").unwrap());
        Router::new()
            .route_service("/api/{*path}", proxy("/api"))
            .route("/me", me.clone())
            .route("/deep/me", me.clone())
            .route("/held", get(held))
            .route("/events", get(events))
            .route("/sign_out", post(sign_out))
            .route("/post", post(async |_: Session, body: Bytes| body))
            .route_layer(self.sessions.layer().required())
            .merge(pages)
            // Nobody asks for the session here.
            .route_service("/open/{*path}", proxy("/open"))
            .route("/", get(home))
            .route("/login", get(login))
            .route("/callback", get(callback))
            .layer(self.sessions.layer())
            .route("/blank", get(Html(page("blank", ""))))
            .route_service(BACK_CHANNEL, back_channel(&self.sessions, keys))
            .layer(from_fn_with_state(self.clone(), note))
            .with_state(self.clone())
    }

    /// The cookie's name, as the browser has it.
    pub(crate) fn cookie(&self) -> &str {
        self.sessions.cookie().name()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// How many sign-ins were begun.
    pub(crate) fn sign_ins(&self) -> usize {
        self.sign_ins.load(Ordering::Relaxed)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests for this path have come to this.
    pub(crate) fn count(&self, path: &str, fate: Fate) -> usize {
        self.seen().iter().filter(|seen| seen.path == path && seen.fate == fate).count()
    }

    /// How many have got this answer, whatever the path.
    pub(crate) fn answered(&self, status: StatusCode) -> usize {
        self.seen().iter().filter(|seen| seen.fate == Fate::Answered(status)).count()
    }

    /// How many prefetches of this path were answered.
    pub(crate) fn prefetches(&self, path: &str) -> usize {
        let is_one =
            |seen: &&Seen| seen.path == path && seen.is_prefetch && seen.fate != Fate::UnderWay;
        self.seen().iter().filter(is_one).count()
    }

    /// Ends every event stream: the connections go.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Serves it at another site than the application's: the origin.
pub(crate) async fn elsewhere(router: Router) -> String {
    let listener = listen().await;
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

pub(crate) fn page(text: &str, more: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><title>{text}</title><link rel=icon href=data:,>\
         <p>{text}</p>{more}"
    )
}

/// Asks whether the session lives, when the browser shows the page without asking for it: by Back, and
/// after a prefetch or a prerender.
const CHECK: &str = "<script>
    const ask = async () => {
        sessionStorage.shown = document.body.innerText;
        if (!(await fetch('/me')).ok) location.reload();
    };
    addEventListener('pageshow', event => {
        const [how] = performance.getEntriesByType('navigation');
        if (event.persisted || how.deliveryType == 'navigational-prefetch') ask();
    });
    document.addEventListener('prerenderingchange', ask)
</script>";

/// `no-store`, since it asks for the session.
fn private(session: &Session, more: &str) -> Html<String> {
    let name = session.identity().subject();
    Html(page(&format!("the secrets of {name}"), more))
}

async fn home(session: Option<Session>) -> Html<String> {
    let name = session.map_or("nobody".to_owned(), |it| it.identity().subject().to_owned());
    let links = "<a id=private href=/private>private</a> \
                 <a id=checked href=/checked>checked</a> <a id=login href=/login>sign in</a>";
    Html(page(&format!("this is {name}"), links))
}

async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    if headers.contains_key("sec-purpose") {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    app.sign_ins.fetch_add(1, Ordering::Relaxed);
    let to = query.iter().find(|(name, _)| name == "return_to").map_or("/", |(_, path)| path);
    match &app.provider {
        Some((origin, by)) => {
            let back = app.url(&format!("/callback?to={to}"));
            Redirect::to(&format!("{origin}/authorize?by={by}&back={back}")).into_response()
        }
        None => Html(page("who are you?", "")).into_response(),
    }
}

/// The provider's word is taken for it.
async fn callback(
    State(app): State<App>,
    slot: SessionSlot,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let field = |name: &str, default: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map_or(default, |(_, value)| value).to_owned()
    };
    let identity = Identity::new(ISSUER, field("user", "alice"));
    match slot.sign_in(app.server.sign_in(), identity).await {
        Ok(_) => slot.land(&field("to", "/")).unwrap().into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn sign_out(session: Session) -> StatusCode {
    session.sign_out().await.unwrap();
    StatusCode::NO_CONTENT
}

async fn held(State(app): State<App>, _: Session) -> &'static str {
    app.held.pass().await;
    "held"
}

/// Says hello, and a word at the end of the session; nothing if it is cut before.
async fn events(State(app): State<App>, session: Session) -> impl IntoResponse {
    let mut cut = app.cut.subscribe();
    let hello = stream::iter(["retry: 100\ndata: hello\n\n".to_owned()]);
    let rest = stream::once(async move {
        tokio::select! {
            _ = cut.changed() => None,
            ended = session.ended() => Some(format!("event: session-ended\ndata: {ended}\n\n")),
        }
    });
    let all = hello.chain(rest.filter_map(async |last| last)).map(Ok::<_, io::Error>);
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    (headers, Body::from_stream(all))
}

/// Writes down what comes, and what becomes of it.
async fn note(State(app): State<App>, request: Request, next: Next) -> Response {
    struct Note(App, usize, Fate);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.seen.lock().unwrap()[self.1].fate = self.2;
        }
    }
    let headers = request.headers();
    let cookies = headers.get_all(header::COOKIE).iter();
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        version: request.version(),
        cookies: cookies.map(|it| it.to_str().unwrap().to_owned()).collect(),
        is_prefetch: headers.contains_key("sec-purpose"),
        fate: Fate::UnderWay,
    };
    let number = {
        let mut all = app.seen.lock().unwrap();
        all.push(seen);
        all.len() - 1
    };
    let mut note = Note(app, number, Fate::Dropped);
    let is_late = request.uri().path().ends_with("/late");
    let response = next.run(request).await;
    if is_late {
        note.0.late.pass().await;
    }
    note.2 = Fate::Answered(response.status());
    response
}

/// Says back what it hears.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The API behind: it takes the tokens of the server.
async fn api(server: Server) -> String {
    let answer = any(async move |socket: Result<WebSocketUpgrade, _>, request: Request| {
        let token = request.headers().get(header::AUTHORIZATION);
        match token.is_some_and(|it| server.accepts(it.to_str().unwrap())) {
            true => match socket {
                Ok(socket) => socket.protocols(["chat"]).on_upgrade(echo),
                Err::<_, WebSocketUpgradeRejection>(_) => {
                    request.uri().path().to_owned().into_response()
                }
            },
            false => {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
            }
        }
    });
    elsewhere(Router::new().route("/{*path}", answer)).await
}
