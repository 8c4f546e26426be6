//! What a response means, and which requests are sent again.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use testing::{Auth, Request, Response, answer, get, idle, mock, next, post, token_of};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    Generation, RefreshFailure,
    body::{NotReplayable, ReplayBody},
    layer::{Attempt, ResponseHead, Verdict},
};

use crate::{layer, serve};

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_decides() {
    let auth = Auth::new();
    let classify = |head: &ResponseHead<'_>| match head.status().as_u16() {
        200 if head.headers().contains_key("x-stale") => Verdict::Challenge,
        401 => Verdict::Ignore,
        _ => Verdict::Accept,
    };
    let (service, mut handle) = mock(&layer(&auth).classify(classify));
    let call = tokio::spawn(service.clone().oneshot(get("/")));
    serve(&mut handle, &[401]).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 401);
    assert_eq!(auth.count(), 0);

    let call = tokio::spawn(service.oneshot(get("/")));
    let (_, respond) = next(&mut handle).await;
    let mut stale = answer(200);
    stale.headers_mut().insert("x-stale", "1".parse().unwrap());
    respond.send_response(stale);
    serve(&mut handle, &[204]).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 204);
    assert_eq!(auth.count(), 1);
}

/// A refresh brings no other scope: it must not be tried for ever.
#[tokio::test(start_paused = true)]
async fn a_scope_challenge_goes_to_the_caller() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&layer(&auth));
    let call = tokio::spawn(service.oneshot(get("/")));
    let (_, respond) = next(&mut handle).await;
    let mut challenge = answer(401);
    challenge.headers_mut().insert(
        "www-authenticate",
        "Bearer error=\"insufficient_scope\", scope=\"admin\"".parse().unwrap(),
    );
    respond.send_response(challenge);
    assert_eq!(call.await.unwrap().unwrap().status(), 401);
    assert_eq!(auth.count(), 0);
}

/// Only what accepts the token tells the brake so.
#[tokio::test(start_paused = true)]
async fn an_accepted_token_does_not_count_for_the_brake_and_an_error_proves_nothing() {
    for (between, braked) in [(200, false), (503, true)] {
        let auth = Auth::new();
        let (service, mut handle) = mock(&layer(&auth));
        for _ in 0..20 {
            let call = tokio::spawn(service.clone().oneshot(get("/")));
            let (_, respond) = next(&mut handle).await;
            respond.send_response(answer(401));
            idle().await;
            if !call.is_finished() {
                serve(&mut handle, &[between]).await;
            }
            call.await.unwrap().unwrap();
        }
        assert_eq!(auth.count() < 20, braked, "{between}");
    }
}

/// A replay would do a second time what was done in part.
#[tokio::test(start_paused = true)]
async fn what_was_carried_out_in_part_is_refreshed_for_and_not_replayed() {
    let auth = Auth::new();
    let classify = |head: &ResponseHead<'_>| match head.status().as_u16() {
        207 => Verdict::RefreshOnly,
        _ => Verdict::Accept,
    };
    let (service, mut handle) = mock(&layer(&auth).classify(classify));
    auth.gate.close();
    let call = tokio::spawn(service.clone().oneshot(post("two mutations")));
    serve(&mut handle, &[207]).await;
    // At once, while the refresh goes on.
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 207);
    assert_eq!(response.extensions().get(), Some(&NotReplayable::CarriedOut));
    assert!(response.extensions().get::<RefreshFailure>().is_none());

    let call = tokio::spawn(service.oneshot(get("/")));
    idle().await;
    auth.gate.open();
    assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), Some("access-2"));
    call.await.unwrap().unwrap();
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_predicate_forbids_the_replay_and_the_refresh_starts_all_the_same() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&layer(&auth).replay_if(|parts| parts.method != Method::POST));
    let call = tokio::spawn(service.clone().oneshot(post("pay")));
    serve(&mut handle, &[401]).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get(), Some(&NotReplayable::Forbidden));
    assert!(response.extensions().get::<RefreshFailure>().is_none());
    idle().await;
    assert_eq!(auth.count(), 1);

    let call = tokio::spawn(service.oneshot(get("/")));
    assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), Some("access-2"));
    call.await.unwrap().unwrap();
}

