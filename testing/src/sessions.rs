//! An application with browser sessions, its authorization server, its stores and its browsers.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_refresh::{
    BoxFuture, FromExtensions, Generation, RefreshError, RefreshLayer, Renewal, Tokens,
    body::ReplayBody,
    seal::Keyring,
    session::{
        Ended, Identity, SealedBuilder, SessionBody, SessionLayer, SessionSlot, Sessions,
        SessionsBuilder,
    },
    state::RenewalBuilder,
    store::{
        Deleted, KeptUntil, Leased, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore,
    },
};

use super::Gate;

/// Of requests and responses.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
type App = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, Infallible>;

/// Who signs in.
pub const ISSUER: &str = "https://id.test";

/// An authorization server that rotates, and revokes a family when a spent token comes again; and the
/// API that takes its tokens.
#[derive(Clone, Default)]
pub struct Server(
    Arc<Mutex<Families>>,
    /// Every redeem passes here before it is answered.
    pub Gate,
);

#[derive(Default)]
struct Families {
    /// The number of the tokens that count, by family.
    current: HashMap<String, u64>,
    /// What the API takes: an access token may run out before the refresh token is spent.
    accepted: HashSet<String>,
    redeems: usize,
    reuses: usize,
    revoked: HashSet<String>,
    is_away: bool,
    families: usize,
    /// How long access tokens live, if the server says so.
    life: Option<Duration>,
    /// What it sends besides, and how much of it.
    besides: Option<(String, usize)>,
}

impl Families {
    fn tokens(&self, family: &str, number: u64) -> Tokens {
        let tokens = Tokens::new(format!("access-{family}-{number}"))
            .with_refresh_token(format!("refresh-{family}-{number}"));
        let tokens = self.life.into_iter().fold(tokens, Tokens::with_expires_in);
        self.besides
            .iter()
            .fold(tokens, |tokens, (name, len)| tokens.with_extra(name.clone(), "x".repeat(*len)))
    }
}

impl Server {
    /// The tokens of a new sign-in.
    pub fn sign_in(&self) -> Tokens {
        let mut families = self.0.lock().unwrap();
        families.families += 1;
        let family = format!("f{}", families.families);
        families.current.insert(family.clone(), 1);
        families.accepted.insert(format!("access-{family}-1"));
        families.tokens(&family, 1)
    }

    /// No access token is good any more.
    pub fn expire_all(&self) {
        self.0.lock().unwrap().accepted.clear();
    }

    /// The same, and no refresh is answered until the gate is opened.
    pub fn hold(&self) {
        self.expire_all();
        self.1.close();
    }

    /// The refresh tokens, too.
    pub fn revoke_all(&self) {
        let mut families = self.0.lock().unwrap();
        families.accepted.clear();
        let all: Vec<_> = families.current.drain().map(|(family, _)| family).collect();
        families.revoked.extend(all);
    }

    /// It says from now on how long access tokens live.
    pub fn tell_life(&self, life: Duration) {
        self.0.lock().unwrap().life = Some(life);
    }

    /// It sends another field from now on, of this length.
    pub fn send_besides(&self, name: &str, len: usize) {
        self.0.lock().unwrap().besides = Some((name.to_owned(), len));
    }

    /// It answers with 503 from now on, or does again what it does.
    pub fn go_away(&self, is_away: bool) {
        self.0.lock().unwrap().is_away = is_away;
    }

    /// How many refresh tokens were brought.
    pub fn redeems(&self) -> usize {
        self.0.lock().unwrap().redeems
    }

    /// How many of them had been spent.
    pub fn reuses(&self) -> usize {
        self.0.lock().unwrap().reuses
    }

    /// How many families are left whose refresh token is good.
    pub fn alive(&self) -> usize {
        self.0.lock().unwrap().current.len()
    }

    async fn redeem(&self, spent: Tokens) -> Result<Tokens, RefreshError> {
        self.1.pass().await;
        let mut families = self.0.lock().unwrap();
        if families.is_away {
            return Err(RefreshError::transient("503"));
        }
        families.redeems += 1;
        let (family, number) = parse(spent.refresh_token().unwrap_or_default());
        match families.current.get_mut(&family) {
            Some(current) if *current == number => {
                *current += 1;
                let number = *current;
                families.accepted.insert(format!("access-{family}-{number}"));
                Ok(families.tokens(&family, number))
            }
            Some(_) => {
                families.reuses += 1;
                families.current.remove(&family);
                Err(RefreshError::rejected("reuse").with_code("invalid_grant"))
            }
            None => Err(RefreshError::rejected("revoked").with_code("invalid_grant")),
        }
    }

