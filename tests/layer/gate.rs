//! Requests that wait for a token before they are sent.

use std::sync::Arc;

use futures_util::future::join_all;
use testing::{Api, Auth, Play, answer, get, idle, mock, next, post, secs, token_of, tokens};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshLayer, RefreshState, Tokens, layer::Attempt,
};

use crate::{layer, serve};

pub(crate) fn expired(auth: &Auth) -> Arc<RefreshState> {
    let expired = tokens(1).with_expires_in(secs(0));
    RefreshState::builder(auth.refresher()).tokens(expired).build()
}

#[tokio::test(start_paused = true)]
async fn a_request_at_the_gate_is_sent_with_the_new_token_as_its_first_attempt() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)).mark_attempts(true));
    let call = tokio::spawn(service.oneshot(post("hello")));
    let seen = serve(&mut handle, &[200]).await;
    assert_eq!(token_of(&seen[0]), Some("access-2"));
    let attempt = seen[0].extensions().get::<Attempt>().unwrap();
    assert_eq!((attempt.number(), attempt.generation().get()), (1, 2));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(auth.count(), 1);
}

/// It has its replay still, and its body, should the new token be refused.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_at_the_gate_can_be_replayed() {
    let auth = Auth::new();
    let api = Api::accepting("access-3");
    let service = RefreshLayer::new(expired(&auth)).layer(api.clone());
    assert_eq!(service.oneshot(post("hello")).await.unwrap().status(), 200);
    assert_eq!(api.bodies(200), ["hello"]);
    assert_eq!(auth.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_gate_sends_with_what_there_is_and_says_so() {
    for (play, expected) in [
        (Play::Fail, FailureKind::Transient),
        (Play::Reject, FailureKind::Rejected),
        (Play::Panic, FailureKind::Panicked),
    ] {
        let auth = Auth::new();
        auth.next(play);
        let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
        // The second finds the failure there already, and does not wait.
        for _ in 0..2 {
            let call = tokio::spawn(service.clone().oneshot(post("hello")));
            let seen = serve(&mut handle, &[418]).await;
            assert_eq!(token_of(&seen[0]), Some("access-1"), "the old one");
            let response = call.await.unwrap().unwrap();
            assert_eq!(response.status(), 418, "the server's own answer");
            let failure = response.extensions().get::<RefreshFailure>().unwrap();
            assert_eq!(failure.kind(), expected);
        }
        assert_eq!(auth.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_at_the_gate_sends_with_what_there_is() {
    let auth = Auth::new();
    auth.gate.close();
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
    let call = tokio::spawn(service.oneshot(post("hello")));
    let seen = serve(&mut handle, &[200]).await;
    assert_eq!(token_of(&seen[0]), Some("access-1"));
    let response = call.await.unwrap().unwrap();
    let failure = response.extensions().get::<RefreshFailure>().unwrap();
    assert_eq!(failure.kind(), FailureKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_past_its_deadline_gets_its_401() {
    let auth = Auth::new();
    auth.gate.close();
    let (service, mut handle) = mock(&layer(&auth));
    let call = tokio::spawn(service.oneshot(post("hello")));
    serve(&mut handle, &[401]).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 401);
    let failure = response.extensions().get::<RefreshFailure>().unwrap();
    assert_eq!(failure.kind(), FailureKind::Deadline);
}

/// While a refused token is being replaced, new requests do not fetch 401s of their own.
#[tokio::test(start_paused = true)]
async fn requests_that_come_during_a_flight_wait_for_it() {
    let auth = Auth::new();
    auth.gate.close();
    let api = Api::accepting("access-2");
    let service = layer(&auth).layer(api.clone());
    let first = tokio::spawn(service.clone().oneshot(post("first")));
    auth.gate.arrived(1).await;
    let later: Vec<_> =
        (0..10).map(|_| tokio::spawn(service.clone().oneshot(post("later")))).collect();
    idle().await;
    auth.gate.open();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    for response in join_all(later).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!((api.count(401), api.count(200)), (1, 11));
}

/// `Tokens::new`: "begins with its refresh token, which is redeemed before the first request is
/// sent." A request waits at the gate for a redeem; the user signs in with a refresh token alone;
/// the request is not sent before that is redeemed, too.
#[tokio::test(start_paused = true)]
async fn a_request_at_the_gate_waits_for_a_sign_in_with_a_refresh_token_alone_to_be_redeemed() {
    let auth = Auth::new();
    let state =
        RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(secs(10))).build();
    sleep(secs(11)).await;
    auth.gate.close();
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let call = tokio::spawn(service.oneshot(get("/")));
    idle().await;
    assert_eq!(auth.count(), 1);
    state.set(Tokens::new("").with_refresh_token("refresh-9")).await.unwrap();
    idle().await;
    auth.gate.open();
    let (request, respond) = next(&mut handle).await;
    let sent = token_of(&request).map(str::to_owned);
    respond.send_response(answer(200));
    call.await.unwrap().unwrap();
    assert!(sent.is_some(), "it was sent without a token");
}
