//! Sessions whose tokens are in the browser's cookies: what only they have to promise. What both modes
//! promise is in the other modules, and the order in which a browser takes cookies in `jars`.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use http::StatusCode;
use testing::sessions::{Answer, Browser, ISSUER, Place, Replica, World, settle, signed_in};
use tokio::time::advance;
use tower_refresh::{
    Generation,
    seal::Keyring,
    session::{Ended, IndexKey},
    store::Stores,
};

pub(crate) const TRANSIT: Duration = Duration::from_secs(600);

/// What a response does to our cookies: their names, and whether they are set.
fn written(answer: &Answer) -> Vec<(String, bool)> {
    let all = answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().unwrap());
    let ours = all.filter_map(|it| it.strip_prefix("__Host-Http-sid."));
    ours.map(|it| (it[..2].to_owned(), !it.contains("Max-Age=0"))).collect()
}

fn set(answer: &Answer) -> Vec<String> {
    let written = written(answer).into_iter();
    written.filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// The generations that the browser has.
fn generations(browser: &Browser) -> Vec<u64> {
    let cookies = browser.cookie().unwrap_or_default();
    let mut all: Vec<_> =
        cookies.split("; ").filter_map(|it| it.split('.').nth(2)?.parse().ok()).collect();
    all.sort_unstable();
    all
}

/// So often no response can be on its way any more, and the browser is used.
pub(crate) async fn come_to_rest(browser: &Browser, replica: &Replica, times: usize) {
    for _ in 0..times {
        advance(TRANSIT).await;
        browser.get(replica, "/").await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_number_of_tabs_refresh_once() {
    let world = World::sealed();
    let replicas = [world.replica(), world.replica(), world.replica()];
    let browser = signed_in(&replicas[0], "alice").await;
    for round in 1..=3 {
        world.server.expire_all();
        let requests = (0..99).map(|number| browser.get(&replicas[number % 3], "/api"));
        for answer in join_all(requests).await {
            assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "data"));
        }
        assert_eq!((world.server.redeems(), world.server.reuses()), (round, 0));
        assert_eq!(generations(&browser).len(), 2, "the one before has the other name");
    }
}

/// A response of the session before that is late overwrites one of the names, and the newer session wins.
#[tokio::test(start_paused = true)]
async fn a_late_response_of_the_session_before_does_not_sign_out() {
    let world = World::sealed();
    let replica = world.replica();
    for _ in 0..4 {
        let browser = signed_in(&replica, "alice").await;
        world.server.expire_all();
        let late = browser.copy();
        let late = late.begin(&replica, late.request(http::Method::GET, "/api")).await;
        browser.post(&replica, "/sign_out").await;
        browser.sign_in(&replica, "bob").await;
        browser.take(late.headers());
        assert_eq!(browser.get(&replica, "/").await.text, "bob");
        advance(Duration::from_millis(1)).await;
    }
}

/// And nobody else stores such a response.
#[tokio::test(start_paused = true)]
async fn a_cookie_is_written_when_the_browsers_is_older() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = Browser::new();
    let answer = browser.sign_in(&replica, "alice").await;
    assert_eq!((set(&answer).len(), written(&answer).len()), (2, 4), "in both names");
    assert!(written(&browser.get(&replica, "/asset").await).is_empty());
    world.server.expire_all();
    let straggler = browser.copy();
    let answer = browser.get(&replica, "/api").await;
    assert_eq!((set(&answer).len(), written(&answer).len()), (1, 2), "the other name stays");
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    assert!(written(&browser.get(&replica, "/api").await).is_empty());
    // Even a picture.
    let answer = straggler.get(&replica, "/asset").await;
    assert_eq!((set(&answer).len(), &*answer.text), (1, "asset"));
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    assert_eq!(generations(&straggler), generations(&browser));
    assert_eq!(world.server.redeems(), 1);
}

/// Invariant of the mode: once the head is sent, new tokens have no way to the browser.
#[tokio::test(start_paused = true)]
async fn no_refresh_token_is_spent_without_a_response_to_take_the_new_one_along() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let answer = browser.get(&replica, "/refresh").await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "no_response_head"));
    assert_eq!(world.server.redeems(), 0);
    // While another response is owed, one of them takes it along.
    world.server.expire_all();
    world.server.1.close();
    let tab = browser.clone();
    let mut refreshing = tokio_test::task::spawn(tab.get(&replica, "/api"));
    tokio_test::assert_pending!(refreshing.poll());
    world.server.1.arrived(1).await;
    let streaming = browser.get(&replica, "/refresh");
    world.server.1.open();
    assert_eq!(streaming.await.text, "refreshed");
    assert_eq!(refreshing.await.text, "data");
    // And nothing was held up by the refusal.
    world.server.expire_all();
    assert_eq!(browser.get(&replica, "/api").await.text, "data");
    assert_eq!((world.server.redeems(), world.server.reuses()), (2, 0));
}

