//! What a review has found, and does not hold yet.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use testing::{Auth, builder, token_of};
use tower::{Layer, Service, ServiceExt, buffer::BufferLayer, service_fn};
use tower_refresh::{
    RefreshLayer,
    body::{NotReplayable, ReplayBody},
};

type Body = Full<Bytes>;

/// The URI and the token of each request that reached the server.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

fn server(
    seen: &Seen,
) -> impl Service<
    Request<ReplayBody<Body>>,
    Response = Response<Body>,
    Error = Infallible,
    Future = std::future::Ready<Result<Response<Body>, Infallible>>,
>
+ Clone
+ Send
+ 'static
+ use<> {
    let seen = Arc::clone(seen);
    service_fn(move |request: Request<ReplayBody<Body>>| {
        let has_token = token_of(&request).is_some();
        seen.lock().unwrap().push((request.uri().to_string(), has_token));
        std::future::ready(Ok(Response::new(Body::default())))
    })
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::default()).unwrap()
}

/// I13; `allow_origin`: "where a call goes on to another origin than its first, because a layer above
/// follows redirects with clones of the service that it has called, the token stays behind". The
/// first request of the call names no origin, as with a client that adds it below; the redirect does.
///
/// Order: a call of `/orders`; the layer above follows a `Location: https://evil.example.com/` with a
/// clone of the service that it has called; the token goes there.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn i13_a_call_that_began_without_an_origin_takes_its_token_nowhere() {
    let (auth, seen) = (Auth::new(), Seen::default());
    let mut first = RefreshLayer::new(builder(&auth).build()).layer(server(&seen));
    first.ready().await.unwrap().call(get("/orders")).await.unwrap();
    first.clone().oneshot(get("https://evil.example.com/")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].1);
    assert!(!seen[1].1, "{:?}", seen[1]);
}

/// I13 and I12 ("works inside and outside `Buffer`"); `layer/order.md`: "`FollowRedirect` above ... the
/// token stays at the origin where the call began", "`Buffer` as ever".
///
/// Order: a layer that follows redirects, above a `Buffer`, above this one. It calls origin A, is
/// redirected, and calls B through a clone of the buffer that it has called. The buffer's worker
/// calls the same `Refresh` again, for which this is a call of its own: the token goes to B.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn i13_a_buffer_does_not_take_the_token_to_another_origin() {
    let (auth, seen) = (Auth::new(), Seen::default());
    let refresh = RefreshLayer::new(builder(&auth).build()).layer(server(&seen));
    let mut first = BufferLayer::new(8).layer(refresh);
    first.ready().await.unwrap().call(get("https://api.example.com/")).await.unwrap();
    first.clone().oneshot(get("https://evil.example.com/")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].1);
    assert!(!seen[1].1, "{:?}", seen[1]);
}

/// `allow_origin`: "Default: tokens go wherever the request goes; but where a call goes on to another
/// origin than its first".
///
/// Order: a client calls host A once, and is cloned afterwards, once for each task, as clients are. A
/// task's own, first request goes to host B: no call has gone on anywhere, and yet it has no token,
/// for the whole life of that clone. (`client.clone()` made before the first call has one.)
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_clone_of_a_client_that_was_used_before_may_call_any_origin() {
    let (auth, seen) = (Auth::new(), Seen::default());
    let mut client = RefreshLayer::new(builder(&auth).build()).layer(server(&seen));
    client.ready().await.unwrap().call(get("https://api.example.com/")).await.unwrap();
    let mut tasks = client.clone();
    for _ in 0..2 {
        let request = get("https://uploads.example.com/");
        tasks.ready().await.unwrap().call(request).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, has_token)| *has_token), "{seen:?}");
}

/// `try_clone_bodies`: "What is charged to the budget is the size that the body says it has at least."
/// A body that is empty by its own word costs nothing, and "can always be replayed"
/// (`ReplayBody::tee`), as it is by the layer without this.
///
/// Order: the budget is used up by others (here: it is 0); a GET is refused; the token is refreshed;
/// the GET is not sent again: `OverBudget`.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_request_without_a_body_is_replayed_whatever_the_budget() {
    let refuses_the_first = |token: Option<&str>| {
        let status = if token == Some("access-1") { 401 } else { 200 };
        Response::builder().status(status).body(Body::default()).unwrap()
    };
    // As it is with bodies that are teed.
    let layer = RefreshLayer::new(builder(&Auth::new()).build()).replay_budget(0);
    let server = service_fn(move |request: Request<ReplayBody<Body>>| {
        std::future::ready(Ok::<_, Infallible>(refuses_the_first(token_of(&request))))
    });
    let teed = layer.layer(server).oneshot(get("http://api.example.com/")).await.unwrap();
    assert_eq!(teed.status(), 200);

    let layer = RefreshLayer::new(builder(&Auth::new()).build()).replay_budget(0);
    let layer = layer.try_clone_bodies(|body: &Body| Some(body.clone()));
    let server = service_fn(move |request: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(refuses_the_first(token_of(&request))))
    });
    let own = layer.layer(server).oneshot(get("http://api.example.com/")).await.unwrap();
    assert_eq!(own.extensions().get::<NotReplayable>(), None);
    assert_eq!(own.status(), 200);
}

/// `OwnBody`: "Cannot fail: this service is made by `OwnBodyLayer` alone, whose bodies are the caller's
/// own". `Refresh::into_inner` gives it to the user, and a `ReplayBody` can be made by anyone.
///
/// Order: the service is unwrapped, and called with the body that a layer which drops bodies makes.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn an_own_body_service_that_was_unwrapped_does_not_panic() {
    let layer = RefreshLayer::new(builder(&Auth::new()).build());
    let layer = layer.try_clone_bodies(|body: &Body| Some(body.clone()));
    let server = service_fn(|_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::default())))
    });
    let inner = layer.layer(server).into_inner();
    let request = Request::new(ReplayBody::<Body>::default());
    assert_eq!(inner.oneshot(request).await.unwrap().status(), 200);
}
