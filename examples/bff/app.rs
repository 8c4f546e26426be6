//! The application: its routes, behind the sessions of its browsers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, SET_COOKIE},
    },
    middleware::{Next, from_fn_with_state},
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures_util::{Stream, stream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_refresh::{
    BoxError, FromExtensions, RefreshLayer, Renewal,
    body::ReplayBody,
    layer::Refresh,
    oauth2,
    seal::Keyring,
    session::{Identity, ProxyLayer, Session, SessionCookie, SessionSlot, Sessions, is_prefetch},
    store::Stores,
};

use crate::{
    api::Api,
    logout::verify,
    options::Mode,
    server::{CLIENT_ID, CLIENT_SECRET, Server},
    sign_in::{Callback, NotSignedIn, SignIn, SignedIn},
    timeline::{REQUEST_ID, Timeline},
};

/// Where the provider says that a user has signed out there.
pub(crate) const BACK_CHANNEL: &str = "/logout/back-channel";

/// What all replicas of the application have in common.
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) keys: Keyring,
    pub(crate) port: u16,
    pub(crate) redirect_uri: String,
    pub(crate) api: Api,
}

/// One replica. Clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

struct Shared {
    sessions: Sessions,
    sign_in: SignIn,
    upstream: Upstream,
    api: Api,
    /// These two are for the page only: an application has neither.
    server: Server,
    timeline: Timeline,
}

/// The API's client: it takes the token of the request's session.
type Upstream = Refresh<Client<HttpConnector, ReplayBody<Body>>>;

impl App {
    pub(crate) async fn new(
        config: &Config,
        stores: Arc<dyn Stores>,
        server: Server,
        timeline: Timeline,
    ) -> Result<Self, BoxError> {
        let Config { mode, keys, port, redirect_uri, api } = config;
        // The ports of a host share its cookies: the name tells one run of this from another.
        let state_cookie = format!("__Host-bff-{port}-sign-in");
        let sign_in = SignIn::discover(
            server.issuer(),
            (CLIENT_ID, CLIENT_SECRET),
            redirect_uri,
            (keys.clone(), state_cookie),
        )
        .await?;

        let client = oauth2::Client::builder(sign_in.token_endpoint(), CLIENT_ID)?
            .client_secret_basic(CLIENT_SECRET)
            .build()?;
        // What a session leaves behind when it ends is revoked.
        let revoker = client.revoker(&format!("{}/revoke", server.issuer()))?;
        let renewal = Renewal::builder(client.refresh_token_grant())
            .on_sign_out(revoker.hook())
            .on_discard(revoker.hook());
        let sessions = match mode {
            Mode::Opaque => Sessions::builder(renewal, stores),
            // The tokens are in the cookies. Everything else is the same.
            Mode::Sealed => Sessions::sealed(renewal, keys.clone()).remember(stores),
        };
        let sessions = sessions
            .cookie(SessionCookie::host(&format!("bff-{port}"))?)
            .watch_every(Duration::from_secs(1))
            .build()?;

        let upstream = RefreshLayer::per_request(FromExtensions)
            .allow_origin(&api.origin)?
            .layer(Client::builder(TokioExecutor::new()).build_http());
        let api = api.clone();
        Ok(Self(Arc::new(Shared { sessions, sign_in, upstream, api, server, timeline })))
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) fn router(&self) -> Result<Router, BoxError> {
        let Shared { sessions, sign_in, upstream, api, server, .. } = &*self.0;
        // What scripts of the page send to the API.
        let proxy = ServiceBuilder::new()
            .layer(from_fn_with_state(self.clone(), timed))
            .layer(ProxyLayer::to(&api.origin)?.strip_prefix("/api")?)
            .service(upstream.clone());
        // Without a session these answer 401, with the reason if it is known; a user who opens one as a
        // page is taken to the sign-in, and back.
        let signed_in = Router::new()
            .route_service("/api/{*path}", proxy)
            .route("/fan_out", post(fan_out))
            .route("/events", get(events))
            .route("/profile", get(profile))
            .route("/sign_out", post(sign_out))
            .route("/others", post(others))
            .route("/elsewhere", post(elsewhere))
            .route("/kill", post(kill))
            .route("/slow", post(slow))
            .route_layer(sessions.layer().sign_in_at("/login")?);
        let keys = sign_in.provider_keys();
        let verify = async move |token: String| verify(&keys, &token);
        let logout = sessions.back_channel_logout(server.issuer(), CLIENT_ID, verify);
        Ok(Router::new()
            .route("/", get(page))
            .route("/session", get(who))
            .route("/login", get(login))
            .route("/callback", get(callback))
            .merge(signed_in)
            .layer(sessions.layer())
            // No browser comes here.
            .route_service(BACK_CHANNEL, logout)
            .with_state(self.clone()))
    }
}

