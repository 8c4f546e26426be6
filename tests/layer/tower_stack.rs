//! Above and below the other layers of a tower stack (I12).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use testing::{
    Api, Auth, Body, Request, Response, answer, builder, idle, post, secs, token_of, tokens,
};
use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, task};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit, load_shed, service_fn,
    timeout::error::Elapsed, util::BoxCloneSyncService,
};
use tower_refresh::{RefreshError, RefreshLayer, RefreshState, Tokens, body::ReplayBody};

type Client = BoxCloneSyncService<http::Request<Body>, Response, BoxError>;

fn boxed(error: impl Into<BoxError>) -> BoxError {
    error.into()
}

/// A hundred at once, with everything that can go wrong in a herd: each is
/// answered with 200, and its body arrived whole.
async fn herd(client: Client, api: &Api, auth: &Auth) {
    let calls = (0..100).map(|_| tokio::spawn(client.clone().oneshot(post("hello"))));
    let calls = timeout(secs(60), join_all(calls.collect::<Vec<_>>()));
    for response in calls.await.expect("a deadlock") {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(auth.count(), 1);
    assert_eq!(api.count(200), 100);
    assert!(api.bodies(200).iter().all(|body| body == "hello"));
    assert_eq!(api.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn inside_and_outside_a_buffer() {
    for outside in [true, false] {
        let (auth, api) = (Auth::new(), Api::accepting("access-2"));
        let refresh = RefreshLayer::new(builder(&auth).build());
        let client = if outside {
            let stack = ServiceBuilder::new().layer(refresh).buffer(4).service(api.clone());
            BoxCloneSyncService::new(stack)
        } else {
            let stack = ServiceBuilder::new().buffer(4).layer(refresh).service(api.clone());
            BoxCloneSyncService::new(stack)
        };
        herd(client, &api, &auth).await;
    }
}

#[tokio::test(start_paused = true)]
async fn inside_and_outside_a_concurrency_limit_of_one() {
    for outside in [true, false] {
        let (auth, api) = (Auth::new(), Api::accepting("access-2"));
        let refresh = RefreshLayer::new(builder(&auth).build());
        let client = if outside {
            let stack = ServiceBuilder::new()
                .map_err(boxed)
                .layer(refresh)
                .concurrency_limit(1)
                .service(api.clone());
            BoxCloneSyncService::new(stack)
        } else {
            let stack = ServiceBuilder::new()
                .map_err(boxed)
                .concurrency_limit(1)
                .layer(refresh)
                .service(api.clone());
            BoxCloneSyncService::new(stack)
        };
        herd(client, &api, &auth).await;
    }
}

/// Its requests do not pass through the layer, but they do through the service
/// beneath: nothing that waits for the flight may hold the only permit.
#[tokio::test(start_paused = true)]
async fn the_refresher_may_use_the_limited_service_beneath_the_layer() {
    let api = Api::accepting("access-2");
    let upstream = Api::accepting("nothing");
    let (limited, asked) = (api.clone(), upstream.clone());
    let beneath = ConcurrencyLimit::new(
        service_fn(move |request: http::Request<Either>| {
            let (api, upstream) = (limited.clone(), asked.clone());
            async move {
                match request.uri().path() {
                    "/token" => upstream.oneshot(request).await,
                    _ => api.oneshot(request).await,
                }
            }
        }),
        1,
    );
    let own = beneath.clone();
    let state = RefreshState::builder(move |_: Tokens| {
        let own = own.clone();
        async move {
            let request = http::Request::post("/token").body(Either::plain("grant")).unwrap();
            own.oneshot(request).await.map_err(RefreshError::transient)?;
            Ok(tokens(2))
        }
    })
    // Some find the token expired, some find it refused.
    .tokens(tokens(1).with_expires_in(secs(100)))
    .build();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(state))
        .map_request(|request: Request| request.map(Either::Replay))
        .service(beneath);

    for wait in [0, 200] {
        tokio::time::sleep(secs(wait)).await;
        let calls = (0..20).map(|_| tokio::spawn(client.clone().oneshot(post("hello"))));
        let calls = timeout(secs(60), join_all(calls.collect::<Vec<_>>()));
        for response in calls.await.expect("a deadlock") {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
    }
    assert_eq!(upstream.bodies(401), ["grant"]);
}

/// The body of either kind of request.
enum Either {
    Plain(Body),
    Replay(ReplayBody<Body>),
}

impl Either {
    fn plain(body: &'static str) -> Self {
        Self::Plain(Full::from(body))
    }
}

impl http_body::Body for Either {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Plain(body) => std::pin::Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Replay(body) => std::pin::Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }
}

/// While one waits for a flight, the only permit is free for the next request.
#[tokio::test(start_paused = true)]
async fn whoever_waits_holds_no_permit() {
    for expired in [true, false] {
        let auth = Auth::new();
        auth.gate.close();
        let life = secs(if expired { 0 } else { 1000 });
        let state =
            RefreshState::builder(auth.refresher()).tokens(tokens(1).with_expires_in(life)).build();
        let api = Api::accepting("access-2");
        let limited = ConcurrencyLimit::new(api.clone(), 1);
        let mut client =
            ServiceBuilder::new().layer(RefreshLayer::new(state)).service(limited.clone());
        let ready = ServiceExt::<http::Request<Body>>::ready(&mut client).await.unwrap();
        // The service stays where it is, as in a pool.
        let mut waits = task::spawn(ready.call(post("hello")));
        for _ in 0..3 {
            assert_pending!(waits.poll());
            idle().await;
        }
        auth.gate.arrived(1).await;
        assert_eq!(api.reserved(), 0);
        let other = timeout(secs(1), limited.oneshot(post("other"))).await;
        other.expect("the permit is free").unwrap();
        auth.gate.open();
        assert_eq!(waits.await.unwrap().status(), 200);
    }
}

/// Outside, it sheds while the service is at its limit, and requests that wait for
/// a token are not that.
#[tokio::test(start_paused = true)]
async fn inside_and_outside_load_shed() {
    for outside in [true, false] {
        let (auth, api) = (Auth::new(), Api::accepting("access-2"));
        let refresh = RefreshLayer::new(builder(&auth).build());
        let client = if outside {
            let stack = ServiceBuilder::new().layer(refresh).load_shed().service(api.clone());
            BoxCloneSyncService::new(stack)
        } else {
            let stack = ServiceBuilder::new().load_shed().layer(refresh).service(api.clone());
            BoxCloneSyncService::new(stack)
        };
        herd(client, &api, &auth).await;
    }
}

/// The replay asks for readiness anew; a service that sheds says so then.
#[tokio::test(start_paused = true)]
async fn a_replay_can_be_shed() {
    let auth = Auth::new();
    auth.gate.close();
    let api = Api::accepting("access-2");
    let limited = ConcurrencyLimit::new(api.clone(), 1);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&auth).build()))
        .load_shed()
        .service(limited.clone());
    let call = tokio::spawn(client.oneshot(post("hello")));
    auth.gate.arrived(1).await;
    let mut other = limited;
    ServiceExt::<Request>::ready(&mut other).await.unwrap();
    auth.gate.open();
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is::<load_shed::error::Overloaded>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_ends_the_request_and_not_the_flight() {
    let auth = Auth::new();
    auth.gate.close();
    let state = builder(&auth).build();
    let api = Api::accepting("access-2");
    let client = ServiceBuilder::new()
        .timeout(secs(5))
        .layer(RefreshLayer::new(Arc::clone(&state)))
        .service(api);
    let begun = Instant::now();
    let error = client.clone().oneshot(post("hello")).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error}");
    assert!(begun.elapsed() < secs(6));
    auth.gate.open();
    idle().await;
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(client.oneshot(post("hello")).await.unwrap().status(), 200);
    assert_eq!(auth.count(), 1);
}

