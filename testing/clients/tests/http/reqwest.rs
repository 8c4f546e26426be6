//! [`RefreshMiddleware`](tower_refresh::RefreshMiddleware) in reqwest's client, over real sockets.

use std::{
    convert::Infallible,
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Request, StatusCode, header};
use http_body_util::{BodyExt, channel::Channel};
use hyper::body::Incoming;
use reqwest::{Body, Response, Url, redirect};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Next, Result};
use serde_json::json;
use testing::{
    Gate, Loopback,
    loopback::{BOTH, Protocol, text},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tower_refresh::{
    BoxFuture, FailureKind, FromExtensions, RefreshError, RefreshFailure, RefreshLayer,
    RefreshMiddleware, RefreshState, Tokens,
    body::NotReplayable,
    layer::{Attempt, Refused},
};

/// The client without middlewares. No proxy of the environment's has a say here.
pub(crate) fn bare(protocol: Protocol) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    match protocol {
        Protocol::Any | Protocol::Http1 => builder,
        Protocol::Http2 => builder.http2_prior_knowledge(),
    }
    .build()
    .unwrap()
}

fn with(protocol: Protocol, layer: RefreshLayer) -> ClientWithMiddleware {
    ClientBuilder::new(bare(protocol)).with(RefreshMiddleware::new(layer)).build()
}

fn client(protocol: Protocol, server: &Loopback) -> ClientWithMiddleware {
    with(protocol, RefreshLayer::new(server.state()))
}

/// With a middleware that sees each attempt.
fn watched<F>(layer: RefreshLayer, inner: F) -> ClientWithMiddleware
where
    F: for<'a> Fn(
            reqwest::Request,
            &'a mut Extensions,
            Next<'a>,
        ) -> BoxFuture<'a, Result<Response>>
        + Send
        + Sync
        + 'static,
{
    let refresh = RefreshMiddleware::from(layer);
    ClientBuilder::new(bare(Protocol::Http1)).with(refresh).with(inner).build()
}

fn url(server: &Loopback, path: &str) -> String {
    format!("http://{}{path}", server.socket())
}

fn stream<const N: usize>(chunks: [&'static str; N]) -> Body {
    let (mut feed, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        for chunk in chunks {
            feed.send_data(chunk.into()).await.unwrap();
        }
    });
    Body::wrap(body)
}

/// What hangs must fail instead.
async fn or_hangs<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it hangs")
}

#[tokio::test]
async fn a_json_post_is_recovered_by_one_refresh() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, Loopback::strict).await;
        let body = json!({ "name": "value".repeat(10_000) });
        let client = client(protocol, &server);
        let response = client.post(url(&server, "/")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.text().await.unwrap(), "thank you");
        assert_eq!(server.refreshes(), 1);
        assert_eq!(server.bodies(), [Bytes::from(body.to_string())]);
    }
}

