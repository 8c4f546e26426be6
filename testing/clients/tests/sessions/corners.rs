//! Where two things meet: each was got wrong once.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty};
use tokio::time::{advance, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_refresh::{
    BoxError, BoxFuture, FromExtensions, Generation, RefreshError, RefreshLayer, Renewal, Tokens,
    session::{
        Ended, Identity, IndexKey, ProxyLayer, SessionBody, SessionCookie, SessionSlot, Sessions,
    },
    store::{
        Deleted, KeptUntil, Leased, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore,
    },
};

use testing::{
    Gate,
    sessions::{Body, Browser, ISSUER, Place, World, full, settle, signed_in},
};

const MINUTE: Duration = Duration::from_secs(60);

fn sub(user: &str) -> IndexKey {
    IndexKey::Sub { issuer: ISSUER.to_owned(), subject: user.to_owned() }
}

type App = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, Infallible>;

/// An application of one handler.
fn app<Fut>(
    sessions: &Sessions,
    handler: impl FnMut(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
) -> App
where
    Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    BoxCloneSyncService::new(sessions.layer().layer(service_fn(handler)))
}

async fn ask(app: &App, request: http::request::Builder) -> Response<SessionBody<Body>> {
    app.clone().oneshot(request.body(full("")).unwrap()).await.unwrap()
}

/// What goes wrong with the store of one name.
#[derive(Clone)]
enum Trouble {
    CannotBeRead,
    Panics,
    ReadsWait(Gate),
}

/// Stores in memory, of which some are in trouble, and all may be slow.
#[derive(Clone, Default)]
struct Troubled {
    memory: MemoryStores,
    troubles: Arc<Mutex<HashMap<String, Trouble>>>,
    delay: Duration,
    /// How long it takes to give a list an end.
    list_keep: Duration,
}

impl Troubled {
    fn trouble(&self, name: impl AsRef<str>, trouble: Trouble) {
        self.troubles.lock().unwrap().insert(name.as_ref().to_owned(), trouble);
    }
}

impl Stores for Troubled {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        let store = Arc::new(self.memory.store(name));
        Arc::new(OneTroubled { all: self.clone(), name: name.to_owned(), store })
    }
}

struct OneTroubled {
    all: Troubled,
    name: String,
    store: Arc<dyn TokenStore>,
}

impl OneTroubled {
    async fn read(&self) -> Result<(), StoreError> {
        self.wait().await;
        let trouble = self.all.troubles.lock().unwrap().get(&self.name).cloned();
        match trouble {
            None => Ok(()),
            Some(Trouble::CannotBeRead) => Err(StoreError::new("sealed with a key that is gone")),
            Some(Trouble::Panics) => panic!("the store panics"),
            Some(Trouble::ReadsWait(gate)) => {
                gate.pass().await;
                Ok(())
            }
        }
    }

    async fn wait(&self) {
        if !self.all.delay.is_zero() {
            sleep(self.all.delay).await;
        }
    }
}

impl TokenStore for OneTroubled {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async {
            self.read().await?;
            self.store.load().await
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.read().await?;
            self.store.changed(known).await
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.wait().await;
            self.store.save(expected, record).await
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.store.delete()
    }

