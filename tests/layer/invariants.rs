//! Invariants 8, 10, 11, 12 and 13: what happens to one request.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use testing::{
    Api, Auth, Play, answer, builder, get, idle, mock, next, post, secs, token_of, tokens,
};
use tokio::sync::mpsc;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshLayer, RefreshState,
    body::{BodyError, BodyErrorKind, NotReplayable, ReplayBody},
    layer::Attempt,
};

#[tokio::test(start_paused = true)]
async fn i8_a_challenge_to_the_replay_goes_to_the_caller() {
    let auth = Auth::new();
    let api = Api::accepting("nothing");
    let service = RefreshLayer::new(builder(&auth).build()).layer(api.clone());
    let response = service.oneshot(post("hello")).await.unwrap();
    idle().await;
    assert_eq!(response.status(), 401);
    assert!(response.extensions().is_empty(), "nothing has failed but the server");
    assert_eq!(api.count(401), 2);
    assert_eq!(auth.count(), 1, "it starts no other refresh");
}

/// The refresher has a service of its own; the layer never sees its requests, so
/// that a challenge by the authorization server means a failed refresh and no more.
#[tokio::test(start_paused = true)]
async fn i8_the_refreshers_own_challenge_does_not_start_another_refresh() {
    let token_endpoint = Api::accepting("nothing");
    let asked = token_endpoint.clone();
    let state = RefreshState::builder(move |_| {
        let service = asked.clone();
        async move {
            let response = service.oneshot(post("grant")).await.unwrap();
            assert_eq!(response.status(), 401);
            Err(tower_refresh::RefreshError::transient("401 from the token endpoint"))
        }
    })
    .tokens(tokens(1))
    .build();
    let api = Api::accepting("access-2");
    let service = RefreshLayer::new(state).layer(api.clone());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 401);
    assert_eq!((token_endpoint.count(401), api.count(401)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn i10_the_replayed_body_is_the_original_with_its_trailers() {
    let auth = Auth::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<ReplayBody<_>>| {
        let log = Arc::clone(&log);
        async move {
            let first = token_of(&request) == Some("access-1");
            let all = request.into_body().collect().await?;
            let trailers = all.trailers().cloned();
            log.lock().unwrap().push((all.to_bytes(), trailers));
            let mut response = Response::new(Empty::<Bytes>::new());
            if first {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, BodyError>(response)
        }
    });
    let service = RefreshLayer::new(builder(&auth).build()).layer(inner);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = ["one ", "two ", "three"]
        .map(|chunk| http_body::Frame::data(Bytes::from(chunk)))
        .into_iter()
        .chain([http_body::Frame::trailers(trailers)])
        .map(Ok::<_, std::convert::Infallible>);
    let body = StreamBody::new(futures_util::stream::iter(frames));

    let response = service.oneshot(Request::post("/").body(body).unwrap()).await.unwrap();

    assert_eq!(response.status(), 200);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1].0, "one two three");
    assert_eq!(seen[1].1.as_ref().unwrap()["x-sum"], "42");
}

#[tokio::test(start_paused = true)]
async fn i10_a_body_past_the_cap_is_sent_whole_and_not_replayed() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let api = Api::accepting("access-2");
    let service = RefreshLayer::new(Arc::clone(&state)).replay_cap(4).layer(api.clone());

    let response = service.clone().oneshot(post("hello")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get(), Some(&NotReplayable::TooLarge));
    assert_eq!(api.bodies(401), ["hello"]);

    // It has started the refresh, and the next caller has the new token.
    idle().await;
    assert_eq!(service.oneshot(post("hello")).await.unwrap().status(), 200);
    assert_eq!(auth.count(), 1);
}