#[tokio::test]
async fn a_hundred_at_once_are_one_refresh() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, Loopback::strict).await;
        let client = client(protocol, &server);
        let mut callers = JoinSet::new();
        for number in 0..100 {
            callers.spawn(client.post(url(&server, "/")).json(&json!({ "is": number })).send());
        }
        while let Some(response) = callers.join_next().await {
            assert_eq!(response.unwrap().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(server.refreshes(), 1, "{protocol:?}");
        let mut bodies = server.bodies();
        let mut expected: Vec<_> =
            (0..100).map(|number| Bytes::from(json!({ "is": number }).to_string())).collect();
        bodies.sort();
        expected.sort();
        assert_eq!(bodies, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_stream_is_replayed() {
    for protocol in BOTH {
        let server = Loopback::serve(protocol, Loopback::strict).await;
        let client = client(protocol, &server);
        let body = stream(["one, ", "two, ", "three"]);
        let response = client.post(url(&server, "/")).body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(server.bodies(), ["one, two, three"], "{protocol:?}");
    }
}

/// So the first response was read to its end.
#[tokio::test]
async fn the_replay_uses_the_same_connection() {
    for protocol in BOTH {
        let server =
            Loopback::serve(protocol, |server: Loopback, request: Request<Incoming>| async move {
                match server.accepts(request.headers()) {
                    true => server.strict(request).await,
                    false => {
                        request.into_body().collect().await.unwrap();
                        text(StatusCode::UNAUTHORIZED, vec![b'x'; 40_000])
                    }
                }
            })
            .await;
        let client = client(protocol, &server);
        let response = client.post(url(&server, "/")).body("hello").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(server.connections(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn past_the_cap_or_the_budget_the_original_response_comes_with_the_reason() {
    type Case = (fn(RefreshLayer) -> RefreshLayer, fn() -> Body, NotReplayable);
    let cases: [Case; 4] = [
        (|layer| layer.replay_cap(4), || Body::from("hello"), NotReplayable::TooLarge),
        (|layer| layer.replay_cap(4), || stream(["hel", "lo"]), NotReplayable::TooLarge),
        (|layer| layer.replay_budget(10), || Body::from("hello"), NotReplayable::OverBudget),
        (|layer| layer.replay_if(|_| false), || Body::from("hello"), NotReplayable::Forbidden),
    ];
    for protocol in BOTH {
        for (knob, body, reason) in cases {
            let server = Loopback::serve(protocol, Loopback::strict).await;
            let state = server.state();
            let mut changes = state.subscribe();
            let client = with(protocol, knob(RefreshLayer::new(state)));
            let post = || client.post(url(&server, "/")).body(body()).send();
            let response = post().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.extensions().get(), Some(&reason));
            assert_eq!(response.text().await.unwrap(), "the token has expired");
            // It was not in vain: the next one finds a new token.
            changes.changed().await.unwrap();
            assert_eq!(post().await.unwrap().status(), StatusCode::OK);
            assert_eq!(server.bodies(), ["hello"]);
        }
    }
}

#[tokio::test]
async fn a_rejected_refresh_leaves_the_original_response_and_says_so() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let client = with(Protocol::Http1, RefreshLayer::new(state));
    let response = client.post(url(&server, "/")).json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let failure = response.extensions().get::<RefreshFailure>().unwrap();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    assert_eq!(response.text().await.unwrap(), "the token has expired");
}

/// As an inner middleware sees it, both times.
#[tokio::test]
async fn nothing_else_of_a_request_changes() {
    for body in [None, Some(""), Some("known")] {
        let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&attempts);
        let layer = RefreshLayer::new(server.state());
        let client = watched(layer, move |request, extensions, next| {
            noted.lock().unwrap().push(request.try_clone().expect("its body is known"));
            next.run(request, extensions)
        });
        let whole = url(&server, "/path?query=1#fragment");
        let mut request = reqwest::Request::new(reqwest::Method::PUT, whole.parse().unwrap());
        *request.timeout_mut() = Some(Duration::from_secs(123));
        *request.version_mut() = http::Version::HTTP_10;
        for value in ["one", "two"] {
            request.headers_mut().append("x-twice", value.parse().unwrap());
        }
        *request.body_mut() = body.map(Body::from);
        assert_eq!(client.execute(request).await.unwrap().status(), StatusCode::OK);

        let attempts = attempts.lock().unwrap();
        assert_eq!(attempts.len(), 2);
        for attempt in &*attempts {
            assert_eq!(attempt.method(), "PUT");
            assert_eq!(attempt.url().as_str(), whole);
            assert_eq!(attempt.timeout(), Some(&Duration::from_secs(123)));
            assert_eq!(attempt.version(), http::Version::HTTP_10);
            let twice: Vec<_> = attempt.headers().get_all("x-twice").iter().collect();
            assert_eq!(twice, ["one", "two"]);
            assert!(attempt.headers()[header::AUTHORIZATION].is_sensitive());
            assert_eq!(attempt.headers().len(), 3, "and nothing more");
            let known = attempt.body().map(|body| body.as_bytes().unwrap());
            assert_eq!(known, body.map(str::as_bytes));
        }
    }
}

/// Bytes stay bytes: their length is said, and not that they come in chunks. (Of a stream that
/// was sent once the length is known.)
#[tokio::test]
async fn framing_does_not_change() {
    let bodies: [fn() -> Option<Body>; 4] =
        [|| None, || Some("".into()), || Some("hello".into()), || Some(stream(["hello"]))];
    for body in bodies {
        let framing = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&framing);
        let server = Loopback::serve(
            Protocol::Http1,
            move |server: Loopback, request: Request<Incoming>| {
                let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
                noted
                    .lock()
                    .unwrap()
                    .push(framing.map(|name| request.headers().get(name).cloned()));
                server.strict(request)
            },
        )
        .await;
        for client in [bare(Protocol::Http1).into(), client(Protocol::Http1, &server)] {
            let mut request = client.post(url(&server, "/")).build().unwrap();
            *request.body_mut() = body();
            client.execute(request).await.unwrap();
        }
        let framing = framing.lock().unwrap();
        assert_eq!(framing.len(), 3, "one without the middleware, two with it");
        assert_eq!(framing[1], framing[0]);
        if body().is_none_or(|body| body.as_bytes().is_some()) {
            assert_eq!(framing[2], framing[0]);
        }
    }
}

#[tokio::test]
async fn the_requests_timeout_is_honoured_by_the_replay() {
    let hangs = Gate::new();
    hangs.close();
    let server = Loopback::serve(Protocol::Http1, {
        let hangs = hangs.clone();
        move |server: Loopback, request: Request<Incoming>| {
            let hangs = hangs.clone();
            async move {
                if server.accepts(request.headers()) {
                    hangs.pass().await;
                }
                server.strict(request).await
            }
        }
    })
    .await;
    let client = client(Protocol::Http1, &server);
    let post = client.post(url(&server, "/")).body("hello").timeout(Duration::from_millis(500));
    let error = or_hangs(post.send()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(hangs.count(), 1, "it was the replay");
}

/// 307: the same method and body again, at another place.
#[tokio::test]
async fn a_redirect_with_a_body_is_followed_and_replayed() {
    for protocol in BOTH {
        let server =
            Loopback::serve(protocol, |server: Loopback, request: Request<Incoming>| async move {
                if request.uri().path() == "/new" {
                    return server.strict(request).await;
                }
                request.into_body().collect().await.unwrap();
                let mut response = text(StatusCode::TEMPORARY_REDIRECT, "");
                response.headers_mut().insert(header::LOCATION, "/new".parse().unwrap());
                response
            })
            .await;
        let client = client(protocol, &server);
        let body = json!({ "moved": true });
        let response = client.post(url(&server, "/old")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{protocol:?}");
        assert_eq!(response.url().as_str(), url(&server, "/new"));
        assert_eq!(server.bodies(), [Bytes::from(body.to_string())]);
        assert_eq!(server.refreshes(), 1);
    }
}

#[tokio::test]
async fn the_response_is_reqwests_own() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = client(Protocol::Http1, &server);
    for path in ["/", "/deep?query=1#fragment"] {
        let without = bare(Protocol::Http1).get(url(&server, path)).send().await.unwrap();
        let response = client.get(url(&server, path)).send().await.unwrap();
        assert_eq!(response.url(), without.url());
        assert_eq!(response.remote_addr(), Some(server.socket()));
        assert_eq!(response.version(), http::Version::HTTP_11);
        assert_eq!(response.content_length(), Some(9));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "9");
        assert_eq!(response.text().await.unwrap(), "thank you");
    }
}

/// `error_for_status` would take the response, and the reason with it.
#[tokio::test]
async fn a_refusal_is_an_error_with_the_reason_where_that_is_wanted() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let middleware = RefreshMiddleware::new(RefreshLayer::new(state)).error_on_refusal();
    let client = ClientBuilder::new(bare(Protocol::Http1)).with(middleware).build();
    let error = client.get(url(&server, "/")).send().await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error:?}") };
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.failure().map(RefreshFailure::kind), Some(FailureKind::Rejected));

    let middleware = RefreshMiddleware::new(RefreshLayer::new(server.state())).error_on_refusal();
    let client = ClientBuilder::new(bare(Protocol::Http1)).with(middleware).build();
    assert_eq!(client.get(url(&server, "/")).send().await.unwrap().status(), StatusCode::OK);
}