    fn keep_until(
        &self,
        end: std::time::SystemTime,
    ) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        let is_list = self.name.starts_with("sub-") || self.name.starts_with("sid-");
        let delay = if is_list { self.all.list_keep } else { Duration::ZERO };
        Box::pin(async move {
            sleep(delay).await;
            self.store.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        self.store.lease(known)
    }
}

fn name_of(browser: &Browser) -> String {
    let cookie = browser.cookie().unwrap();
    let id: tower_refresh::session::SessionId = cookie.split_once('=').unwrap().1.parse().unwrap();
    id.name().as_str().to_owned()
}

// ---- a session that ends although it should live ---------------------------------------------

/// A session that is used every 90 seconds goes out of memory in between, and each load begins
/// the tenth of `idle` anew without telling the store: it idles out in the middle of its use.
#[tokio::test(start_paused = true)]
async fn idle_1_a_session_in_use_that_is_unloaded_in_between_does_not_idle_out() {
    let world = World::new();
    let replica = world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let browser = signed_in(&replica, "alice").await;
    for round in 0..15 {
        advance(Duration::from_secs(90)).await;
        // Others, so that every shard is swept.
        for number in 0..500 {
            signed_in(&replica, &format!("user{round}-{number}")).await;
        }
        assert_eq!(browser.get(&replica, "/").await.text, "alice", "after {} s", (round + 1) * 90);
    }
}

/// The same with nothing unloaded: requests that go round over twelve replicas.
#[tokio::test(start_paused = true)]
async fn idle_2_a_session_in_use_over_many_replicas_does_not_idle_out() {
    let world = World::new();
    let idle = Duration::from_secs(1000);
    let replicas: Vec<_> = (0..12).map(|_| world.replica_with(|it| it.idle(idle))).collect();
    let browser = signed_in(&replicas[0], "alice").await;
    for round in 0..15 {
        advance(Duration::from_secs(90)).await;
        let answer = browser.get(&replicas[round % 12], "/").await;
        assert_eq!(answer.text, "alice", "after {} s", (round + 1) * 90);
    }
}

/// The server has rejected our token, and another replica has stored a newer pair by now, which
/// a look adopts before the task that ends the session reads what "the rejected generation" is.
#[tokio::test(start_paused = true)]
async fn reject_a_pair_that_was_not_rejected_is_not_ended() {
    let here = World::new();
    // The same place; a server that still takes the refresh token.
    let there = World { place: here.place.clone(), ..World::new() };
    there.server.sign_in();
    let (one, other) = (here.replica(), there.replica());
    let browser = signed_in(&one, "alice").await;
    assert_eq!(browser.get(&other, "/").await.text, "alice");
    here.server.revoke_all();
    let copy = browser.copy();
    let mut loser = task::spawn(copy.get(&one, "/api"));
    assert_pending!(loser.poll());
    settle().await;
    // Its flight has landed, and the request has not been polled since. The winner saves.
    there.server.expire_all();
    assert_eq!(browser.get(&other, "/api").await.text, "data");
    let answer = loser.poll();
    assert!(matches!(&answer, std::task::Poll::Ready(it) if it.status == 401), "{answer:?}");
    assert_eq!(browser.get(&one, "/").await.text, "alice", "adopted");
    settle().await;
    assert_eq!(browser.get(&other, "/").await.text, "alice");
}

/// A twin whose record cannot be read (sealed with a key that is gone) shadows the cookie that
/// is good: 503 for ever, since that cookie is never cleared.
#[tokio::test(start_paused = true)]
async fn s10_a_twin_that_cannot_be_read_shadows_nothing() {
    let stores = Troubled::default();
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let replica = world.replica();
    let (stale, browser) = (signed_in(&replica, "bob").await, signed_in(&replica, "alice").await);
    stores.trouble(name_of(&stale), Trouble::CannotBeRead);
    let line = format!("{}; {}", stale.cookie().unwrap(), browser.cookie().unwrap());
    *browser.cookie.lock().unwrap() = Some(line);
    let answer = browser.get(&replica, "/").await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "alice"));
}

/// The public state's `set` (a step-up, more scopes) drops identity, deadline and idle end: the
/// session is unknown to every other process, and its record has no end.
#[tokio::test(start_paused = true)]
async fn set_new_tokens_of_a_session_keep_whose_it_is() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let tokens = world.server.sign_in();
    let step_up = app(&replica.sessions, move |request| {
        let tokens = tokens.clone();
        async move {
            let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
            slot.session().unwrap().state().set(tokens).await.unwrap();
            Ok(Response::new(full("")))
        }
    });
    ask(&step_up, browser.request(Method::POST, "/")).await;
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
    assert_eq!(browser.get(&world.replica(), "/").await.text, "alice");
}