/// What is newer is taken over all the same.
#[tokio::test(start_paused = true)]
async fn a_stream_gets_what_another_replica_has_refreshed() {
    let world = World::sealed();
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    let stream = browser.begin(&here, browser.request(http::Method::GET, "/refresh")).await;
    world.server.expire_all();
    assert_eq!(browser.get(&there, "/api").await.text, "data");
    let body = http_body_util::BodyExt::collect(stream.into_body()).await.unwrap().to_bytes();
    assert_eq!(&*body, b"refreshed");
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

/// The tokens in the memory give way to their number once the browser has them for good.
#[tokio::test(start_paused = true)]
async fn what_the_browser_has_for_good_is_forgotten() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let names = world.place.control().names.lock().unwrap().clone();
    let remembered = async || {
        let mut all = String::new();
        for name in &names {
            let record = world.place.store(name).load().await.unwrap();
            all += record
                .tokens
                .map_or("", |it| if it.refresh_token().is_some() { "pair" } else { "" });
        }
        all
    };
    assert_eq!(remembered().await, "pair");
    browser.get(&replica, "/").await;
    assert_eq!(remembered().await, "pair", "an older one may be on its way");
    advance(TRANSIT).await;
    let last = browser.get(&replica, "/").await;
    assert_eq!((set(&last).len(), written(&last).len()), (1, 2), "the last write");
    assert_eq!(remembered().await, "pair", "it may be lost");
    let answer = browser.get(&replica, "/").await;
    assert_eq!((set(&answer).len(), written(&answer).len()), (0, 2), "the other name is cleared");
    settle().await;
    assert_eq!((remembered().await, generations(&browser).len()), (String::new(), 1));
    assert!(written(&browser.get(&replica, "/").await).is_empty(), "it is at rest");
    // Over other processes.
    world.server.expire_all();
    assert_eq!(browser.get(&world.replica(), "/api").await.text, "data");
    assert_eq!(remembered().await, "pair");
    assert_eq!(world.server.reuses(), 0);
}

/// An old jar comes back after everything was forgotten but the number: once more, then nobody; and it
/// ends nothing.
#[tokio::test(start_paused = true)]
async fn an_older_cookie_is_neither_redeemed_nor_a_sign_out() {
    let world = World::sealed();
    let browser = signed_in(&world.replica(), "alice").await;
    let old = browser.copy();
    world.server.expire_all();
    let replica = world.replica();
    assert_eq!(browser.get(&replica, "/api").await.text, "data");
    come_to_rest(&browser, &replica, 3).await;
    let fresh = world.replica_by(|it| it, |layer| layer.required());
    let answer = old.get(&fresh, "/?a=b").await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers["location"], "?a=b&session_again");
    let answer = old.get(&fresh, "/?a=b&session_again").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(written(&answer).is_empty() && !answer.headers.contains_key("session-ended"));
    assert_eq!(browser.get(&fresh, "/").await.text, "alice");
    assert_eq!(world.server.reuses(), 0);
}

/// Its process knows the newest tokens by their number alone: what it has are spent ones, and a last write
/// of them would clear the newest.
#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_longer_than_any_response_takes_nothing_away() {
    let world = World::sealed();
    let (here, there) = (world.replica(), world.replica());
    for (round, (refreshes, is_away)) in [(1, false), (2, false), (1, true)].into_iter().enumerate()
    {
        let browser = signed_in(&here, "alice").await;
        world.held.close();
        let mut held = tokio_test::task::spawn(browser.get(&here, "/held"));
        tokio_test::assert_pending!(held.poll());
        assert_eq!(world.held.count(), round + 1);
        for _ in 0..refreshes {
            world.server.expire_all();
            assert_eq!(browser.get(&there, "/api").await.text, "data");
        }
        for _ in 0..2 {
            advance(TRANSIT).await;
            assert_eq!(browser.get(&there, "/").await.text, "alice");
            settle().await;
        }
        let newest = browser.cookie();
        world.place.go_away(is_away);
        world.held.open();
        let answer = held.await;
        world.place.go_away(false);
        assert_eq!((&*answer.text, written(&answer).len()), ("held", 0));
        assert_eq!(browser.cookie(), newest);
        assert_eq!(browser.get(&here, "/").await.text, "alice");
    }
    assert_eq!(world.server.reuses(), 0);
}

