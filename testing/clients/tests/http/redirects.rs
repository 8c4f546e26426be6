//! Around a layer that follows redirects (I12).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use testing::{Auth, Logs, Request, answer, builder, token_of};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_refresh::{RefreshLayer, body::ReplayBody};

/// Below the layer, the token goes along; a 303 is followed without the body.
#[tokio::test(start_paused = true)]
async fn around_one_that_follows_redirects() {
    let auth = Auth::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = service_fn(move |request: Request| {
        let noted = Arc::clone(&noted);
        async move {
            let good = token_of(&request) == Some("access-2");
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            noted.lock().unwrap().push((parts.uri.path().to_owned(), parts.method, body));
            let mut response = answer(if !good { 401 } else { 200 });
            if good && parts.uri.path() == "/start" {
                *response.status_mut() = http::StatusCode::SEE_OTHER;
                response.headers_mut().insert("location", "/end".parse().unwrap());
            }
            Ok::<_, BoxError>(response)
        }
    });
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&auth).build()))
        .layer(FollowRedirectLayer::new())
        .service(server);
    let request = http::Request::post("http://api.example.com/start").body(Full::from("hello"));
    assert_eq!(client.oneshot(request.unwrap()).await.unwrap().status(), 200);
    let expected = [
        ("/start", Method::POST, "hello"),
        ("/start", Method::POST, "hello"),
        ("/end", Method::GET, ""),
    ];
    let expected = expected.map(|(path, method, body)| (path.to_owned(), method, body.into()));
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(auth.count(), 1);
}

/// Above the layer, each redirect is a request of its own to it. The token stays at the origin
/// where the call began, unless the user allows another; a redirect within the origin has it.
#[tokio::test(start_paused = true)]
async fn under_one_that_follows_redirects() {
    const API: &str = "https://api.example.com";
    const OTHER: &str = "https://other.example.com/end";
    for (location, allowed, has_token, told) in [
        (OTHER, &[][..], false, 1),
        ("https://api.example.com:8443/end", &[], false, 1),
        ("http://api.example.com/end", &[], false, 1),
        ("https://api.example.com:443/end", &[], true, 0),
        ("https://API.example.com/end", &[], true, 0),
        ("/end", &[], true, 0),
        (OTHER, &[API], false, 0),
        (OTHER, &[API, "https://other.example.com"], true, 0),
    ] {
        let (logs, _guard) = Logs::capture();
        let auth = Auth::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let server = service_fn(move |request: http::Request<ReplayBody<Full<Bytes>>>| {
            let noted = Arc::clone(&noted);
            async move {
                noted.lock().unwrap().push(request.headers().contains_key("authorization"));
                let mut response = answer(200);
                // Twice in turn, for what is followed once may be followed again.
                if request.uri().path() != "/end" {
                    *response.status_mut() = http::StatusCode::FOUND;
                    response.headers_mut().insert("location", location.parse().unwrap());
                } else if request.uri().query().is_none() {
                    *response.status_mut() = http::StatusCode::FOUND;
                    let again = format!("{}?again", request.uri());
                    response.headers_mut().insert("location", again.parse().unwrap());
                }
                Ok::<_, BoxError>(response)
            }
        });
        let layer = allowed.iter().fold(RefreshLayer::new(builder(&auth).build()), |layer, it| {
            layer.allow_origin(it).unwrap()
        });
        let client =
            ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer).service(server);
        for _ in 0..2 {
            let request = http::Request::get(format!("{API}/start")).body(Full::default()).unwrap();
            assert_eq!(client.clone().oneshot(request).await.unwrap().status(), 200);
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert_eq!(seen, [true, has_token, has_token], "{location} {allowed:?}");
        }
        assert_eq!(logs.count(&["WARN", "allow_origin"]), told, "{location} {allowed:?}");
    }
}

/// A service that is used for several origins, and clones of one that was not used yet.
#[tokio::test(start_paused = true)]
async fn the_token_goes_to_every_origin_that_is_no_redirect() {
    let auth = Auth::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = service_fn(move |request: http::Request<ReplayBody<Full<Bytes>>>| {
        noted.lock().unwrap().push(request.headers().contains_key("authorization"));
        async { Ok::<_, BoxError>(answer(200)) }
    });
    let client = RefreshLayer::new(builder(&auth).build()).layer(server);
    let mut one = client.clone();
    for host in ["a", "b", "a"] {
        let request = || http::Request::get(format!("https://{host}.example.com/"));
        client.clone().oneshot(request().body(Full::default()).unwrap()).await.unwrap();
        one.ready().await.unwrap().call(request().body(Full::default()).unwrap()).await.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), [true; 6]);
}