// ---- a session that comes back, or cannot be ended -------------------------------------------

/// A sign-out that the store could not carry out: "in this process the session has ended". The
/// first request after it takes the entry out of the registry, the second one loads the session again.
#[tokio::test(start_paused = true)]
async fn out_1_a_sign_out_that_the_store_missed_does_not_come_back() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    assert_eq!(browser.post(&replica, "/sign_out").await.status, StatusCode::BAD_GATEWAY);
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    settle().await;
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous", "it lives again");
}

/// And it has been taken out of the list of its user although it lives in the store: "end all my
/// sessions" and the provider's logout do not find it any more.
#[tokio::test(start_paused = true)]
async fn out_2_a_session_that_lives_is_in_the_list_of_its_user() {
    let world = World::new();
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    browser.post(&here, "/sign_out").await;
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    browser.get(&here, "/").await;
    settle().await;
    there.sessions.end_all(&sub("alice")).await.unwrap();
    assert_eq!(browser.get(&there, "/").await.text, "anonymous", "it outlives end_all");
}

/// The last session of a user ends, and its removal writes an empty list, whose end is "now". A
/// sign-in that has written itself into that list before the end is set is forgotten with it: nothing
/// ends that session by its user any more. No failure, no crash: one round trip.
#[tokio::test(start_paused = true)]
async fn index_1_a_sign_in_beside_a_sign_out_is_in_the_list() {
    let stores = Troubled { list_keep: Duration::from_millis(10), ..Troubled::default() };
    let world = World { place: Place::at(stores), ..World::new() };
    let (here, there) = (world.replica(), world.replica());
    let laptop = signed_in(&here, "alice").await;
    assert_eq!(laptop.post(&here, "/sign_out").await.status, StatusCode::NO_CONTENT);
    sleep(Duration::from_millis(5)).await;
    let phone = signed_in(&there, "alice").await;
    settle().await;
    assert_eq!(here.sessions.end_all(&sub("alice")).await.unwrap(), 1);
    assert_eq!(phone.get(&there, "/").await.text, "anonymous");
}

/// "Ends all sessions of a user, those too that are being signed in at this moment": not without
/// `issued_at`, although the sign-in knows when it was called. The mark is there, and is passed over.
#[tokio::test(start_paused = true)]
async fn end_all_3_ends_a_sign_in_that_is_under_way() {
    let stores = Troubled { delay: Duration::from_millis(10), ..Troubled::default() };
    let world = World { place: Place::at(stores), ..World::new() };
    let (here, there) = (world.replica(), world.replica());
    let browser = Browser::new();
    let tab = browser.clone();
    let signing_in = tokio::spawn(async move { tab.sign_in(&here, "alice").await });
    // Its record is being written (until 20 ms); its list is read, with the mark in it, at 30 ms.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(there.sessions.end_all(&sub("alice")).await.unwrap(), 0);
    signing_in.await.unwrap();
    assert_eq!(browser.get(&there, "/").await.text, "anonymous");
}

/// One record that cannot be read (sealed with a key that is gone) keeps all that come after it
/// in the list alive, however often one calls again.
#[tokio::test(start_paused = true)]
async fn end_all_1_one_bad_record_keeps_no_other_session_alive() {
    let stores = Troubled::default();
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let replica = world.replica();
    let browsers = join_all((0..8).map(|_| signed_in(&replica, "alice"))).await;
    // The first of the list.
    let bad = browsers.iter().map(name_of).min().unwrap();
    stores.trouble(&bad, Trouble::CannotBeRead);
    // In a process that has not loaded them.
    let there = world.replica();
    for _ in 0..3 {
        let _ = there.sessions.end_all(&sub("alice")).await;
    }
    for browser in browsers.iter().filter(|it| name_of(it) != bad) {
        assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    }
}