/// Neither an `Authorization` nor a name and password in the URL, which reqwest makes one.
#[tokio::test]
async fn credentials_of_the_requests_own_are_left_alone() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = client(Protocol::Http1, &server);
    let own = client.get(url(&server, "/")).bearer_auth("my own").send().await.unwrap();
    let named = format!("http://name:password@{}/", server.socket());
    let basic = client.get(named).send().await.unwrap();
    for response in [own, basic] {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.extensions().get::<RefreshFailure>().is_none());
    }
    assert_eq!(server.refreshes(), 0);
}

#[tokio::test]
async fn no_token_goes_to_an_origin_that_is_not_allowed() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&sent);
    let server =
        Loopback::serve(Protocol::Http1, move |server: Loopback, request: Request<Incoming>| {
            noted.lock().unwrap().push(request.headers().contains_key(header::AUTHORIZATION));
            server.strict(request)
        })
        .await;
    let send = async |origin: &str| {
        let layer = RefreshLayer::new(server.state()).allow_origin(origin).unwrap();
        let client = with(Protocol::Http1, layer);
        let response = client.post(url(&server, "/")).body(stream(["x"])).send().await.unwrap();
        (response.status(), std::mem::take(&mut *sent.lock().unwrap()))
    };
    assert_eq!(send("https://api.example.com").await, (StatusCode::UNAUTHORIZED, vec![false]));
    assert_eq!(server.refreshes(), 0);
    assert_eq!(send(&url(&server, "")).await, (StatusCode::OK, vec![true, true]));
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Passed(Vec<u8>);

