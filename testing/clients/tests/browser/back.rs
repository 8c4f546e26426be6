//! What Back shows, and a click on a page that was prefetched, once the session has ended.

use axum::http::StatusCode;
use testing::sessions::World;

use super::{
    app::{App, Fate},
    browser::{Browser, Tab},
    sign_in::speculate,
    until,
};

/// Where a user is who is not signed in, and nothing of what they saw.
async fn shows_nothing_personal(tab: &Tab) {
    tab.shows("who are you?").await;
    assert!(!tab.text().await.contains("alice"));
}

/// Leaves a personal page for another one.
async fn left(app: &App, tab: &Tab, path: &str) {
    tab.open(&app.url("/callback")).await;
    tab.open(&app.url(path)).await;
    tab.shows("the secrets of alice").await;
    tab.run("window.isTheSame = true").await;
    tab.open(&app.url("/blank")).await;
    tab.shows("blank").await;
}

/// Is on a page whose link the browser has followed in advance.
async fn prefetched(app: &App, tab: &Tab, what: &str, path: &str) {
    tab.open(&app.url("/callback")).await;
    tab.shows("this is alice").await;
    tab.run(&speculate(what, path)).await;
    until(what, async || app.prefetches(path) == 1).await;
}

/// Otherwise the tests below prove nothing.
#[tokio::test]
async fn back_shows_the_page_itself_while_the_session_lives() {
    let app = App::start(&World::new()).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    left(&app, tab, "/private").await;
    tab.back().await;
    tab.shows("the secrets of alice").await;
    assert_eq!(tab.run("return window.isTheSame").await, true, "the browser has kept it");
}

#[tokio::test]
async fn a_click_shows_the_prefetched_page_while_the_session_lives() {
    for what in ["prefetch", "prerender"] {
        let app = App::start(&World::new()).await;
        let browser = Browser::start().await;
        let tab = browser.first();
        prefetched(&app, tab, what, "/private").await;
        tab.click("#private").await;
        tab.shows("the secrets of alice").await;
        let asked = app.seen().into_iter().filter(|seen| seen.path == "/private").count();
        assert_eq!(asked, 1, "{what}: the browser has kept it");
    }
}

#[tokio::test]
async fn back_after_a_sign_out_here_shows_nothing_personal() {
    let app = App::start(&World::new()).await;
    let browser = Browser::start().await;
    for from_another_tab in [false, true] {
        let (tab, other) = (browser.tab().await, browser.tab().await);
        left(&app, &tab, "/private").await;
        let signing_out = if from_another_tab { &other } else { &tab };
        if from_another_tab {
            other.open(&app.url("/")).await;
        }
        assert_eq!(signing_out.status("POST", "/sign_out").await, 204);
        tab.back().await;
        shows_nothing_personal(&tab).await;
    }
}

/// No handler has asked for the session, so it is not `no-store`. Only the `Clear-Site-Data` of the
/// sign-out takes it away.
#[tokio::test]
async fn back_after_a_sign_out_here_shows_no_page_that_is_only_private() {
    let app = App::start(&World::new()).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    tab.open(&app.url("/open/orders")).await;
    tab.shows("/orders").await;
    tab.open(&app.url("/blank")).await;
    tab.shows("blank").await;
    assert_eq!(tab.status("POST", "/sign_out").await, 204);
    tab.back().await;
    let refused = Fate::Answered(StatusCode::UNAUTHORIZED);
    until("the browser asks again", async || app.count("/open/orders", refused) == 1).await;
    tab.until("document.body && !document.body.innerText.includes('/orders')").await;
}

#[tokio::test]
async fn a_click_on_a_prefetched_page_after_a_sign_out_here_shows_nothing_personal() {
    for what in ["prefetch", "prerender"] {
        let app = App::start(&World::new()).await;
        let browser = Browser::start().await;
        let (tab, other) = (browser.first(), browser.tab().await);
        prefetched(&app, tab, what, "/private").await;
        other.open(&app.url("/")).await;
        assert_eq!(other.status("POST", "/sign_out").await, 204);
        tab.click("#private").await;
        shows_nothing_personal(tab).await;
    }
}

/// No response of ours says so to the browser: the page has to ask, by a line of script.
#[tokio::test]
async fn back_after_a_sign_out_elsewhere_shows_nothing_personal_if_the_page_asks() {
    let world = World::new();
    let app = App::start(&world).await;
    let elsewhere = app.replica(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    left(&app, tab, "/checked").await;
    elsewhere.signed_out_by_the_provider("alice").await;
    tab.back().await;
    shows_nothing_personal(tab).await;
    let shown = tab.run("return sessionStorage.shown").await;
    assert_eq!(shown, "the secrets of alice", "the browser had kept it");
}

/// `persisted` is not said of these: the navigation's entry says how the page has come.
#[tokio::test]
async fn a_click_on_a_prefetched_page_after_a_sign_out_elsewhere_does_not_if_the_page_asks() {
    for what in ["prefetch", "prerender"] {
        let world = World::new();
        let app = App::start(&world).await;
        let elsewhere = app.replica(&world).await;
        let browser = Browser::start().await;
        let tab = browser.first();
        prefetched(&app, tab, what, "/checked").await;
        elsewhere.signed_out_by_the_provider("alice").await;
        tab.click("#checked").await;
        shows_nothing_personal(tab).await;
        let shown = tab.run("return sessionStorage.shown").await;
        assert_eq!(shown, "the secrets of alice", "the browser had kept it: {what}");
    }
}
