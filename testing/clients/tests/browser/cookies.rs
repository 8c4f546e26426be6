//! The cookie as the browser has it.

use axum::http::Version;
use serde_json::json;
use testing::sessions::World;

use super::{
    app::{App, Setup},
    browser::Browser,
};

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
        assert_eq!(tab.run("return document.cookie").await, "", "no script sees it");
        assert_eq!(tab.status("POST", "/sign_out").await, 204);
        assert_eq!(tab.cookies().await.len(), 0);
    }
}