/// A restart of a program that remembers in its own memory.
#[tokio::test(start_paused = true)]
async fn sessions_outlive_their_memory() {
    let world = World::sealed();
    world.server.tell_life(Duration::from_secs(300));
    let browser = signed_in(&world.replica(), "alice").await;
    let restarted = World { place: Place::default(), ..world.clone() };
    let replica = restarted.replica();
    let answer = browser.get(&replica, "/").await;
    assert_eq!(answer.text, "alice");
    // What the memory has lost is noted anew: its number, and whose it is.
    settle().await;
    assert!(restarted.place.records() >= 2, "{}", restarted.place.records());
    assert_eq!(set(&answer).len(), 1);
    let key = IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "alice".to_owned() };
    assert_eq!(replica.sessions.end_all(&key).await.unwrap(), 1);
    assert_eq!(browser.get(&replica, "/ended").await.text, "signed_out_elsewhere");

    // With a token that has run out it is asked for again: nobody knows whether it was spent.
    let browser = signed_in(&world.replica(), "bob").await;
    advance(Duration::from_secs(301)).await;
    world.server.expire_all();
    let replica = World { place: Place::default(), ..world.clone() }.replica();
    assert_eq!(browser.get(&replica, "/api").await.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(browser.get(&replica, "/api?session_again").await.text, "data");
    world.server.expire_all();
    assert_eq!(browser.get(&replica, "/api").await.text, "data");
    assert_eq!((world.server.redeems(), world.server.reuses()), (2, 0));
}

/// What only the memory knows is enforced for as long as a cookie can open.
#[tokio::test(start_paused = true)]
async fn a_copy_of_a_signed_out_cookie_does_not_open_while_the_memory_lives() {
    let world = World::sealed();
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    let copy = browser.copy();
    let answer = browser.post(&here, "/sign_out").await;
    assert_eq!((set(&answer).len(), written(&answer).len()), (0, 4));
    assert_eq!(browser.cookie(), None);
    assert_eq!(world.server.alive(), 0, "its tokens are revoked");
    for _ in 0..12 {
        for replica in [&here, &there, &world.replica()] {
            assert_eq!(copy.get(replica, "/ended").await.text, "signed_out");
        }
        advance(Duration::from_secs(3500)).await;
    }
    // Past its deadline it says so itself.
    advance(Duration::from_secs(3600)).await;
    assert_eq!(copy.get(&there, "/").await.text, "anonymous");
}

/// The provider ends a session that this process has never seen, and whose tokens only the browser has.
#[tokio::test(start_paused = true)]
async fn a_session_ends_from_outside_wherever_its_tokens_are() {
    let world = World::sealed();
    let here = world.replica();
    for is_forgotten in [false, true] {
        let browser = signed_in(&here, "alice").await;
        if is_forgotten {
            come_to_rest(&browser, &here, 2).await;
        }
        let elsewhere = world.replica();
        let key = IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "alice".to_owned() };
        assert_eq!(elsewhere.sessions.end_all(&key).await.unwrap(), 1);
        assert_eq!(elsewhere.sessions.end_all(&key).await.unwrap(), 0);
        assert_eq!(elsewhere.sessions.status().ended(Ended::SignedOutElsewhere), 1);
        for replica in [&here, &elsewhere, &world.replica()] {
            assert_eq!(browser.get(replica, "/ended").await.text, "signed_out_elsewhere");
        }
        // A sign-in after that is another matter.
        advance(Duration::from_secs(1)).await;
    }
}