/// The revocation of the first session's tokens hangs at the server: the user's other sessions
/// live until it answers, one after the other.
#[tokio::test(start_paused = true)]
async fn end_all_2_a_slow_revocation_keeps_no_other_session_alive() {
    let world = World::new();
    let renewal = world.renewal().on_sign_out(async |_| sleep(MINUTE * 60).await);
    let sessions = Sessions::builder(renewal, world.place.clone()).build().unwrap();
    let replica = world.replica();
    let browsers = join_all((0..4).map(|_| signed_in(&replica, "alice"))).await;
    let _ = timeout(MINUTE, sessions.end_all(&sub("alice"))).await;
    let alive = join_all(browsers.iter().map(|it| it.get(&replica, "/"))).await;
    assert_eq!(alive.iter().filter(|it| it.text == "alice").count(), 0, "a minute later");
}

/// A sign-in waits for the revocation of what the browser had before: it has been stored, the old
/// session has ended, and the browser gets neither page nor cookie until the server answers.
#[tokio::test(start_paused = true)]
async fn sign_in_a_slow_revocation_of_the_session_before_does_not_hold_it_up() {
    let world = World::new();
    let browser = signed_in(&world.replica(), "alice").await;
    let renewal = world.renewal().on_sign_out(async |_| sleep(MINUTE * 60).await);
    let sessions = Sessions::builder(renewal, world.place.clone()).build().unwrap();
    let server = world.server.clone();
    let app = app(&sessions, move |request| {
        let tokens = server.sign_in();
        async move {
            let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
            slot.sign_in(tokens, Identity::new(ISSUER, "bob")).await.unwrap();
            Ok(Response::new(full("")))
        }
    });
    let answer = timeout(MINUTE, ask(&app, browser.request(Method::POST, "/"))).await;
    assert!(answer.is_ok(), "no answer after a minute");
}

/// The deadline is known without the store, and holds "whatever happens": a stream goes on past
/// it for as long as the store is away.
#[tokio::test(start_paused = true)]
async fn deadline_a_stream_ends_at_the_deadline_when_the_store_is_away() {
    let world = World::new();
    let replica = world.replica_with(|it| it.max_age(Duration::from_secs(100)).idle(None));
    let browser = signed_in(&replica, "alice").await;
    let stream = browser.begin(&replica, browser.request(Method::GET, "/events")).await;
    let stream = tokio::spawn(stream.into_body().collect());
    settle().await;
    world.place.go_away(true);
    sleep(Duration::from_secs(3600)).await;
    assert!(stream.is_finished(), "an hour after its deadline");
}

/// "Each token counts once": one that counts for a month is forgotten after a day, and ends the
/// user's new sessions when it is sent again.
#[tokio::test(start_paused = true)]
async fn logout_a_token_counts_once_as_long_as_it_counts() {
    let world = World::new();
    let replica = world.replica();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (end, event) = (now + 30 * 86400, "http://schemas.openid.net/event/backchannel-logout");
    let token = format!(
        r#"{{"iss":"{ISSUER}","aud":"app","iat":{now},"exp":{end},"jti":"j1","events":{{"{event}":{{}}}},"sub":"alice"}}"#
    );
    let logout = replica.sessions.back_channel_logout(ISSUER, "app", async |claims: String| {
        Ok::<_, BoxError>(claims.into_bytes())
    });
    logout.log_out(token.clone()).await.unwrap();
    logout.log_out(token.clone()).await.unwrap_err();
    advance(Duration::from_secs(25 * 3600)).await;
    let browser = signed_in(&replica, "alice").await;
    let again = logout.log_out(token).await;
    assert_eq!(browser.get(&replica, "/").await.text, "alice", "{again:?}");
}

// ---- what is lost on the way out -------------------------------------------------------------