/// The challenge comes while the upload still runs: the replay takes the rest of
/// the source over, and the first attempt's body ends in an error and is woken.
#[tokio::test(start_paused = true)]
async fn i10_a_replay_takes_over_an_upload_that_still_runs() {
    let auth = Auth::new();
    let (send, mut chunks) = mpsc::channel::<Bytes>(8);
    let source = StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        chunks
            .poll_recv(cx)
            .map(|chunk| chunk.map(|c| Ok::<_, BodyError>(http_body::Frame::data(c))))
    }));
    let (inner, mut handle) =
        tower_test::mock::pair::<Request<ReplayBody<_>>, Response<Full<Bytes>>>();
    let mut service = RefreshLayer::new(builder(&auth).build()).layer(inner);

    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(Request::post("/").body(source).unwrap()));
    assert_pending!(call.poll());
    let (first, respond) = next(&mut handle).await;
    let mut upload = first.into_body();
    send.send(Bytes::from("sent ")).await.unwrap();
    assert_eq!(upload.frame().await.unwrap().unwrap().into_data().unwrap(), "sent ");
    let mut stalled = task::spawn(upload.frame());
    assert_pending!(stalled.poll());

    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    let (replay, respond) = next(&mut handle).await;
    assert!(stalled.is_woken());
    let ended = assert_ready!(stalled.poll()).unwrap().unwrap_err();
    assert_eq!(ended.kind(), BodyErrorKind::Superseded);

    send.send(Bytes::from("later")).await.unwrap();
    drop(send);
    assert_eq!(replay.into_body().collect().await.unwrap().to_bytes(), "sent later");
    respond.send_response(answer(200));
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn i10_an_accepted_head_frees_what_was_kept_and_the_upload_goes_on() {
    let auth = Auth::new();
    let layer = RefreshLayer::new(builder(&auth).build()).replay_budget(1000);
    let (mut service, mut handle) = mock(&layer);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (request, respond) = next(&mut handle).await;
    respond.send_response(answer(200));
    assert_ready!(call.poll()).unwrap();
    assert!(format!("{layer:?}").contains("used: 0"), "{layer:?}");
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert!(format!("{layer:?}").contains("used: 0"), "{layer:?}");
}

#[tokio::test(start_paused = true)]
async fn i11_the_replay_has_the_same_head_and_the_response_passes() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(&'static str);
    let auth = Auth::new();
    let layer = RefreshLayer::new(builder(&auth).build()).mark_attempts(true);
    let (mut service, mut handle) = mock(&layer);
    let request = Request::builder()
        .method("PATCH")
        .uri("https://example.com/path?query")
        .version(http::Version::HTTP_2)
        .header("x-many", "one")
        .header("x-many", "two")
        .extension(Mark("mine"))
        .body(Full::from("hello"))
        .unwrap();
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(request));
    for (token, status, number) in [("access-1", 401, 1), ("access-2", 418, 2)] {
        let (seen, respond) = next(&mut handle).await;
        assert_eq!(seen.method(), "PATCH");
        assert_eq!(seen.uri(), "https://example.com/path?query");
        assert_eq!(seen.version(), http::Version::HTTP_2);
        assert_eq!(seen.headers().get_all("x-many").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(seen.headers().len(), 3);
        assert_eq!(seen.extensions().get(), Some(&Mark("mine")));
        assert_eq!(seen.extensions().get::<Attempt>().unwrap().number(), number);
        assert_eq!(token_of(&seen), Some(token));
        assert_eq!(seen.body().size_hint().exact(), Some(5));
        let mut response = answer(status).map(|_| Full::from("short and stout"));
        response.headers_mut().insert("x-response", "yes".parse().unwrap());
        response.extensions_mut().insert(Mark("theirs"));
        respond.send_response(response);
    }
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(response.headers()["x-response"], "yes");
    assert_eq!(response.extensions().get(), Some(&Mark("theirs")));
    assert!(response.extensions().get::<RefreshFailure>().is_none());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "short and stout");
}

#[tokio::test(start_paused = true)]
async fn i11_own_authorization_is_left_alone() {
    let auth = Auth::new();
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    let mut request = post("hello");
    request.headers_mut().insert("authorization", "Basic bWU6cHc=".parse().unwrap());
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(request));
    let (seen, respond) = next(&mut handle).await;
    assert_eq!(seen.headers()["authorization"], "Basic bWU6cHc=");
    respond.send_response(answer(401));
    assert_eq!(call.await.unwrap().unwrap().status(), 401);
    assert_eq!(auth.count(), 0);
}

/// The original response, whole, and the reason in its extensions.
#[tokio::test(start_paused = true)]
async fn i11_a_failed_refresh_gives_the_original_response_and_the_reason() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(post("hello")));
    let (_, respond) = next(&mut handle).await;
    let mut original = answer(401).map(|_| Full::from("who are you?"));
    original.headers_mut().insert("www-authenticate", "Bearer".parse().unwrap());
    respond.send_response(original);

    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let failure = response.extensions().get::<RefreshFailure>().unwrap().clone();
    assert_eq!(failure.kind(), FailureKind::Transient);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "who are you?");
}

