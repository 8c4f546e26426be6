//! Bad input.

use http::{HeaderValue, Method};
use tower_refresh::{
    Generation, Tokens,
    session::SessionId,
    store::{Record, Stores},
};

use testing::sessions::{Browser, World, signed_in};

/// Cookies of every length, and of every byte that a header may have: neither a session nor an error,
/// and no look at the store.
#[tokio::test(start_paused = true)]
async fn a_cookie_that_is_no_id_costs_nothing() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let good = browser.cookie().unwrap();
    let looks = world.place.looks();
    let lengths = (0..200).chain([1000, 10_000, 60_000]).filter(|length| *length != 43);
    let of_lengths = lengths.map(|length| "A".repeat(length).into_bytes());
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let bytes = (0..=255_u8).filter(|byte| !is_letter(byte) && !b";".contains(byte));
    let value = good.split_once('=').unwrap().1.as_bytes().to_vec();
    let of_bytes = bytes.map(|byte| [&value[..20], &[byte], &value[21..]].concat());
    let mut count = 0;
    for value in of_lengths.chain(of_bytes) {
        let line = [b"__Host-Http-sid=", &value[..]].concat();
        let Ok(line) = HeaderValue::from_bytes(&line) else { continue };
        let nobody = Browser::new();
        let request = nobody.request(Method::GET, "/").header("cookie", line);
        assert_eq!(nobody.send(&replica, request).await.text, "anonymous");
        count += 1;
    }
    assert!(count > 350, "{count}");
    assert_eq!(world.place.looks(), looks);
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
}

/// A thousand cookies, of which ours is the last, cost what one costs; a thousand of our name no more
/// than four looks.
#[tokio::test(start_paused = true)]
async fn a_thousand_cookies() {
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let ours = browser.cookie().unwrap();
    let others: String = (0..1000).map(|number| format!("c{number}=x; ")).collect();
    *browser.cookie.lock().unwrap() = Some(format!("{others}{ours}"));
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
    let looks = world.place.looks();
    let made_up = || format!("__Host-Http-sid={}; ", SessionId::random().unwrap().expose());
    let many: String = (0..1000).map(|_| made_up()).collect();
    *browser.cookie.lock().unwrap() = Some(many);
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    assert_eq!(world.place.looks(), looks + 4);
}

/// A record that is none of a session, under the name that a cookie has.
#[tokio::test(start_paused = true)]
async fn what_another_program_has_put_into_the_store_is_no_session() {
    let world = World::new();
    let replica = world.replica();
    for tokens in [
        Tokens::new("access").with_refresh_token("refresh"),
        Tokens::new("access").with_extra("sub", "alice").with_extra("iss", "https://id.test"),
    ] {
        let id = SessionId::random().unwrap();
        let store = world.place.store(id.name().as_str());
        let record = Record::new(Generation::new(1), tokens);
        store.save(Generation::ZERO, record).await.unwrap();
        let browser = Browser::new();
        *browser.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={}", id.expose()));
        assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    }
}

/// The names of lists and of used logout tokens are no session's: a cookie cannot name them.
#[tokio::test(start_paused = true)]
async fn no_cookie_names_a_list() {
    let world = World::new();
    let replica = world.replica();
    signed_in(&replica, "alice").await;
    let names = world.place.control().names.lock().unwrap().clone();
    assert!(names.len() > 1);
    for name in names {
        let browser = Browser::new();
        *browser.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={name}"));
        assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    }
}
