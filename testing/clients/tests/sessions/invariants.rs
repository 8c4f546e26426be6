//! S1 to S20, by number, as far as they are about the layer. S14 has its tables in `csrf.rs` and
//! `visitor.rs` too, S12 in `answer.rs`, S10 and S11 in `cookie.rs`.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::session::{Ended, IndexKey, SessionCookie, SessionId};

use testing::sessions::{Answer, Browser, ISSUER, World, settle, signed_in};

fn has_cookie(answer: &Answer) -> bool {
    answer.headers.contains_key("set-cookie")
}

fn sub(user: &str) -> IndexKey {
    IndexKey::Sub { issuer: ISSUER.to_owned(), subject: user.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn s1_any_number_of_tabs_and_replicas_refresh_once() {
    let world = World::new();
    let replicas = [world.replica(), world.replica(), world.replica()];
    let browser = signed_in(&replicas[0], "alice").await;
    let cookie = browser.cookie();
    for round in 1..=3 {
        world.server.expire_all();
        let requests = (0..99).map(|number| browser.get(&replicas[number % 3], "/api"));
        for answer in join_all(requests).await {
            assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "data"));
        }
        assert_eq!((world.server.redeems(), world.server.reuses()), (round, 0));
    }
    assert_eq!(browser.cookie(), cookie, "the id never changes");
}

/// The copy of a store is worth nothing: its names are hashes.
#[tokio::test(start_paused = true)]
async fn s2_the_store_never_sees_the_cookie() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let cookie = browser.cookie().unwrap();
    let value = cookie.split_once('=').unwrap().1;
    let names = world.place.control().names.lock().unwrap().clone();
    let name = value.parse::<SessionId>().unwrap().name();
    assert!(names.contains(name.as_str()), "{names:?}");
    assert!(names.iter().all(|name| !name.contains(value) && !name.contains("alice")), "{names:?}");
    let thief = Browser::new();
    *thief.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={name}"));
    assert_eq!(thief.get(&replica, "/").await.text, "anonymous");
}

#[tokio::test(start_paused = true)]
async fn s3_only_a_sign_in_and_a_sign_out_set_the_cookie() {
    let world = World::new();
    let replica = world.replica();
    let browser = Browser::new();
    assert!(!has_cookie(&browser.get(&replica, "/").await));
    let answer = browser.sign_in(&replica, "alice").await;
    assert!(has_cookie(&answer), "on whatever status");
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    assert!(!has_cookie(&browser.get(&replica, "/").await));
    world.server.expire_all();
    let ours = |answer: &Answer| {
        let all = answer.headers.get_all("set-cookie").iter();
        all.filter(|it| it.to_str().unwrap().starts_with("__Host-Http-sid")).count()
    };
    assert_eq!(ours(&browser.get(&replica, "/api").await), 0, "a refresh");
    world.place.go_away(true);
    assert!(!has_cookie(&browser.get(&replica, "/").await), "an outage");
    world.place.go_away(false);
    let old = browser.copy();
    assert_eq!(ours(&browser.post(&replica, "/sign_out").await), 1);
    assert_eq!(browser.cookie(), None);
    // Its answer may come after another tab has signed in.
    let answer = old.get(&replica, "/").await;
    assert_eq!((answer.text.as_str(), has_cookie(&answer)), ("anonymous", false));
}

async fn s4_an_outage_of_the_store_is_no_sign_out(world: World) {
    let replica = world.replica();
    let required = world.replica_by(|it| it, |layer| layer.required());
    let browser = signed_in(&replica, "alice").await;
    world.place.go_away(true);
    for replica in [&replica, &required] {
        let answer = browser.get(replica, "/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers["retry-after"], "2");
        let stream = browser.request(Method::GET, "/events").header("accept", "text/event-stream");
        let answer = browser.send(replica, stream).await;
        assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "retry: 2000\n\n"));
        assert_eq!(answer.headers["content-type"], "text/event-stream");
    }
    assert_eq!(Browser::new().get(&replica, "/").await.text, "anonymous", "without a cookie");
    world.place.go_away(false);
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
}