    /// A request of this tab whose refresh is held at the gate until that is opened. It goes on where it is
    /// awaited, and is given up where it is dropped.
    pub async fn hold_refresh(
        &self,
        tab: &Browser,
        replica: &Replica,
    ) -> BoxFuture<'static, Answer> {
        self.hold();
        let (come, tab, replica) = (self.1.count(), tab.clone(), replica.clone());
        let request = Box::pin(async move { tab.get(&replica, "/api").await });
        match select(request, pin!(self.1.arrived(come + 1))).await {
            Either::Left((answer, _)) => panic!("nothing is held: {answer:?}"),
            Either::Right((_, request)) => request,
        }
    }

    fn revoke(&self, tokens: &Tokens) {
        let mut families = self.0.lock().unwrap();
        let (family, _) = parse(tokens.refresh_token().unwrap_or_default());
        families.current.remove(&family);
        families.accepted.retain(|token| !token.starts_with(&format!("access-{family}-")));
        families.revoked.insert(family);
    }

    /// Whether the API takes this token.
    pub fn accepts(&self, authorization: &str) -> bool {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        self.0.lock().unwrap().accepted.contains(token)
    }
}

fn parse(token: &str) -> (String, u64) {
    let (family, number) = token["refresh-".len()..].split_once('-').unwrap();
    (family.to_owned(), number.parse().unwrap())
}

/// Stores that can go away, and that count. Clones are one place.
#[derive(Clone)]
pub struct Place {
    memory: MemoryStores,
    stores: Arc<dyn Stores>,
    control: Arc<Control>,
}

impl Default for Place {
    fn default() -> Self {
        let memory = MemoryStores::new();
        Self { memory: memory.clone(), stores: Arc::new(memory), control: Arc::default() }
    }
}

/// What happens to a place, and has happened.
#[derive(Default)]
pub struct Control {
    /// Nothing works.
    pub is_away: AtomicBool,
    /// Writes fail, reads do not.
    pub is_read_only: AtomicBool,
    /// Loads, and looks for changes.
    pub looks: AtomicUsize,
    /// Ends that were put off.
    pub touches: AtomicUsize,
    /// Every save passes here.
    pub saves: Gate,
    /// Every name that was asked for.
    pub names: Mutex<HashSet<String>>,
}

impl Place {
    /// Of other stores.
    pub fn at(stores: impl Stores) -> Self {
        Self { stores: Arc::new(stores), ..Self::default() }
    }

    /// What happens to it.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How many records there are in memory.
    pub fn records(&self) -> usize {
        self.memory.len()
    }

    /// How often it was looked at.
    pub fn looks(&self) -> usize {
        self.control.looks.load(Ordering::Relaxed)
    }

    /// It fails from now on, or does again what it does.
    pub fn go_away(&self, is_away: bool) {
        self.control.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Stores for Place {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        self.control.names.lock().unwrap().insert(name.to_owned());
        Arc::new(OneStore { store: self.stores.store(name), control: self.control.clone() })
    }
}

struct OneStore {
    store: Arc<dyn TokenStore>,
    control: Arc<Control>,
}

impl OneStore {
    fn check(&self, writes: bool) -> Result<(), StoreError> {
        let is_read_only = self.control.is_read_only.load(Ordering::Relaxed);
        let is_away = self.control.is_away.load(Ordering::Relaxed);
        if is_away || (writes && is_read_only) {
            return Err(StoreError::new("away: access-secret"));
        }
        Ok(())
    }
}

impl TokenStore for OneStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.control.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            self.check(false)?;
            self.store.load().await
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.control.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.check(false)?;
            self.store.changed(known).await
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.control.saves.pass().await;
            self.check(true)?;
            self.store.save(expected, record).await
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            self.check(true)?;
            self.store.delete().await
        })
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        self.control.touches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.check(true)?;
            self.store.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            self.check(true)?;
            self.store.lease(known).await
        })
    }
}

/// One process of the application.
#[derive(Clone)]
pub struct Replica {
    /// Its sessions.
    pub sessions: Sessions,
    app: App,
}

/// How sessions are kept.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mode {
    /// The tokens in a store.
    #[default]
    Opaque,
    /// In the browser's cookies, with a store as the memory.
    Sealed,
}

/// The whole: a server, a store, and what tests change of the rest.
#[derive(Clone, Default)]
pub struct World {
    /// The authorization server, and the API.
    pub server: Server,
    /// Where the tokens are.
    pub place: Place,
    /// How its sessions are kept.
    pub mode: Mode,
    /// Handlers of `/slow` pass here.
    pub slow: Gate,
    /// What the API has been sent.
    pub upstream: Arc<Mutex<Vec<http::HeaderMap>>>,
    /// `/held` waits here.
    pub held: Gate,
}