/// A session that was signed out goes from the registry at once, with its flight under way: a
/// drain does not wait for the pair that is being minted, which nobody revokes when the process exits.
#[tokio::test(start_paused = true)]
async fn drain_1_waits_for_the_flight_of_a_session_that_has_ended() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let copy = browser.copy();
    let refreshing = world.server.hold_refresh(&copy, &replica).await;
    browser.post(&replica, "/sign_out").await;
    drop(refreshing);
    let mut draining = task::spawn(replica.sessions.drain());
    assert_pending!(draining.poll(), "the redeem is under way");
}

/// Nor is what a sign-out could not revoke among what a drain returns.
#[tokio::test(start_paused = true)]
async fn drain_2_tells_of_what_a_sign_out_could_not_revoke() {
    let world = World::new();
    let renewal = world.renewal().on_sign_out(async |_| Err::<(), BoxError>("away".into()));
    let sessions = Sessions::builder(renewal, world.place.clone()).build().unwrap();
    signed_in(&world.replica(), "alice").await;
    assert_eq!(sessions.end_all(&sub("alice")).await.unwrap(), 1);
    let drained = sessions.drain().await;
    assert_eq!(drained.unrevoked.len(), 1, "the tokens live on at the server");
}

// ---- wrong answers ---------------------------------------------------------------------------

/// The failure of another credential (a service's own) in a handler's 401 is taken for the
/// session's: the browser is told that its session was refused, and it lives.
#[tokio::test(start_paused = true)]
async fn answer_1_another_credentials_failure_is_not_the_sessions() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let service = Renewal::builder(async |_: Tokens| {
        Err::<Tokens, _>(RefreshError::rejected("no").with_code("invalid_grant"))
    });
    let service = service.build().in_memory(Tokens::new("service").with_refresh_token("service"));
    let backend = RefreshLayer::new(service).layer(service_fn(async |_: Request<_>| {
        let mut response = Response::new(full("the service's own affair"));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, Infallible>(response)
    }));
    let app = app(&replica.sessions, move |_| {
        let request = Request::get("http://other.test/").body(Empty::<Bytes>::new()).unwrap();
        backend.clone().oneshot(request)
    });
    let response = ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(browser.get(&replica, "/").await.text, "alice", "the session lives");
    assert_eq!(response.headers().get("session-ended"), None);
}

/// A handler signs in and then asks the API, which cannot be served: the layer answers in its
/// place and drops the cookie. The new session is stored, the old one ended, and the browser has none.
#[tokio::test(start_paused = true)]
async fn answer_2_a_sign_in_is_told_whatever_the_status() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let api = RefreshLayer::per_request(FromExtensions).layer(service_fn(async |_: Request<_>| {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, Infallible>(response)
    }));
    let server = world.server.clone();
    server.go_away(true);
    let app = app(&replica.sessions, move |request| {
        let (api, server) = (api.clone(), server.clone());
        async move {
            let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
            let session =
                slot.sign_in(server.sign_in(), Identity::new(ISSUER, "bob")).await.unwrap();
            let mut request =
                Request::get("http://api.test/me").body(Empty::<Bytes>::new()).unwrap();
            request.extensions_mut().insert(session.state().clone());
            api.oneshot(request).await
        }
    });
    let response = ask(&app, browser.request(Method::POST, "/callback")).await;
    assert!(response.headers().contains_key("set-cookie"), "{response:?}");
}

/// `csrf_header` is asked of WebSockets, too, for which no script can set a header: none can be
/// opened any more, not even by the application's own page.
#[tokio::test(start_paused = true)]
async fn s14_the_applications_own_page_opens_a_socket_with_csrf_header_set() {
    let world = World::new();
    let replica = world.replica_with(|it| it.csrf_header(http::HeaderName::from_static("x-csrf")));
    let browser = Browser::new();
    let request = browser.request(Method::POST, "/sign_in").header("user", "alice");
    browser.send(&replica, request.header("x-csrf", "1")).await;
    let opens = browser.request(Method::GET, "/");
    let opens = opens.header("upgrade", "websocket").header("connection", "Upgrade");
    let answer = browser.send(&replica, opens.header("origin", "https://app.test")).await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "alice"));
}