async fn s4_an_outage_of_the_authorization_server_is_no_sign_out(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    world.server.expire_all();
    world.server.go_away(true);
    let answer = browser.get(&replica, "/api").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
    world.server.go_away(false);
    advance(Duration::from_secs(60)).await;
    assert_eq!(browser.get(&replica, "/api").await.text, "data");
}

async fn s5_ended_is_ended_at_the_next_request_on_every_replica(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    let copy = browser.copy();
    browser.post(&here, "/sign_out").await;
    for replica in [&here, &there, &world.replica()] {
        assert_eq!(copy.get(replica, "/").await.text, "anonymous");
        assert_eq!(copy.get(replica, "/ended").await.text, "signed_out");
    }
}

/// Within that time no look at all, after it one.
async fn s5_a_look_is_believed_for_as_long_as_it_is_said(world: World) {
    let here = world.replica();
    let there = world.replica_with(|it| it.trust_for(Duration::from_secs(10)));
    let browser = signed_in(&here, "alice").await;
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    let (copy, looks) = (browser.copy(), world.place.looks());
    for _ in 0..20 {
        assert_eq!(copy.get(&there, "/").await.text, "alice");
    }
    assert_eq!(world.place.looks(), looks);
    browser.post(&here, "/sign_out").await;
    assert_eq!(copy.get(&there, "/").await.text, "alice");
    advance(Duration::from_secs(10)).await;
    assert_eq!(copy.get(&there, "/").await.text, "anonymous");
}

async fn s5_a_stream_ends_with_its_session_on_another_replica(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    let stream = browser.begin(&there, browser.request(Method::GET, "/events")).await;
    let mut frames = task::spawn(stream.into_body().collect());
    assert_pending!(frames.poll());
    // The store's outage says nothing.
    world.place.go_away(true);
    advance(Duration::from_secs(60)).await;
    settle().await;
    assert_pending!(frames.poll());
    world.place.go_away(false);
    browser.post(&here, "/sign_out").await;
    advance(Duration::from_secs(5)).await;
    settle().await;
    assert!(frames.is_woken());
    let last = assert_ready!(frames.poll()).unwrap().to_bytes();
    assert_eq!(last, "\n\nevent: session-ended\ndata: signed_out\n\n");
    // Its next attempt is told.
    let again = browser.request(Method::GET, "/events").header("accept", "text/event-stream");
    let required = world.replica_by(|it| it, |layer| layer.required());
    assert_eq!(browser.send(&required, again).await.status, StatusCode::UNAUTHORIZED);
}

/// And what the redeem under way brings is revoked: even when the store has forgotten by then that
/// there was a sign-out.
#[tokio::test(start_paused = true)]
async fn s6_a_sign_out_outlives_every_redeem_under_way() {
    for later in [Duration::ZERO, Duration::from_secs(700)] {
        let world = World::new();
        let (here, there) = (world.replica(), world.replica());
        let browser = signed_in(&here, "alice").await;
        browser.get(&there, "/").await;
        let copy = browser.copy();
        let refreshing = world.server.hold_refresh(&copy, &there).await;
        browser.post(&here, "/sign_out").await;
        advance(later).await;
        world.server.1.open();
        let answer = refreshing.await;
        // A request does not wait for so long.
        assert_eq!(answer.status, if later.is_zero() { 401 } else { 503 });
        settle().await;
        assert_eq!(world.server.redeems(), 1);
        assert_eq!(world.server.alive(), 0, "all is revoked");
        for replica in [&here, &there, &world.replica()] {
            assert_eq!(copy.get(replica, "/").await.text, "anonymous");
        }
    }
}

