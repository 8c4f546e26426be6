//! What a reviewer has broken of sealed sessions. The comments say what a user would have suffered.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::join;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use testing::{
    Gate,
    sessions::{Body, Browser, ISSUER, Place, World, full, settle, signed_in},
};
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_refresh::{
    BoxFuture, Generation,
    seal::Keyring,
    session::{Ended, Identity, IndexKey, SessionBody, SessionSlot, Sessions, SessionsBuilder},
    store::{
        Deleted, KeptUntil, Leased, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore,
    },
};

use super::sealed::{TRANSIT, come_to_rest};

type App = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, Infallible>;

/// A process of the same application, with another handler.
fn app<F>(
    sessions: &Sessions,
    handler: impl Fn(SessionSlot) -> F + Clone + Send + Sync + 'static,
) -> App
where
    F: Future<Output = String> + Send + 'static,
{
    let handler = service_fn(move |request: Request<Body>| {
        let answer = handler(request.extensions().get::<SessionSlot>().unwrap().clone());
        async move { Ok::<_, Infallible>(Response::new(full(answer.await))) }
    });
    BoxCloneSyncService::new(sessions.layer().layer(handler))
}

fn sessions_at(world: &World, change: impl FnOnce(SessionsBuilder) -> SessionsBuilder) -> Sessions {
    change(world.sealing(Keyring::new([7; 32])).remember(world.place.clone())).build().unwrap()
}

async fn ask(app: &App, request: http::request::Builder) -> (http::HeaderMap, String) {
    let response = app.clone().oneshot(request.body(full("")).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

fn alice() -> IndexKey {
    IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "alice".to_owned() }
}

/// A memory that can be lost.
#[derive(Clone, Default)]
struct Losable(Arc<Mutex<MemoryStores>>);

impl Losable {
    fn lose(&self) {
        *self.0.lock().unwrap() = MemoryStores::new();
    }
}

struct One {
    of: Losable,
    name: String,
}

impl One {
    fn store(&self) -> Arc<dyn TokenStore> {
        Stores::store(&*self.of.0.lock().unwrap(), &self.name)
    }
}

impl Stores for Losable {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        Arc::new(One { of: self.clone(), name: name.to_owned() })
    }
}

impl TokenStore for One {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { self.store().load().await })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { self.store().changed(known).await })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.store().save(expected, record).await })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async { self.store().delete().await })
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(async move { self.store().keep_until(end).await })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move { self.store().lease(known).await })
    }
}

/// A user uploads something for a quarter of an hour. Meanwhile their other tab refreshes at another
/// replica. The upload's answer then writes the tokens from before, and clears the newest ones: the
/// user is signed out, and the pair is lost for good. No response was on its way for long.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_of_another_replica_takes_nothing_away() {
    let world = World::sealed();
    let here = world.replica();
    let there = world.replica();
    world.held.close();
    let browser = signed_in(&here, "alice").await;
    let tab = browser.copy();
    let uploading = tokio::spawn(async move { tab.get(&there, "/held").await.headers });
    settle().await;
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    come_to_rest(&browser, &here, 3).await;
    world.held.open();
    let headers = uploading.await.unwrap();
    browser.take(&headers);
    // The first process recovers it while it has the session loaded: for a minute.
    let answer = browser.get(&world.replica(), "/?session_again").await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "alice"));
}

/// The same without a slow answer: where looks are believed for as long as responses are on their way,
/// one late request is enough.
#[tokio::test(start_paused = true)]
async fn a_believed_look_takes_nothing_away() {
    let world = World::sealed();
    let transit = Duration::from_secs(10);
    let replica = || {
        let builder = world.sealing(Keyring::new([7; 32])).transit(transit);
        let builder = builder.remember(world.place.clone()).trust_for(Duration::from_secs(60));
        world.replica_of(builder, |it| it)
    };
    let (here, there) = (replica(), replica());
    let browser = signed_in(&here, "alice").await;
    browser.get(&there, "/").await;
    let late = browser.copy();
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    // The last write of the newest tokens, and the request that shows it.
    advance(transit).await;
    browser.get(&here, "/").await;
    browser.get(&replica(), "/").await;
    settle().await;
    let response = late.begin(&there, late.request(Method::GET, "/")).await;
    browser.take(response.headers());
    let answer = browser.get(&replica(), "/?session_again").await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "alice"));
}