/// Two applications' layers in each other: the outer one takes the mark off, and the inner one
/// sends the browser round again, until that gives up.
#[tokio::test(start_paused = true)]
async fn again_is_said_once_behind_the_layer_of_other_sessions() {
    let cookie = SessionCookie::host("other").unwrap();
    let (mine, other) = (World::new().replica(), World::new().replica_with(|it| it.cookie(cookie)));
    let browser = signed_in(&mine, "alice").await;
    let tab = browser.copy();
    browser.sign_in(&mine, "alice").await;
    let handler = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(full(""))));
    let app = other.sessions.layer().layer(mine.sessions.layer().layer(handler));
    let request = tab.request(Method::GET, "/page").body(full("")).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    let location = response.headers()["location"].to_str().unwrap();
    let request = tab.request(Method::GET, &format!("/page{location}")).body(full("")).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "and again: {:?}", response.headers());
}

/// A 401 of the extractor `Session` does not say how the session has ended, as that of `required`
/// does ("a fetch that is refused has it in the header `Session-Ended`").
#[tokio::test]
async fn reason_1_the_extractors_401_says_how_the_session_has_ended() {
    use ::axum::{Router, routing::get};
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    replica.sessions.end_all(&sub("alice")).await.unwrap();
    let route = get(async |_: tower_refresh::session::Session| "in");
    let app: Router = Router::new().route("/", route).layer(replica.sessions.layer());
    let request = browser.request(Method::GET, "/").body(::axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers().get("session-ended").unwrap(), "signed_out_elsewhere");
}

/// Signed out on another replica a moment before the deadline: the first to ask is told
/// "deadline", everybody else "signed_out".
#[tokio::test(start_paused = true)]
async fn reason_2_what_is_known_first_is_told() {
    let world = World::new();
    let age = Duration::from_secs(100);
    let [here, there] = [(); 2].map(|()| world.replica_with(|it| it.max_age(age).idle(None)));
    let browser = signed_in(&here, "alice").await;
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    let copy = browser.copy();
    advance(Duration::from_secs(99)).await;
    browser.post(&here, "/sign_out").await;
    advance(Duration::from_secs(2)).await;
    assert_eq!(copy.get(&there, "/ended").await.text, "signed_out");
}

/// A session that idled out while its look was trusted: the 401 in mid-request says "refused",
/// which the server never did.
#[tokio::test(start_paused = true)]
async fn reason_3_idle_is_not_refused() {
    let world = World::new();
    let replica = world
        .replica_with(|it| it.idle(Duration::from_secs(10)).trust_for(Duration::from_secs(100)));
    let browser = signed_in(&replica, "alice").await;
    advance(Duration::from_secs(20)).await;
    world.server.expire_all();
    let answer = browser.get(&replica, "/api").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.server.redeems(), 0);
    assert_eq!(answer.headers["session-ended"], "idle");
}

/// `end_all` counts a session that had idled out before, and notes and counts the wrong reason.
#[tokio::test(start_paused = true)]
async fn reason_4_end_all_does_not_end_what_had_ended() {
    let world = World::new();
    let replica = world.replica_with(|it| it.idle(Duration::from_secs(10)));
    signed_in(&replica, "alice").await;
    advance(Duration::from_secs(20)).await;
    assert_eq!(replica.sessions.end_all(&sub("alice")).await.unwrap(), 0);
    assert_eq!(replica.sessions.status().ended(Ended::SignedOutElsewhere), 0);
}

/// A user opens a page, and its refresh token turns out to be dead in the middle: an empty 401, where
/// every other page without a session takes the user to the sign-in.
#[tokio::test(start_paused = true)]
async fn sign_in_at_1_a_navigation_whose_session_ends_in_the_middle_begins_a_sign_in() {
    let world = World::new();
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/login").unwrap());
    let browser = signed_in(&world.replica(), "alice").await;
    world.server.revoke_all();
    let request = Request::get("/api").header("host", "app.test");
    let request = request.header("sec-fetch-site", "same-origin");
    let request = request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
    let answer = browser.send(&replica, request.header("cookie", browser.cookie().unwrap())).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{:?}", answer.headers);
}

