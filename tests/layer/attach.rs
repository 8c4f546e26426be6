//! What goes on a request: the token, where it may go, and whose it is.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, request::Parts};
use http_body_util::Full;
use testing::{Auth, Logs, Play, answer, builder, get, idle, mock, next, token_of, tokens};
use tower::{Layer, Service, ServiceExt, service_fn, util::ServiceFn};
use tower_refresh::{
    FailureKind, FromExtensions, RefreshFailure, RefreshLayer, RefreshState, Tokens,
    body::ReplayBody, layer::Attempt,
};

use crate::{layer, serve, state};

#[tokio::test(start_paused = true)]
async fn a_header_of_ones_own_takes_the_bare_token() {
    let auth = Auth::new();
    let name = HeaderName::from_static("x-api-key");
    let (service, mut handle) = mock(&layer(&auth).attach_header(name.clone()));
    let call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[401, 200]).await;
    for (request, token) in seen.iter().zip(["access-1", "access-2"]) {
        assert_eq!(request.headers()[&name], token);
        assert!(request.headers()[&name].is_sensitive());
        assert!(!request.headers().contains_key("authorization"));
    }
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn authorization_as_the_header_keeps_its_scheme() {
    let auth = Auth::new();
    let (service, mut handle) = mock(&layer(&auth).attach_header(http::header::AUTHORIZATION));
    let _call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[200]).await;
    assert_eq!(seen[0].headers()["authorization"], "Bearer access-1");
}

#[tokio::test(start_paused = true)]
async fn a_closure_puts_the_token_where_it_likes_once_an_attempt() {
    let auth = Auth::new();
    let layer = layer(&auth).attach_with(|parts: &mut Parts, credential| {
        let token = credential.access_token().unwrap_or("none");
        parts.uri = format!("/?key={token}").parse().unwrap();
        parts.headers.append("x-times", "once".parse().unwrap());
    });
    let (service, mut handle) = mock(&layer);
    let _call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[401, 200]).await;
    for (request, uri) in seen.iter().zip(["/?key=access-1", "/?key=access-2"]) {
        assert_eq!(request.uri(), uri);
        assert_eq!(request.headers().get_all("x-times").iter().count(), 1);
    }
}

/// Also where the token goes elsewhere: the request says that it has credentials.
#[tokio::test(start_paused = true)]
async fn credentials_of_its_own_leave_a_request_alone() {
    let key = HeaderName::from_static("x-api-key");
    for (layer, own) in [
        (layer(&Auth::new()), "authorization"),
        (layer(&Auth::new()).attach_header(key.clone()), "authorization"),
        (layer(&Auth::new()).attach_header(key), "x-api-key"),
        (layer(&Auth::new()).attach_with(|_, _| panic!("not called")), "authorization"),
    ] {
        let (service, mut handle) = mock(&layer);
        let mut request = get("/");
        request.headers_mut().insert(own, "mine".parse().unwrap());
        let call = tokio::spawn(service.oneshot(request));
        let seen = serve(&mut handle, &[401]).await;
        assert_eq!(seen[0].headers().len(), 1, "{own}");
        assert_eq!(seen[0].headers()[own], "mine");
        assert!(seen[0].extensions().get::<Attempt>().is_none());
        assert_eq!(call.await.unwrap().unwrap().status(), 401);
    }
}

