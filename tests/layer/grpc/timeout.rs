//! A request that is sent later has less time.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use testing::{Auth, Body, Gate, Request, Response, builder, idle, mock, next, post, secs, tokens};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;
use tower_refresh::{FailureKind, RefreshFailure, RefreshLayer, RefreshState};

use super::trailers_only;

type Call = JoinHandle<Result<Response, tower::BoxError>>;

/// The response; not for ever, so that a test fails rather than hangs.
async fn done(call: Call) -> Response {
    timeout(secs(600), call).await.expect("no response").unwrap().unwrap()
}

fn with_timeout(timeout: &str) -> http::Request<Body> {
    let mut request = post("hello");
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

fn timeout_of(request: &Request) -> &str {
    let all: Vec<_> = request.headers().get_all("grpc-timeout").iter().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].to_str().unwrap()
}

fn failure(response: &Response) -> FailureKind {
    response.extensions().get::<RefreshFailure>().expect("a failure").kind()
}

/// A refresh that takes so long from now on.
fn takes(gate: &Gate, time: Duration) {
    gate.close();
    let gate = gate.clone();
    tokio::spawn(async move {
        sleep(time).await;
        gate.open();
    });
}

fn expired(auth: &Auth) -> Arc<RefreshState> {
    let tokens = tokens(1).with_expires_in(secs(0));
    RefreshState::builder(auth.refresher()).tokens(tokens).build()
}