/// Tokens that live for hours are not refreshed, so all cookies of the session have one generation. A
/// copy of the jar from half an hour ago (a backup, a request that a proxy held back, a second profile)
/// is "idle", and ends the session of a user who works in it at this moment.
#[tokio::test(start_paused = true)]
async fn an_old_jar_of_the_same_generation_ends_nothing() {
    let world = World::sealed();
    let replica = || world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let (here, there) = (replica(), replica());
    let browser = signed_in(&here, "alice").await;
    let copy = browser.copy();
    for _ in 0..20 {
        advance(Duration::from_secs(60)).await;
        assert_eq!(browser.get(&here, "/").await.text, "alice");
    }
    copy.get(&there, "/").await;
    assert_eq!(browser.get(&here, "/ended").await.text, "-");
}

/// A tab polls while the user signs out and in again as somebody else. The poll's answer renews the old
/// session's cookie, clears its other name on the way, and arrives last: the new session is gone from
/// the browser the moment it began.
#[tokio::test(start_paused = true)]
async fn a_late_rolling_write_of_the_session_before_leaves_the_new_one() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    advance(TRANSIT).await;
    let poll = browser.copy();
    let late = poll.begin(&replica, poll.request(Method::GET, "/")).await;
    browser.post(&replica, "/sign_out").await;
    browser.sign_in(&replica, "bob").await;
    browser.take(late.headers());
    assert_eq!(browser.get(&replica, "/").await.text, "bob");
}

/// The same where the new session is large, and so has one name only: then any late answer of the one
/// before is enough in every second case, a mere refresh, too.
#[tokio::test(start_paused = true)]
async fn a_late_refresh_of_the_session_before_leaves_a_large_new_one() {
    let world = World::sealed();
    let replica = world.replica();
    for _ in 0..12 {
        world.server.send_besides("note", 1);
        let browser = signed_in(&replica, "alice").await;
        advance(Duration::from_secs(20)).await;
        world.server.expire_all();
        let tab = browser.copy();
        let late = tab.begin(&replica, tab.request(Method::GET, "/api")).await;
        browser.post(&replica, "/sign_out").await;
        world.server.send_besides("note", 3500);
        // The number of a session's first tokens, and so its name, is that of the millisecond.
        std::thread::sleep(Duration::from_micros(700));
        browser.sign_in(&replica, "bob").await;
        browser.take(late.headers());
        assert_eq!(browser.get(&replica, "/").await.text, "bob");
    }
}

/// After a restart of the memory the provider (or the user, with "sign out everywhere") ends all of a
/// user's sessions. The mark is there, but the re-made note of a session that comes later is not held
/// against it: the stolen laptop goes on working.
#[tokio::test(start_paused = true)]
async fn an_end_of_all_sessions_after_the_memory_was_lost_counts() {
    let world = World::sealed();
    let browser = signed_in(&world.replica(), "alice").await;
    advance(Duration::from_secs(5)).await;
    let restarted = World { place: Place::default(), ..world.clone() };
    let replica = restarted.replica();
    replica.sessions.end_all(&alice()).await.unwrap();
    advance(Duration::from_secs(5)).await;
    browser.get(&replica, "/").await;
    settle().await;
    assert_ne!(browser.get(&replica, "/").await.text, "alice");
}

/// The same if the list of a user's sessions could not be written for a moment: the note is there then,
/// so it is never tried again, and no end of all sessions finds this one any more.
#[tokio::test(start_paused = true)]
async fn a_session_whose_note_was_made_anew_is_in_the_list_of_its_user() {
    let losable = FailingLists::default();
    let world = World { place: Place::at(losable.clone()), ..World::sealed() };
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    losable.memory.lose();
    losable.fails.store(true, Ordering::Relaxed);
    browser.get(&replica, "/").await;
    settle().await;
    losable.fails.store(false, Ordering::Relaxed);
    for _ in 0..10 {
        advance(Duration::from_secs(200)).await;
        assert_eq!(browser.get(&replica, "/").await.text, "alice");
        settle().await;
    }
    assert_eq!(replica.sessions.end_all(&alice()).await.unwrap(), 1);
}

#[derive(Clone, Default)]
struct FailingLists {
    memory: Losable,
    fails: Arc<AtomicBool>,
}

impl Stores for FailingLists {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        match name.starts_with("sub-") && self.fails.load(Ordering::Relaxed) {
            true => Arc::new(Away),
            false => Stores::store(&self.memory, name),
        }
    }
}

struct Away;

impl TokenStore for Away {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Err(StoreError::new("away")) })
    }

    fn save(&self, _: Generation, _: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async { Err(StoreError::new("away").into()) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async { Err(StoreError::new("away")) })
    }

    fn lease(&self, _: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async { Err(StoreError::new("away")) })
    }
}