/// It times each attempt, and not the wait for the flight between them.
#[tokio::test(start_paused = true)]
async fn a_timeout_inside_does_not_count_the_flight() {
    let auth = Auth::new();
    auth.gate.close();
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&auth).build()))
        .timeout(secs(5))
        .service(service_fn(async |request: Request| {
            tokio::time::sleep(secs(3)).await;
            let first = token_of(&request) == Some("access-1");
            Ok::<_, Infallible>(answer(if first { 401 } else { 200 }))
        }));
    let call = tokio::spawn(client.oneshot(post("hello")));
    auth.gate.arrived(1).await;
    tokio::time::sleep(secs(10)).await;
    auth.gate.open();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

/// The permit of the first attempt is given back before the replay asks for one.
#[tokio::test(start_paused = true)]
async fn the_replay_needs_no_second_permit() {
    let auth = Auth::new();
    let most = Arc::new(Mutex::new((0, 0)));
    let counts = Arc::clone(&most);
    let inner = service_fn(move |request: Request| {
        let counts = Arc::clone(&counts);
        async move {
            {
                let mut counts = counts.lock().unwrap();
                counts.0 += 1;
                counts.1 = counts.1.max(counts.0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            counts.lock().unwrap().0 -= 1;
            let first = token_of(&request) == Some("access-1");
            Ok::<_, Infallible>(answer(if first { 401 } else { 200 }))
        }
    });
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&auth).build()))
        .concurrency_limit(1)
        .service(inner);
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(client.clone().oneshot(post("")))).collect();
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(*most.lock().unwrap(), (0, 1));
    assert_eq!(auth.count(), 1);
}
