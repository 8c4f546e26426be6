//! The cookie as the browser has it.

use axum::http::Version;
use serde_json::{Value, json};
use testing::sessions::World;

use super::{
    app::{App, Setup},
    browser::Browser,
};

/// Those of a session's cookie, as the browser has it.
pub(crate) fn assert_attributes(cookie: &Value, site: &str) {
    for (name, value) in [
        ("httpOnly", json!(true)),
        ("secure", json!(true)),
        ("sameSite", json!(site)),
        ("path", json!("/")),
        ("domain", json!("localhost")),
        ("session", json!(true)),
        ("priority", json!("High")),
    ] {
        assert_eq!(cookie[name], value, "{name}: {cookie}");
    }
}

/// Its name, and what DevTools says of it.
#[tokio::test]
async fn the_cookie_has_every_attribute_in_the_browser() {
    for (is_strict, site) in [(false, "Lax"), (true, "Strict")] {
        let app = App::with(&World::new(), Setup { is_strict, ..Setup::default() }).await;
        let browser = Browser::start().await;
        let tab = browser.first();
        tab.open(&app.url("/callback")).await;
        tab.shows("this is alice").await;
        let cookie = tab.cookie(app.cookie()).await.expect("the browser has taken it");
        assert!(app.cookie().starts_with("__Host-Http-sid-"));
        assert_attributes(&cookie, site);
        assert_eq!(tab.run("return document.cookie").await, "", "no script sees it");
        assert_eq!(tab.status("POST", "/sign_out").await, 204);
        assert_eq!(tab.cookies().await.len(), 0);
    }
}

/// The one with the longer path comes first. A script can set it, since it is another cookie.
#[tokio::test]
async fn a_stale_twin_with_another_path_hides_nothing() {
    let world = World::new();
    let app = App::with(&world, Setup { is_insecure: true, ..Setup::default() }).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    let stale = tab.cookie(app.cookie()).await.unwrap()["value"].as_str().unwrap().to_owned();
    tab.open(&app.url("/callback")).await;
    tab.shows("this is alice").await;
    tab.run(&format!("document.cookie = '{}={stale}; path=/deep'", app.cookie())).await;
    let twins = tab.devtools("Network.getCookies", json!({ "urls": [app.url("/deep/me")] })).await;
    assert_eq!(twins["cookies"].as_array().unwrap().len(), 2, "{twins}");
    for path in ["/deep/me", "/me"] {
        assert_eq!(tab.status("GET", path).await, 200, "{path}");
    }
    // It is no sign-out, and no way around one.
    assert_eq!(tab.status("POST", "/sign_out").await, 204);
    for path in ["/deep/me", "/me"] {
        assert_eq!(tab.status("GET", path).await, 401, "{path}");
    }
    assert_eq!(world.server.alive(), 0);
}

/// Chromium keeps 180 of a site, and drops the oldest ones first, those that are not secure before. Ours is
/// the oldest.
#[tokio::test]
async fn more_than_180_cookies_do_not_sign_out() {
    let app = App::start(&World::new()).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    tab.run("for (let n = 0; n < 400; n++) document.cookie = `other${n}=1; secure`").await;
    let count = tab.cookies().await.len();
    assert!(count <= 180, "the browser drops some, and how many is its own affair: {count}");
    assert!(tab.cookie(app.cookie()).await.is_some());
    assert_eq!(tab.status("GET", "/me").await, 200);
}

/// Each is a header field of its own.
#[tokio::test]
async fn the_session_is_found_among_three_cookies_over_http2() {
    let app = App::with(&World::new(), Setup { is_tls: true, ..Setup::default() }).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    tab.run("document.cookie = 'a=1; secure'; document.cookie = 'b=2; secure'").await;
    let script = "const response = await fetch('/me');
         return [response.status, await response.text()]";
    assert_eq!(tab.wait(script).await, json!([200, "alice"]));
    let seen = app.seen().into_iter().find(|seen| seen.path == "/me").unwrap();
    assert_eq!((seen.version, seen.cookies.len()), (Version::HTTP_2, 3));
}
