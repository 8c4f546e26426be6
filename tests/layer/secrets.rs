//! No token in anything that is logged or printed (I13), and what operators are
//! told instead.
//!
//! Every token, of every kind, old and new, begins with `SECRET`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use testing::Logs;
use testing::{Api, Auth, Fault, Op, Play, Store, answer, get, idle, kind, mock, next, post, secs};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    FailureKind, FromExtensions, RefreshError, RefreshLayer, RefreshState, Tokens,
    body::{Budget, ReplayBody},
    refresher_fn,
    state::{RefreshStateBuilder, WhileUnsaved},
    store::{MemoryStore, Record, SaveError, StoreError},
};

fn secret(number: u64) -> Tokens {
    Tokens::new(format!("SECRET-access-{number}"))
        .with_refresh_token(format!("SECRET-refresh-{number}"))
        .with_extra("id_token", format!("SECRET-extra-{number}"))
        .with_expires_in(secs(3600))
}

fn builder(auth: &Auth) -> RefreshStateBuilder {
    auth.next(Play::Mint(secret(2)));
    RefreshState::builder(auth.refresher()).tokens(secret(1))
}

#[tokio::test(start_paused = true)]
async fn a_successful_refresh_and_its_replays_are_told_without_the_tokens() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let api = Api::accepting("SECRET-access-2");
    let service = RefreshLayer::new(builder(&auth).build()).layer(api.clone());
    api.gate().close();
    let calls: Vec<_> =
        (0..5).map(|_| tokio::spawn(service.clone().oneshot(post("hello")))).collect();
    api.gate().arrived(5).await;
    api.gate().open();
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    logs.assert_clean();
    logs.assert_told(&["refresh_flight{trigger=\"challenge\" generation=1", "flight landed"]);
    logs.assert_told(&["flight landed", "outcome=\"renewed\"", "generation=2", "duration_ms="]);
    // The span carries them too, for those who export spans.
    logs.assert_told(&["refresh_flight{", "outcome=\"renewed\"", "new_generation=2", "close"]);
    assert_eq!(logs.count(&["flight landed"]), 1);
    assert_eq!(logs.count(&["replaying", "generation=2"]), 5);
    for step in ["lease", "load", "redeem", "save"] {
        logs.assert_told(&["refresh_flight", &format!("step=\"{step}\"")]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_told() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    auth.next(Play::Mint(secret(2)));
    let expired = secret(1).with_expires_in(secs(0));
    let state = RefreshState::builder(auth.refresher()).tokens(expired).build();
    let service = RefreshLayer::new(state).layer(Api::accepting("SECRET-access-2"));
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
    logs.assert_clean();
    logs.assert_told(&["waiting for a token"]);
    logs.assert_told(&["refresh_flight{trigger=\"expired\"", "flight landed"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_replayed_is_told_with_the_reason() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let state = builder(&auth).build();
    let service = RefreshLayer::new(state).replay_cap(1).layer(Api::accepting("SECRET-access-2"));
    assert_eq!(service.oneshot(post("hello")).await.unwrap().status(), 401);
    idle().await;
    logs.assert_clean();
    logs.assert_told(&["not replayed", "generation=1", "larger than the replay cap"]);
    assert_eq!(logs.count(&["replaying"]), 0);
}

/// The refresher's own error may say anything, such as what the server answered.
#[tokio::test(start_paused = true)]
async fn every_failure_is_told_without_the_tokens() {
    type Fails = fn() -> Result<Tokens, RefreshError>;
    let failures: [(Fails, FailureKind); 3] = [
        (
            || Err(RefreshError::rejected("invalid_grant: SECRET-refresh-1 is dead")),
            FailureKind::Rejected,
        ),
        (
            || {
                let error = RefreshError::transient("SECRET-refresh-1 could not be sent");
                Err(error.with_retry_after(Duration::from_secs(1)))
            },
            FailureKind::Transient,
        ),
        (|| panic!("as told"), FailureKind::Panicked),
    ];
    for (fails, expected) in failures {
        let (logs, _guard) = Logs::capture();
        let state =
            RefreshState::builder(move |_| async move { fails() }).tokens(secret(1)).build();
        let service = RefreshLayer::new(Arc::clone(&state)).layer(Api::accepting("nothing"));
        let response = service.clone().oneshot(post("hello")).await.unwrap();
        let failure = response.extensions().get::<tower_refresh::RefreshFailure>().unwrap();
        assert_eq!(failure.kind(), expected);
        assert_clean(&failure);
        assert_clean(&failure.to_string());
        assert_clean(&response);
        assert_clean(&state);
        logs.assert_clean();
        logs.assert_told(&["flight landed", &format!("outcome=\"{}\"", expected.as_str())]);
        logs.assert_told(&["not refreshed", &format!("reason=\"{}\"", expected.as_str())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_told_without_the_tokens() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::Panic] {
        for op in [Op::Lease, Op::Load, Op::Save] {
            for choice in [WhileUnsaved::Refuse, WhileUnsaved::Serve] {
                let (logs, _guard) = Logs::capture();
                let auth = Auth::new();
                auth.next(Play::Mint(secret(2)));
                let store = Store::with(secret(1));
                let state = RefreshState::builder(auth.refresher())
                    .store(store.clone())
                    .while_unsaved(choice)
                    .build();
                state.token().await.unwrap();
                store.fault(op, fault);
                let _ = state.refresh().await;
                tokio::time::sleep(secs(5)).await;
                assert_clean(&state);
                state.drain().await;
                logs.assert_clean();
                assert!(logs.count(&["flight landed"]) >= 2);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fences_conflicts_deadlines_and_brakes_are_told_without_the_tokens() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let store = Store::with(secret(1));
    let state = RefreshState::builder(auth.refresher())
        .store(store.clone())
        .brake(1, secs(100), secs(100))
        .on_discard(|_| async {})
        .build();
    for number in 2..20 {
        auth.next(Play::Mint(secret(number)));
    }
    state.token().await.unwrap();
    // Another writer.
    store.gate(Op::Save).close();
    let refresh = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await.map(drop) }
    });
    store.gate(Op::Save).arrived(1).await;
    store.overwrite(Some(secret(90))).await;
    store.gate(Op::Save).open();
    refresh.await.unwrap().unwrap();
    // A deadline, and then a sign-in and a sign-out during the flight.
    auth.gate.close();
    assert_eq!(kind(state.refresh().await), FailureKind::Deadline);
    state.set(secret(91)).await.unwrap();
    state.clear().await.unwrap();
    auth.gate.open();
    idle().await;
    // The brake.
    state.set(secret(92)).await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        last = state.challenged(state.current().generation()).await.err();
    }
    assert_eq!(last.unwrap().kind(), FailureKind::Braked);
    assert_clean(&state);
    logs.assert_clean();
    logs.assert_told(&["step=\"discard\""]);
    logs.assert_told(&["flight landed", "outcome=\"superseded\""]);
}

#[track_caller]
fn assert_clean(value: &dyn std::fmt::Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_public_type_shows_a_token() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    assert_clean(&secret(1));
    assert_clean(&Record::new(tower_refresh::Generation::ZERO, secret(1)));
    assert_clean(&MemoryStore::with_tokens(secret(1)));
    assert_clean(&builder(&auth));
    assert_clean(&refresher_fn(async || Ok(secret(1))));
    let credential = state.token().await.unwrap();
    assert_eq!(credential.extra("id_token"), Some("SECRET-extra-1"), "it is in there");
    assert_clean(&credential);
    assert_clean(&credential.bearer());
    assert!(credential.bearer().unwrap().is_sensitive());
    assert_clean(&state);
    assert_clean(&state.status());
    assert_clean(&state.subscribe());
    assert_clean(&state.status().counts);
    assert_clean(&state.challenged(credential.generation()).await);
    assert_clean(&auth.asked().len());

    let store = SaveError::Failed(StoreError::new("SECRET"));
    assert!(!store.to_string().contains("SECRET"), "what a user's error says is its source");
    assert!(!RefreshError::rejected("SECRET").to_string().contains("SECRET"));

    let layer = RefreshLayer::new(Arc::clone(&state));
    assert_clean(&layer);
    assert_clean(&layer.clone().allow_origin("https://SECRET@example.com").unwrap_err());
    assert_clean(&RefreshLayer::per_request(FromExtensions));
    let budget = Budget::new(10);
    assert_clean(&ReplayBody::tee(Full::<Bytes>::from("SECRET"), 100, &budget));
    assert_clean(&ReplayBody::plain(Full::<Bytes>::from("SECRET")));

    // A used service keeps a token ready, and its future has the request.
    let (mut service, _handle) = mock(&layer);
    assert_clean(&service);
    for _ in 0..3 {
        service.ready().await.unwrap();
        let future = service.call(post("hello"));
        assert_clean(&future);
        assert_clean(&service);
    }
}

/// What a logging layer beneath sees, printed with everything in it.
#[tokio::test(start_paused = true)]
async fn requests_show_no_token_to_those_who_print_them() {
    for layer in [
        RefreshLayer::new(builder(&Auth::new()).build()),
        RefreshLayer::new(builder(&Auth::new()).build())
            .attach_header(http::HeaderName::from_static("x-key")),
        RefreshLayer::new(builder(&Auth::new()).tokens(secret(1).with_expires_in(secs(0))).build()),
    ] {
        let inner = service_fn(async |request: http::Request<ReplayBody<Full<Bytes>>>| {
            assert_clean(&request);
            let sensitive = request.headers().values().filter(|value| value.is_sensitive());
            assert_eq!(sensitive.count(), 1);
            let first = request.headers().values().any(|value| value.as_bytes().ends_with(b"-1"));
            Ok::<_, Infallible>(answer(if first { 401 } else { 200 }))
        });
        let response = layer.layer(inner).oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_clean(&response);
    }
}

/// A sensitive header of the caller's own is one on the replay too.
#[tokio::test(start_paused = true)]
async fn the_callers_sensitive_headers_stay_so() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    let mut request = get("/");
    let mut cookie = http::HeaderValue::from_static("SECRET");
    cookie.set_sensitive(true);
    request.headers_mut().insert("cookie", cookie);
    let call = tokio::spawn(service.oneshot(request));
    for status in [401, 200] {
        let (seen, respond) = next(&mut handle).await;
        assert_eq!(seen.headers()["cookie"], "SECRET");
        assert_clean(&seen);
        respond.send_response(answer(status));
    }
    call.await.unwrap().unwrap();
}

/// Of the tests themselves: a line that another thread comes to first is captured, too.
#[test]
fn a_line_is_captured_whatever_other_threads_do() {
    fn line() {
        tracing::info!("a line of this test");
    }
    let (logs, _guard) = Logs::capture();
    std::thread::spawn(line).join().unwrap();
    assert_eq!(logs.count(&["a line of this test"]), 0, "it is another thread's");
    line();
    assert_eq!(logs.count(&["a line of this test"]), 1);
}
