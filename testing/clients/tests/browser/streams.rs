//! Event streams over the end of their session, and over an outage.

use axum::http::StatusCode;
use testing::sessions::World;

use super::{
    app::{App, Fate},
    browser::{Browser, Tab},
    until,
};

/// What it hears is written down.
const LISTEN: &str = "
    window.heard = [];
    window.source = new EventSource('/events');
    source.onmessage = event => heard.push(event.data);
    source.addEventListener('session-ended', event => heard.push('session-ended ' + event.data));
    source.onerror = () => heard.push(source.readyState == 2 ? 'closed' : 'again');";

/// Has signed in, and an open stream.
async fn listens(app: &App, tab: &Tab) {
    tab.open(&app.url("/callback")).await;
    tab.run(LISTEN).await;
    tab.until("heard.includes('hello')").await;
}

/// An `EventSource` comes again by itself. The 401 closes it for good.
async fn a_stream_ends_with_its_session_and_comes_again_once_for_a_401(world: World) {
    let app = App::start(&world).await;
    let elsewhere = app.replica(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    listens(&app, tab).await;
    elsewhere.signed_out_by_the_provider("alice").await;
    tab.until("source.readyState == EventSource.CLOSED").await;
    assert_eq!(tab.run("return heard.at(-1)").await, "closed");
    let refused = app.count("/events", Fate::Answered(StatusCode::UNAUTHORIZED));
    assert_eq!(refused, 1, "{:?}", app.seen());
    assert_eq!(app.count("/events", Fate::Answered(StatusCode::OK)), 1);
    tab.open(&app.url("/")).await;
    tab.shows("this is nobody").await;
}

async fn a_page_is_told_by_an_event_that_its_session_has_ended(world: World) {
    let app = App::start(&world).await;
    let elsewhere = app.replica(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    listens(&app, tab).await;
    elsewhere.signed_out_by_the_provider("alice").await;
    tab.until("source.readyState == EventSource.CLOSED").await;
    assert_eq!(tab.run("return heard.some(it => it.startsWith('session-ended'))").await, true);
}

async fn a_stream_comes_back_after_an_outage_of_the_store(world: World) {
    let app = App::start(&world).await;
    let browser = Browser::start().await;
    let tab = browser.first();
    listens(&app, tab).await;
    world.place.go_away(true);
    // The stream itself does not mind. A page that asks does.
    assert_eq!(tab.status("GET", "/me").await, 503);
    app.cut();
    let streams = async |count| app.count("/events", Fate::Answered(StatusCode::OK)) == count;
    until("it has come again, to an empty stream", async || streams(2).await).await;
    until("and again", async || streams(3).await).await;
    assert_eq!(tab.run("return heard.filter(it => it == 'hello').length").await, 1);
    world.place.go_away(false);
    tab.until("heard.filter(it => it == 'hello').length == 2").await;
    assert_eq!(tab.run("return source.readyState").await, 1, "it is open");
    assert_eq!(tab.run("return heard.includes('closed')").await, false);
    assert_eq!(tab.status("GET", "/me").await, 200);
}

in_both_modes! {
    a_stream_ends_with_its_session_and_comes_again_once_for_a_401,
    a_page_is_told_by_an_event_that_its_session_has_ended,
    a_stream_comes_back_after_an_outage_of_the_store,
}