// ---- Signing in and out.

#[derive(Deserialize)]
struct Login {
    return_to: Option<String>,
}

/// Begins a sign-in. The path to return to is checked when it is used, by [`SessionSlot::land`].
async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Query(Login { return_to }): Query<Login>,
) -> Result<Response, Failed> {
    if is_prefetch(&headers) {
        // The browser guesses that somebody may want to. It asks again if so.
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let (url, cookie) = app.0.sign_in.begin(return_to.as_deref().unwrap_or("/"))?;
    let headers = [
        (LOCATION, HeaderValue::from_str(&url)?),
        (SET_COOKIE, cookie),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// The provider sends the browser here.
async fn callback(
    State(app): State<App>,
    slot: SessionSlot,
    headers: HeaderMap,
    Query(callback): Query<Callback>,
) -> Result<Response, Failed> {
    let mut response = match app.0.sign_in.finish(callback, &headers).await {
        Ok(SignedIn { tokens, identity, return_to }) => {
            slot.sign_in(tokens, identity).await?;
            slot.land(&return_to).or_else(|_| slot.land("/"))?.into_response()
        }
        // Not cleared: the cookie is that of a sign-in in another tab.
        Err(NotSignedIn::Stale) => {
            return Ok(match slot.session() {
                Some(_) => slot.land("/")?.into_response(),
                None => again("This sign-in is too old, or was begun in another browser."),
            });
        }
        Err(NotSignedIn::Refused(error)) => {
            // With quotes: the text comes with the request.
            eprintln!("a sign-in was refused: {error:?}");
            again("The authorization server has refused.")
        }
        Err(NotSignedIn::Failed(error)) => return Err(Failed(error)),
    };
    response.headers_mut().append(SET_COOKIE, app.0.sign_in.clear_cookie()?);
    Ok(response)
}

fn again(why: &str) -> Response {
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Not signed in</title><p>{why} \
         <a href=\"/login\">Sign in again</a>"
    );
    (StatusCode::BAD_REQUEST, Html(page)).into_response()
}

async fn sign_out(session: Session) -> Result<StatusCode, Failed> {
    session.sign_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all other sessions of the user.
async fn others(session: Session) -> Result<Json<Value>, Failed> {
    Ok(Json(json!({ "ended": session.end_others().await? })))
}

/// The user signs out at the provider, in another window say. It tells this application, by the back
/// channel: here nothing ends.
async fn elsewhere(State(app): State<App>, session: Session) -> Result<StatusCode, Failed> {
    app.0.server.sign_out(sid(session.identity())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is signed in, or why nobody is any more.
async fn who(State(app): State<App>, slot: SessionSlot) -> Json<Value> {
    let session = slot.session();
    let identity = session.as_ref().map(Session::identity);
    Json(json!({
        "user": identity.map(|it| it.get("name").unwrap_or(it.subject())),
        "sid": identity.map(sid),
        "ended": slot.ended().map(|ended| ended.as_str()),
        "slow": app.0.server.is_slow(),
    }))
}

/// A page for those who are signed in, and for nobody else.
async fn profile(session: Session) -> String {
    let left = session.expires().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    let (who, minutes) = (session.identity().subject(), left.as_secs() / 60);
    format!("You are {who}, for {minutes} minutes at most.\n")
}

// ---- The API.

#[derive(Deserialize)]
struct FanOut {
    herd: String,
}

/// Asks the API a hundred times for one request of the browser, which has six connections only.
async fn fan_out(
    State(app): State<App>,
    session: Session,
    Query(FanOut { herd }): Query<FanOut>,
) -> Result<Json<Value>, Failed> {
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let id = format!("server-{herd}-{number}");
        let mut request = Request::get(format!("{}/orders", app.0.api.origin))
            .header(REQUEST_ID, &id)
            .body(Body::empty())?;
        session.attach(&mut request);
        let (app, sid) = (app.clone(), sid(session.identity()).to_owned());
        calls.spawn(async move {
            let mut answered = app.begun(&sid, &id);
            let status = app.0.upstream.clone().oneshot(request).await?.status();
            answered.with(status);
            Ok::<_, BoxError>(status.is_success())
        });
    }
    let mut ok = 0;
    while let Some(call) = calls.join_next().await {
        ok += usize::from(call??);
    }
    Ok(Json(json!({ "ok": ok })))
}

// ---- What the page shows.

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; \
                  script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let headers = [(CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, policy)];
    (headers, Html(include_str!("page.html")))
}

/// Tells the page what happens in its session. It ends with the session.
async fn events(
    State(app): State<App>,
    session: Session,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let timeline = &app.0.timeline;
    let begun = Event::default().data(timeline.text("hello", "").to_string());
    let listener = timeline.listen(sid(session.identity()));
    let events = stream::unfold((Some(begun), listener), |(begun, mut listener)| async move {
        let event = match begun {
            Some(begun) => begun,
            None => Event::default().data(listener.next().await?),
        };
        Some((Ok(event), (None, listener)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Tells the timeline when a request begins and ends.
async fn timed(
    State(app): State<App>,
    session: Session,
    mut request: Request,
    next: Next,
) -> Response {
    let sid = sid(session.identity()).to_owned();
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = id.filter(|id| id.len() <= 40).unwrap_or("unnamed").to_owned();
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(REQUEST_ID, value);
    }
    let mut answered = app.begun(&sid, &id);
    let response = next.run(request).await;
    answered.with(response.status());
    response
}

impl App {
    fn begun(&self, sid: &str, id: &str) -> Answered {
        let timeline = self.0.timeline.clone();
        timeline.tell(sid, "begun", id);
        Answered { timeline, sid: sid.to_owned(), id: id.to_owned(), kind: "gone" }
    }
}

/// Tells the end of a request. The browser may go away: then it is dropped without an answer.
struct Answered {
    timeline: Timeline,
    sid: String,
    id: String,
    kind: &'static str,
}

impl Answered {
    fn with(&mut self, status: StatusCode) {
        self.kind = if status.is_success() { "answered" } else { "failed" };
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.timeline.tell(&self.sid, self.kind, &self.id);
    }
}

/// From now on the API refuses the access token. The application is not told.
async fn kill(State(app): State<App>, session: Session) -> StatusCode {
    app.0.server.kill_access_tokens(sid(session.identity()));
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Slow {
    on: bool,
}

async fn slow(State(app): State<App>, Query(Slow { on }): Query<Slow>) -> StatusCode {
    app.0.server.set_slow(on);
    StatusCode::NO_CONTENT
}

/// The name under which the provider knows the sign-in: the timeline goes by it.
fn sid(identity: &Identity) -> &str {
    identity.session().unwrap_or(identity.subject())
}

/// Something that the user can do nothing about.
struct Failed(BoxError);

impl<E: Into<BoxError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("a request has failed: {}", self.0);
        StatusCode::BAD_GATEWAY.into_response()
    }
}
