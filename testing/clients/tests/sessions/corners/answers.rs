//! What a browser is told, and what it is to keep.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Empty;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    FromExtensions, RefreshError, RefreshLayer, Renewal, Tokens,
    session::{Ended, Identity, ProxyLayer, SessionCookie, SessionSlot},
};

use super::{app, ask, sub};
use testing::sessions::{Body, Browser, ISSUER, World, full, signed_in};

// ---- wrong answers --------------------------------------------------------------------------

/// The failure of another credential (a service's own) in a handler's 401 is taken for the
/// session's: the browser is told that its session was refused, and it lives.
async fn answer_1_another_credentials_failure_is_not_the_sessions(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let service = Renewal::builder(async |_: Tokens| {
        Err::<Tokens, _>(RefreshError::rejected("no").with_code("invalid_grant"))
    });
    let service = service.build().in_memory(Tokens::new("service").with_refresh_token("service"));
    let backend = RefreshLayer::new(service).layer(service_fn(async |_: Request<_>| {
        let mut response = Response::new(full("the service's own affair"));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, Infallible>(response)
    }));
    let app = app(&replica.sessions, move |_| {
        let request = Request::get("http://other.test/").body(Empty::<Bytes>::new()).unwrap();
        backend.clone().oneshot(request)
    });
    let response = ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(browser.get(&replica, "/").await.text, "alice", "the session lives");
    assert_eq!(response.headers().get("session-ended"), None);
}

/// A handler signs in and then asks the API, which cannot be served: the layer answers in its
/// place and drops the cookie. The new session is stored, the old one ended, and the browser has none.
async fn answer_2_a_sign_in_is_told_whatever_the_status(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let api = RefreshLayer::per_request(FromExtensions).layer(service_fn(async |_: Request<_>| {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, Infallible>(response)
    }));
    let server = world.server.clone();
    server.go_away(true);
    let app = app(&replica.sessions, move |request| {
        let (api, server) = (api.clone(), server.clone());
        async move {
            let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
            let session =
                slot.sign_in(server.sign_in(), Identity::new(ISSUER, "bob")).await.unwrap();
            let mut request =
                Request::get("http://api.test/me").body(Empty::<Bytes>::new()).unwrap();
            request.extensions_mut().insert(session.state().clone());
            api.oneshot(request).await
        }
    });
    let response = ask(&app, browser.request(Method::POST, "/callback")).await;
    assert!(response.headers().contains_key("set-cookie"), "{response:?}");
}

/// `csrf_header` is asked of WebSockets, too, for which no script can set a header: none can be
/// opened any more, not even by the application's own page.
async fn s14_the_applications_own_page_opens_a_socket_with_csrf_header_set(world: World) {
    let replica = world.replica_with(|it| it.csrf_header(http::HeaderName::from_static("x-csrf")));
    let browser = Browser::new();
    let request = browser.request(Method::POST, "/sign_in").header("user", "alice");
    browser.send(&replica, request.header("x-csrf", "1")).await;
    let opens = browser.request(Method::GET, "/");
    let opens = opens.header("upgrade", "websocket").header("connection", "Upgrade");
    let answer = browser.send(&replica, opens.header("origin", "https://app.test")).await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "alice"));
}

/// Two applications' layers in each other: the outer one takes the mark off, and the inner one
/// sends the browser round again, until that gives up.
#[tokio::test(start_paused = true)]
async fn again_is_said_once_behind_the_layer_of_other_sessions() {
    let cookie = SessionCookie::host("other").unwrap();
    let (mine, other) = (World::new().replica(), World::new().replica_with(|it| it.cookie(cookie)));
    let browser = signed_in(&mine, "alice").await;
    let tab = browser.copy();
    browser.sign_in(&mine, "alice").await;
    let handler = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(full(""))));
    let app = other.sessions.layer().layer(mine.sessions.layer().layer(handler));
    let request = tab.request(Method::GET, "/page").body(full("")).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    let location = response.headers()["location"].to_str().unwrap();
    let request = tab.request(Method::GET, &format!("/page{location}")).body(full("")).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "and again: {:?}", response.headers());
}