/// `sign_in_at` around the whole application: the path that begins the sign-in is sent to itself,
/// with an ever longer query.
#[tokio::test(start_paused = true)]
async fn sign_in_at_2_the_sign_in_itself_is_let_through() {
    let world = World::new();
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/asset").unwrap());
    let browser = Browser::new();
    let request = Request::get("/asset?return_to=/").header("sec-fetch-mode", "navigate");
    let answer = browser.send(&replica, request).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.headers);
}

// ---- caches and headers ----------------------------------------------------------------------

/// A CDN goes by `CDN-Cache-Control` and `Surrogate-Control` alone where they are (RFC 9213): a
/// page that depends on the session is `private, no-store` for browsers, and public there.
#[tokio::test(start_paused = true)]
async fn s13_a_cdn_is_not_told_to_store_a_users_page() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let app = app(&replica.sessions, async |request: Request<Body>| {
        let slot = request.extensions().get::<SessionSlot>().unwrap();
        let name = slot.session().unwrap().identity().subject().to_owned();
        let response = Response::builder().header("cdn-cache-control", "public, max-age=600");
        let response = response.header("surrogate-control", "max-age=600");
        Ok(response.body(full(name)).unwrap())
    });
    let response = ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(response.headers()["cache-control"], "private, no-store");
    for name in ["cdn-cache-control", "surrogate-control"] {
        assert_eq!(response.headers().get(name), None, "{name}");
    }
}

/// What the API has answered to the session's token is kept by the browser without `Vary`, and a
/// sign-in of another user clears nothing: that one sees it within its `max-age`.
#[tokio::test(start_paused = true)]
async fn s13_what_the_token_has_brought_is_not_kept_for_the_next_user() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let answer = browser.get(&replica, "/api").await;
    assert_eq!(answer.text, "data");
    let is_not_stored = answer.headers["cache-control"].to_str().unwrap().contains("no-store");
    assert!(is_not_stored || answer.headers.contains_key("vary"), "{:?}", answer.headers);
}

/// "Destinations are an allow-list: this mode refuses to build without `allow_origin`": it does not,
/// and a session's token goes wherever a handler's request goes.
#[tokio::test(start_paused = true)]
async fn s12_a_sessions_token_goes_to_no_origin_that_was_not_named() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let client =
        RefreshLayer::per_request(FromExtensions).layer(service_fn(move |request: Request<_>| {
            *noted.lock().unwrap() = request.headers().get("authorization").cloned();
            async { Ok::<_, Infallible>(Response::new(full(""))) }
        }));
    let app = app(&replica.sessions, move |request| {
        let (mut parts, _) = request.into_parts();
        parts.uri = "http://evil.test/".parse().unwrap();
        client.clone().oneshot(Request::from_parts(parts, Empty::<Bytes>::new()))
    });
    ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(*seen.lock().unwrap(), None);
}

/// S12: no `WWW-Authenticate` of the API's bearer scheme comes back. It does to whom has no session
/// (any more).
#[tokio::test(start_paused = true)]
async fn s12_a_bearer_challenge_comes_back_to_nobody() {
    let world = World::new();
    let answer = Browser::new().get(&world.replica(), "/api").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers.get("www-authenticate"), None);
}

