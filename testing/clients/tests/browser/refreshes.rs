//! Tabs over an expiry: one refresh for all, whatever becomes of who began it.

use serde_json::json;
use testing::sessions::World;
use tower_refresh::session::Ended;

use super::{
    app::{App, Fate},
    browser::{Browser, Tab},
    until,
};

/// A signed-in browser with two tabs.
struct Scene {
    world: World,
    app: App,
    browser: Browser,
    one: Tab,
    other: Tab,
}

impl Scene {
    async fn new(world: World) -> Self {
        let app = App::start(&world).await;
        let browser = Browser::start().await;
        let (one, other) = (browser.first().clone(), browser.tab().await);
        one.open(&app.url("/callback")).await;
        other.open(&app.url("/")).await;
        Self { world, app, browser, one, other }
    }
}

/// So many fetches at once: the statuses, and whatever else became of them.
pub(crate) fn herd(count: usize) -> String {
    format!(
        "const all = Array.from({{ length: {count} }}, async (_, n) => {{
             const response = await fetch('/api/orders/' + n);
             return response.status == 200 ? await response.text() : response.status;
         }});
         return (await Promise.all(all)).filter((text, n) => text != '/orders/' + n)"
    )
}

async fn two_tabs_and_100_fetches_over_an_expiry_are_one_refresh_and_no_failure(world: World) {
    let Scene { world, app, browser: _browser, one, other } = Scene::new(world).await;
    for round in 1..=3 {
        world.server.hold();
        let first = one.start(&herd(50)).await;
        world.server.1.arrived(round).await;
        let second = other.start(&herd(50)).await;
        world.server.1.open();
        assert_eq!(first.end().await, json!([]), "what was not served in the first tab");
        assert_eq!(second.end().await, json!([]), "what was not served in the second tab");
        assert_eq!((world.server.redeems(), world.server.reuses()), (round, 0));
    }
    assert_eq!(app.answered(axum::http::StatusCode::UNAUTHORIZED), 0);
}

async fn a_tab_that_is_closed_in_mid_refresh_takes_nothing_from_the_other_one(world: World) {
    let Scene { world, app, browser: _browser, one, other } = Scene::new(world).await;
    world.server.hold();
    drop(other.start("await fetch('/api/theirs')").await);
    world.server.1.arrived(1).await;
    let waiting = one.start("return (await fetch('/api/mine')).status").await;
    until("both wait", async || app.count("/api/mine", Fate::UnderWay) == 1).await;
    other.close().await;
    until("the connection is gone", async || app.count("/api/theirs", Fate::Dropped) == 1).await;
    world.server.1.open();
    assert_eq!(waiting.end().await, 200);
    assert_eq!(one.status("GET", "/api/after").await, 200);
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

/// Nobody is left who waits for it.
async fn a_refresh_whose_only_tab_is_closed_goes_on(world: World) {
    let Scene { world, app, browser: _browser, one, other } = Scene::new(world).await;
    world.server.hold();
    drop(other.start("await fetch('/api/theirs')").await);
    world.server.1.arrived(1).await;
    other.close().await;
    until("the connection is gone", async || app.count("/api/theirs", Fate::Dropped) == 1).await;
    world.server.1.open();
    until("redeemed", async || world.server.redeems() == 1).await;
    assert_eq!(one.status("GET", "/api/after").await, 200);
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

async fn a_navigation_that_supersedes_another_in_mid_refresh_is_served(world: World) {
    let app = App::start(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    tab.run("window.other = window.open('/blank')").await;
    tab.until("other.document.body?.innerText.includes('blank')").await;
    world.server.hold();
    tab.run("other.location.href = '/api/first'").await;
    world.server.1.arrived(1).await;
    tab.run("other.location.href = '/api/second'").await;
    until("the first is given up", async || app.count("/api/first", Fate::Dropped) == 1).await;
    until("the second waits", async || app.count("/api/second", Fate::UnderWay) == 1).await;
    world.server.1.open();
    tab.until("other.document.body?.innerText.includes('/second')").await;
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

async fn a_sign_out_in_one_tab_while_the_other_refreshes_is_the_end(world: World) {
    let Scene { world, app, browser: _browser, one, other } = Scene::new(world).await;
    world.server.hold();
    let script = "const response = await fetch('/api/orders');
         return [response.status, response.headers.get('session-ended')]";
    let waiting = one.start(script).await;
    world.server.1.arrived(1).await;
    assert_eq!(other.status("POST", "/sign_out").await, 204);
    // The one that waits does not wait for the server.
    assert_eq!(waiting.end().await, json!([401, "signed_out"]));
    world.server.1.open();
    until("the server has answered", async || world.server.redeems() == 1).await;
    until("nothing is left there", async || world.server.alive() == 0).await;
    assert_eq!(world.server.reuses(), 0);
    for tab in [&one, &other] {
        tab.open(&app.url("/")).await;
        tab.shows("this is nobody").await;
        assert_eq!(tab.cookies().await.len(), 0);
        assert_eq!(tab.status("GET", "/api/orders").await, 401);
    }
    assert_eq!(app.sessions.status().ended(Ended::SignedOut), 1);
}

in_both_modes! {
    two_tabs_and_100_fetches_over_an_expiry_are_one_refresh_and_no_failure,
    a_tab_that_is_closed_in_mid_refresh_takes_nothing_from_the_other_one,
    a_refresh_whose_only_tab_is_closed_goes_on,
    a_navigation_that_supersedes_another_in_mid_refresh_is_served,
    a_sign_out_in_one_tab_while_the_other_refreshes_is_the_end,
}
