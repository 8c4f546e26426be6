//! Around a layer that follows redirects (I12).

use std::sync::{Arc, Mutex};

use http::Method;
use http_body_util::{BodyExt, Full};
use testing::{Auth, Request, answer, builder, token_of};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_refresh::RefreshLayer;

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
