//! Why sessions end, and who is told; logouts by the provider; layers in each other.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use tokio::time::advance;
use tokio_test::{assert_pending, task};
use tower::ServiceExt;
use tower_refresh::{
    BoxError,
    session::{BackChannelLogout, Ended, Sessions},
};

use testing::sessions::{Browser, ISSUER, World, full, settle, signed_in};

/// The "signature": a word before the claims.
fn logout_of(sessions: &Sessions) -> BackChannelLogout {
    sessions.back_channel_logout(ISSUER, "app", async |token: String| {
        let claims = token.strip_prefix("signed.").ok_or("not signed")?;
        Ok::<_, BoxError>(claims.as_bytes().to_vec())
    })
}

fn claims(jti: &str, whose: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let event = "http://schemas.openid.net/event/backchannel-logout";
    format!(
        r#"signed.{{"iss":"{ISSUER}","aud":"app","iat":{now},"jti":"{jti}","events":{{"{event}":{{}}}},{whose}}}"#
    )
}

async fn post(logout: &BackChannelLogout, token: &str) -> (StatusCode, String) {
    let escaped: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let request = Request::post("/").body(full(format!("logout_token={escaped}"))).unwrap();
    let response = logout.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status(), response.into_body())
}

async fn a_provider_ends_one_of_its_sessions_or_all_of_a_user(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let logout = logout_of(&there.sessions);
    let browsers = [Browser::new(), Browser::new()];
    for (browser, sid) in browsers.iter().zip(["s1", "s2"]) {
        let request = browser.request(Method::POST, "/sign_in").header("user", "alice");
        browser.send(&here, request.header("sid", sid)).await;
    }
    assert_eq!(post(&logout, &claims("j1", r#""sid":"s1""#)).await.0, StatusCode::OK);
    assert_eq!(browsers[0].get(&here, "/").await.text, "anonymous");
    assert_eq!(browsers[0].get(&here, "/ended").await.text, "signed_out_elsewhere");
    assert_eq!(browsers[1].get(&here, "/").await.text, "alice");
    assert_eq!(post(&logout, &claims("j2", r#""sub":"alice""#)).await.0, StatusCode::OK);
    assert_eq!(browsers[1].get(&here, "/").await.text, "anonymous");
    assert_eq!(world.server.alive(), 0);
    // A user may sign in again, and the same token does not end that.
    let again = signed_in(&here, "alice").await;
    assert_eq!(post(&logout, &claims("j2", r#""sub":"alice""#)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(again.get(&there, "/").await.text, "alice");
}

async fn a_logout_that_nobody_has_signed_ends_nothing(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let logout = logout_of(&replica.sessions);
    let good = claims("j1", r#""sub":"alice""#);
    for (status, token) in [
        (StatusCode::BAD_REQUEST, good.replace("signed.", "forged.")),
        (StatusCode::BAD_REQUEST, good.replace(ISSUER, "https://other")),
        (StatusCode::BAD_REQUEST, String::new()),
        (StatusCode::BAD_REQUEST, "signed.{}".to_owned()),
    ] {
        let (answered, text) = post(&logout, &token).await;
        assert_eq!(answered, status, "{token}");
        assert!(text.contains("invalid_request") && !text.contains("alice"), "{text}");
    }
    let long = post(&logout, &"a".repeat(100_000)).await;
    assert_eq!(long.0, StatusCode::BAD_REQUEST);
    let get = Request::get("/").body(full("")).unwrap();
    assert_eq!(logout.clone().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
}

/// The provider sends it again, and then it counts.
async fn a_logout_that_the_store_could_not_carry_out_may_come_again(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let logout = logout_of(&replica.sessions);
    let token = claims("j1", r#""sub":"alice""#);
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    assert_eq!(post(&logout, &token).await.0, StatusCode::BAD_REQUEST);
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    assert_eq!(post(&logout, &token).await.0, StatusCode::OK);
    assert_eq!(browser.get(&world.replica(), "/").await.text, "anonymous");
}

async fn a_sign_out_that_the_store_could_not_carry_out_keeps_the_cookie(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    let answer = browser.post(&replica, "/sign_out").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(browser.cookie().is_some());
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    // Elsewhere it goes on until it has worked, and here the next request sees to that.
    let there = world.replica();
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    assert_eq!(browser.get(&replica, "/ended").await.text, "signed_out");
    assert_eq!(browser.get(&there, "/").await.text, "anonymous");
    assert_eq!(world.server.alive(), 0);
}

async fn a_sign_out_that_failed_is_tried_again_elsewhere(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    assert_eq!(browser.post(&replica, "/sign_out").await.status, StatusCode::BAD_GATEWAY);
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    let there = world.replica();
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    browser.post(&there, "/sign_out").await;
    assert_eq!(browser.cookie(), None);
    assert_eq!(world.server.alive(), 0);
}

/// The end and its reason are one write: a stream on another replica finds no other reason.
async fn a_sign_out_that_is_slow_has_its_reason_from_the_first(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    let copy = browser.copy();
    world.place.control().saves.close();
    let mut signing_out = task::spawn(browser.post(&here, "/sign_out"));
    assert_pending!(signing_out.poll());
    settle().await;
    assert_eq!(copy.get(&there, "/").await.text, "alice", "not yet");
    world.place.control().saves.open();
    signing_out.await;
    assert_eq!(copy.get(&there, "/ended").await.text, "signed_out");
    assert_eq!(there.sessions.status().ended(Ended::SignedOut), 1);
}

async fn every_ending_is_counted_once_with_its_reason(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let copies: Vec<_> = (0..5).map(|_| browser.copy()).collect();
    browser.post(&replica, "/sign_out").await;
    join_all(copies.iter().map(|copy| copy.get(&replica, "/"))).await;
    let status = replica.sessions.status();
    assert_eq!((status.begun, status.ended(Ended::SignedOut)), (1, 1));
    assert_eq!(status.all_ended().map(|(_, count)| count).sum::<u64>(), 1);
}

/// After ten minutes nothing is left: not in the store, and not of the reason.
#[tokio::test(start_paused = true)]
async fn an_end_is_forgotten_in_time() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let copy = browser.copy();
    browser.post(&replica, "/sign_out").await;
    settle().await;
    advance(Duration::from_secs(599)).await;
    assert_eq!(copy.get(&replica, "/ended").await.text, "signed_out");
    advance(Duration::from_secs(2)).await;
    assert_eq!(copy.get(&replica, "/ended").await.text, "-");
}

/// A route that requires a session in an application where others do not: one look for both.
#[tokio::test(start_paused = true)]
async fn a_layer_in_another_one_goes_by_what_that_has_found() {
    use tower::{Layer, service_fn};
    use tower_refresh::session::SessionSlot;

    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let handler = service_fn(async |request: Request<testing::sessions::Body>| {
        let session = request.extensions().get::<SessionSlot>().unwrap().session().unwrap();
        if request.method() == Method::POST {
            session.sign_out().await.unwrap();
        }
        Ok::<_, std::convert::Infallible>(http::Response::new(full("")))
    });
    let inner = replica.sessions.layer().required().layer(handler);
    let app = replica.sessions.layer().layer(inner);
    let looks = world.place.looks();
    let request = |method| browser.request(method, "/").body(full("")).unwrap();
    let response = app.clone().oneshot(request(Method::GET)).await.unwrap();
    assert_eq!((response.status(), world.place.looks()), (StatusCode::OK, looks + 1));
    let response = app.clone().oneshot(request(Method::POST)).await.unwrap();
    let set: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set.len(), 1, "{set:?}");
    browser.take(response.headers());
    assert_eq!(browser.cookie(), None);
    let response = app.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

/// Of two applications in one process neither goes by what the other has found.
#[tokio::test(start_paused = true)]
async fn the_sessions_of_another_application_are_another_matter() {
    use tower::Layer;

    let (mine, other) = (World::new(), World::new());
    let (mine, other) = (mine.replica(), other.replica());
    let browser = signed_in(&mine, "alice").await;
    let handler = tower::service_fn(async |_: Request<testing::sessions::Body>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(full("")))
    });
    let inner = other.sessions.layer().required().layer(handler);
    let app = mine.sessions.layer().layer(inner);
    let request = browser.request(Method::GET, "/").body(full("")).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

async fn a_drain_waits_until_what_was_redeemed_is_saved(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let copy = browser.copy();
    let refreshing = world.server.hold_refresh(&copy, &replica).await;
    drop(refreshing);
    let mut draining = task::spawn(replica.sessions.drain());
    assert_pending!(draining.poll());
    world.server.1.open();
    assert!(draining.await.is_clean());
    assert_eq!(browser.get(&world.replica(), "/api").await.text, "data");
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

in_both_modes! {
    a_provider_ends_one_of_its_sessions_or_all_of_a_user,
    a_logout_that_nobody_has_signed_ends_nothing,
    a_logout_that_the_store_could_not_carry_out_may_come_again,
    a_sign_out_that_the_store_could_not_carry_out_keeps_the_cookie,
    a_sign_out_that_failed_is_tried_again_elsewhere,
    a_sign_out_that_is_slow_has_its_reason_from_the_first,
    every_ending_is_counted_once_with_its_reason,
    a_drain_waits_until_what_was_redeemed_is_saved,
}
