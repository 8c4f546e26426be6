//! Refreshing ahead of expiry where no request does.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use testing::{Auth, Fault, Op, Play, Store, builder, idle, living, opened, secs, stored, tokens};
use tokio::{
    runtime::{Builder, Handle},
    time::{Instant, sleep, sleep_until},
};
use tokio_test::{assert_ready_ok, task};
use tower_refresh::{
    FailureKind, RefreshState,
    refresher::Trigger,
    state::{KeepFresh, RefreshStateBuilder},
};

const LIFE: u64 = 1000;

/// A server whose tokens live as long as the first one, and a state with that.
fn living_state(auth: &Auth) -> RefreshStateBuilder {
    for number in 2..20 {
        auth.next(Play::Mint(living(number, LIFE)));
    }
    RefreshState::builder(auth.refresher()).tokens(living(1, LIFE))
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// A state that has a new token each time it is refreshed, and a keeper.
fn kept(auth: &Auth) -> (Arc<RefreshState>, KeepFresh) {
    let state = living_state(auth).build();
    let fresh = state.keep_fresh();
    (state, fresh)
}

/// The early window is 45 to 60 seconds before the end.
#[tokio::test(start_paused = true)]
async fn an_idle_service_gets_one_refresh_a_lifetime() {
    let auth = Auth::new();
    let (state, _fresh) = kept(&auth);
    let begun = Instant::now();
    for number in 2..10_u32 {
        let renewed = u64::from(number) - 1;
        sleep_until(begun + secs(939) * u32::try_from(renewed).unwrap()).await;
        assert_eq!(auth.count() as u64, renewed - 1, "not before it is time");
        sleep_until(begun + secs(956) * u32::try_from(renewed).unwrap()).await;
        assert_eq!(auth.count() as u64, renewed);
        let token = format!("access-{number}");
        assert_eq!(state.current().access_token(), Some(&*token));
    }
    assert_eq!(state.status().counts.refreshes, 8);
    assert_eq!(state.status().counts.joined, 0);
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn with_early_refresh_off_a_token_is_renewed_when_it_has_run_out() {
    let auth = Auth::new();
    let state = living_state(&auth).early_refresh(Duration::ZERO).build();
    let _fresh = state.keep_fresh();
    sleep(secs(LIFE) - Duration::from_millis(10)).await;
    assert_eq!(auth.count(), 0);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(auth.count(), 1);
    sleep(secs(LIFE) + Duration::from_millis(200)).await;
    assert_eq!(auth.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_are_not_blocked_meanwhile() {
    let auth = Auth::new();
    auth.gate.close();
    let (state, _fresh) = kept(&auth);
    sleep(secs(970)).await;
    assert_eq!(state.status().in_flight, Some(Trigger::Early));
    for _ in 0..3 {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    }
    auth.gate.open();
    idle().await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_run_out_is_renewed_at_once() {
    let auth = Auth::new();
    auth.next(Play::Mint(living(2, LIFE)));
    let expired = tokens(1).with_expires_at(SystemTime::UNIX_EPOCH);
    let state = RefreshState::builder(auth.refresher()).tokens(expired).build();
    let _fresh = state.keep_fresh();
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
    sleep(secs(900)).await;
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_store_is_read_at_once() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    let state = stored(&auth, &store).build();
    let _fresh = state.keep_fresh();
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-1"));
    assert_eq!(auth.count(), 0);
    sleep(secs(956)).await;
    assert_eq!(auth.count(), 1);
}

/// So the first request does not wait for it.
#[tokio::test(start_paused = true)]
async fn what_needs_no_tokens_gets_its_first_at_once() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.minter()).build();
    let _fresh = state.keep_fresh();
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_is_read_again_after_the_cool_down() {
    let auth = Auth::new();
    let store = Store::with(living(1, LIFE));
    store.fault(Op::Load, Fault::Fail);
    let state = stored(&auth, &store).build();
    let _fresh = state.keep_fresh();
    idle().await;
    assert_eq!(state.status().last_failure.unwrap().kind(), FailureKind::Store);
    sleep(secs(2)).await;
    assert_eq!(state.current().access_token(), Some("access-1"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_it_is_tried_again_when_the_cool_down_is_over() {
    let auth = Auth::new();
    auth.next(Play::RetryAfter(secs(20))).next(Play::RetryAfter(secs(90)));
    let (state, _fresh) = kept(&auth);
    sleep_until(Instant::now() + secs(956)).await;
    assert_eq!(auth.count(), 1);
    let retry_at = Instant::now() + state.status().retry_in.unwrap();
    sleep_until(retry_at - Duration::from_millis(10)).await;
    assert_eq!(auth.count(), 1);
    sleep_until(retry_at + Duration::from_millis(10)).await;
    assert_eq!(auth.count(), 2);
    // By then the token has run out.
    let retry_at = Instant::now() + state.status().retry_in.unwrap();
    sleep_until(retry_at - Duration::from_millis(10)).await;
    assert_eq!(auth.count(), 2);
    sleep_until(retry_at + Duration::from_millis(10)).await;
    assert_eq!(auth.count(), 3);
    assert_eq!(state.current().access_token(), Some("access-2"));
}

/// A server that is down, and no `Retry-After` that says how long to wait.
#[tokio::test(start_paused = true)]
async fn without_a_cool_down_there_are_no_more_than_ten_tries_a_second() {
    let auth = Auth::new();
    for _ in 0..1000 {
        auth.next(Play::Fail);
    }
    let expired = tokens(1).with_expires_at(SystemTime::UNIX_EPOCH);
    let state = RefreshState::builder(auth.refresher())
        .tokens(expired)
        .cool_down(Duration::ZERO, Duration::ZERO)
        .build();
    let _fresh = state.keep_fresh();
    sleep(secs(10)).await;
    assert!((90..=101).contains(&auth.count()), "{}", auth.count());
}

/// Such as a store that says so each time.
#[tokio::test(start_paused = true)]
async fn tokens_of_no_life_to_speak_of_do_not_make_it_spin() {
    let auth = Auth::new();
    for number in 2..1000 {
        auth.next(Play::Mint(tokens(number).with_expires_in(Duration::from_millis(2))));
    }
    let state = builder(&auth).tokens(tokens(1).with_expires_in(secs(0))).build();
    let _fresh = state.keep_fresh();
    sleep(secs(10)).await;
    assert!((90..=101).contains(&auth.count()), "{}", auth.count());
}

#[tokio::test(start_paused = true)]
async fn the_brake_is_respected_until_the_token_has_run_out() {
    let auth = Auth::new();
    let state = living_state(&auth).brake(0, secs(10), secs(5000)).build();
    let _fresh = state.keep_fresh();
    // The first brand-new token that is refused brakes, and the pause would outlast it.
    let generation = state.refresh().await.unwrap().generation();
    let braked = Instant::now();
    assert_eq!(state.challenged(generation).await.unwrap_err().kind(), FailureKind::Braked);
    sleep_until(braked + secs(LIFE - 1)).await;
    assert_eq!(auth.count(), 1);
    sleep_until(braked + secs(LIFE + 1)).await;
    assert_eq!(auth.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_waits_for_a_sign_in() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let (state, _fresh) = kept(&auth);
    sleep(secs(100_000)).await;
    assert_eq!(auth.count(), 1);
    state.set(living(100, LIFE)).await.unwrap();
    sleep(secs(939)).await;
    assert_eq!(auth.count(), 1);
    sleep(secs(17)).await;
    assert_eq!(auth.asked(), ["refresh-1", "refresh-100"]);
}

#[tokio::test(start_paused = true)]
async fn a_signed_out_credential_is_left_alone_until_a_sign_in() {
    for begins_signed_in in [true, false] {
        let auth = Auth::new();
        let state = match begins_signed_in {
            true => living_state(&auth).build(),
            false => RefreshState::builder(auth.refresher()).build(),
        };
        let _fresh = state.keep_fresh();
        idle().await;
        if begins_signed_in {
            state.clear().await.unwrap();
        }
        sleep(secs(100_000)).await;
        assert_eq!(auth.count(), 0);
        state.set(living(100, LIFE)).await.unwrap();
        sleep(secs(956)).await;
        assert_eq!(auth.asked(), ["refresh-100"]);
    }
}

/// A sign-in brings another end, which may be sooner.
#[tokio::test(start_paused = true)]
async fn a_sign_in_wakes_it() {
    for first in [tokens(1), living(1, LIFE)] {
        let auth = Auth::new();
        let state = builder(&auth).tokens(first).build();
        let _fresh = state.keep_fresh();
        sleep(secs(10)).await;
        state.set(tokens(100).with_expires_in(secs(100))).await.unwrap();
        sleep(secs(79)).await;
        assert_eq!(auth.count(), 0);
        sleep(secs(7)).await;
        assert_eq!(auth.asked(), ["refresh-100"]);
    }
}

#[test]
fn a_sign_in_outside_of_a_runtime_wakes_it() {
    let auth = Auth::new();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let state = builder(&auth).build();
    let _fresh = runtime.block_on(async {
        let fresh = state.keep_fresh();
        sleep(secs(10)).await;
        fresh
    });
    assert_ready_ok!(task::spawn(state.set(living(100, LIFE))).poll());
    runtime.block_on(async { sleep(secs(956)).await });
    assert_eq!(auth.asked(), ["refresh-100"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_or_with_a_far_one_is_left_alone() {
    for tokens in [tokens(1), tokens(1).with_expires_in(Duration::MAX), {
        tokens(1).with_expires_in(secs(10 * 365 * 24 * 3600))
    }] {
        let auth = Auth::new();
        let state = builder(&auth).tokens(tokens).build();
        let _fresh = state.keep_fresh();
        sleep(secs(365 * 24 * 3600)).await;
        assert_eq!(auth.count(), 0);
        assert_eq!(tasks(), 1, "it is there, and asleep");
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_guard_it_stops() {
    let auth = Auth::new();
    let (_state, fresh) = kept(&auth);
    sleep(secs(900)).await;
    drop(fresh);
    idle().await;
    assert_eq!(tasks(), 0);
    sleep(secs(10_000)).await;
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_its_guard_a_flight_under_way_still_lands() {
    let auth = Auth::new();
    auth.gate.close();
    let (state, fresh) = kept(&auth);
    sleep(secs(956)).await;
    assert_eq!(auth.gate.count(), 1);
    drop(fresh);
    idle().await;
    auth.gate.open();
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_it() {
    let auth = Auth::new();
    let (state, _fresh) = kept(&auth);
    sleep(secs(10)).await;
    state.drain().await;
    idle().await;
    assert_eq!(tasks(), 0);
    sleep(secs(10_000)).await;
    assert_eq!(auth.count(), 0);

    // Begun after that, it does nothing.
    let _late = state.keep_fresh();
    idle().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_its_flight() {
    let auth = Auth::new();
    auth.gate.close();
    let (state, _fresh) = kept(&auth);
    sleep(secs(956)).await;
    assert_eq!(auth.gate.count(), 1);
    let drained = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.drain().await }
    });
    idle().await;
    assert!(!drained.is_finished());
    auth.gate.open();
    drained.await.unwrap();
    assert_eq!(state.current().access_token(), Some("access-2"));
    sleep(secs(10_000)).await;
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_keep_the_state_alive() {
    let auth = Auth::new();
    let (state, fresh) = kept(&auth);
    sleep(secs(1)).await;
    let weak = Arc::downgrade(&state);
    drop(state);
    assert!(weak.upgrade().is_none());
    idle().await;
    assert_eq!(tasks(), 0);
    drop(fresh);
}

#[tokio::test(start_paused = true)]
async fn two_guards_are_still_one_refresh_a_lifetime() {
    let auth = Auth::new();
    let (state, _fresh) = kept(&auth);
    let _another = state.keep_fresh();
    sleep(secs(956)).await;
    assert_eq!(auth.count(), 1);
    sleep(secs(900)).await;
    assert_eq!(auth.count(), 1);
    assert_eq!(state.status().counts.joined, 0);
}

/// Two processes that share a store: the second one adopts what the first has saved.
#[tokio::test(start_paused = true)]
async fn two_states_that_share_a_store_are_still_one_refresh_a_lifetime() {
    let auth = Auth::new();
    for number in 2..20 {
        auth.next(Play::Mint(living(number, LIFE)));
    }
    let store = Store::with(living(1, LIFE));
    let (one, other) = (opened(&auth, &store).await, opened(&auth, &store).await);
    let _guards = (one.keep_fresh(), other.keep_fresh());
    for lifetime in 1..5 {
        sleep(secs(956)).await;
        assert_eq!(auth.count(), lifetime);
        assert_eq!(one.current().access_token(), other.current().access_token());
    }
    auth.assert_sound();
}

#[test]
fn without_a_runtime_it_does_nothing() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    drop(state.keep_fresh());
    assert_eq!(auth.count(), 0);
}