impl World {
    /// One where nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with sealed sessions.
    pub fn sealed() -> Self {
        Self { mode: Mode::Sealed, ..Self::default() }
    }

    /// How tokens are refreshed and revoked at this server.
    pub fn renewal(&self) -> RenewalBuilder {
        let (server, signing_out, discarding) =
            (self.server.clone(), self.server.clone(), self.server.clone());
        Renewal::builder(move |spent: Tokens| {
            let server = server.clone();
            async move { server.redeem(spent).await }
        })
        .on_sign_out(async move |tokens: Tokens| signing_out.revoke(&tokens))
        .on_discard(async move |tokens: Tokens| discarding.revoke(&tokens))
    }

    /// A process.
    pub fn replica(&self) -> Replica {
        self.replica_with(|builder| builder)
    }

    /// With these settings.
    pub fn replica_with(&self, change: impl FnOnce(SessionsBuilder) -> SessionsBuilder) -> Replica {
        self.replica_by(change, |layer| layer)
    }

    /// With this layer, besides.
    pub fn replica_by(
        &self,
        change: impl FnOnce(SessionsBuilder) -> SessionsBuilder,
        layer: impl FnOnce(SessionLayer) -> SessionLayer,
    ) -> Replica {
        let builder = match self.mode {
            Mode::Opaque => Sessions::builder(self.renewal(), self.place.clone()),
            Mode::Sealed => self.sealing(Keyring::new([7; 32])).remember(self.place.clone()),
        };
        self.replica_of(change(builder), layer)
    }

    /// Sealed sessions with these keys.
    pub fn sealing(&self, keys: Keyring) -> SealedBuilder {
        Sessions::sealed(self.renewal(), keys)
    }

    /// A process with these sessions, and this layer.
    pub fn replica_of(
        &self,
        builder: SessionsBuilder,
        layer: impl FnOnce(SessionLayer) -> SessionLayer,
    ) -> Replica {
        let sessions = builder.build().unwrap();
        let world = self.clone();
        let api = RefreshLayer::per_request(FromExtensions)
            .allow_origin("http://api.test")
            .unwrap()
            .layer(service_fn(move |request| answer(world.clone(), request)));
        let world = self.clone();
        let handler = service_fn(move |request| handle(world.clone(), api.clone(), request));
        let app = layer(sessions.layer()).layer(handler);
        Replica { sessions, app: BoxCloneSyncService::new(app) }
    }
}

/// The API.
async fn answer(
    world: World,
    request: Request<ReplayBody<Empty<Bytes>>>,
) -> Result<Response<Body>, Infallible> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let accepted = authorization.is_some_and(|it| world.server.accepts(it.to_str().unwrap()));
    world.upstream.lock().unwrap().push(request.headers().clone());
    let response = Response::builder()
        .header("set-cookie", "__Host-Http-sid=theirs; Path=/")
        .header("set-cookie", "theirs=1")
        .header("cache-control", "public, max-age=60");
    Ok(match accepted {
        true => response.body(full("data")).unwrap(),
        false => response
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Bearer error=\"invalid_token\"")
            .body(full("refused"))
            .unwrap(),
    })
}

/// A body.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

fn header(request: &Request<Body>, name: &str) -> Option<String> {
    request.headers().get(name).map(|it| it.to_str().unwrap().to_owned())
}