/// What a proxied request brings to the client.
async fn proxied(request: Request<Body>, answer: HeaderMap) -> (Version, HeaderMap, HeaderMap) {
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let client = service_fn(move |request: Request<Body>| {
        *noted.lock().unwrap() = Some((request.version(), request.headers().clone()));
        let mut response = Response::new(full(""));
        *response.headers_mut() = answer.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let proxy = ProxyLayer::to("http://api.test").unwrap().pass_cookies().layer(client);
    let response = proxy.oneshot(request).await.unwrap();
    let (version, headers) = seen.lock().unwrap().take().unwrap();
    (version, headers, response.headers().clone())
}

/// A browser's cookies over HTTP/2 are several fields; on the way into HTTP/1.1 they MUST become
/// one (RFC 9113, section 8.2.3), and many servers read the first one only, or join with a comma.
#[tokio::test]
async fn proxy_1_cookies_are_one_field_over_http1() {
    let request = Request::get("/").version(Version::HTTP_2);
    let request = request.header("cookie", "a=1").header("cookie", "b=2").body(full("")).unwrap();
    let (version, headers, _) = proxied(request, HeaderMap::new()).await;
    assert_eq!(version, Version::HTTP_11);
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

/// A server behind cannot set our cookie, but clears it: `Clear-Site-Data: "cookies"` comes
/// through, and takes the session's cookie with it.
#[tokio::test(start_paused = true)]
async fn proxy_2_a_server_behind_does_not_clear_our_cookie() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let client = service_fn(async |_: Request<Body>| {
        let response = Response::builder().header("clear-site-data", "\"cookies\", \"storage\"");
        Ok::<_, Infallible>(response.body(full("")).unwrap())
    });
    let proxy = ProxyLayer::to("http://api.test").unwrap().layer(client);
    let app = replica.sessions.layer().layer(proxy);
    let request = browser.request(Method::GET, "/").body(full("")).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let cleared = response.headers().get("clear-site-data").map(|it| it.to_str().unwrap());
    assert!(cleared.is_none_or(|it| !it.contains("cookies")), "{cleared:?}");
}

// ---- stores that panic, are slow, or are busy ------------------------------------------------

/// A store that panics at a session's first read takes the request's task with it, instead of 503.
#[tokio::test(start_paused = true)]
async fn panic_a_store_that_panics_is_an_outage() {
    let stores = Troubled::default();
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let browser = signed_in(&world.replica(), "alice").await;
    stores.trouble(name_of(&browser), Trouble::Panics);
    let there = world.replica();
    let answer = std::panic::AssertUnwindSafe(browser.get(&there, "/")).catch_unwind().await;
    let status = answer.map(|answer| answer.status).map_err(|_| "it panicked");
    assert_eq!(status, Ok(StatusCode::SERVICE_UNAVAILABLE));
}

/// While the store is asked for one session, the readied service below is held: behind a limit of
/// concurrency a slow look stops requests that need no look (design, 12; S19).
#[tokio::test(start_paused = true)]
async fn s19_a_slow_look_holds_no_place_in_the_service_below() {
    let (stores, gate) = (Troubled::default(), Gate::new());
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    gate.close();
    stores.trouble(name_of(&browser), Trouble::ReadsWait(gate.clone()));
    let handler = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(full(""))));
    let limited = tower::limit::ConcurrencyLimit::new(handler, 1);
    let app = replica.sessions.layer().layer(limited);
    let request = browser.request(Method::GET, "/").body(full("")).unwrap();
    let mut slow = task::spawn(app.clone().oneshot(request));
    assert_pending!(slow.poll());
    let anonymous = Browser::new().request(Method::GET, "/").body(full("")).unwrap();
    let answer = timeout(MINUTE, app.oneshot(anonymous)).await;
    assert!(answer.is_ok(), "it waits for the other one's look");
}

/// `watch_every` takes any duration, and a long one ("never") panics in the body of every stream.
#[tokio::test(start_paused = true)]
async fn panic_a_stream_that_is_never_looked_after() {
    let world = World::new();
    let replica = world.replica_with(|it| it.watch_every(Duration::MAX));
    let browser = signed_in(&replica, "alice").await;
    let stream = browser.begin(&replica, browser.request(Method::GET, "/events")).await;
    let ended = tokio::spawn(stream.into_body().collect());
    settle().await;
    assert!(!ended.is_finished(), "it has panicked: {:?}", ended.await.map(drop));
}
