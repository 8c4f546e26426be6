//! Requests that waited in the browser: it has six connections to a server (HTTP/1.1), and what waits for
//! one has the cookie of the moment when its page asked.

use axum::http::StatusCode;
use serde_json::json;
use testing::sessions::World;

use super::{
    app::{App, Fate},
    browser::{Browser, Tab, Work},
    until,
};

/// Keeps every connection busy.
pub(crate) async fn hold(app: &App, tab: &Tab) -> Work {
    app.held.close();
    let script = "const all = Array.from({ length: 6 }, (_, n) => fetch('/held?' + n));
         return (await Promise.all(all)).map(response => response.status)";
    let work = tab.start(script).await;
    app.held.arrived(6).await;
    work
}

/// Those that wait behind: who they are for, with GET and POST.
pub(crate) const WAIT: &str = "
    const get = async n => {
        const response = await fetch('/me?' + n);
        return [response.status, await response.text()];
    };
    const post = async n => {
        const response = await fetch('/post', { method: 'POST', body: 'body' + n });
        return [response.status, await response.text()];
    };
    return Promise.all([get(1), post(2), get(3), post(4)])";

/// Another port of the host has the same cookies, and connections of its own: the sign-in overtakes.
async fn requests_that_waited_through_a_sign_in_in_another_tab_are_served(world: World) {
    let app = App::start(&world).await;
    let replica = app.replica(&world).await;
    let browser = Browser::start().await;
    let (one, other) = (browser.first(), browser.tab().await);
    one.open(&app.url("/callback?user=alice")).await;
    let holding = hold(&app, one).await;
    let waiting = one.start(WAIT).await;
    // They ask for their cookies in their order, and long before this answer.
    assert!(!waiting.is_over().await);
    other.open(&replica.url("/callback?user=bob")).await;
    other.shows("this is bob").await;
    assert_eq!(app.count("/me", Fate::UnderWay), 0, "they wait in the browser");
    app.held.open();
    let served = json!([[200, "bob"], [200, "body2"], [200, "bob"], [200, "body4"]]);
    assert_eq!(waiting.end().await, served);
    assert_eq!(holding.end().await, json!([200, 200, 200, 200, 200, 200]));
    assert_eq!(app.answered(StatusCode::TEMPORARY_REDIRECT), 4, "{:?}", app.seen());
    assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
}

async fn requests_that_waited_through_a_refresh_are_served(world: World) {
    let app = App::start(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    tab.open(&app.url("/callback")).await;
    world.server.hold();
    let script = "const all = Array.from({ length: 20 }, (_, n) => fetch('/api/' + n));
         return (await Promise.all(all)).every(response => response.ok)";
    let waiting = tab.start(script).await;
    let under_way = async || app.seen().iter().filter(|seen| seen.fate == Fate::UnderWay).count();
    until("every connection waits for the refresh", async || under_way().await == 6).await;
    world.server.1.arrived(1).await;
    world.server.1.open();
    assert_eq!(waiting.end().await, true);
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
    assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
}

in_both_modes! {
    requests_that_waited_through_a_sign_in_in_another_tab_are_served,
    requests_that_waited_through_a_refresh_are_served,
}
