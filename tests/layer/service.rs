//! The service between requests: readiness, errors, clones.

use std::sync::Arc;

use testing::{Api, Auth, get, idle, mock, next, post, secs, token_of, tokens};
use tower::{Layer, Service, ServiceExt};
use tower_refresh::{FailureKind, RefreshFailure, RefreshLayer, RefreshState};

use crate::{layer, serve, state};

/// A service that keeps a token for its own use must notice every change of it.
#[tokio::test(start_paused = true)]
async fn a_used_service_and_its_clones_notice_every_change() {
    let auth = Auth::new();
    let state = state(&auth);
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let mut clones = vec![service.clone(), service.clone(), service];
    let mut expected = Some("access-1".to_owned());
    for round in 0..8 {
        for service in &mut clones {
            for _ in 0..3 {
                service.ready().await.unwrap();
                let _call = tokio::spawn(service.call(get("/")));
                let seen = serve(&mut handle, &[200]).await;
                assert_eq!(token_of(&seen[0]), expected.as_deref(), "round {round}");
            }
        }
        clones[0] = clones[1].clone();
        let credential = match round {
            3 => {
                state.clear().await.unwrap();
                state.current()
            }
            4 => {
                state.set(tokens(40)).await.unwrap();
                state.current()
            }
            _ => state.refresh().await.unwrap(),
        };
        expected = credential.access_token().map(str::to_owned);
    }
}

/// Kept by the service: it must notice the early moment, and the end.
#[tokio::test(start_paused = true)]
async fn a_used_service_notices_that_its_token_runs_out() {
    let auth = Auth::new();
    let first = tokens(1).with_expires_in(secs(1000));
    let state = RefreshState::builder(auth.refresher()).tokens(first).build();
    let (mut service, mut handle) = mock(&RefreshLayer::new(state));
    for (moment, token, refreshes) in
        [(0, "access-1", 0), (900, "access-1", 0), (990, "access-1", 1), (995, "access-2", 1)]
    {
        service.ready().await.unwrap();
        let _call = tokio::spawn(service.call(get("/")));
        assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), Some(token), "{moment}");
        idle().await;
        assert_eq!(auth.count(), refreshes, "{moment}");
        let next = match moment {
            0 => 900,
            900 => 90,
            _ => 5,
        };
        tokio::time::sleep(secs(next)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_poll_ready_passes() {
    let (mut service, mut handle) = mock(&layer(&Auth::new()));
    handle.send_error("no more");
    let error = service.ready().await.expect_err("the service's own error");
    assert_eq!(error.to_string(), "no more");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_either_attempt_passes() {
    for first in [true, false] {
        let auth = Auth::new();
        let (service, mut handle) = mock(&layer(&auth));
        let call = tokio::spawn(service.oneshot(post("hello")));
        if !first {
            serve(&mut handle, &[401]).await;
        }
        let (_, respond) = next(&mut handle).await;
        respond.send_error("connection reset");
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "connection reset");
        assert_eq!(auth.count(), usize::from(!first));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_state_sends_with_what_there_is() {
    let auth = Auth::new();
    let state = state(&auth);
    state.drain().await;
    let api = Api::accepting("access-2");
    let service = RefreshLayer::new(Arc::clone(&state)).layer(api);
    let response = service.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), 401);
    let failure = response.extensions().get::<RefreshFailure>().unwrap().clone();
    assert_eq!(failure.kind(), FailureKind::Shutdown);
}