#[derive(Clone, Debug, PartialEq)]
struct Callers(u8);

/// What it writes stays: the next attempt finds it, and so does the caller.
#[tokio::test]
async fn an_inner_middleware_sees_each_attempt_and_the_callers_extensions() {
    for known in [vec![], vec![0]] {
        let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
        let layer = RefreshLayer::new(server.state()).mark_attempts(true);
        let client = watched(layer, |request, extensions, next| {
            assert_eq!(extensions.get(), Some(&Callers(7)));
            let number = extensions.get::<Attempt>().unwrap().number();
            extensions.get_or_insert_default::<Passed>().0.push(number);
            next.run(request, extensions)
        });
        let mut extensions = Extensions::new();
        extensions.insert(Callers(7));
        if !known.is_empty() {
            extensions.insert(Passed(known.clone()));
        }
        let request = client.get(url(&server, "/")).build().unwrap();
        let response = client.execute_with_extensions(request, &mut extensions).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(extensions.get(), Some(&Callers(7)));
        assert_eq!(extensions.get(), Some(&Passed([known, vec![1, 2]].concat())));
    }
}

/// As when a middleware before this one gives a request a time limit, and goes on.
#[tokio::test]
async fn the_callers_extensions_outlive_a_request_that_is_dropped() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let began = Gate::new();
    let noted = began.clone();
    let client = watched(RefreshLayer::new(server.state()), move |_, extensions, _| {
        let noted = noted.clone();
        Box::pin(async move {
            extensions.insert(Passed(vec![1]));
            noted.pass().await;
            std::future::pending().await
        })
    });
    let mut extensions = Extensions::new();
    extensions.insert(Callers(7));
    let request = client.get(url(&server, "/")).build().unwrap();
    tokio::select! {
        _ = client.execute_with_extensions(request, &mut extensions) => panic!("no response"),
        () = began.arrived(1) => {}
    }
    assert_eq!(extensions.get(), Some(&Callers(7)));
    assert_eq!(extensions.get(), Some(&Passed(vec![1])));
}

#[tokio::test]
async fn a_request_can_bring_its_own_credential() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = with(Protocol::Http1, RefreshLayer::per_request(FromExtensions));
    let get = || client.get(url(&server, "/"));
    let state = server.state();
    let response = get().with_extension(Arc::clone(&state)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(state.status().counts.replays, 1);
    assert_eq!(get().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.refreshes(), 1);
}

/// In the query, as some APIs want it, and where an inner middleware finds it.
#[tokio::test]
async fn a_closure_may_attach_the_token_anywhere() {
    let server = Loopback::serve(Protocol::Http1, |_, request: Request<Incoming>| async move {
        let good = request.uri().query() == Some("token=access-1-2");
        text(if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, "")
    })
    .await;
    let layer = RefreshLayer::new(server.state()).attach_with(|parts, credential| {
        let token = credential.access_token().unwrap_or_default();
        parts.extensions.insert(Passed(token.into()));
        let uri = format!("http://{}/?token={token}", parts.uri.authority().unwrap());
        parts.uri = uri.parse().unwrap();
        parts.version = http::Version::HTTP_10;
    });
    let client = watched(layer, |request, extensions, next| {
        let Passed(token) = extensions.get().unwrap();
        assert_eq!(request.url().query(), Some(&*format!("token={}", token.escape_ascii())));
        assert_eq!(request.version(), http::Version::HTTP_10);
        next.run(request, extensions)
    });
    let response = client.get(url(&server, "/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.url().query(), Some("token=access-1-2"));
}

#[tokio::test]
async fn a_refresh_goes_on_when_the_request_is_dropped() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let (gate, servers) = (Gate::new(), server.clone());
    gate.close();
    let held = gate.clone();
    let state = RefreshState::builder(move |spent: Tokens| {
        let (held, servers) = (held.clone(), servers.clone());
        async move {
            held.pass().await;
            servers.redeem(&spent).await
        }
    })
    .tokens(server.sign_in())
    .build();
    server.expire_access_token();
    let mut changes = state.subscribe();
    let client = with(Protocol::Http1, RefreshLayer::new(state));
    let sent = tokio::spawn(client.post(url(&server, "/")).body("dropped").send());
    gate.arrived(1).await;
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    gate.open();
    or_hangs(changes.changed()).await.unwrap();
    assert_eq!(changes.borrow().access_token(), Some("access-1-2"));
    let response = client.post(url(&server, "/")).body("sent").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.refreshes(), 1);
    assert_eq!(server.bodies(), ["sent"]);
}