#[tokio::test(start_paused = true)]
async fn a_replay_has_what_the_refresh_has_left() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    let call: Call = tokio::spawn(service.oneshot(with_timeout("10S")));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(timeout_of(&request), "10S", "the first attempt is as it came");
    sleep(secs(1)).await;
    takes(&auth.gate, secs(3));
    respond.send_response(trailers_only("16"));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(timeout_of(&request), "6000000u");
    respond.send_response(trailers_only("0"));
    assert_eq!(done(call).await.headers()["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn it_is_counted_until_the_service_is_ready_for_the_replay() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    handle.allow(1);
    let call: Call = tokio::spawn(service.oneshot(with_timeout("10S")));
    let (_, respond) = next(&mut handle).await;
    respond.send_response(trailers_only("16"));
    sleep(secs(7)).await;
    handle.allow(1);
    let (request, respond) = next(&mut handle).await;
    assert_eq!(timeout_of(&request), "3000000u");
    respond.send_response(trailers_only("0"));
    done(call).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_at_the_gate_is_sent_with_what_the_refresh_has_left() {
    // With and without a copy of its head.
    for may in [true, false] {
        let auth = Auth::new();
        takes(&auth.gate, secs(4));
        let layer = RefreshLayer::new(expired(&auth)).replay_if(move |_| may);
        let (service, mut handle) = mock(&layer);
        let call: Call = tokio::spawn(service.oneshot(with_timeout("1M")));
        let (request, respond) = next(&mut handle).await;
        assert_eq!(timeout_of(&request), "56000000u");
        respond.send_response(trailers_only("0"));
        assert!(done(call).await.extensions().get::<RefreshFailure>().is_none());
    }
}

/// Its replay counts from the beginning, too, and not from the first attempt.
#[tokio::test(start_paused = true)]
async fn a_replay_after_the_gate_counts_from_the_beginning() {
    let auth = Auth::new();
    takes(&auth.gate, secs(4));
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
    let call: Call = tokio::spawn(service.oneshot(with_timeout("20S")));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(timeout_of(&request), "16000000u");
    takes(&auth.gate, secs(5));
    respond.send_response(trailers_only("16"));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(timeout_of(&request), "11000000u");
    respond.send_response(trailers_only("0"));
    done(call).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_or_absent_stays_as_it_is() {
    for timeout in ["", "5", "S", "5s", "123456789n", "+5S", "5 S"] {
        for at_gate in [true, false] {
            let auth = Auth::new();
            takes(&auth.gate, secs(4));
            let state = if at_gate { expired(&auth) } else { builder(&auth).build() };
            let (service, mut handle) = mock(&RefreshLayer::new(state));
            let call: Call = tokio::spawn(service.oneshot(with_timeout(timeout)));
            for code in ["16", "0"] {
                let (request, respond) = next(&mut handle).await;
                assert_eq!(timeout_of(&request), timeout);
                respond.send_response(trailers_only(code));
            }
            done(call).await;
        }
    }
    let auth = Auth::new();
    takes(&auth.gate, secs(4));
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
    let call: Call = tokio::spawn(service.oneshot(post("hello")));
    for code in ["16", "0"] {
        let (request, respond) = next(&mut handle).await;
        assert!(!request.headers().contains_key("grpc-timeout"));
        respond.send_response(trailers_only(code));
    }
    done(call).await;
}

/// The refresh goes on, and the next request has its token.
#[tokio::test(start_paused = true)]
async fn a_refused_request_waits_no_longer_than_its_timeout() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    takes(&auth.gate, secs(5));
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let begun = Instant::now();
    let call: Call = tokio::spawn(service.oneshot(with_timeout("2S")));
    let (_, respond) = next(&mut handle).await;
    let mut answer = trailers_only("16");
    answer.headers_mut().insert("x-original", "yes".parse().unwrap());
    respond.send_response(answer);
    let response = done(call).await;
    assert_eq!(begun.elapsed(), secs(2));
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(response.headers()["x-original"], "yes");
    assert_eq!(failure(&response), FailureKind::Deadline);
    assert_eq!(state.status().counts.failures(FailureKind::Deadline), 1);
    sleep(secs(4)).await;
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_at_the_gate_waits_no_longer_than_its_timeout() {
    for may in [true, false] {
        let auth = Auth::new();
        takes(&auth.gate, secs(5));
        let layer = RefreshLayer::new(expired(&auth)).replay_if(move |_| may);
        let (service, mut handle) = mock(&layer);
        let begun = Instant::now();
        let call: Call = tokio::spawn(service.oneshot(with_timeout("2000m")));
        let (request, respond) = next(&mut handle).await;
        assert_eq!(begun.elapsed(), secs(2));
        // The least there is: the service says in its own words that the time is up.
        assert_eq!(timeout_of(&request), "1n");
        respond.send_response(trailers_only("4"));
        let response = done(call).await;
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(failure(&response), FailureKind::Deadline);
    }
}

/// There is a newer token already, and nothing has to be waited for.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_not_replayed() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let call: Call = tokio::spawn(service.oneshot(with_timeout("2S")));
    let (_, respond) = next(&mut handle).await;
    state.refresh().await.unwrap();
    sleep(secs(2)).await;
    respond.send_response(trailers_only("16"));
    let response = done(call).await;
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(failure(&response), FailureKind::Deadline);
    assert_eq!(auth.count(), 1);
}

/// The call has no deadline of its own: the state's holds, and what is left is
/// still sent.
#[tokio::test(start_paused = true)]
async fn a_timeout_longer_than_the_states_deadline_changes_nothing_of_that() {
    let auth = Auth::new();
    auth.gate.close();
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
    let begun = Instant::now();
    let call: Call = tokio::spawn(service.oneshot(with_timeout("99999999H")));
    let (request, respond) = next(&mut handle).await;
    assert_eq!(begun.elapsed(), secs(30));
    assert_eq!(timeout_of(&request), "99999998H");
    respond.send_response(trailers_only("0"));
    assert_eq!(failure(&done(call).await), FailureKind::Deadline);
}

/// Waiters that wait equally long share one timer; each other waiter has its own.
#[tokio::test(start_paused = true)]
async fn each_waits_as_long_as_it_may_whoever_came_before() {
    let auth = Auth::new();
    auth.gate.close();
    let (service, mut handle) = mock(&RefreshLayer::new(expired(&auth)));
    let begun = Instant::now();
    let calls = ["20S", "1H", "5S", "", "3S", "40S"];
    for timeout in calls {
        let service = service.clone();
        tokio::spawn(async move {
            let mut request = with_timeout(timeout);
            request.headers_mut().insert("x-name", timeout.parse().unwrap());
            service.oneshot(request).await
        });
        sleep(Duration::from_millis(999)).await;
        idle().await;
    }
    let mut sent = Vec::new();
    while sent.len() < calls.len() {
        let (request, respond) = next(&mut handle).await;
        sent.push((name_of(request.headers()), begun.elapsed().as_secs()));
        respond.send_response(trailers_only("0"));
    }
    // They came a second after one another.
    let expected = [("3S", 7), ("5S", 7), ("20S", 20), ("1H", 31), ("", 33), ("40S", 35)];
    sent.sort_by_key(|(name, at)| (*at, name.clone()));
    assert_eq!(sent, expected.map(|(name, at)| (name.to_owned(), at)));
}

fn name_of(headers: &HeaderMap) -> String {
    headers["x-name"].to_str().unwrap().to_owned()
}
