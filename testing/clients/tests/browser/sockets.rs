//! WebSockets through the proxy: over a connection of their own (HTTP/1.1), and over that of the page
//! (HTTP/2, RFC 8441).

use axum::http::{Method, StatusCode, Version};
use serde_json::json;
use testing::sessions::World;

use super::{
    app::{App, Fate, Seen, Setup},
    browser::{Browser, Tab},
};

const PATH: &str = "/api/socket";

/// What it hears is written down, and what becomes of it.
fn open(url: &str) -> String {
    format!(
        "window.heard = [];
         window.socket = new WebSocket('{}', ['chat']);
         socket.onopen = () => heard.push('open ' + socket.protocol);
         socket.onmessage = event => heard.push(event.data);
         socket.onclose = () => heard.push('closed');",
        url.replace("http", "ws")
    )
}

/// A signed-in page of an application over TLS, and what its socket is asked for by.
async fn opened(tab: &Tab, world: &World, has_http2_sockets: bool) -> (App, Seen) {
    let setup = Setup { is_tls: true, has_http2_sockets, ..Setup::default() };
    let app = App::with(world, setup).await;
    tab.open(&app.url("/callback")).await;
    tab.run(&open(&app.url(PATH))).await;
    tab.until("heard.length").await;
    let seen = app.seen().into_iter().find(|seen| seen.path == PATH).unwrap();
    (app, seen)
}

/// A browser opens it over HTTP/2 if the server says that it may, and else over HTTP/1.1.
#[tokio::test]
async fn a_socket_goes_through_whichever_way_the_browser_opens_it_and_ends_with_its_session() {
    let browser = Browser::start().await;
    for (has_http2_sockets, method, version) in
        [(false, Method::GET, Version::HTTP_11), (true, Method::CONNECT, Version::HTTP_2)]
    {
        let (world, tab) = (World::new(), browser.tab().await);
        let (app, seen) = opened(&tab, &world, has_http2_sockets).await;
        assert_eq!((seen.method, seen.version), (method, version));
        assert_eq!(tab.run("return heard").await, json!(["open chat"]), "{:?}", seen.fate);
        let long = "x".repeat(100_000);
        for word in ["hello", &long] {
            tab.run(&format!("heard.length = 0; socket.send('{word}')")).await;
            tab.until(&format!("heard[0] == '{word}'")).await;
        }
        let elsewhere = App::start(&world).await;
        elsewhere.signed_out_by_the_provider("alice").await;
        tab.until("heard.at(-1) == 'closed'").await;
        tab.run(&open(&app.url(PATH))).await;
        tab.until("heard.at(-1) == 'closed'").await;
        assert_eq!(
            tab.run("return heard").await,
            json!(["closed"]),
            "it cannot be opened any more"
        );
    }
}

/// Another port of the host is the same site to a browser: its requests have the cookie, and `Origin` alone
/// tells them.
#[tokio::test]
async fn a_page_of_another_port_opens_no_socket_whichever_way() {
    let browser = Browser::start().await;
    for (has_http2_sockets, method) in [(false, Method::GET), (true, Method::CONNECT)] {
        let (world, ours, theirs) = (World::new(), browser.tab().await, browser.tab().await);
        let (app, _) = opened(&ours, &world, has_http2_sockets).await;
        let setup = Setup { is_tls: true, ..Setup::default() };
        let stranger = App::with(&World::new(), setup).await;
        theirs.open(&stranger.url("/blank")).await;
        theirs.run(&open(&app.url(PATH))).await;
        theirs.until("heard.length").await;
        assert_eq!(theirs.run("return heard").await, json!(["closed"]));
        let refused = Fate::Answered(StatusCode::FORBIDDEN);
        let seen = app.seen().into_iter().find(|seen| seen.fate == refused).unwrap();
        assert_eq!((&*seen.path, seen.method), (PATH, method));
        assert_eq!(ours.run("return heard").await, json!(["open chat"]), "ours is open");
    }
}