/// The server has rejected a token that another replica has replaced by now.
async fn s7_only_what_was_rejected_is_ended(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    browser.get(&there, "/").await;
    world.server.expire_all();
    // One after the other, so that the second finds the first one's.
    let answers = [browser.get(&here, "/api").await, browser.get(&there, "/api").await];
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

async fn s8_a_sign_in_makes_a_new_id_and_ends_the_one_before(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let (old, tab) = (browser.cookie(), browser.copy());
    browser.sign_in(&replica, "bob").await;
    assert_ne!(browser.cookie(), old);
    assert_eq!(browser.get(&replica, "/").await.text, "bob");
    // A request of another tab that has waited in the browser through the sign-in comes again, and
    // then brings the new cookie.
    let answer = tab.get(&replica, "/?a=b").await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    let location = answer.headers["location"].to_str().unwrap();
    let uri = format!("/uri{location}");
    assert_eq!(browser.get(&replica, &uri).await.text, "/uri?a=b", "the mark is taken off");
    // One that has no newer one is not asked for ever.
    let again = tab.get(&replica, &format!("/{location}")).await;
    assert_eq!((again.status, &*again.text), (StatusCode::OK, "anonymous"));
    let required = world.replica_by(|it| it, |layer| layer.required());
    let again = tab.get(&required, &format!("/{location}")).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    assert_eq!(again.headers["session-ended"], "replaced");
    // Nor is one that another site has begun.
    let request = tab.request(Method::GET, "/");
    let mut cross = request.body(()).unwrap().into_parts().0;
    cross.headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
    let mut request = http::Request::builder().uri("/");
    *request.headers_mut().unwrap() = cross.headers;
    assert_eq!(tab.send(&replica, request).await.text, "anonymous");
    assert_eq!(world.server.alive(), 1, "the tokens of the one before are revoked");
}

/// A strict cookie does not come with the return from the provider, and a Lax one with no `form_post`: the
/// session that the browser has is not seen there, and ends when the landing page's own request shows it.
#[tokio::test(start_paused = true)]
async fn s8_a_session_that_the_callback_cannot_see_ends_at_the_landing() {
    let cookie = || SessionCookie::host("sid").unwrap();
    for (cookie, method) in [(cookie().strict(), Method::GET), (cookie(), Method::POST)] {
        let world = World::new();
        let replica = world.replica_by(|it| it.cookie(cookie), |it| it.csrf_exempt(|_| true));
        let browser = Browser::new();
        let sign_in = async |user: &str| {
            let request = Request::builder()
                .method(&method)
                .uri("/sign_in")
                .header("host", "app.test")
                .header("sec-fetch-site", "cross-site")
                .header("user", user);
            browser.send(&replica, request).await
        };
        let set = |answer: &Answer| {
            let set = answer.headers["set-cookie"].to_str().unwrap();
            set.split('=').next().unwrap().to_owned()
        };
        assert_eq!(set(&sign_in("alice").await), "__Host-Http-sid.new");
        let landed = browser.get(&replica, "/").await;
        assert_eq!((&*landed.text, &*set(&landed)), ("alice", "__Host-Http-sid"));
        assert_eq!(landed.headers["cache-control"], "private, no-store");
        assert!(!has_cookie(&browser.get(&replica, "/").await), "once");

        let old = browser.copy();
        sign_in("bob").await;
        assert_eq!(old.get(&replica, "/").await.text, "alice", "nobody has seen it yet");
        // Two tabs at once, and the response of one is lost.
        let late = browser.copy().get(&replica, "/").await;
        assert_eq!(browser.get(&replica, "/").await.text, "bob");
        settle().await;
        assert_eq!(old.get(&replica, "/ended?session_again").await.text, "replaced");
        assert_eq!(replica.sessions.status().ended(Ended::Replaced), 1);
        assert_eq!(browser.get(&replica, "/").await.text, "bob");
        // What comes late of it takes nothing away from a sign-in after that.
        sign_in("carol").await;
        browser.take(&late.headers);
        assert_eq!(browser.get(&replica, "/").await.text, "carol");
        browser.post(&replica, "/sign_out").await;
        assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    }
}

async fn s8_an_id_that_a_browser_brings_is_never_adopted(world: World) {
    let replica = world.replica();
    let browser = Browser::new();
    let made_up = format!("__Host-Http-sid={}", SessionId::random().unwrap().expose());
    *browser.cookie.lock().unwrap() = Some(made_up.clone());
    browser.sign_in(&replica, "alice").await;
    assert_ne!(browser.cookie(), Some(made_up.clone()));
    *browser.cookie.lock().unwrap() = Some(made_up);
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
}

async fn s8_a_sign_in_that_cannot_be_stored_leaves_the_session_before(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let cookie = browser.cookie();
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    let answer = browser.sign_in(&replica, "bob").await;
    assert_eq!((answer.status, has_cookie(&answer)), (StatusCode::BAD_GATEWAY, false));
    assert!(!answer.text.contains("secret"));
    assert_eq!(world.server.alive(), 1, "of the second one nothing lives on");
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    assert_eq!(browser.cookie(), cookie);
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
}

#[tokio::test(start_paused = true)]
async fn s9_a_cookie_that_names_nothing_leaves_nothing_and_costs_a_read() {
    let world = World::new();
    let replica = world.replica();
    Browser::new().get(&replica, "/").await;
    assert_eq!(world.place.looks(), 0, "without a cookie nothing");
    for number in 1..=10_000 {
        let browser = Browser::new();
        let id = SessionId::random().unwrap();
        *browser.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={}", id.expose()));
        let answer = browser.get(&replica, "/").await;
        assert_eq!((&*answer.text, has_cookie(&answer)), ("anonymous", false));
        assert_eq!(world.place.looks(), number);
    }
    assert_eq!(world.place.records(), 0);
    assert_eq!(replica.sessions.status().loaded, 0);
}

async fn s10_a_stale_twin_shadows_nothing(world: World) {
    let replica = world.replica();
    let stale = signed_in(&replica, "bob").await;
    let twin = stale.cookie().unwrap();
    stale.post(&replica, "/sign_out").await;
    let browser = signed_in(&replica, "alice").await;
    let cookie = browser.cookie().unwrap();
    let made_up = format!("__Host-Http-sid={}", SessionId::random().unwrap().expose());
    for line in [
        format!("{twin}; {cookie}"),
        format!("{cookie}; {twin}"),
        format!("{made_up}; {twin}; {cookie}"),
    ] {
        *browser.cookie.lock().unwrap() = Some(line);
        let answer = browser.get(&replica, "/").await;
        assert_eq!((&*answer.text, has_cookie(&answer)), ("alice", false));
    }
}

async fn s11_clearing_uses_the_attributes_of_setting(world: World) {
    for cookie in
        [SessionCookie::host("sid").unwrap(), SessionCookie::host("sid").unwrap().strict()]
    {
        let replica = world.replica_with(|it| it.cookie(cookie.clone()));
        let browser = Browser::new();
        let set = browser.sign_in(&replica, "alice").await;
        let cleared = browser.post(&replica, "/sign_out").await;
        let attributes = |answer: &Answer| {
            let field = answer.headers["set-cookie"].to_str().unwrap().to_owned();
            field.split_once(';').unwrap().1.to_owned()
        };
        assert_eq!(attributes(&cleared), format!("{}; Max-Age=0", attributes(&set)));
    }
}

async fn s12_neither_the_cookie_nor_a_browsers_token_goes_upstream(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let request = browser.request(Method::GET, "/api").header("authorization", "Bearer brought");
    let answer = browser.send(&replica, request).await;
    assert_eq!(answer.text, "data");
    for sent in world.upstream.lock().unwrap().iter() {
        assert_eq!(sent["cookie"], "a=1; b=2");
        assert!(sent["authorization"].to_str().unwrap().starts_with("Bearer access-f1-"));
    }
    let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(set, ["theirs=1"], "the upstream's cookie of our name does not come back");
    // Nor does its token go where there is no session.
    let request =
        Browser::new().request(Method::GET, "/api").header("authorization", "Bearer brought");
    let answer = Browser::new().send(&replica, request).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!world.upstream.lock().unwrap().last().unwrap().contains_key("authorization"));
}

