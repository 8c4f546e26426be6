//! Early refresh, expiry, cool-down, brake and deadline.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use testing::{Auth, Play, builder, idle, kind, secs, tokens};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshState, Tokens,
    refresher::Trigger,
    state::{FailureEvent, RefreshStateBuilder},
};

fn expiring(auth: &Auth, life: u64) -> RefreshStateBuilder {
    RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(secs(life)))
}

/// When the first refresh was asked for, by a caller that uses the token all the time after
/// a quiet while.
async fn first_refresh(auth: &Auth, state: &Arc<RefreshState>, quiet: u64) -> Duration {
    let begun = Instant::now();
    state.token().await.unwrap();
    sleep(secs(quiet)).await;
    while auth.count() == 0 {
        state.token().await.unwrap();
        idle().await;
        sleep(Duration::from_millis(99)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_long_token_is_renewed_within_its_last_60_seconds() {
    for _ in 0..20 {
        let auth = Auth::new();
        let state = expiring(&auth, 3600).build();
        let at = first_refresh(&auth, &state, 3535).await.as_secs_f64();
        // Up to a quarter of the window is taken off at random.
        assert!((3539.9..=3555.2).contains(&at), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_token_is_renewed_within_the_last_fifth_of_its_life() {
    for _ in 0..20 {
        let auth = Auth::new();
        let state = expiring(&auth, 100).build();
        let at = first_refresh(&auth, &state, 75).await.as_secs_f64();
        assert!((79.9..=85.2).contains(&at), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_30_seconds_are_not_refreshed_on_each_request() {
    let auth = Auth::new();
    for n in 2..100 {
        auth.next(Play::Mint(tokens(n).with_expires_in(secs(30))));
    }
    let state = expiring(&auth, 30).build();
    let begun = Instant::now();
    while begun.elapsed() < secs(300) {
        state.token().await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    // One for each 24 to 25.5 seconds.
    assert!((11..=12).contains(&auth.count()), "{}", auth.count());
}

#[tokio::test(start_paused = true)]
async fn the_early_window_and_its_share_can_be_set_and_turned_off() {
    let auth = Auth::new();
    let state = expiring(&auth, 100).early_refresh(secs(50)).early_fraction(1).build();
    let at = first_refresh(&auth, &state, 45).await.as_secs_f64();
    assert!((49.9..=62.7).contains(&at), "{at}");

    let auth = Auth::new();
    let state = expiring(&auth, 100).early_refresh(secs(0)).build();
    sleep(Duration::from_millis(99_900)).await;
    state.token().await.unwrap();
    idle().await;
    assert_eq!(auth.count(), 0);
}

/// Jitter: replicas that got their tokens together do not renew together.
#[tokio::test(start_paused = true)]
async fn the_early_moment_varies() {
    let mut moments = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let auth = Auth::new();
        let state = expiring(&auth, 3600).build();
        moments.insert(first_refresh(&auth, &state, 3535).await.as_millis() / 1000);
    }
    assert!(moments.len() > 3, "{moments:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_go_on_with_the_token_while_it_is_renewed_early() {
    let auth = Auth::new();
    auth.gate.close();
    let state = expiring(&auth, 1000).build();
    sleep(secs(970)).await;
    for _ in 0..3 {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        idle().await;
    }
    assert_eq!(state.status().in_flight, Some(Trigger::Early));
    auth.gate.open();
    idle().await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// A caller that is refused joins the early flight; from then on new callers wait, too.
#[tokio::test(start_paused = true)]
async fn a_challenge_during_an_early_flight_joins_it_and_closes_the_gate() {
    let auth = Auth::new();
    auth.gate.close();
    let state = expiring(&auth, 1000).build();
    sleep(secs(990)).await;
    let generation = state.token().await.unwrap().generation();
    let mut refused = task::spawn(state.challenged(generation));
    assert_pending!(refused.poll());
    let mut next = task::spawn(state.token());
    assert_pending!(next.poll(), "the current token is known not to work");
    auth.gate.open();
    assert_eq!(refused.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(next.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn past_its_end_requests_wait_at_the_gate() {
    let auth = Auth::new();
    auth.gate.close();
    let state = expiring(&auth, 1000).build();
    sleep(secs(1000)).await;
    let mut waits = task::spawn(state.token());
    assert_pending!(waits.poll());
    auth.gate.arrived(1).await;
    auth.gate.open();
    assert_eq!(waits.await.unwrap().access_token(), Some("access-2"));
}

/// Begun early, and not over when the token runs out.
#[tokio::test(start_paused = true)]
async fn a_token_that_runs_out_during_its_early_flight_makes_requests_wait() {
    let auth = Auth::new();
    auth.gate.close();
    let state = expiring(&auth, 1000).build();
    sleep(secs(990)).await;
    state.token().await.unwrap();
    sleep(secs(11)).await;
    let mut waits = task::spawn(state.token());
    assert_pending!(waits.poll());
    auth.gate.open();
    assert_eq!(waits.await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_life_is_counted_from_when_the_refresh_was_begun() {
    let auth = Auth::new();
    auth.next(Play::Mint(tokens(2).with_expires_in(secs(100))));
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    sleep(secs(20)).await;
    auth.gate.open();
    refresh.await.unwrap();
    auth.gate.close();
    sleep(secs(81)).await;
    assert_pending!(task::spawn(state.token()).poll(), "101 seconds old");
}

#[tokio::test(start_paused = true)]
async fn an_absolute_end_counts_like_a_life() {
    let auth = Auth::new();
    auth.gate.close();
    let at = SystemTime::now() + secs(1000);
    let first = Tokens::new("access-1").with_refresh_token("refresh-1").with_expires_at(at);
    let state = RefreshState::builder(auth.refresher()).tokens(first).build();
    assert_eq!(state.current().expires_at(), Some(at));
    sleep(secs(900)).await;
    state.token().await.unwrap();
    assert_eq!(state.status().in_flight, None);
    sleep(secs(101)).await;
    assert_pending!(task::spawn(state.token()).poll());
}

/// A server whose clock is behind mints tokens that seem to have run out: that
/// must not mean a refresh for each request.
#[tokio::test(start_paused = true)]
async fn a_token_minted_past_its_end_is_used_until_it_is_refused() {
    let auth = Auth::new();
    auth.next(Play::Mint(tokens(2).with_expires_at(SystemTime::UNIX_EPOCH)));
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    state.refresh().await.unwrap();
    for _ in 0..10 {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
        idle().await;
    }
    assert_eq!(auth.count(), 1);
}

/// From 1 s doubling to 60 s, of which a random part is waited ("full jitter").
#[tokio::test(start_paused = true)]
async fn the_cool_down_doubles_from_1_to_60_seconds_with_full_jitter() {
    let mut longest = [0.0_f64; 9];
    let mut shortest = [f64::INFINITY; 9];
    for _ in 0..200 {
        let auth = Auth::new();
        let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
        for failure in 0..9 {
            auth.next(Play::Fail);
            let begun = Instant::now();
            let retry_at = state.refresh().await.unwrap_err().retry_at().unwrap();
            let part =
                retry_at.duration_since(begun).as_secs_f64() / f64::from(1 << failure).min(60.0);
            assert!(part <= 1.0, "failure {failure}: {part} of its cool-down");
            longest[failure] = longest[failure].max(part);
            shortest[failure] = shortest[failure].min(part);
            sleep_until(retry_at + Duration::from_millis(1)).await;
        }
        assert_eq!(auth.count(), 9);
    }
    // 200 uniform samples: these fail once in ten million runs.
    assert!(longest.iter().all(|part| *part > 0.9), "{longest:?}");
    assert!(shortest.iter().all(|part| *part < 0.1), "{shortest:?}");
}

#[tokio::test(start_paused = true)]
async fn success_ends_the_doubling() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    for _ in 0..5 {
        for _ in 0..3 {
            auth.next(Play::Fail);
            let begun = Instant::now();
            let retry_at = state.refresh().await.unwrap_err().retry_at().unwrap();
            assert!(retry_at <= begun + secs(4));
            sleep_until(retry_at + Duration::from_millis(1)).await;
        }
        state.refresh().await.unwrap();
    }
}

/// During the cool-down the token that still works is used, and an expired one
/// means an answer at once, not a wait.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_cool_down() {
    let auth = Auth::new();
    auth.next(Play::RetryAfter(secs(500)));
    let state = expiring(&auth, 1000).build();
    sleep(secs(970)).await;
    for _ in 0..10 {
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        sleep(secs(1)).await;
    }
    assert_eq!(auth.count(), 1, "no early refresh either");
    sleep(secs(30)).await;
    let answer = timeout(Duration::ZERO, state.token()).await.expect("at once");
    assert_eq!(kind(answer), FailureKind::Transient);
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_all_clocks_does_no_harm() {
    for asked in [Duration::MAX, secs(1_700_000_000), secs(3601)] {
        let auth = Auth::new();
        auth.next(Play::RetryAfter(asked));
        let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
        assert_eq!(kind(state.refresh().await), FailureKind::Transient);
        sleep(secs(3599)).await;
        assert_eq!(kind(state.refresh().await), FailureKind::Transient);
        sleep(secs(2)).await;
        state.refresh().await.unwrap();
    }
    let auth = Auth::new();
    auth.next(Play::RetryAfter(Duration::MAX));
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(3)).build();
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    state.set(tokens(4)).await.unwrap();
    state.refresh().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn five_refusals_in_30_seconds_do_not_brake_and_six_do() {
    for (pause, braked) in [(secs(7), false), (secs(5), true)] {
        let auth = Auth::new();
        let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
        let mut kinds = Vec::new();
        for _ in 0..20 {
            let generation = state.current().generation();
            kinds.extend(state.challenged(generation).await.err().map(|failure| failure.kind()));
            sleep(pause).await;
        }
        assert_eq!(kinds.contains(&FailureKind::Braked), braked, "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_brake_can_be_set_and_ends_with_a_sign_in() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .tokens(tokens(1))
        .brake(1, secs(10), secs(1000))
        .build();
    for _ in 0..2 {
        state.challenged(state.current().generation()).await.unwrap();
    }
    let failure = state.challenged(state.current().generation()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Braked);
    assert_eq!(failure.retry_at(), Some(Instant::now() + secs(1000)));
    assert_eq!(state.status().counts.failures(FailureKind::Braked), 1);
    assert_eq!(kind(state.refresh().await), FailureKind::Braked);

    state.set(tokens(100)).await.unwrap();
    state.challenged(state.current().generation()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_30_seconds_and_can_be_set() {
    let auth = Auth::new();
    auth.gate.close();
    for (builder, wait) in [
        (RefreshState::builder(auth.refresher()).tokens(tokens(1)), secs(30)),
        (RefreshState::builder(auth.refresher()).tokens(tokens(1)).deadline(secs(3)), secs(3)),
        (RefreshState::builder(auth.refresher()).tokens(tokens(1)).deadline(secs(0)), secs(0)),
    ] {
        let state = builder.build();
        let begun = Instant::now();
        assert_eq!(kind(state.refresh().await), FailureKind::Deadline);
        let waited = begun.elapsed();
        assert!(waited >= wait && waited <= wait + Duration::from_millis(10), "{waited:?}");
        assert!(state.status().in_flight.is_some(), "it goes on");
    }
}

/// A brand-new token is refused once too often while a flight is under way, which a caller's
/// `refresh()` has begun. Its waiters are told nothing of the brake, and the operator is.
#[tokio::test(start_paused = true)]
async fn the_operator_is_told_of_a_brake_that_is_pulled_during_a_flight() {
    let told = Arc::new(Mutex::new(Vec::<FailureEvent>::new()));
    let heard = Arc::clone(&told);
    let auth = Auth::new();
    let state = builder(&auth)
        .brake(1, secs(10), secs(60))
        .on_failure(move |event| heard.lock().unwrap().push(event))
        .build();
    let refused = state.refresh().await.unwrap().generation();
    let fresh = state.challenged(refused).await.unwrap().generation();
    auth.gate.close();
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    let challenged = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.challenged(fresh).await }
    });
    idle().await;
    auth.gate.open();
    let next = refresh.await.unwrap().unwrap().generation();
    challenged.await.unwrap().unwrap();
    assert_eq!(kind(state.challenged(next).await), FailureKind::Braked, "it holds");
    idle().await;
    let told: Vec<_> = told.lock().unwrap().iter().map(FailureEvent::kind).collect();
    let counted = state.status().counts.failures(FailureKind::Braked);
    assert_eq!((told, counted), (vec![FailureKind::Braked], 1));
}