/// Nor does it start a refresh that it has no use for, or wait for one.
#[tokio::test(start_paused = true)]
async fn a_request_with_credentials_of_its_own_does_not_wait_for_a_token() {
    let auth = Auth::new();
    let expired = tokens(1).with_expires_in(Duration::ZERO);
    let state = RefreshState::builder(auth.refresher()).tokens(expired).build();
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let mut request = get("/");
    request.headers_mut().insert("authorization", "mine".parse().unwrap());
    let call = tokio::spawn(service.oneshot(request));
    serve(&mut handle, &[200]).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(state.status().in_flight, None);
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_signed_out_request_is_sent_without_a_token_and_told_why() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).build();
    let (service, mut handle) = mock(&RefreshLayer::new(state));
    for _ in 0..2 {
        let call = tokio::spawn(service.clone().oneshot(get("/")));
        let seen = serve(&mut handle, &[401]).await;
        assert_eq!(token_of(&seen[0]), None);
        let response = call.await.unwrap().unwrap();
        let failure = response.extensions().get::<RefreshFailure>().unwrap();
        assert_eq!(failure.kind(), FailureKind::SignedOut);
    }
    assert_eq!(auth.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_stand_in_a_header_is_not_sent() {
    let auth = Auth::new();
    let broken = Tokens::new("line\nbreak").with_refresh_token("refresh-1");
    let state = RefreshState::builder(auth.refresher()).tokens(broken).build();
    let (service, mut handle) = mock(&RefreshLayer::new(state));
    let call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[401, 200]).await;
    assert_eq!(token_of(&seen[0]), None);
    assert_eq!(token_of(&seen[1]), Some("access-2"), "refreshed all the same");
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_origins_get_no_token_and_their_401_means_nothing() {
    let auth = Auth::new();
    let layer = layer(&auth)
        .allow_origin("https://api.example.com")
        .and_then(|layer| layer.allow_origin("http://localhost:8080"))
        .unwrap();
    let (service, mut handle) = mock(&layer);
    let call = tokio::spawn(service.clone().oneshot(get("https://evil.example.com/")));
    let seen = serve(&mut handle, &[401]).await;
    assert_eq!(token_of(&seen[0]), None);
    assert!(seen[0].extensions().get::<Attempt>().is_none());
    let response = call.await.unwrap().unwrap();
    assert!(response.extensions().get::<RefreshFailure>().is_none());
    idle().await;
    assert_eq!(auth.count(), 0);

    for uri in ["https://api.example.com/a", "http://localhost:8080/b"] {
        let _call = tokio::spawn(service.clone().oneshot(get(uri)));
        assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), Some("access-1"));
    }
    layer.allow_origin("no origin").unwrap_err();
}

/// A client may add its origin below the layer. That its requests go without a token is said, once
/// a layer; or it is allowed.
#[tokio::test(start_paused = true)]
async fn a_request_without_an_origin_is_told_of_or_allowed() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let layer = layer(&auth).allow_origin("https://api.example.com").unwrap();
    for services in 0..2 {
        let (service, mut handle) = mock(&layer);
        for _ in 0..2 {
            let call = tokio::spawn(service.clone().oneshot(get("/orders")));
            let seen = serve(&mut handle, &[401]).await;
            assert_eq!(token_of(&seen[0]), None, "{services}");
            call.await.unwrap().unwrap();
        }
    }
    assert_eq!(auth.count(), 0);
    assert_eq!(logs.count(&["WARN", "allow_relative"]), 1);

    let (service, mut handle) = mock(&layer.allow_relative());
    for (uri, token) in [("/orders", Some("access-1")), ("https://evil.example.com/", None)] {
        let _call = tokio::spawn(service.clone().oneshot(get(uri)));
        assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), token, "{uri}");
    }
    assert_eq!(logs.count(&["WARN", "allow_relative"]), 1);
}