/// Used at the longest ago that a cookie tells, also where nothing is remembered.
#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_ends_by_its_cookie_alone() {
    let world = World::sealed();
    let replica = world.replica_with(|it| it.idle(Duration::from_secs(1000)));
    let browser = signed_in(&replica, "alice").await;
    let (mut writes, mut left) = (0, browser.copy());
    for _ in 0..50 {
        advance(Duration::from_secs(60)).await;
        writes += set(&browser.get(&replica, "/").await).len();
        left = browser.copy();
    }
    assert!((20..=30).contains(&writes), "about every tenth of the time: {writes}");
    advance(Duration::from_secs(1001)).await;
    for place in [world.place.clone(), Place::default()] {
        let replica =
            World { place, ..world.clone() }.replica_with(|it| it.idle(Duration::from_secs(1000)));
        assert_eq!(left.get(&replica, "/").await.text, "anonymous");
        assert_eq!(left.get(&replica, "/ended").await.text, "idle");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_changed_without_losing_a_session() {
    let (old, new) = ([1; 32], [2; 32]);
    let world = World::sealed();
    let with = |keys: Keyring| {
        let builder = world.sealing(keys).remember(world.place.clone());
        world.replica_of(builder, |layer| layer)
    };
    let browser = signed_in(&with(Keyring::new(old)), "alice").await;
    let both = with(Keyring::new(new).also_opens(old));
    assert_eq!(browser.get(&both, "/").await.text, "alice");
    let stale = browser.copy();
    world.server.expire_all();
    assert_eq!(browser.get(&both, "/api").await.text, "data");
    let only_new = with(Keyring::new(new));
    assert_eq!(browser.get(&only_new, "/").await.text, "alice");
    // Sealed by a key that is gone: nobody's, and neither cleared nor ended.
    let answer = stale.get(&only_new, "/").await;
    assert_eq!((&*answer.text, written(&answer).len()), ("anonymous", 0));
    assert_eq!(stale.get(&both, "/").await.text, "alice");
}

/// Each piece is bound to its name and generation, and a browser's mixture opens nothing.
#[tokio::test(start_paused = true)]
async fn no_piece_counts_under_another_name() {
    let world = World::sealed();
    world.server.send_besides("note", 3000);
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    // A new session has both names. One is enough.
    let jar = browser.cookie().unwrap();
    assert_eq!(jar.split("; ").count(), 4);
    let pieces: Vec<_> = jar.split("; ").filter(|it| it.starts_with("__Host-Http-sid.0")).collect();
    let jar = pieces.join("; ");
    let who = async |jar: String| {
        let other = Browser::new();
        *other.cookie.lock().unwrap() = Some(jar);
        other.get(&replica, "/").await.text
    };
    let swapped = |from: &str, to: &str| jar.replace(from, to);
    let slot = &pieces[0]["__Host-Http-sid.".len()..][..1];
    let other_slot = if slot == "0" { "1" } else { "0" };
    assert_eq!(who(jar.clone()).await, "alice");
    assert_eq!(who(format!("{}; {}", pieces[1], pieces[0])).await, "alice", "in any order");
    assert_eq!(who(pieces[0].to_owned()).await, "anonymous");
    assert_eq!(who(pieces[1].to_owned()).await, "anonymous");
    assert_eq!(
        who(swapped(&format!("sid.{slot}"), &format!("sid.{other_slot}"))).await,
        "anonymous"
    );
    let number = generations(&browser)[0];
    assert_eq!(who(swapped(&number.to_string(), &(number + 1).to_string())).await, "anonymous");
    assert_eq!(who(swapped("=2.", "=1.")).await, "anonymous");

    // Of another generation.
    world.server.expire_all();
    world.server.1.open();
    browser.get(&replica, "/api").await;
    let newer = format!("=2.{}.", number + 1);
    let cookies = browser.cookie().unwrap();
    let second =
        |it: &&str| it.contains(&newer) && it["__Host-Http-sid.x".len()..].starts_with('1');
    let second = cookies.split("; ").find(second).unwrap();
    assert_eq!(who(format!("{}; {second}", pieces[0])).await, "anonymous");
    let under_its_name = second.replacen(&second["__Host-Http-sid.".len()..][..1], slot, 1);
    assert_eq!(who(format!("{}; {under_its_name}", pieces[0])).await, "anonymous");

    // A smaller pair leaves no piece behind.
    world.server.send_besides("note", 1);
    for _ in 0..2 {
        advance(Duration::from_secs(20)).await;
        world.server.expire_all();
        assert_eq!(browser.get(&replica, "/api").await.text, "data");
    }
    assert_eq!(browser.cookie().unwrap().split("; ").count(), 2, "{:?}", browser.cookie());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_said_at_the_sign_in_with_its_sizes() {
    let world = World::sealed();
    world.server.send_besides("note", 6000);
    let replica = world.replica();
    let browser = Browser::new();
    let answer = browser.sign_in(&replica, "alice").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text.contains("and may take 5120: its access token has 11"), "{}", answer.text);
    assert!(written(&answer).is_empty());
    assert_eq!(browser.cookie(), None);
    settle().await;
    assert_eq!(world.server.alive(), 0, "nothing is left half");
    // A session before it goes on.
    world.server.send_besides("note", 1);
    let browser = signed_in(&replica, "bob").await;
    world.server.send_besides("note", 6000);
    browser.sign_in(&replica, "bob").await;
    assert_eq!(browser.get(&replica, "/").await.text, "bob");
}

/// They stay in the memory, and every request is served from there.
#[tokio::test(start_paused = true)]
async fn new_tokens_that_do_not_fit_are_kept_by_the_server() {
    let world = World::sealed();
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    world.server.expire_all();
    world.server.send_besides("note", 6000);
    for replica in [&here, &there, &world.replica()] {
        let answer = browser.get(replica, "/api").await;
        assert_eq!((&*answer.text, written(&answer).len()), ("data", 0));
    }
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
    advance(TRANSIT * 3).await;
    world.server.send_besides("note", 1);
    world.server.expire_all();
    let answer = browser.get(&there, "/api").await;
    assert_eq!((&*answer.text, set(&answer).len()), ("data", 1));
    assert_eq!((world.server.redeems(), world.server.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_id_token_is_left_out_unless_it_is_asked_for() {
    let world = World::sealed();
    world.server.send_besides("id_token", 2000);
    let size = |browser: &Browser| {
        let cookies = browser.cookie().unwrap();
        cookies.len() / cookies.split("; ").count()
    };
    let keys = || Keyring::new([7; 32]);
    let without = world.replica();
    let with = world.sealing(keys()).keep_id_token().remember(world.place.clone());
    let with = world.replica_of(with, |layer| layer);
    for (replica, range) in [(&without, 200..500), (&with, 2500..3500)] {
        let browser = signed_in(replica, "alice").await;
        assert!(range.contains(&size(&browser)), "{}", size(&browser));
        world.server.expire_all();
        browser.get(replica, "/api").await;
        assert!(range.contains(&size(&browser)), "{}", size(&browser));
    }
}

/// The names are hashes, the texts sealed: neither says who it is or what the tokens are.
#[tokio::test(start_paused = true)]
async fn neither_the_cookie_nor_the_memory_tells_of_the_other() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let cookie = browser.cookie().unwrap();
    for secret in ["access", "refresh-", "alice", "id.test"] {
        assert!(!cookie.contains(secret));
    }
    let names = world.place.control().names.lock().unwrap().clone();
    assert!(names.iter().all(|name| !cookie.contains(name.as_str())), "{names:?}");
    // A second one of the same tokens is another text.
    let other = signed_in(&world.replica(), "alice").await.cookie().unwrap();
    let text = |cookie: &str| cookie.split('.').nth(3).unwrap().to_owned();
    assert_ne!(text(&cookie), text(&other));
}

/// A made-up cookie costs no look, and leaves nothing.
#[tokio::test(start_paused = true)]
async fn what_no_key_opens_costs_nothing() {
    let world = World::sealed();
    let replica = world.replica();
    let text = "A".repeat(600);
    for value in
        ["", "1", "1.", "1.1.", "2.1.x", "9.1.x", "x.y.z", "1.1.%%%", &format!("1.1.{text}")]
    {
        for name in ["00", "01", "10", "11", "20", "0", "000"] {
            let browser = Browser::new();
            *browser.cookie.lock().unwrap() = Some(format!("__Host-Http-sid.{name}={value}"));
            let answer = browser.get(&replica, "/").await;
            assert_eq!((&*answer.text, written(&answer).len()), ("anonymous", 0));
        }
    }
    assert_eq!((world.place.looks(), world.place.records()), (0, 0));
    assert_eq!(world.place.control().touches.load(Ordering::Relaxed), 0);
}

/// Without a memory that they share, two processes lose nothing at a server that forgives.
#[tokio::test(start_paused = true)]
async fn without_a_shared_memory_each_remembers_by_itself() {
    let world = World::sealed();
    let alone = || {
        let builder = world.sealing(Keyring::new([7; 32])).rely_on_reuse_leeway();
        world.replica_of(builder, |layer| layer)
    };
    let (here, there) = (alone(), alone());
    let browser = signed_in(&here, "alice").await;
    world.server.expire_all();
    for answer in join_all((0..20).map(|_| browser.get(&here, "/api"))).await {
        assert_eq!(answer.text, "data");
    }
    assert_eq!(world.server.redeems(), 1);
    world.server.expire_all();
    assert_eq!(browser.get(&there, "/api").await.text, "data");
    assert_eq!(browser.get(&here, "/").await.text, "alice");
    assert_eq!((world.server.redeems(), world.server.reuses()), (2, 0));
}

/// The generation in the cookie is the store's own.
#[tokio::test(start_paused = true)]
async fn a_generation_is_counted_on() {
    let world = World::sealed();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let first = generations(&browser)[0];
    for number in 1..4 {
        advance(Duration::from_secs(20)).await;
        world.server.expire_all();
        browser.get(&replica, "/api").await;
        assert_eq!(generations(&browser), [first + number - 1, first + number]);
    }
    assert!(Generation::new(first) > Generation::ZERO);
}
