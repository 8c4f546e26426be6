//! How a credential does, in a word, and the channel that carries it.

use std::time::Duration;

use testing::{Auth, Fault, Op, Play, Store, builder, kind, living, secs, stored, tokens};
use tokio::time::{sleep, timeout};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshState,
    refresher::Trigger,
    state::{Health, WhileUnsaved},
};

const LIFE: u64 = 1000;

#[tokio::test(start_paused = true)]
async fn the_health_word_says_whether_a_session_is_dead() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    assert_eq!(state.health(), Health::Fresh);
    auth.next(Play::Reject);
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    assert_eq!(state.status().health, Health::Rejected);
    assert!(state.status().signed_in, "its access token is there");
    state.set(tokens(5)).await.unwrap();
    assert_eq!(state.status().health, Health::Fresh, "after a sign-in");
    state.refresh().await.unwrap();
    assert_eq!(state.status().health, Health::Fresh, "after a refresh");
    assert_eq!(state.status().last_failure.unwrap().kind(), FailureKind::Rejected, "still told");
    state.clear().await.unwrap();
    assert_eq!(state.status().health, Health::SignedOut);
    assert!(Health::SignedOut.needs_sign_in() && Health::Rejected.needs_sign_in());
}

#[tokio::test(start_paused = true)]
async fn the_health_word_goes_with_the_state() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1).with_expires_in(secs(100))));
    let state = stored(&auth, &store)
        .while_unsaved(WhileUnsaved::Serve)
        .early_refresh(Duration::ZERO)
        .cool_down(secs(10), secs(10))
        .build();
    assert_eq!(state.health(), Health::Unread);
    state.token().await.unwrap();
    assert_eq!(state.health(), Health::Fresh);
    sleep(secs(101)).await;
    assert_eq!(state.health(), Health::Expired);
    auth.gate.close();
    let mut waits = task::spawn(state.token());
    assert_pending!(waits.poll());
    assert_eq!(
        (state.health(), state.status().in_flight),
        (Health::Refreshing, Some(Trigger::Expired))
    );
    auth.next(Play::RetryAfter(secs(30)));
    auth.gate.open();
    assert_eq!(kind(waits.await), FailureKind::Transient);
    assert_eq!(state.health(), Health::CoolingDown);
    assert!(state.status().retry_in > Some(secs(29)));
    sleep(secs(31)).await;
    assert_eq!((state.health(), state.status().retry_in), (Health::CoolingDown, None));
    store.fault(Op::Save, Fault::Fail);
    state.token().await.unwrap();
    assert_eq!(state.health(), Health::Unsaved, "it is served all the same");
    sleep(secs(11)).await;
    assert_eq!(state.health(), Health::Fresh);
}

#[tokio::test(start_paused = true)]
async fn the_second_channel_carries_the_end_of_a_session() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (mut changes, mut health) = (state.subscribe(), state.subscribe_health());
    assert_eq!(*health.borrow(), Health::Fresh);
    auth.next(Play::Reject);
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    assert!(health.has_changed().unwrap());
    assert_eq!(*health.borrow_and_update(), Health::Rejected);
    assert!(!changes.has_changed().unwrap(), "the tokens are what they were");
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    assert!(!health.has_changed().unwrap(), "nothing new");
    state.set(tokens(4)).await.unwrap();
    assert_eq!(*health.borrow_and_update(), Health::Fresh);
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-4"));
    state.clear().await.unwrap();
    assert_eq!(*health.borrow_and_update(), Health::SignedOut);
}

#[tokio::test(start_paused = true)]
async fn the_second_channel_follows_a_refresh_and_knows_what_went_before() {
    let auth = Auth::new();
    auth.gate.close();
    let state = builder(&auth).build();
    // Kept up only while there is a subscriber; the next one sees what is.
    drop(state.subscribe_health());
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    let mut health = state.subscribe_health();
    assert_eq!(*health.borrow(), Health::Refreshing);
    assert!(!health.has_changed().unwrap());
    let waits = tokio::spawn(async move {
        timeout(secs(60), health.changed()).await.unwrap().unwrap();
        *health.borrow_and_update()
    });
    auth.gate.open();
    refresh.await.unwrap();
    assert_eq!(waits.await.unwrap(), Health::Fresh);
}

#[test]
fn a_health_word_is_its_name_in_snake_case() {
    use Health::*;
    for health in [
        Unread,
        Fresh,
        Expired,
        Refreshing,
        CoolingDown,
        Braked,
        ClientRefused,
        Unsaved,
        Rejected,
        SignedOut,
    ] {
        let word = health.as_str();
        assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
        assert_eq!(word.replace('_', ""), format!("{health:?}").to_lowercase());
        assert_eq!(health.to_string(), word);
    }
}

/// `subscribe_health`: "holds how the credential does, and signals when that changes". A first
/// subscriber has heard `Fresh` and is gone; the session ends; a second one subscribes, and sees
/// `Rejected`; a sign-in follows. What it is told of goes by what it holds, and not by the `Fresh`
/// that the first one was told last.
#[tokio::test(start_paused = true)]
async fn a_later_subscriber_hears_that_a_session_has_begun_again() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let first = state.subscribe_health();
    state.refresh().await.unwrap();
    drop(first);
    auth.next(Play::Reject);
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);

    let mut second = state.subscribe_health();
    assert_eq!(*second.borrow(), Health::Rejected);
    state.set(tokens(50)).await.unwrap();
    assert_eq!(state.health(), Health::Fresh);
    let heard = timeout(secs(60), second.wait_for(|health| *health == Health::Fresh)).await.is_ok();
    assert!(heard, "it holds {:?}", *second.borrow());
}

/// The same with a first subscriber that stays: the token runs out, which signals nothing; a
/// second one subscribes, and the first hears `Expired` by that; a sign-in follows, and both hear
/// of it.
#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_of_a_sign_in_after_another_has_subscribed() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(living(1, LIFE)).build();
    let mut first = state.subscribe_health();
    state.token().await.unwrap();
    sleep(secs(LIFE + 1)).await;
    let _second = state.subscribe_health();
    assert_eq!(*first.borrow_and_update(), Health::Expired);
    state.set(living(50, LIFE)).await.unwrap();
    assert_eq!(state.health(), Health::Fresh);
    let heard = timeout(secs(60), first.wait_for(|health| *health == Health::Fresh)).await;
    assert!(heard.is_ok(), "it holds Expired");
}