#[tokio::test(start_paused = true)]
async fn a_layer_may_have_no_credential_at_all() {
    let auth = Auth::new();
    for (credential, token) in [(Some(builder(&auth).build()), Some("access-1")), (None, None)] {
        let (service, mut handle) = mock(&RefreshLayer::per_request(credential));
        let call = tokio::spawn(service.oneshot(get("/")));
        assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), token);
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_uses_its_own_credential() {
    let auths: Vec<_> = (0..3).map(|_| Auth::new()).collect();
    let states: Vec<_> = auths
        .iter()
        .enumerate()
        .map(|(user, auth)| {
            let first = Tokens::new(format!("user-{user}")).with_refresh_token("r");
            auth.next(Play::Mint(Tokens::new(format!("fresh-{user}"))));
            RefreshState::builder(auth.refresher()).tokens(first).build()
        })
        .collect();
    let layer = RefreshLayer::per_request(FromExtensions);
    let (service, mut handle) = mock(&layer);
    let calls: Vec<_> = states
        .iter()
        .map(|state| {
            let mut request = get("/");
            request.extensions_mut().insert(Arc::clone(state));
            tokio::spawn(service.clone().oneshot(request))
        })
        .collect();
    let mut seen: Vec<_> = Vec::new();
    for _ in 0..3 {
        let (request, respond) = next(&mut handle).await;
        let token = token_of(&request).unwrap().to_owned();
        // The second user's token still works.
        respond.send_response(answer(if token == "user-1" { 200 } else { 401 }));
        seen.push(token);
    }
    for _ in 0..2 {
        let (request, respond) = next(&mut handle).await;
        seen.push(token_of(&request).unwrap().to_owned());
        respond.send_response(answer(200));
    }
    seen.sort();
    assert_eq!(seen, ["fresh-0", "fresh-2", "user-0", "user-1", "user-2"]);
    for call in join_all(calls).await {
        assert_eq!(call.unwrap().unwrap().status(), 200);
    }
    assert_eq!(auths.iter().map(Auth::count).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(states[1].current().access_token(), Some("user-1"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_credential_passes_as_it_is() {
    let state = state(&Auth::new());
    let by_path = move |parts: &Parts| (parts.uri.path() == "/mine").then(|| Arc::clone(&state));
    let (service, mut handle) = mock(&RefreshLayer::per_request(by_path));
    for (path, token) in [("/mine", Some("access-1")), ("/other", None)] {
        let call = tokio::spawn(service.clone().oneshot(get(path)));
        let seen = serve(&mut handle, &[200]).await;
        assert_eq!(token_of(&seen[0]), token);
        call.await.unwrap().unwrap();
    }
}

/// One service instance, used for one credential and then for another.
#[tokio::test(start_paused = true)]
async fn a_service_keeps_no_token_of_the_request_before() {
    let auth = Auth::new();
    // Of the same generation.
    let one = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    let two = RefreshState::builder(auth.refresher()).tokens(tokens(200)).build();
    let (mut service, mut handle) = mock(&RefreshLayer::per_request(FromExtensions));
    for _ in 0..3 {
        for (state, token) in [(&one, "access-1"), (&two, "access-200")] {
            let mut request = get("/");
            request.extensions_mut().insert(Arc::clone(state));
            service.ready().await.unwrap();
            let _call = tokio::spawn(service.call(request));
            assert_eq!(token_of(&serve(&mut handle, &[200]).await[0]), Some(token));
        }
    }
}

/// As a refresh token in an environment variable is.
#[tokio::test(start_paused = true)]
async fn an_empty_access_token_means_begin_with_the_refresh_token() {
    for empty in ["", " ", "\n"] {
        let auth = Auth::new();
        let begin = Tokens::new(empty).with_refresh_token("refresh-1\n");
        let state = RefreshState::builder(auth.refresher()).tokens(begin).build();
        assert_eq!(state.current().access_token(), None);
        let (service, mut handle) = mock(&RefreshLayer::new(state));
        let call = tokio::spawn(service.oneshot(get("/")));
        let seen = serve(&mut handle, &[200]).await;
        assert_eq!(token_of(&seen[0]), Some("access-2"));
        call.await.unwrap().unwrap();
        assert_eq!(auth.asked(), ["refresh-1"]);
    }
}

/// As a file's last line end is.
#[tokio::test(start_paused = true)]
async fn white_space_at_the_ends_of_a_token_is_none_of_it() {
    let auth = Auth::new();
    let begin = Tokens::new(" access-1\r\n").with_refresh_token("\trefresh-1\n");
    let state = RefreshState::builder(auth.refresher()).tokens(begin).build();
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let call = tokio::spawn(service.oneshot(get("/")));
    let seen = serve(&mut handle, &[200]).await;
    assert_eq!(token_of(&seen[0]), Some("access-1"));
    call.await.unwrap().unwrap();
    state.refresh().await.unwrap();
    assert_eq!(auth.asked(), ["refresh-1"]);
}

/// In the first attempt, in a later one, and in one that had to wait.
#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_stand_in_a_header_is_a_failure_that_says_so() {
    let auth = Auth::new();
    auth.next(Play::Mint(Tokens::new("line\nend").with_refresh_token("refresh-2")));
    let state = RefreshState::builder(auth.refresher())
        .tokens(Tokens::new("").with_refresh_token("refresh-1"))
        .build();
    let layer = RefreshLayer::new(state);
    let (service, mut handle) = mock(&layer);
    for _ in 0..3 {
        let call = tokio::spawn(service.clone().oneshot(get("/")));
        let seen = serve(&mut handle, &[200]).await;
        assert_eq!(token_of(&seen[0]), None);
        let response = call.await.unwrap().unwrap();
        let failure = response.extensions().get::<RefreshFailure>().unwrap();
        assert_eq!(failure.kind(), FailureKind::Unsendable);
        assert!(!failure.to_string().contains("line"));
    }
    assert_eq!(auth.count(), 1, "it is not minted again and again");
}

/// A server that mints nothing is not asked again and again.
#[tokio::test(start_paused = true)]
async fn an_empty_token_that_was_minted_is_not_refreshed_in_a_loop() {
    let auth = Auth::new();
    auth.next(Play::Mint(Tokens::new("").with_refresh_token("refresh-2")));
    let state = RefreshState::builder(auth.refresher()).tokens(tokens(1)).build();
    state.refresh().await.unwrap();
    for _ in 0..10 {
        let _ = state.token().await;
    }
    assert_eq!(auth.count(), 1);
}

/// The URI and the token of each request that reached the server.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

type Replayed = http::Request<ReplayBody<Full<Bytes>>>;
type Answered = Ready<Result<http::Response<Full<Bytes>>, Infallible>>;

/// A server that answers with this status.
fn server(seen: &Seen, status: u16) -> ServiceFn<impl FnMut(Replayed) -> Answered + Clone> {
    let seen = Arc::clone(seen);
    service_fn(move |request: Replayed| {
        let has_token = request.headers().contains_key("authorization");
        seen.lock().unwrap().push((request.uri().to_string(), has_token));
        ready(Ok(answer(status)))
    })
}

/// I13; `allow_origin`: "where a call goes on to another origin than its first, because a layer above
/// follows redirects with clones of the service that it has called, the token stays behind". The
/// first request of the call names no origin, as with a client that adds it below; the redirect does.
///
/// Order: a call of `/orders`; the layer above follows a `Location: https://evil.example.com/` with a
/// clone of the service that it has called.
#[tokio::test]
async fn i13_a_call_that_began_without_an_origin_takes_its_token_nowhere() {
    let (auth, seen) = (Auth::new(), Seen::default());
    let mut first = RefreshLayer::new(builder(&auth).build()).layer(server(&seen, 302));
    first.ready().await.unwrap().call(get("/orders")).await.unwrap();
    first.clone().oneshot(get("https://evil.example.com/")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].1);
    assert!(!seen[1].1, "{:?}", seen[1]);
}

/// `allow_origin`: "Default: tokens go wherever the request goes; but where a call goes on to another
/// origin than its first".
///
/// Order: a client calls host A once, and is cloned afterwards, once for each task, as clients are. A
/// task's own, first request goes to host B: no call has gone on anywhere.
#[tokio::test]
async fn a_clone_of_a_client_that_was_used_before_may_call_any_origin() {
    let (auth, seen) = (Auth::new(), Seen::default());
    let mut client = RefreshLayer::new(builder(&auth).build()).layer(server(&seen, 200));
    client.ready().await.unwrap().call(get("https://api.example.com/")).await.unwrap();
    let mut tasks = client.clone();
    for _ in 0..2 {
        let request = get("https://uploads.example.com/");
        tasks.ready().await.unwrap().call(request).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, has_token)| *has_token), "{seen:?}");
}
