//! Sessions that end although they should live, and the other way round.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{advance, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    BoxError,
    session::{Identity, SessionSlot, Sessions},
};

use super::{MINUTE, Trouble, Troubled, app, ask, name_of, sub};
use testing::sessions::{Browser, ISSUER, Place, World, full, settle, signed_in};

// ---- a session that ends although it should live --------------------------------------------

/// A session that is used every 90 seconds goes out of memory in between, and each load begins
/// the tenth of `idle` anew without telling the store: it idles out in the middle of its use.
async fn idle_1_a_session_in_use_that_is_unloaded_in_between_does_not_idle_out(world: World) {
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
async fn idle_2_a_session_in_use_over_many_replicas_does_not_idle_out(world: World) {
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
async fn set_new_tokens_of_a_session_keep_whose_it_is(world: World) {
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

// ---- a session that comes back, or cannot be ended ------------------------------------------

/// A sign-out that the store could not carry out: "in this process the session has ended". The
/// first request after it takes the entry out of the registry, the second one loads the session again.
async fn out_1_a_sign_out_that_the_store_missed_does_not_come_back(world: World) {
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
async fn out_2_a_session_that_lives_is_in_the_list_of_its_user(world: World) {
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
async fn end_all_2_a_slow_revocation_keeps_no_other_session_alive(world: World) {
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
async fn sign_in_a_slow_revocation_of_the_session_before_does_not_hold_it_up(world: World) {
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
async fn deadline_a_stream_ends_at_the_deadline_when_the_store_is_away(world: World) {
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
async fn logout_a_token_counts_once_as_long_as_it_counts(world: World) {
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

// ---- what is lost on the way out ------------------------------------------------------------

/// A session that was signed out goes from the registry at once, with its flight under way: a
/// drain does not wait for the pair that is being minted, which nobody revokes when the process exits.
async fn drain_1_waits_for_the_flight_of_a_session_that_has_ended(world: World) {
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
async fn drain_2_tells_of_what_a_sign_out_could_not_revoke(world: World) {
    let renewal = world.renewal().on_sign_out(async |_| Err::<(), BoxError>("away".into()));
    let sessions = Sessions::builder(renewal, world.place.clone()).build().unwrap();
    signed_in(&world.replica(), "alice").await;
    assert_eq!(sessions.end_all(&sub("alice")).await.unwrap(), 1);
    let drained = sessions.drain().await;
    assert_eq!(drained.unrevoked.len(), 1, "the tokens live on at the server");
}

in_both_modes! {
    idle_1_a_session_in_use_that_is_unloaded_in_between_does_not_idle_out,
    idle_2_a_session_in_use_over_many_replicas_does_not_idle_out,
    set_new_tokens_of_a_session_keep_whose_it_is,
    out_1_a_sign_out_that_the_store_missed_does_not_come_back,
    out_2_a_session_that_lives_is_in_the_list_of_its_user,
    end_all_2_a_slow_revocation_keeps_no_other_session_alive,
    sign_in_a_slow_revocation_of_the_session_before_does_not_hold_it_up,
    deadline_a_stream_ends_at_the_deadline_when_the_store_is_away,
    logout_a_token_counts_once_as_long_as_it_counts,
    drain_1_waits_for_the_flight_of_a_session_that_has_ended,
    drain_2_tells_of_what_a_sign_out_could_not_revoke,
}
