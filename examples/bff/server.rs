//! An authorization server that speaks OpenID Connect, as strict as real ones: a code is for single
//! use and takes its PKCE verifier, refresh tokens rotate, and one that comes a second time revokes
//! all that has come from its sign-in. It takes any user's word for who they are.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{
        HeaderMap, Request, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use openidconnect::{PkceCodeChallenge, PkceCodeVerifier, core::CoreJsonWebKeySet, url::Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use tower_refresh::BoxError;

use crate::{signer::Signer, timeline::Timeline};

pub(crate) const CLIENT_ID: &str = "bff";
pub(crate) const CLIENT_SECRET: &str = "only-the-two-servers-know-it";

/// How much longer a refresh takes while the server is slow.
const SLOWNESS: Duration = Duration::from_secs(3);

/// The server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

struct Shared {
    issuer: String,
    redirect_uri: String,
    logout_uri: String,
    client: Client<HttpConnector, Full<Bytes>>,
    life: Duration,
    latency: Duration,
    is_slow: AtomicBool,
    signer: Signer,
    timeline: Timeline,
    book: Mutex<Book>,
}

/// What the server remembers. Sign-ins have an id, `sid`; their tokens are a family.
#[derive(Default)]
struct Book {
    codes: HashMap<String, Code>,
    families: HashMap<String, Family>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    reuses: usize,
}

struct Code {
    user: String,
    nonce: String,
    challenge: String,
}

struct Family {
    user: String,
    fate: Fate,
    refreshes: usize,
}

/// What has become of a sign-in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Lives,
    /// The client has said that it is over.
    Revoked,
    /// The user has said so here, and the client was told.
    SignedOut,
    /// A refresh token came twice.
    Lost,
}

struct Access {
    sid: String,
    until: Instant,
}

struct Refresh {
    sid: String,
    is_spent: bool,
}