/// A stream has been open at one replica for longer than the idle time, while the user works at another.
/// The memory is restarted: the stream's watch takes that for an idle session, and signs the user out.
#[tokio::test(start_paused = true)]
async fn a_stream_that_seems_idle_ends_itself_alone() {
    let losable = Losable::default();
    let world = World { place: Place::at(losable.clone()), ..World::sealed() };
    let replica = || world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let (here, there) = (replica(), replica());
    let browser = signed_in(&here, "alice").await;
    let stream = browser.begin(&there, browser.request(Method::GET, "/events")).await;
    let stream = tokio::spawn(stream.into_body().collect());
    for _ in 0..20 {
        advance(Duration::from_secs(60)).await;
        assert_eq!(browser.get(&here, "/").await.text, "alice");
        settle().await;
    }
    losable.lose();
    advance(Duration::from_secs(10)).await;
    settle().await;
    assert_eq!(browser.get(&here, "/ended").await.text, "-");
    stream.abort();
}

/// The memory is restarted. A copy of the jar from before comes first, is idle by itself, and ends the
/// session of the browser that has used it a second ago; "it is a copy of an old jar, and ends none".
#[tokio::test(start_paused = true)]
async fn an_idle_copy_ends_nothing_when_the_memory_is_lost() {
    let world = World::sealed();
    let at = |world: &World| world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let here = at(&world);
    let browser = signed_in(&here, "alice").await;
    let copy = browser.copy();
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    for _ in 0..20 {
        advance(Duration::from_secs(60)).await;
        assert_eq!(browser.get(&here, "/").await.text, "alice");
        settle().await;
    }
    let restarted = at(&World { place: Place::default(), ..world.clone() });
    copy.get(&restarted, "/").await;
    assert_eq!(browser.get(&restarted, "/ended").await.text, "-");
}

/// The provider ends a session whose tokens only the browser has. They are never revoked, not even when
/// the browser brings them: whoever has a copy of the jar and the keys, or of the tokens, goes on.
#[tokio::test(start_paused = true)]
async fn an_end_from_outside_revokes_what_the_browser_has() {
    let world = World::sealed();
    let here = world.replica();
    let browser = signed_in(&here, "alice").await;
    come_to_rest(&browser, &here, 2).await;
    let elsewhere = world.replica();
    assert_eq!(elsewhere.sessions.end_all(&alice()).await.unwrap(), 1);
    assert_eq!(browser.get(&here, "/ended").await.text, "signed_out_elsewhere");
    assert_eq!(browser.get(&elsewhere, "/ended").await.text, "signed_out_elsewhere");
    settle().await;
    assert_eq!(world.server.alive(), 0);
}

/// The callback signs in and then asks the provider who it is, with an access token that has to be
/// refreshed first. The response that will take the cookie to the browser is owed, and yet the refresh
/// is refused because no response is.
#[tokio::test(start_paused = true)]
async fn the_response_of_a_sign_in_is_owed() {
    let world = World::sealed();
    let sessions = sessions_at(&world, |it| it);
    let server = world.server.clone();
    let callback = app(&sessions, move |slot| {
        let tokens = server.sign_in();
        async move {
            let session = slot.sign_in(tokens, Identity::new(ISSUER, "alice")).await.unwrap();
            let refreshed = session.state().refresh().await;
            refreshed.map_or_else(|it| it.kind().as_str().to_owned(), |_| "refreshed".to_owned())
        }
    });
    let browser = Browser::new();
    let (_, text) = ask(&callback, browser.request(Method::POST, "/callback")).await;
    assert_eq!(text, "refreshed");
}

/// The note of a session that was ended from outside has no end of its own: a `MemoryStores` that runs
/// for a year keeps one for each back-channel logout.
#[tokio::test(start_paused = true)]
async fn the_note_of_an_end_from_outside_has_an_end() {
    let world = World::sealed();
    let here = world.replica();
    let browser = signed_in(&here, "alice").await;
    come_to_rest(&browser, &here, 2).await;
    drop(here);
    let elsewhere = world.replica();
    assert_eq!(elsewhere.sessions.end_all(&alice()).await.unwrap(), 1);
    // Its tokens are revoked when they are shown, and the note says so.
    browser.get(&elsewhere, "/").await;
    settle().await;
    assert_eq!(world.server.alive(), 0);
    advance(Duration::from_secs(30 * 24 * 3600)).await;
    let names = world.place.control().names.lock().unwrap().clone();
    for name in names {
        let left = world.place.store(&name).load().await.unwrap();
        assert!(left.tokens.is_none(), "{name}: {:?}", left.generation);
    }
}