/// A 401 of the extractor `Session` does not say how the session has ended, as that of `required`
/// does ("a fetch that is refused has it in the header `Session-Ended`").
#[tokio::test]
async fn reason_1_the_extractors_401_says_how_the_session_has_ended() {
    use ::axum::{Router, routing::get};
    let world = World::new();
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    replica.sessions.end_all(&sub("alice")).await.unwrap();
    let route = get(async |_: tower_refresh::session::Session| "in");
    let app: Router = Router::new().route("/", route).layer(replica.sessions.layer());
    let request = browser.request(Method::GET, "/").body(::axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers().get("session-ended").unwrap(), "signed_out_elsewhere");
}

/// Signed out on another replica a moment before the deadline: the first to ask is told
/// "deadline", everybody else "signed_out".
async fn reason_2_what_is_known_first_is_told(world: World) {
    let age = Duration::from_secs(100);
    let [here, there] = [(); 2].map(|()| world.replica_with(|it| it.max_age(age).idle(None)));
    let browser = signed_in(&here, "alice").await;
    assert_eq!(browser.get(&there, "/").await.text, "alice");
    let copy = browser.copy();
    advance(Duration::from_secs(99)).await;
    browser.post(&here, "/sign_out").await;
    advance(Duration::from_secs(2)).await;
    assert_eq!(copy.get(&there, "/ended").await.text, "signed_out");
}

/// A session that idled out while its look was trusted: the 401 in mid-request says "refused",
/// which the server never did.
#[tokio::test(start_paused = true)]
async fn reason_3_idle_is_not_refused() {
    let world = World::new();
    let replica = world
        .replica_with(|it| it.idle(Duration::from_secs(10)).trust_for(Duration::from_secs(100)));
    let browser = signed_in(&replica, "alice").await;
    advance(Duration::from_secs(20)).await;
    world.server.expire_all();
    let answer = browser.get(&replica, "/api").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.server.redeems(), 0);
    assert_eq!(answer.headers["session-ended"], "idle");
}

/// `end_all` counts a session that had idled out before, and notes and counts the wrong reason.
async fn reason_4_end_all_does_not_end_what_had_ended(world: World) {
    let replica = world.replica_with(|it| it.idle(Duration::from_secs(10)));
    signed_in(&replica, "alice").await;
    advance(Duration::from_secs(20)).await;
    assert_eq!(replica.sessions.end_all(&sub("alice")).await.unwrap(), 0);
    assert_eq!(replica.sessions.status().ended(Ended::SignedOutElsewhere), 0);
}

/// A user opens a page, and its refresh token turns out to be dead in the middle: an empty 401, where
/// every other page without a session takes the user to the sign-in.
async fn sign_in_at_1_a_navigation_whose_session_ends_in_the_middle_begins_a_sign_in(world: World) {
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/login").unwrap());
    let browser = signed_in(&world.replica(), "alice").await;
    world.server.revoke_all();
    let request = Request::get("/api").header("host", "app.test");
    let request = request.header("sec-fetch-site", "same-origin");
    let request = request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
    let answer = browser.send(&replica, request.header("cookie", browser.cookie().unwrap())).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{:?}", answer.headers);
}

/// `sign_in_at` around the whole application: the path that begins the sign-in is sent to itself,
/// with an ever longer query.
async fn sign_in_at_2_the_sign_in_itself_is_let_through(world: World) {
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/asset").unwrap());
    let browser = Browser::new();
    let request = Request::get("/asset?return_to=/").header("sec-fetch-mode", "navigate");
    let answer = browser.send(&replica, request).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.headers);
}

// ---- caches and headers ---------------------------------------------------------------------

/// A CDN goes by `CDN-Cache-Control` and `Surrogate-Control` alone where they are (RFC 9213): a
/// page that depends on the session is `private, no-store` for browsers, and public there.
async fn s13_a_cdn_is_not_told_to_store_a_users_page(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let app = app(&replica.sessions, async |request: Request<Body>| {
        let slot = request.extensions().get::<SessionSlot>().unwrap();
        let name = slot.session().unwrap().identity().subject().to_owned();
        let response = Response::builder().header("cdn-cache-control", "public, max-age=600");
        let response = response.header("surrogate-control", "max-age=600");
        Ok(response.body(full(name)).unwrap())
    });
    let response = ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(response.headers()["cache-control"], "private, no-store");
    for name in ["cdn-cache-control", "surrogate-control"] {
        assert_eq!(response.headers().get(name), None, "{name}");
    }
}

