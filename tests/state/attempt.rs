//! Calls with the token, for protocols without a layer.

use std::{
    error::Error,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::future::join_all;
use testing::{Auth, Play, builder, idle};
use tokio_test::{assert_pending, task};
use tower_refresh::{Credential, FailureKind, RefreshError, RefreshFailure, RefreshState, Tokens};

/// A server that takes this token alone.
async fn call(good: &str, credential: Credential) -> Result<(), &'static str> {
    idle().await;
    if credential.access_token() == Some(good) { Ok(()) } else { Err("refused") }
}

async fn attempt(
    state: &Arc<RefreshState>,
    good: &str,
) -> Result<Result<(), &'static str>, RefreshFailure> {
    let outcome = state.attempt(|credential| call(good, credential), Result::is_err).await;
    outcome.map_err(RefreshFailure::from)
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_are_refused_together_have_one_refresh() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let all = join_all((0..100).map(|_| attempt(&state, "access-2"))).await;
    assert!(all.into_iter().all(|outcome| outcome.unwrap().is_ok()));
    assert_eq!(auth.count(), 1);
    assert_eq!(state.status().counts.replays, 100);
}

/// One who forgot to say so would meet the brake at the seventh.
#[tokio::test(start_paused = true)]
async fn that_a_token_was_accepted_is_told() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    for number in 2..20 {
        // The server has forgotten the token before.
        state.challenged(state.current().generation()).await.unwrap();
        attempt(&state, &format!("access-{number}")).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_is_the_callers_and_drives_no_loop() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    assert_eq!(attempt(&state, "none").await.unwrap(), Err("refused"));
    assert_eq!(auth.count(), 1);
    // The refresh has not helped: there is a pause.
    for _ in 0..20 {
        let failure = attempt(&state, "none").await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Doubted);
    }
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_newer_token_the_outcome_is_in_the_error() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let state = builder(&auth).build();
    let error =
        state.attempt(|credential| call("access-2", credential), Result::is_err).await.unwrap_err();
    let source = error.source().and_then(|source| source.downcast_ref::<RefreshFailure>());
    assert_eq!(source.map(RefreshFailure::kind), Some(FailureKind::Rejected));
    assert_eq!(error.into_outcome(), Some(Err("refused")));

    state.clear().await.unwrap();
    let calls = AtomicUsize::new(0);
    let error = state
        .attempt(
            async |_| {
                calls.fetch_add(1, Relaxed);
            },
            |()| false,
        )
        .await
        .unwrap_err();
    assert_eq!(error.failure().kind(), FailureKind::SignedOut);
    assert!(error.into_outcome().is_none() && calls.into_inner() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_stops_no_refresh() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let mut attempt = task::spawn(state.attempt(async |_| Err::<(), _>("refused"), Result::is_err));
    assert_pending!(attempt.poll());
    auth.gate.arrived(1).await;
    drop(attempt);
    auth.gate.open();
    state.drain().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
}

/// It can be spawned, and its outcome need be nothing in particular.
#[tokio::test(start_paused = true)]
async fn it_is_send_wherever_the_call_is() {
    let state = builder(&Auth::new()).build();
    tokio::spawn({
        let state = Arc::clone(&state);
        let host = String::from("host");
        async move { state.attempt(async |_| pending::<()>().await, |()| host.is_empty()).await }
    });
    idle().await;
}

/// A call outside of a runtime is told that there is none, and harms nothing that comes after.
#[test]
fn a_call_without_a_runtime_harms_none_that_comes_after() {
    let state = RefreshState::builder(async |_: Tokens| Ok::<_, RefreshError>(Tokens::new("new")))
        .tokens(Tokens::new("old"))
        .build();
    let call = |credential: tower_refresh::Credential| async move {
        credential.access_token() == Some("new")
    };
    let outside = futures_util::FutureExt::now_or_never(state.attempt(call, |good| !good));
    let error = outside.expect("it does not wait").unwrap_err();
    assert_eq!(error.failure().kind(), FailureKind::NoRuntime);
    assert_eq!(error.into_outcome(), Some(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(state.attempt(call, |good| !good)).unwrap());
}