/// The same as without the middleware, and no reason to refresh.
#[tokio::test]
async fn reqwests_errors_pass_as_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refuses = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = client(Protocol::Http1, &server);
    for at in [&*refuses, "https://{{hostname}}/", "data:text/plain,hello", "mailto:a@b"] {
        let at: Url = at.parse().unwrap();
        let without = bare(Protocol::Http1).get(at.clone()).send().await.unwrap_err();
        let Error::Reqwest(error) = client.get(at).send().await.unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(format!("{error:?}"), format!("{without:?}"));
    }
    assert_eq!(server.refreshes(), 0);
}

#[derive(Debug)]
struct Mine;

impl std::fmt::Display for Mine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mine")
    }
}

impl std::error::Error for Mine {}

#[tokio::test]
async fn a_middlewares_error_passes_as_it_is() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = watched(RefreshLayer::new(server.state()), |_, _, _| {
        Box::pin(async { Err(Error::middleware(Mine)) })
    });
    let Error::Middleware(error) = client.get(url(&server, "/")).send().await.unwrap_err() else {
        panic!("another error");
    };
    assert!(error.is::<Mine>());
    assert_eq!(server.refreshes(), 0);
}

#[tokio::test]
async fn a_stream_that_fails_is_an_error_with_its_cause() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let client = client(Protocol::Http1, &server);
    let (mut feed, body) = Channel::<Bytes, Mine>::new(1);
    let failing = Body::wrap(body);
    let sent = tokio::spawn(client.post(url(&server, "/")).body(failing).send());
    feed.send_data("half".into()).await.unwrap();
    feed.abort(Mine);
    let error = sent.await.unwrap().unwrap_err();
    let mut causes = std::iter::successors(error.source(), |error| (*error).source());
    assert!(causes.any(|cause| cause.is::<Mine>()), "{error:?}");
    assert_eq!(server.refreshes(), 0);
}

/// A redirect policy is the client's, too.
#[tokio::test]
async fn a_redirect_that_is_not_followed_is_the_callers() {
    let server = Loopback::serve(Protocol::Http1, |_, _| async {
        let mut response = text(StatusCode::TEMPORARY_REDIRECT, "");
        response.headers_mut().insert(header::LOCATION, "/new".parse().unwrap());
        response
    })
    .await;
    let plain = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none());
    let refresh = RefreshMiddleware::new(RefreshLayer::new(server.state()));
    let client = ClientBuilder::new(plain.build().unwrap()).with(refresh).build();
    let response = client.get(url(&server, "/old")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.url().as_str(), url(&server, "/old"));
}

/// reqwest takes the token away when a redirect leads to another origin: what is said
/// there is not about it.
#[tokio::test]
async fn a_401_of_another_origin_is_no_reason_to_refresh() {
    let elsewhere =
        Loopback::serve(Protocol::Http1, |_, _| async { text(StatusCode::UNAUTHORIZED, "who?") })
            .await;
    let location = url(&elsewhere, "/");
    let server = Loopback::serve(Protocol::Http1, move |_, _| {
        let location = location.clone();
        async move {
            let mut response = text(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
            response
        }
    })
    .await;
    let layer = RefreshLayer::new(server.state()).allow_origin(&url(&server, "")).unwrap();
    let client = with(Protocol::Http1, layer);
    for _ in 0..3 {
        let response = client.get(url(&server, "/")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.text().await.unwrap(), "who?");
    }
    assert_eq!(server.refreshes(), 0);
}