/// What the API has answered to the session's token is kept by the browser without `Vary`, and a
/// sign-in of another user clears nothing: that one sees it within its `max-age`.
async fn s13_what_the_token_has_brought_is_not_kept_for_the_next_user(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let answer = browser.get(&replica, "/api").await;
    assert_eq!(answer.text, "data");
    let is_not_stored = answer.headers["cache-control"].to_str().unwrap().contains("no-store");
    assert!(is_not_stored || answer.headers.contains_key("vary"), "{:?}", answer.headers);
}

/// "Destinations are an allow-list: this mode refuses to build without `allow_origin`": it does not,
/// and a session's token goes wherever a handler's request goes.
async fn s12_a_sessions_token_goes_to_no_origin_that_was_not_named(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let client =
        RefreshLayer::per_request(FromExtensions).layer(service_fn(move |request: Request<_>| {
            *noted.lock().unwrap() = request.headers().get("authorization").cloned();
            async { Ok::<_, Infallible>(Response::new(full(""))) }
        }));
    let app = app(&replica.sessions, move |request| {
        let (mut parts, _) = request.into_parts();
        parts.uri = "http://evil.test/".parse().unwrap();
        client.clone().oneshot(Request::from_parts(parts, Empty::<Bytes>::new()))
    });
    ask(&app, browser.request(Method::GET, "/")).await;
    assert_eq!(*seen.lock().unwrap(), None);
}

/// S12: no `WWW-Authenticate` of the API's bearer scheme comes back. It does to whom has no session
/// (any more).
async fn s12_a_bearer_challenge_comes_back_to_nobody(world: World) {
    let answer = Browser::new().get(&world.replica(), "/api").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers.get("www-authenticate"), None);
}

/// What a proxied request brings to the client.
async fn proxied(request: Request<Body>, answer: HeaderMap) -> (Version, HeaderMap, HeaderMap) {
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let client = service_fn(move |request: Request<Body>| {
        *noted.lock().unwrap() = Some((request.version(), request.headers().clone()));
        let mut response = Response::new(full(""));
        *response.headers_mut() = answer.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let proxy = ProxyLayer::to("http://api.test").unwrap().pass_cookies().layer(client);
    let response = proxy.oneshot(request).await.unwrap();
    let (version, headers) = seen.lock().unwrap().take().unwrap();
    (version, headers, response.headers().clone())
}

/// A browser's cookies over HTTP/2 are several fields; on the way into HTTP/1.1 they MUST become
/// one (RFC 9113, section 8.2.3), and many servers read the first one only, or join with a comma.
#[tokio::test]
async fn proxy_1_cookies_are_one_field_over_http1() {
    let request = Request::get("/").version(Version::HTTP_2);
    let request = request.header("cookie", "a=1").header("cookie", "b=2").body(full("")).unwrap();
    let (version, headers, _) = proxied(request, HeaderMap::new()).await;
    assert_eq!(version, Version::HTTP_11);
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

/// A server behind cannot set our cookie, but clears it: `Clear-Site-Data: "cookies"` comes
/// through, and takes the session's cookie with it.
async fn proxy_2_a_server_behind_does_not_clear_our_cookie(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let client = service_fn(async |_: Request<Body>| {
        let response = Response::builder().header("clear-site-data", "\"cookies\", \"storage\"");
        Ok::<_, Infallible>(response.body(full("")).unwrap())
    });
    let proxy = ProxyLayer::to("http://api.test").unwrap().layer(client);
    let app = replica.sessions.layer().layer(proxy);
    let request = browser.request(Method::GET, "/").body(full("")).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let cleared = response.headers().get("clear-site-data").map(|it| it.to_str().unwrap());
    assert!(cleared.is_none_or(|it| !it.contains("cookies")), "{cleared:?}");
}

in_both_modes! {
    answer_1_another_credentials_failure_is_not_the_sessions,
    answer_2_a_sign_in_is_told_whatever_the_status,
    s14_the_applications_own_page_opens_a_socket_with_csrf_header_set,
    reason_2_what_is_known_first_is_told,
    reason_4_end_all_does_not_end_what_had_ended,
    sign_in_at_1_a_navigation_whose_session_ends_in_the_middle_begins_a_sign_in,
    sign_in_at_2_the_sign_in_itself_is_let_through,
    s13_a_cdn_is_not_told_to_store_a_users_page,
    s13_what_the_token_has_brought_is_not_kept_for_the_next_user,
    s12_a_sessions_token_goes_to_no_origin_that_was_not_named,
    s12_a_bearer_challenge_comes_back_to_nobody,
    proxy_2_a_server_behind_does_not_clear_our_cookie,
}