/// A restarted process gets two requests of one browser at once: one that was asked with the cookie from
/// before a refresh, and one with the newest. The older one is loaded first and the newer one is
/// forgotten: the spent token is redeemed, and the server ends the session. The browser had the newest.
#[tokio::test(start_paused = true)]
async fn two_first_requests_after_a_restart_go_by_the_newer_cookie() {
    let world = World::sealed();
    let before = world.replica();
    let browser = signed_in(&before, "alice").await;
    let late = browser.copy();
    world.server.expire_all();
    assert_eq!(browser.get(&before, "/api").await.text, "data");
    let replica = World { place: Place::default(), ..world.clone() }.replica();
    world.server.expire_all();
    let newest = browser.copy();
    let (_, answer) = join(late.get(&replica, "/"), newest.get(&replica, "/api")).await;
    assert_eq!((&*answer.text, world.server.reuses()), ("data", 0));
}

/// The memory is lost, and its note is made anew from the cookie of a late request. All sessions of the
/// user are ended: the number of that end is the one that the other replica knows already, which sees no
/// change, and serves the session for as long as it is used.
#[tokio::test(start_paused = true)]
async fn an_end_with_a_number_that_a_replica_knows_is_seen() {
    let losable = Losable::default();
    let world = World { place: Place::at(losable.clone()), ..World::sealed() };
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    let late = browser.copy();
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    losable.lose();
    late.get(&there, "/").await;
    settle().await;
    assert_eq!(browser.get(&here, "/").await.text, "alice");
    assert_eq!(world.replica().sessions.end_all(&alice()).await.unwrap(), 1);
    assert_eq!(browser.get(&here, "/ended").await.text, "signed_out_elsewhere");
}

/// One request with 400 KB of made-up cookies, as HTTP/1 servers take: each is compared with each.
#[tokio::test(start_paused = true)]
async fn thousands_of_made_up_pieces_are_nobodys() {
    let world = World::sealed();
    let replica = world.replica();
    let cookies: Vec<_> = (0..12_000).map(|it| format!("__Host-Http-sid.00=1.{it}.x")).collect();
    let browser = Browser::new();
    *browser.cookie.lock().unwrap() = Some(cookies.join("; "));
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    assert_eq!(world.place.looks(), 0);
}

/// Tokens that do not fit are refused, and yet something of them is kept for twelve hours, which nobody
/// can reach; and the operator is told that a session has ended that never began.
#[tokio::test(start_paused = true)]
async fn a_sign_in_that_does_not_fit_leaves_nothing() {
    let world = World::sealed();
    world.server.send_besides("note", 6000);
    let replica = world.replica();
    let answer = Browser::new().sign_in(&replica, "alice").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    advance(Duration::from_secs(3700)).await;
    settle().await;
    let names = world.place.control().names.lock().unwrap().clone();
    let mut left = 0;
    for name in names {
        left += usize::from(world.place.store(&name).load().await.unwrap().tokens.is_some());
    }
    let status = replica.sessions.status();
    assert_eq!((left, status.begun, status.ended(Ended::SignedOutElsewhere)), (0, 0, 0));
}

/// A stream at a replica that has older tokens tries to refresh, and cannot: the browser alone has the
/// newest. That is no failure of the store, and yet the operator is told of one.
#[tokio::test(start_paused = true)]
async fn a_refresh_with_older_tokens_is_no_failure_of_the_store() {
    let world = World::sealed();
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    let stream = browser.begin(&there, browser.request(Method::GET, "/refresh")).await;
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    come_to_rest(&browser, &here, 3).await;
    let told = stream.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*told, b"no_response_head");
}

/// And it pauses: the browser comes with the newest, which have run out meanwhile, and is refused with
/// 503 instead of a refresh.
#[tokio::test(start_paused = true)]
async fn a_refresh_with_older_tokens_pauses_nothing() {
    let world = World::sealed();
    let life = Duration::from_secs(3);
    world.server.tell_life(life);
    let transit = Duration::from_secs(1);
    let replica = || {
        let builder = world.sealing(Keyring::new([7; 32])).transit(transit);
        world.replica_of(builder.remember(world.place.clone()), |it| it)
    };
    let (here, there) = (replica(), replica());
    let browser = signed_in(&here, "alice").await;
    let stream = browser.begin(&there, browser.request(Method::GET, "/refresh")).await;
    advance(life).await;
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    advance(transit + Duration::from_millis(200)).await;
    browser.get(&here, "/").await;
    browser.get(&here, "/").await;
    advance(life - transit).await;
    world.server.expire_all();
    let told = stream.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*told, b"no_response_head");
    let answer = browser.get(&there, "/api").await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "data"));
}