async fn s13_what_depends_on_a_session_is_stored_nowhere(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let page = browser.get(&replica, "/").await;
    assert_eq!(page.headers["cache-control"], "private, no-store");
    assert_eq!(page.headers["vary"], "Cookie");
    let asset = browser.get(&replica, "/asset").await;
    assert_eq!(asset.headers["cache-control"], "private, max-age=60");
    let required = world.replica_by(|it| it, |layer| layer.required());
    let data = browser.get(&required, "/api").await;
    assert_eq!(data.headers["cache-control"], "private, no-store");
    let anonymous = Browser::new().get(&replica, "/").await;
    assert_eq!(anonymous.headers["vary"], "Cookie");
    assert!(!anonymous.headers.contains_key("cache-control"), "the application's own affair");
    let asset = Browser::new().get(&replica, "/asset").await;
    assert_eq!(asset.headers["cache-control"], "public, max-age=60");
    let out = browser.post(&replica, "/sign_out").await;
    assert_eq!(out.headers["cache-control"], "private, no-store");
    assert_eq!(out.headers["clear-site-data"], "\"cache\"");
}

async fn s14_another_sites_page_cannot_post(world: World) {
    let replica = world
        .replica_by(|it| it, |layer| layer.csrf_exempt(|parts| parts.uri.path() == "/sign_in"));
    let browser = signed_in(&replica, "alice").await;
    let foreign = |path: &str| {
        let request = http::Request::post(path).header("host", "app.test");
        let request = request.header("sec-fetch-site", "cross-site");
        request.header("cookie", browser.cookie().unwrap()).header("user", "mallory")
    };
    let answer = browser.send(&replica, foreign("/sign_out")).await;
    assert_eq!((answer.status, has_cookie(&answer)), (StatusCode::FORBIDDEN, false));
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
    // The provider's `form_post`.
    assert!(has_cookie(&browser.send(&replica, foreign("/sign_in")).await));
}