/// The application.
async fn handle(
    world: World,
    api: impl Service<Request<Empty<Bytes>>, Response = Response<Body>, Error = Infallible>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
    let (user, sid) = (header(&request, "user"), header(&request, "sid"));
    let text = |status: StatusCode, text: String| {
        Response::builder().status(status).body(full(text)).unwrap()
    };
    let path = request.uri().path().to_owned();
    Ok(match &*path {
        "/" => {
            let name = slot.session().map(|it| it.identity().subject().to_owned());
            text(StatusCode::OK, name.unwrap_or_else(|| "anonymous".to_owned()))
        }
        "/held" => {
            world.held.pass().await;
            text(StatusCode::OK, "held".to_owned())
        }
        "/slow" => {
            world.slow.pass().await;
            text(StatusCode::OK, String::new())
        }
        "/asset" => Response::builder()
            .header("cache-control", "public, max-age=60")
            .body(full("asset"))
            .unwrap(),
        "/uri" => text(StatusCode::OK, request.uri().to_string()),
        "/sign_in" => {
            let identity = Identity::new(ISSUER, user.unwrap());
            let identity = sid.into_iter().fold(identity, Identity::sid);
            match slot.sign_in(world.server.sign_in(), identity).await {
                Ok(_) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "a cookie on any status".to_owned())
                }
                Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
            }
        }
        "/sign_out" => match slot.session().unwrap().sign_out().await {
            Ok(()) => text(StatusCode::NO_CONTENT, String::new()),
            Err(_) => text(StatusCode::BAD_GATEWAY, String::new()),
        },
        "/others" => {
            let count = slot.session().unwrap().end_others().await.unwrap();
            text(StatusCode::OK, count.to_string())
        }
        "/ended" => text(StatusCode::OK, slot.ended().map_or("-", Ended::as_str).to_owned()),
        "/refresh" => {
            // Its head is sent, and then it refreshes.
            let session = slot.session().unwrap();
            let refreshed = futures_util::stream::once(async move {
                let refreshed = session.state().refresh().await;
                let text = refreshed.map_or_else(|it| it.kind().as_str(), |_| "refreshed");
                Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(text)))
            });
            let body = http_body_util::StreamBody::new(refreshed).boxed_unsync();
            Response::new(body)
        }
        "/events" => {
            let quiet = http_body_util::StreamBody::new(futures_util::stream::pending());
            Response::builder()
                .header("content-type", "text/event-stream; charset=utf-8")
                .body(quiet.boxed_unsync())
                .unwrap()
        }
        path => {
            let uri = format!("http://api.test{path}").parse().unwrap();
            let (mut parts, _) = request.into_parts();
            parts.uri = uri;
            api.oneshot(Request::from_parts(parts, Empty::new())).await?
        }
    })
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub text: String,
}

/// A browser with one cookie jar, whose order says nothing. Clones are tabs.
#[derive(Clone, Default)]
pub struct Browser {
    /// Its cookies of ours, as it sends them.
    pub cookie: Arc<Mutex<Option<String>>>,
}

impl Browser {
    /// One that was nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that has a copy of this one's jar, as it is now.
    pub fn copy(&self) -> Self {
        Self { cookie: Arc::new(Mutex::new(self.cookie())) }
    }

    /// Its cookies of ours.
    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    /// A request of the application's own page.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "app.test")
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "cors");
        match self.cookie() {
            Some(cookie) => request.header("cookie", format!("a=1; {cookie}; b=2")),
            None => request,
        }
    }

    /// Fetches.
    pub async fn get(&self, replica: &Replica, path: &str) -> Answer {
        self.send(replica, self.request(Method::GET, path)).await
    }

    /// Posts.
    pub async fn post(&self, replica: &Replica, path: &str) -> Answer {
        self.send(replica, self.request(Method::POST, path)).await
    }

    /// Signs in.
    pub async fn sign_in(&self, replica: &Replica, user: &str) -> Answer {
        self.send(replica, self.request(Method::POST, "/sign_in").header("user", user)).await
    }

    /// Sends this.
    pub async fn send(&self, replica: &Replica, request: http::request::Builder) -> Answer {
        let (response, body) = self.begin(replica, request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: response.status, headers: response.headers, text }
    }

    /// Up to the head of the response. What that sets is set.
    pub async fn begin(
        &self,
        replica: &Replica,
        request: http::request::Builder,
    ) -> Response<SessionBody<Body>> {
        let request = request.body(full("")).unwrap();
        let response = replica.app.clone().oneshot(request).await.unwrap();
        self.take(response.headers());
        response
    }

    /// As a browser does.
    pub fn take(&self, headers: &http::HeaderMap) {
        for field in headers.get_all("set-cookie") {
            let field = field.to_str().unwrap();
            let (name, value) = field.split(';').next().unwrap().split_once('=').unwrap();
            if name.starts_with("__Host-Http-sid") {
                assert!(name.len() + value.len() <= 4096, "a browser would drop it");
                let is_cleared = field.contains("Max-Age=0");
                let jar = self.cookie().unwrap_or_default();
                let others = jar.split("; ").filter(|it| it.split('=').next() != Some(name));
                let ours = (!is_cleared).then(|| format!("{name}={value}"));
                let all = others.filter(|it| !it.is_empty()).map(str::to_owned).chain(ours);
                let all = all.collect::<Vec<_>>().join("; ");
                *self.cookie.lock().unwrap() = (!all.is_empty()).then_some(all);
            }
        }
    }
}

/// A signed-in browser.
pub async fn signed_in(replica: &Replica, user: &str) -> Browser {
    let browser = Browser::new();
    browser.sign_in(replica, user).await;
    assert!(browser.cookie().is_some());
    browser
}

/// Lets everything that is under way come to an end.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
