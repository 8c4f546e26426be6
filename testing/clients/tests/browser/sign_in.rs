//! What begins a sign-in, and how a user comes back from it.

use axum::http::StatusCode;
use testing::sessions::World;
use tower_refresh::session::Ended;

use super::{
    app::{App, Fate, Setup},
    browser::Browser,
    provider::provider,
    until,
};

/// Speculation rules, as pages have them.
pub(crate) fn speculate(what: &str, path: &str) -> String {
    format!(
        "const rules = document.createElement('script');
         rules.type = 'speculationrules';
         rules.textContent = JSON.stringify({{
             {what}: [{{ urls: ['{path}'], eagerness: 'immediate' }}] }});
         document.head.append(rules)"
    )
}

/// Nobody has asked for that page yet.
#[tokio::test]
async fn a_prefetch_and_a_prerender_begin_no_sign_in_and_a_click_does() {
    for what in ["prefetch", "prerender"] {
        for (path, link) in [("/private", "#private"), ("/login", "#login")] {
            let provider = Some((provider().await, "redirect"));
            let app = App::with(&World::new(), Setup { provider, ..Setup::default() }).await;
            let browser = Browser::start().await;
            let tab = browser.first();
            tab.open(&app.url("/")).await;
            tab.shows("this is nobody").await;
            tab.run(&speculate(what, path)).await;
            until(&format!("a {what} of {path}"), async || app.prefetches(path) == 1).await;
            assert_eq!(app.sign_ins(), 0, "{what} {path}");
            assert_eq!(app.count(path, Fate::Answered(StatusCode::SERVICE_UNAVAILABLE)), 1);
            tab.click(link).await;
            let text = if path == "/login" { "this is alice" } else { "the secrets of alice" };
            tab.shows(text).await;
            assert_eq!(app.sign_ins(), 1, "{what} {path}");
        }
    }
}

/// A strict cookie does not come with a navigation that another site has begun, by a redirect of the
/// provider or a link of its page: the page on which a sign-in lands goes on by itself.
#[tokio::test]
async fn a_return_from_the_provider_is_signed_in_with_lax_and_with_strict() {
    for is_strict in [false, true] {
        for by in ["redirect", "link"] {
            let provider = Some((provider().await, by));
            let setup = Setup { is_strict, provider, ..Setup::default() };
            let app = App::with(&World::new(), setup).await;
            let browser = Browser::start().await;
            let tab = browser.first();
            tab.open(&app.url("/blank")).await;
            // As a user does, who types the address of a page.
            tab.open(&app.url("/private")).await;
            if by == "link" {
                tab.until("document.querySelector('#go')").await;
                tab.click("#go").await;
            }
            tab.shows("the secrets of alice").await;
            assert_eq!(tab.run("return location.pathname").await, "/private");
            assert_eq!(app.sign_ins(), 1, "by {by}, strict: {is_strict}");
            let landed = if is_strict { StatusCode::OK } else { StatusCode::SEE_OTHER };
            assert_eq!(app.count("/callback", Fate::Answered(landed)), 1);
            assert_eq!(app.sessions.status().begun, 1);

            // Once more. The session that the browser has ends, though a strict cookie is not shown to
            // the callback.
            tab.open(&app.url("/login?return_to=/private")).await;
            if by == "link" {
                tab.until("document.querySelector('#go')").await;
                tab.click("#go").await;
            }
            tab.shows("the secrets of alice").await;
            let status = app.sessions.status();
            assert_eq!((status.begun, status.ended(Ended::Replaced)), (2, 1), "{by} {is_strict}");
        }
    }
}