impl Server {
    /// Starts it. An access token is good for `life`, a refresh takes `latency`.
    pub(crate) async fn start(
        (redirect_uri, logout_uri): (String, String),
        life: Duration,
        latency: Duration,
        timeline: Timeline,
    ) -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self(Arc::new(Shared {
            issuer: format!("http://{}", listener.local_addr()?),
            redirect_uri,
            logout_uri,
            client: Client::builder(TokioExecutor::new()).build_http(),
            life,
            latency,
            is_slow: AtomicBool::default(),
            signer: Signer::new()?,
            timeline,
            book: Mutex::default(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(form).post(sign_in))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(server)
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// What the API asks: whose access token this is, and whether it is good. `None`: nobody's.
    pub(crate) fn look_at(&self, access: &str) -> Option<(String, bool)> {
        let book = self.book();
        let token = book.access.get(access)?;
        let lives = book.families.get(&token.sid)?.fate == Fate::Lives;
        Some((token.sid.clone(), lives && Instant::now() < token.until))
    }

    /// From now on the API refuses the access tokens of this sign-in that were given out so far.
    pub(crate) fn kill_access_tokens(&self, sid: &str) {
        let now = Instant::now();
        for token in self.book().access.values_mut().filter(|token| token.sid == sid) {
            token.until = token.until.min(now);
        }
        self.0.timeline.tell(sid, "killed", "");
    }

    /// The user signs out here: the client is told (OpenID Connect Back-Channel Logout 1.0).
    pub(crate) async fn sign_out(&self, sid: &str) -> Result<(), BoxError> {
        let user = {
            let mut book = self.book();
            let family = book.families.get_mut(sid).ok_or("there is no such sign-in")?;
            family.fate = Fate::SignedOut;
            family.user.clone()
        };
        let mut claims = self.claims(&user, sid).ok_or("the clock is wrong")?;
        claims["jti"] = random("logout").map_err(|_| "there is nothing random")?.into();
        claims["events"] = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
        let token =
            self.0.signer.sign("logout+jwt", &claims).ok_or("the token cannot be signed")?;
        let request = Request::post(&self.0.logout_uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("logout_token={token}").into())?;
        match self.0.client.request(request).await?.status() {
            StatusCode::OK => Ok(()),
            status => Err(format!("the client has not signed the user out: {status}").into()),
        }
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.0.is_slow.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.0.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// What has become of this sign-in, and how often its tokens were refreshed.
    pub(crate) fn family(&self, sid: &str) -> Option<(Fate, usize)> {
        self.book().families.get(sid).map(|family| (family.fate, family.refreshes))
    }

    /// How many refresh tokens came twice.
    pub(crate) fn reuses(&self) -> usize {
        self.book().reuses
    }

    /// How many sign-ins were lost by that.
    pub(crate) fn lost(&self) -> usize {
        self.book().families.values().filter(|family| family.fate == Fate::Lost).count()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn discovery(State(server): State<Server>) -> Json<Value> {
    let issuer = server.issuer();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "jwks_uri": format!("{issuer}/keys"),
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "code_challenge_methods_supported": ["S256"],
    }))
}

async fn keys(State(server): State<Server>) -> Json<CoreJsonWebKeySet> {
    Json(server.0.signer.keys())
}

/// An authorization request (OpenID Connect Core 1.0, section 3.1.2.1).
#[derive(Deserialize)]
struct Authorization {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    nonce: String,
    code_challenge: String,
    code_challenge_method: String,
}

impl Authorization {
    fn is_good(&self, server: &Server) -> bool {
        self.response_type == "code"
            && self.client_id == CLIENT_ID
            && self.redirect_uri == server.0.redirect_uri
            && self.code_challenge_method == "S256"
    }
}

/// The form goes to where it came from, so that the request's parameters come with it.
const FORM: &str = r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><style>body { font: 1.1rem system-ui; display: grid; place-content: center; min-height: 90vh }
input, button { font: inherit; padding: .4em .8em }</style>
<form method="post"><h1>Who are you?</h1><p>The authorization server believes everybody.</p>
<p><label>Name <input name="user" value="alice" pattern="[a-zA-Z0-9]{1,20}" required autofocus></label>
<button>Sign in</button></p></form>"#;

async fn form(
    State(server): State<Server>,
    Query(asked): Query<Authorization>,
) -> Result<Html<&'static str>, Refused> {
    if asked.is_good(&server) { Ok(Html(FORM)) } else { Err(INVALID_REQUEST) }
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

async fn sign_in(
    State(server): State<Server>,
    Query(asked): Query<Authorization>,
    Form(SignIn { user }): Form<SignIn>,
) -> Result<Redirect, Refused> {
    let is_name =
        (1..=20).contains(&user.len()) && user.bytes().all(|it| it.is_ascii_alphanumeric());
    if !asked.is_good(&server) || !is_name {
        return Err(INVALID_REQUEST);
    }
    let code = random("code")?;
    let mut back = Url::parse(&asked.redirect_uri).map_err(|_| INVALID_REQUEST)?;
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked.state);
    let Authorization { nonce, code_challenge: challenge, .. } = asked;
    server.book().codes.insert(code, Code { user, nonce, challenge });
    Ok(Redirect::to(back.as_str()))
}

/// A token request (RFC 6749, sections 4.1.3 and 6).
#[derive(Deserialize)]
#[serde(tag = "grant_type", rename_all = "snake_case")]
enum Grant {
    AuthorizationCode { code: String, code_verifier: String, redirect_uri: String },
    RefreshToken { refresh_token: String },
}

async fn token(
    State(server): State<Server>,
    headers: HeaderMap,
    Form(grant): Form<Grant>,
) -> Result<Json<Value>, Refused> {
    authenticate(&headers)?;
    match grant {
        Grant::AuthorizationCode { code, code_verifier, redirect_uri } => {
            let code = server.book().codes.remove(&code);
            let verifier = PkceCodeVerifier::new(code_verifier);
            let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
            let code = code.filter(|code| code.challenge == challenge.as_str());
            let code = code.filter(|_| redirect_uri == server.0.redirect_uri);
            let Code { user, nonce, .. } = code.ok_or_else(|| invalid_grant("no such code"))?;
            let sid = random("sid")?;
            let family = Family { user, fate: Fate::Lives, refreshes: 0 };
            server.book().families.insert(sid.clone(), family);
            server.issue(&sid, Some(&nonce))
        }
        Grant::RefreshToken { refresh_token } => server.refresh(&refresh_token).await,
    }
}

impl Server {
    /// What happens to the token is decided when the request comes, and told later, as at real
    /// servers: that is why a response that is lost hurts.
    async fn refresh(&self, token: &str) -> Result<Json<Value>, Refused> {
        let redeemed = self.redeem(token);
        let Some((sid, is_good)) = redeemed else { return Err(invalid_grant("no such token")) };
        self.0.timeline.tell(&sid, "refresh_begun", "");
        let slowness = if self.is_slow() { SLOWNESS } else { Duration::ZERO };
        sleep(self.0.latency + slowness).await;
        let result = match is_good {
            true => self.issue(&sid, None),
            false => Err(invalid_grant("the sign-in is over")),
        };
        self.0.timeline.tell(&sid, "refresh_ended", if is_good { "renewed" } else { "refused" });
        result
    }

    /// Spends a refresh token. Whose it is, and whether there are new tokens for it.
    fn redeem(&self, token: &str) -> Option<(String, bool)> {
        let mut book = self.book();
        let Book { refresh, families, reuses, .. } = &mut *book;
        let token = refresh.get_mut(token)?;
        let family = families.get_mut(&token.sid)?;
        let is_reuse = std::mem::replace(&mut token.is_spent, true);
        if is_reuse {
            *reuses += 1;
            if family.fate == Fate::Lives {
                family.fate = Fate::Lost;
            }
        }
        let is_good = family.fate == Fate::Lives;
        family.refreshes += usize::from(is_good);
        Some((token.sid.clone(), is_good))
    }

    fn issue(&self, sid: &str, nonce: Option<&str>) -> Result<Json<Value>, Refused> {
        let (access, refresh) = (random("access")?, random("refresh")?);
        let mut book = self.book();
        let user = match book.families.get(sid) {
            Some(family) if family.fate == Fate::Lives => family.user.clone(),
            // Its client has ended it while this was under way.
            _ => return Err(invalid_grant("the sign-in is over")),
        };
        let until = Instant::now() + self.0.life;
        book.access.insert(access.clone(), Access { sid: sid.to_owned(), until });
        book.refresh.insert(refresh.clone(), Refresh { sid: sid.to_owned(), is_spent: false });
        let id_token = self.id_token(&user, sid, nonce)?;
        Ok(Json(json!({
            "access_token": access,
            "refresh_token": refresh,
            "id_token": id_token,
            "token_type": "Bearer",
            "expires_in": self.0.life.as_secs(),
        })))
    }

    /// An ID token (OpenID Connect Core 1.0, section 2).
    fn id_token(&self, user: &str, sid: &str, nonce: Option<&str>) -> Result<String, Refused> {
        let mut claims = self.claims(user, sid).ok_or(SERVER_ERROR)?;
        claims["preferred_username"] = user.into();
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        self.0.signer.sign("JWT", &claims).ok_or(SERVER_ERROR)
    }

    /// What all tokens say.
    fn claims(&self, user: &str, sid: &str) -> Option<Value> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        Some(json!({
            "iss": self.issuer(),
            "sub": format!("user-{user}"),
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "sid": sid,
        }))
    }
}

#[derive(Deserialize)]
struct Revocation {
    token: String,
}

/// RFC 7009: with one token goes the whole sign-in, and a token that is not known is none.
async fn revoke(
    State(server): State<Server>,
    headers: HeaderMap,
    Form(Revocation { token }): Form<Revocation>,
) -> Result<(), Refused> {
    authenticate(&headers)?;
    let mut book = server.book();
    let Book { refresh, access, families, .. } = &mut *book;
    let sid = refresh.get(&token).map(|it| &it.sid).or(access.get(&token).map(|it| &it.sid));
    if let Some(family) = sid.and_then(|sid| families.get_mut(sid)) {
        if family.fate == Fate::Lives {
            family.fate = Fate::Revoked;
        }
    }
    Ok(())
}

/// The client's id and secret, by HTTP Basic (RFC 6749, section 2.3.1).
fn authenticate(headers: &HeaderMap) -> Result<(), Refused> {
    let expected = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let brought = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match brought.and_then(|value| value.strip_prefix("Basic ")) {
        Some(brought) if brought == expected => Ok(()),
        _ => Err(Refused(StatusCode::UNAUTHORIZED, "invalid_client", "")),
    }
}

/// How requests are refused (RFC 6749, section 5.2): the status, the code, and words.
struct Refused(StatusCode, &'static str, &'static str);

const INVALID_REQUEST: Refused = Refused(StatusCode::BAD_REQUEST, "invalid_request", "");
const SERVER_ERROR: Refused = Refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "");

fn invalid_grant(why: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, "invalid_grant", why)
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, error, description) = self;
        let body = json!({ "error": error, "error_description": description });
        (status, Json(body)).into_response()
    }
}

fn random(kind: &str) -> Result<String, Refused> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|_| SERVER_ERROR)?;
    Ok(format!("{kind}-{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}