async fn s14_only_a_navigation_begins_a_sign_in(world: World) {
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/login").unwrap());
    let browser = Browser::new();
    let request = |headers: &[(&str, &str)]| {
        let mut request = http::Request::get("/a?b=c").header("host", "app.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    };
    let navigate = ("sec-fetch-mode", "navigate");
    let answer = browser.send(&replica, request(&[navigate])).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.headers["location"], "/login?return_to=/a%3Fb%3Dc");
    let fetch = browser.send(&replica, request(&[("sec-fetch-mode", "cors")])).await;
    assert_eq!(fetch.status, StatusCode::UNAUTHORIZED);
    // A browser asks again when the user clicks.
    let prefetch = browser.send(&replica, request(&[navigate, ("sec-purpose", "prefetch")])).await;
    assert_eq!(prefetch.status, StatusCode::SERVICE_UNAVAILABLE);
    let frame = browser.send(&replica, request(&[navigate, ("sec-fetch-dest", "iframe")])).await;
    assert_eq!(frame.status, StatusCode::UNAUTHORIZED);
}

async fn s15_the_deadline_never_moves(world: World) {
    let replica = world.replica_with(|it| it.max_age(Duration::from_secs(3600)).idle(None));
    let browser = signed_in(&replica, "alice").await;
    for _ in 0..59 {
        advance(Duration::from_secs(60)).await;
        world.server.expire_all();
        assert_eq!(browser.get(&replica, "/api").await.text, "data");
    }
    advance(Duration::from_secs(60)).await;
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    assert_eq!(browser.get(&replica, "/ended").await.text, "deadline");
    assert_eq!(world.server.alive(), 0, "its tokens are revoked");
}

/// Neither a refresh nor an open stream is a use; a request is, and the store hears of it seldom.
#[tokio::test(start_paused = true)]
async fn s15_a_session_that_nobody_uses_ends() {
    let world = World::new();
    let replica = world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let browser = signed_in(&replica, "alice").await;
    let touches = || world.place.control().touches.load(Ordering::Relaxed);
    let before = touches();
    for _ in 0..500 {
        advance(Duration::from_secs(20)).await;
        assert_eq!(browser.get(&replica, "/").await.text, "alice");
    }
    settle().await;
    assert!((90..=100).contains(&(touches() - before)), "{}", touches() - before);
    let stream = browser.begin(&replica, browser.request(Method::GET, "/events")).await;
    let mut frames = task::spawn(stream.into_body().collect());
    assert_pending!(frames.poll());
    for _ in 0..99 {
        advance(Duration::from_secs(10)).await;
        let _ = frames.poll();
    }
    advance(Duration::from_secs(10)).await;
    settle().await;
    assert_ready!(frames.poll()).unwrap();
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    assert_eq!(replica.sessions.status().ended(Ended::Idle), 1);
}

async fn s16_a_dead_refresh_token_ends_its_session_once(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    browser.get(&there, "/").await;
    world.server.revoke_all();
    let answers = join_all((0..20).map(|_| browser.get(&here, "/api"))).await;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers["session-ended"], "refused");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    settle().await;
    assert_eq!(world.server.redeems(), 1);
    for replica in [&here, &there, &world.replica()] {
        assert_eq!(browser.get(replica, "/").await.text, "anonymous", "no zombie");
        assert_eq!(browser.get(replica, "/ended").await.text, "refused");
        assert_eq!(browser.get(replica, "/api").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.server.redeems(), 1, "nobody asks again");
    assert_eq!(here.sessions.status().ended(Ended::Refused), 1);
}

async fn s17_a_logout_that_comes_before_its_session_ends_it(world: World) {
    let replica = world.replica();
    let key = IndexKey::Sid { issuer: ISSUER.to_owned(), sid: "s1".to_owned() };
    assert_eq!(replica.sessions.end_all(&key).await.unwrap(), 0);
    let browser = Browser::new();
    let sign_in = |sid: &str| {
        browser.request(Method::POST, "/sign_in").header("user", "alice").header("sid", sid)
    };
    let answer = browser.send(&world.replica(), sign_in("s1")).await;
    assert_eq!((answer.status, has_cookie(&answer)), (StatusCode::BAD_GATEWAY, false));
    assert_eq!(world.server.alive(), 0, "its tokens are revoked");
    // Another one of the provider's sessions is not meant.
    assert!(has_cookie(&browser.send(&replica, sign_in("s2")).await));
    assert_eq!(replica.sessions.end_all(&key).await.unwrap(), 0);
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
}

async fn s17_a_logout_ends_all_sessions_of_its_key_on_every_replica(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browsers = [signed_in(&here, "alice").await, signed_in(&there, "alice").await];
    let bob = signed_in(&here, "bob").await;
    assert_eq!(world.replica().sessions.end_all(&sub("alice")).await.unwrap(), 2);
    for browser in &browsers {
        for replica in [&here, &there] {
            assert_eq!(browser.get(replica, "/").await.text, "anonymous");
            assert_eq!(browser.get(replica, "/ended").await.text, "signed_out_elsewhere");
        }
    }
    assert_eq!(bob.get(&there, "/").await.text, "bob");
    assert_eq!(world.server.alive(), 1);
    // And the user may sign in again.
    let again = signed_in(&here, "alice").await;
    assert_eq!(again.get(&there, "/").await.text, "alice");
}

async fn s17_a_user_ends_the_other_sessions(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let (mine, other) = (signed_in(&here, "alice").await, signed_in(&there, "alice").await);
    assert_eq!(mine.post(&here, "/others").await.text, "1");
    assert_eq!(mine.get(&there, "/").await.text, "alice");
    assert_eq!(other.get(&there, "/").await.text, "anonymous");
}

/// What is idle goes from memory, and what is not, stays.
async fn s18_a_session_stays_loaded_while_something_would_be_lost(world: World) {
    let replica = world.replica();
    let idle = signed_in(&replica, "idle").await;
    let busy = signed_in(&replica, "busy").await;
    let copy = busy.copy();
    let refreshing = world.server.hold_refresh(&copy, &replica).await;
    drop(refreshing);
    for round in 0..200 {
        advance(Duration::from_secs(10)).await;
        signed_in(&replica, &format!("user{round}")).await;
    }
    let loaded = replica.sessions.status().loaded;
    assert!((2..150).contains(&loaded), "{loaded}");
    assert_eq!(replica.sessions.status().refreshing, 1);
    world.server.1.open();
    settle().await;
    assert_eq!(idle.get(&replica, "/").await.text, "anonymous", "idle");
    assert_eq!(replica.sessions.status().refreshing, 0);
    assert_eq!(world.server.reuses(), 0);
}

async fn s19_sessions_share_no_fate(world: World) {
    let replica = world.replica();
    let (slow, quick) = (signed_in(&replica, "slow").await, signed_in(&replica, "quick").await);
    let waiting = world.server.hold_refresh(&slow, &replica).await;
    assert_eq!(quick.get(&replica, "/").await.text, "quick");
    let mut also = task::spawn(quick.get(&replica, "/api"));
    assert_pending!(also.poll());
    world.server.1.open();
    assert_eq!(also.await.text, "data");
    assert_eq!(waiting.await.text, "data");
}

#[tokio::test(start_paused = true)]
async fn s20_what_is_secret_is_shown_nowhere() {
    let (logs, _guard) = testing::Logs::capture();
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice-the-claim").await;
    world.server.expire_all();
    browser.get(&replica, "/api").await;
    let cookie = browser.cookie().unwrap();
    let shown = format!("{:?} {:?}", replica.sessions, replica.sessions.layer());
    browser.post(&replica, "/sign_out").await;
    let value = cookie.split_once('=').unwrap().1;
    let logged = logs.text();
    assert!(logged.contains("signed in") && logged.contains("session ended"), "{logged}");
    for text in [&shown, &logged] {
        for secret in [value, "alice-the-claim", "access-f1", "refresh-f1"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

in_both_modes! {
    s4_an_outage_of_the_store_is_no_sign_out,
    s4_an_outage_of_the_authorization_server_is_no_sign_out,
    s5_ended_is_ended_at_the_next_request_on_every_replica,
    s5_a_look_is_believed_for_as_long_as_it_is_said,
    s5_a_stream_ends_with_its_session_on_another_replica,
    s7_only_what_was_rejected_is_ended,
    s8_a_sign_in_makes_a_new_id_and_ends_the_one_before,
    s8_an_id_that_a_browser_brings_is_never_adopted,
    s8_a_sign_in_that_cannot_be_stored_leaves_the_session_before,
    s10_a_stale_twin_shadows_nothing,
    s11_clearing_uses_the_attributes_of_setting,
    s12_neither_the_cookie_nor_a_browsers_token_goes_upstream,
    s13_what_depends_on_a_session_is_stored_nowhere,
    s14_another_sites_page_cannot_post,
    s14_only_a_navigation_begins_a_sign_in,
    s15_the_deadline_never_moves,
    s16_a_dead_refresh_token_ends_its_session_once,
    s17_a_logout_that_comes_before_its_session_ends_it,
    s17_a_logout_ends_all_sessions_of_its_key_on_every_replica,
    s17_a_user_ends_the_other_sessions,
    s18_a_session_stays_loaded_while_something_would_be_lost,
    s19_sessions_share_no_fate,
}