#[tokio::test(start_paused = true)]
async fn i11_the_services_error_passes_as_it_is() {
    #[derive(Debug, PartialEq)]
    struct Mine;
    let auth = Auth::new();
    let inner = service_fn(async |_: Request<ReplayBody<Full<Bytes>>>| {
        Err::<Response<Empty<Bytes>>, _>(Mine)
    });
    let service = RefreshLayer::new(builder(&auth).build()).layer(inner);
    assert_eq!(service.oneshot(post("hello")).await.unwrap_err(), Mine);
    assert_eq!(auth.count(), 0);
}

/// [`Api`] panics when it is called without having been made ready.
#[tokio::test(start_paused = true)]
async fn i12_the_replay_asks_for_readiness_of_its_own() {
    let auth = Auth::new();
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    handle.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("hello")));
    assert_pending!(call.poll());
    let (_, respond) = next(&mut handle).await;
    respond.send_response(answer(401));
    assert_pending!(call.poll());
    idle().await;
    assert_pending!(call.poll());
    assert_pending!(task::spawn(handle.next_request()).poll(), "not ready, not called");

    handle.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    let (replay, respond) = next(&mut handle).await;
    assert_eq!(token_of(&replay), Some("access-2"));
    respond.send_response(answer(200));
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn i12_no_ready_service_is_held_while_waiting_at_the_gate() {
    let auth = Auth::new();
    auth.gate.close();
    let state =
        RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(secs(10))).build();
    tokio::time::sleep(secs(11)).await;
    let api = Api::accepting("access-2");
    let mut service = RefreshLayer::new(state).layer(api.clone());
    ServiceExt::<Request<testing::Body>>::ready(&mut service).await.unwrap();
    assert_eq!(api.reserved(), 1);
    let mut call = task::spawn(service.call(post("hello")));
    assert_eq!(api.reserved(), 0, "given up at once, not with the first poll");
    assert_pending!(call.poll());
    idle().await;
    assert_eq!(api.reserved(), 0);
    auth.gate.open();
    assert_eq!(call.await.unwrap().status(), 200);
    assert_eq!(api.reserved(), 0);
}

/// A first attempt's future may hold a permit or a connection.
#[tokio::test(start_paused = true)]
async fn i12_the_first_future_is_dropped_before_the_flight_is_awaited() {
    let auth = Auth::new();
    auth.gate.close();
    let held = Arc::new(());
    let inner = {
        let held = Arc::clone(&held);
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let permit = Arc::clone(&held);
            let status = if token_of(&request) == Some("access-1") { 401 } else { 200 };
            let mut answer = Some(answer(status));
            // The permit is in the future until that is dropped, done or not.
            std::future::poll_fn(move |_| {
                let _ = &permit;
                std::task::Poll::Ready(Ok::<_, std::convert::Infallible>(answer.take().unwrap()))
            })
        })
    };
    let service = RefreshLayer::new(builder(&auth).build()).layer(inner);
    // One for the test, one for each clone of the service.
    let mut call = task::spawn(service.clone().call(post("hello")));
    let sent = Arc::strong_count(&held);
    assert_pending!(call.poll());
    assert!(Arc::strong_count(&held) < sent, "the first future is gone");
    auth.gate.open();
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn i13_the_header_is_sensitive_on_both_attempts() {
    let auth = Auth::new();
    let (mut service, mut handle) = mock(&RefreshLayer::new(builder(&auth).build()));
    service.ready().await.unwrap();
    let call = tokio::spawn(service.call(post("hello")));
    for status in [401, 200] {
        let (seen, respond) = next(&mut handle).await;
        assert!(seen.headers()["authorization"].is_sensitive());
        assert!(!format!("{seen:?}").contains("access-"));
        respond.send_response(answer(status));
    }
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn i13_nothing_is_attached_outside_the_allowed_origins() {
    let auth = Auth::new();
    let layer =
        RefreshLayer::new(builder(&auth).build()).allow_origin("https://api.example.com").unwrap();
    let api = Api::accepting("access-1");
    let service = layer.layer(api.clone());
    for (uri, token) in [
        ("https://api.example.com/", Some("access-1")),
        ("https://evil.example.com/", None),
        ("http://api.example.com/", None),
        ("https://api.example.com:8443/", None),
        ("/", None),
    ] {
        service.clone().oneshot(get(uri)).await.unwrap();
        assert_eq!(api.tokens().pop().unwrap().as_deref(), token, "{uri}");
    }
    assert_eq!(auth.count(), 0, "their 401 means nothing");
}