/// What goes over the budget of all is sent whole, once; what other requests keep stays kept.
#[tokio::test(start_paused = true)]
async fn the_budget_is_shared_by_all_services_and_clones_of_a_layer() {
    let auth = Auth::new();
    let layer = layer(&auth).replay_budget(200).clone_bodies();
    let (one, mut handle_one) = tower_test::mock::pair::<Request, Response>();
    let (two, mut handle_two) = tower_test::mock::pair::<Request, Response>();
    let (one, two) = (layer.layer(one), layer.clone().layer(two));
    let body = "x".repeat(100);
    let request = || http::Request::post("/").body(Full::from(body.clone())).unwrap();

    let first = tokio::spawn(one.clone().oneshot(request()));
    let (_, respond_first) = next(&mut handle_one).await;
    let second = tokio::spawn(two.oneshot(request()));
    let (sent, respond) = next(&mut handle_two).await;
    assert_eq!(sent.into_body().collect().await.unwrap().to_bytes(), body.as_bytes());
    respond.send_response(answer(401));
    let response = second.await.unwrap().unwrap();
    assert_eq!(response.extensions().get(), Some(&NotReplayable::OverBudget));

    respond_first.send_response(answer(401));
    serve(&mut handle_one, &[200]).await;
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    // Given back: the next one may keep its body again.
    let third = tokio::spawn(one.oneshot(request()));
    serve(&mut handle_one, &[401]).await;
    idle().await;
    serve(&mut handle_one, &[200]).await;
    assert_eq!(third.await.unwrap().unwrap().status(), 200);
}

/// Read on while the request waits for the flight, past what may be kept.
#[tokio::test(start_paused = true)]
async fn an_upload_that_passes_the_cap_during_the_flight_is_not_replayed() {
    let auth = Auth::new();
    auth.gate.close();
    let (inner, mut handle) = tower_test::mock::pair::<http::Request<ReplayBody<_>>, _>();
    let mut service = layer(&auth).replay_cap(8).layer(inner);
    let chunks = ["four", "more", "over"].map(|c| Ok::<_, Infallible>(Frame::data(Bytes::from(c))));
    let body = StreamBody::new(futures_util::stream::iter(chunks));
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(http::Request::post("/").body(body).unwrap()));
    assert_pending!(call.poll());
    let (request, respond) = next(&mut handle).await;
    let mut upload = request.into_body();
    upload.frame().await.unwrap().unwrap();
    respond.send_response(answer(401).map(|_| Full::from("original")));
    assert_pending!(call.poll());
    upload.frame().await.unwrap().unwrap();
    upload.frame().await.unwrap().unwrap();
    assert!(upload.frame().await.is_none(), "the upload was not harmed");
    auth.gate.open();

    let response = call.await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get(), Some(&NotReplayable::TooLarge));
    let body: Full<Bytes> = response.into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "original");
}

#[tokio::test(start_paused = true)]
async fn attempts_carry_their_number_and_generation() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&layer(&auth).mark_attempts(true));
    let call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[401, 200]).await;
    for (request, number) in seen.iter().zip([1, 2]) {
        let attempt = request.extensions().get::<Attempt>().unwrap();
        assert_eq!(
            (attempt.number(), attempt.generation()),
            (number, Generation::new(number.into()))
        );
    }
    assert!(call.await.unwrap().unwrap().extensions().is_empty());

    // As it comes, only the replay does.
    let (service, mut handle) = mock(&layer(&Auth::new()));
    let _call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[401, 200]).await;
    assert!(seen[0].extensions().is_empty());
    assert_eq!(seen[1].extensions().get::<Attempt>().unwrap().number(), 2);
}

/// Each has the request's extensions as the caller made them, not the other's.
#[tokio::test(start_paused = true)]
async fn the_callers_extensions_are_cloned_for_the_replay() {
    #[derive(Clone)]
    struct Shared(Arc<AtomicUsize>);
    let auth = Auth::new();
    let (service, mut handle) = mock(&layer(&auth));
    let mut request = get("/");
    let shared = Arc::new(AtomicUsize::new(0));
    request.extensions_mut().insert(Shared(Arc::clone(&shared)));
    let call = tokio::spawn(service.oneshot(request));
    for status in [401, 200] {
        let (mut request, respond) = next(&mut handle).await;
        let Shared(counter) = request.extensions_mut().remove().expect("in both");
        counter.fetch_add(1, Ordering::SeqCst);
        assert!(request.extensions_mut().insert("left behind").is_none());
        respond.send_response(answer(status));
    }
    call.await.unwrap().unwrap();
    assert_eq!(shared.load(Ordering::SeqCst), 2);
}

/// What was sent of it cannot be made whole.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_means_no_replay() {
    let auth = Auth::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let inner = service_fn(move |request: http::Request<ReplayBody<_>>| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(request.into_body().collect().await.is_err());
            Ok::<_, Infallible>(answer(401))
        }
    });
    let frames = [Ok(Frame::data(Bytes::from("half"))), Err(std::io::Error::other("gone"))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let service = layer(&auth).layer(inner);
    let response = service.oneshot(http::Request::post("/").body(body).unwrap()).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&NotReplayable::SourceFailed));
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}