/// A replica gives up what the browser has while another one is redeeming it, which dies: the note of that
/// redeem stays, and so do the tokens.
#[tokio::test(start_paused = true)]
async fn what_is_given_up_leaves_the_note_of_a_redeem() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let names = world.place.control().names.lock().unwrap().clone();
    let name = names.into_iter().find(|it| !it.starts_with("sub-")).unwrap();
    let store = world.place.store(&name);
    let known = store.load().await.unwrap().generation;
    let Leased::Lease(mut lease) = store.lease(known).await.unwrap() else { panic!("newer") };
    lease.intend(known).await.unwrap();
    come_to_rest(&browser, &replica, 2).await;
    // The process is gone.
    drop(lease);
    settle().await;
    assert!(store.load().await.unwrap().tokens.unwrap().refresh_token().is_some());
    let Leased::Lease(lease) = store.lease(known).await.unwrap() else { panic!("newer") };
    assert!(lease.open_redeem().is_some());
}

/// A session has ended because nobody used it. The back-channel logout that comes a day later says that
/// it has ended one, and so does the log.
#[tokio::test(start_paused = true)]
async fn what_has_ended_long_ago_is_not_ended_again() {
    let world = World::sealed();
    let replica = || world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    signed_in(&replica(), "alice").await;
    advance(Duration::from_secs(2000)).await;
    assert_eq!(replica().sessions.end_all(&alice()).await.unwrap(), 0);
}

/// Tokens of a refresh do not fit: from then on every request of the session, a picture too, seals them
/// in vain, asks the memory three times instead of once, and logs a warning.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_tried_once() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    world.server.expire_all();
    world.server.send_besides("note", 6000);
    assert_eq!(browser.get(&replica, "/api").await.text, "data");
    let touches = || world.place.control().touches.load(Ordering::Relaxed);
    let before = (world.place.looks(), touches());
    for _ in 0..10 {
        browser.get(&replica, "/asset").await;
    }
    assert_eq!((world.place.looks() - before.0, touches() - before.1), (10, 0));
}

/// A user signs out by a request that waits for something (a question, a slow form). Meanwhile the other
/// tab has refreshed at another replica, and only the browser has the newest. Nothing is revoked, and the
/// other tab is told that it was signed out from elsewhere.
#[tokio::test(start_paused = true)]
async fn a_slow_sign_out_revokes_and_keeps_its_reason() {
    let world = World::sealed();
    let here = world.replica();
    let there = sessions_at(&world, |it| it);
    let gate = Gate::new();
    gate.close();
    let waits = gate.clone();
    let signing_out = app(&there, move |slot| {
        let waits = waits.clone();
        async move {
            waits.pass().await;
            slot.session()
                .unwrap()
                .sign_out()
                .await
                .map_or_else(|it| it.to_string(), |()| "out".into())
        }
    });
    let browser = signed_in(&here, "alice").await;
    let request = browser.request(Method::POST, "/sign_out_slowly");
    let signing_out = tokio::spawn(async move { ask(&signing_out, request).await.1 });
    settle().await;
    world.server.expire_all();
    assert_eq!(browser.get(&here, "/api").await.text, "data");
    come_to_rest(&browser, &here, 3).await;
    gate.open();
    assert_eq!(signing_out.await.unwrap(), "out");
    let told = browser.get(&here, "/ended").await.text;
    settle().await;
    assert_eq!((&*told, world.server.alive()), ("signed_out", 0));
}

/// Who keeps such a credential fresh asks no more often than what he is refused for changes.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_kept_fresh_is_not_refreshed_without_a_response() {
    let world = World::sealed();
    world.server.tell_life(Duration::from_secs(60));
    let sessions = sessions_at(&world, |it| it);
    let keeping = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&keeping);
    let server = world.server.clone();
    let app = app(&sessions, move |slot| {
        let (kept, tokens) = (Arc::clone(&kept), server.sign_in());
        async move {
            let session = slot.sign_in(tokens, Identity::new(ISSUER, "alice")).await.unwrap();
            kept.lock().unwrap().push(session.state().keep_fresh());
            String::new()
        }
    });
    let browser = Browser::new();
    let (headers, _) = ask(&app, browser.request(Method::POST, "/callback")).await;
    browser.take(&headers);
    let looks = world.place.looks();
    for _ in 0..60 {
        advance(Duration::from_secs(10)).await;
        settle().await;
    }
    assert_eq!(world.server.redeems(), 0);
    let looks = world.place.looks() - looks;
    assert!(looks < 100, "{looks}");
}
