//! Sealed sessions: their cookies as the browser has them, and in which order it takes them. What both
//! modes promise alike is in the other modules.

use std::time::Duration;

use axum::http::{StatusCode, Version};
use serde_json::{Value, json};
use testing::sessions::World;
use tower_refresh::store::{Record, Stores};

use super::{
    app::{App, Fate, Setup},
    browser::{Browser, Tab},
    cookies::assert_attributes,
    refreshes::herd,
    until,
    waiting::{WAIT, hold},
};

/// A cookie of ours, as the browser has it.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    /// Its slot and index: what its name ends with.
    at: String,
    generation: u64,
    value: String,
    /// The name and the value.
    size: usize,
}

/// A signed-in browser.
struct Scene {
    world: World,
    app: App,
    browser: Browser,
    tab: Tab,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let world = World::sealed();
        let app = App::with(&world, setup).await;
        let browser = Browser::start().await;
        let tab = browser.first().clone();
        tab.open(&app.url("/callback")).await;
        tab.shows("this is alice").await;
        Self { world, app, browser, tab }
    }

    /// The session's cookies.
    async fn jar(&self) -> Vec<Piece> {
        let prefix = format!("{}.", self.app.cookie());
        let piece = |cookie: Value| {
            let (name, value) = (cookie["name"].as_str()?, cookie["value"].as_str()?);
            let at = name.strip_prefix(&prefix)?.to_owned();
            let generation = value.split('.').nth(1)?.parse().ok()?;
            let size = name.len() + value.len();
            Some(Piece { at, generation, value: value.to_owned(), size })
        };
        let mut jar: Vec<_> = self.tab.cookies().await.into_iter().filter_map(piece).collect();
        jar.sort_by(|one, other| one.at.cmp(&other.at));
        jar
    }

    async fn generations(&self) -> Vec<u64> {
        let mut all: Vec<_> = self.jar().await.iter().map(|piece| piece.generation).collect();
        all.sort_unstable();
        all
    }

    /// The tokens in the memory, if they are there.
    async fn remembered(&self) -> Option<Record> {
        let names = self.world.place.control().names.lock().unwrap().clone();
        for name in names {
            let record = self.world.place.store(&name).load().await.unwrap();
            if record.tokens.as_ref().is_some_and(|it| it.refresh_token().is_some()) {
                return Some(record);
            }
        }
        None
    }

    /// So many refresh tokens were spent, each once, and the browser has the newest ones.
    async fn redeemed(&self, count: usize) {
        assert_eq!((self.world.server.redeems(), self.world.server.reuses()), (count, 0));
        let newest = self.remembered().await.expect("they were refreshed just now").generation;
        assert_eq!(self.generations().await.last(), Some(&newest.get()));
    }
}

/// After a sign-in it has the session in both slots.
#[tokio::test]
async fn the_cookies_have_every_attribute_in_the_browser() {
    for (is_strict, site) in [(false, "Lax"), (true, "Strict")] {
        let scene = Scene::with(Setup { is_strict, ..Setup::default() }).await;
        let Scene { app, tab, .. } = &scene;
        let names: Vec<_> = scene.jar().await.into_iter().map(|piece| piece.at).collect();
        assert_eq!(names, ["00", "10"]);
        let cookies = tab.cookies().await;
        assert_eq!(cookies.len(), 2, "{cookies:?}");
        for cookie in &cookies {
            let name = cookie["name"].as_str().unwrap();
            assert!(name.starts_with("__Host-Http-sid-"), "{name}");
            assert_attributes(cookie, site);
            assert!(
                cookie["size"].as_u64().unwrap() < 400,
                "small tokens, small cookies: {cookie}"
            );
        }
        assert_eq!(tab.run("return document.cookie").await, "", "no script sees them");
        assert_eq!(tab.status("POST", "/sign_out").await, 204);
        assert_eq!(tab.cookies().await.len(), 0);
        assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
    }
}

/// More than the browser has connections for.
#[tokio::test]
async fn eight_tabs_over_expiries_are_a_refresh_each_and_the_browser_has_the_newest_tokens() {
    let scene = Scene::new().await;
    let Scene { world, app, browser, tab } = &scene;
    let mut tabs = vec![tab.clone()];
    for _ in 0..7 {
        let tab = browser.tab().await;
        tab.open(&app.url("/")).await;
        tabs.push(tab);
    }
    for round in 1..=4 {
        world.server.hold();
        let mut works = vec![tabs[round].start(&herd(12)).await];
        world.server.1.arrived(round).await;
        for (_, tab) in tabs.iter().enumerate().filter(|(at, _)| *at != round) {
            works.push(tab.start(&herd(12)).await);
        }
        world.server.1.open();
        for work in works {
            assert_eq!(work.end().await, json!([]), "what was not served in a tab");
        }
        scene.redeemed(round).await;
        let generations = scene.generations().await;
        assert_eq!(generations[0] + 1, generations[1], "the one before has the other name");
    }
    assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
}

/// In the middle of the refresh, or when the response is about to go out that would bring the new tokens:
/// the browser keeps its old ones, and the next request has those of the memory.
#[tokio::test]
async fn a_navigation_that_is_given_up_loses_its_cookies_and_spends_nothing_twice() {
    for path in ["/api/refreshing", "/api/late"] {
        for is_closed in [false, true] {
            let scene = Scene::new().await;
            let Scene { world, app, tab, .. } = &scene;
            tab.run("window.other = window.open('/blank')").await;
            tab.until("other.document.body?.innerText.includes('blank')").await;
            let before = scene.jar().await;
            match path {
                "/api/late" => {
                    world.server.expire_all();
                    app.late.close();
                }
                _ => world.server.hold(),
            }
            tab.run(&format!("other.location.href = '{path}'")).await;
            match path {
                "/api/late" => app.late.arrived(1).await,
                _ => world.server.1.arrived(1).await,
            }
            let give_up =
                if is_closed { "other.close()" } else { "other.location.href = '/blank'" };
            tab.run(give_up).await;
            until("it is given up", async || app.count(path, Fate::Dropped) == 1).await;
            world.server.1.open();
            app.late.open();
            until("redeemed", async || world.server.redeems() == 1).await;
            assert_eq!(scene.jar().await, before, "{path}: its cookies are lost");
            assert_eq!(tab.status("GET", "/api/after").await, 200);
            scene.redeemed(1).await;
            world.server.expire_all();
            assert_eq!(tab.status("GET", "/api/after").await, 200);
            scene.redeemed(2).await;
            assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
        }
    }
}

/// The older one has the other slot, or the newest one's own.
#[tokio::test]
async fn a_response_that_is_overtaken_takes_nothing_away() {
    for newer in [1, 2, 3] {
        let scene = Scene::new().await;
        let Scene { world, app, browser, tab } = &scene;
        let other = browser.tab().await;
        other.open(&app.url("/blank")).await;
        let first = scene.generations().await[0];
        world.server.expire_all();
        app.late.close();
        let late = tab.start("return (await fetch('/api/late')).status").await;
        app.late.arrived(1).await;
        for _ in 0..newer {
            world.server.expire_all();
            assert_eq!(other.status("GET", "/api/newer").await, 200);
        }
        scene.redeemed(1 + newer).await;
        let newest = first + 1 + newer as u64;
        app.late.open();
        assert_eq!(late.end().await, 200);
        let left = match newer {
            1 | 3 => [first + 1, newest],
            _ => [first + 1, newest - 1],
        };
        assert_eq!(scene.generations().await, left, "{newer} newer ones");
        // Whatever it has now, the memory has the newest.
        assert_eq!(tab.status("GET", "/api/after").await, 200);
        scene.redeemed(1 + newer).await;
        world.server.expire_all();
        assert_eq!(other.status("GET", "/api/after").await, 200);
        scene.redeemed(2 + newer).await;
        assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
    }
}

/// Each response writes one name: one that is overtaken leaves the newest tokens, large ones, too.
#[tokio::test]
async fn a_large_response_that_is_overtaken_takes_nothing_away() {
    let scene = Scene::new().await;
    let Scene { world, app, browser, tab } = &scene;
    let other = browser.tab().await;
    other.open(&app.url("/blank")).await;
    let first = scene.generations().await[0];
    world.server.send_besides("note", 3000);
    world.server.expire_all();
    app.late.close();
    let late = tab.start("return (await fetch('/api/late')).status").await;
    app.late.arrived(1).await;
    world.server.expire_all();
    for _ in 0..2 {
        assert_eq!(other.status("GET", "/api/newer").await, 200);
    }
    assert_eq!(scene.generations().await, [first, first + 2, first + 2]);
    app.late.open();
    assert_eq!(late.end().await, 200);
    let both = [first + 1, first + 1, first + 2, first + 2];
    assert_eq!(scene.generations().await, both);
    assert_eq!(tab.status("GET", "/api/after").await, 200);
    assert_eq!(scene.generations().await, both);
    scene.redeemed(2).await;
    assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
}

/// The tokens of its cookie are spent, and the newest ones are in the browser alone.
#[tokio::test]
async fn a_request_that_waited_until_its_tokens_were_forgotten_comes_again() {
    let transit = Some(Duration::from_secs(1));
    let scene = Scene::with(Setup { transit, ..Setup::default() }).await;
    let Scene { world, app, browser, tab } = &scene;
    let name = Some(app.name.clone());
    let replica = App::with(world, Setup { transit, name, ..Setup::default() }).await;
    let other = browser.tab().await;
    other.open(&replica.url("/blank")).await;
    let holding = hold(app, tab).await;
    let waiting = tab.start(WAIT).await;
    assert!(!waiting.is_over().await);
    world.server.expire_all();
    assert_eq!(other.status("GET", "/api/orders").await, 200);
    let is_forgotten = async || {
        assert_eq!(other.status("GET", "/me").await, 200);
        scene.remembered().await.is_none()
    };
    until("the newest tokens are in the browser alone", is_forgotten).await;
    let newest = scene.jar().await;
    assert_eq!(app.count("/me", Fate::UnderWay), 0, "they wait in the browser");
    app.held.open();
    assert_eq!(holding.end().await, json!([200, 200, 200, 200, 200, 200]));
    let served = json!([[200, "alice"], [200, "body2"], [200, "alice"], [200, "body4"]]);
    assert_eq!(waiting.end().await, served);
    assert_eq!(app.answered(StatusCode::TEMPORARY_REDIRECT), 4, "{:?}", app.seen());
    assert_eq!(app.answered(StatusCode::UNAUTHORIZED), 0);
    assert_eq!(scene.jar().await, newest, "what was held has written nothing old over it");
    world.server.expire_all();
    assert_eq!(tab.status("GET", "/api/after").await, 200);
    scene.redeemed(2).await;
}

/// What `Sealed` relies on: the name and the value together, and no word about it.
#[tokio::test]
async fn a_cookie_of_more_than_4096_bytes_is_dropped_and_the_old_one_stays() {
    let scene = Scene::new().await;
    let set = |len: usize| format!("document.cookie = 'name=' + 'x'.repeat({len}) + '; secure'");
    let len = "return document.cookie.length - 'name='.length";
    for (size, kept) in [(100, 100), (4096, 4096), (4097, 4096)] {
        scene.tab.run(&set(size - "name".len())).await;
        assert_eq!(scene.tab.run(len).await, kept - "name".len(), "{size}");
    }
}

#[tokio::test]
async fn tokens_that_need_two_pieces_come_back_whole() {
    // Small, two pieces, and all that may be.
    for (len, pieces) in [(10, 1), (2900, 2), (3450, 2)] {
        let scene = Scene::new().await;
        let Scene { world, app, tab, .. } = &scene;
        world.server.send_besides("note", len);
        tab.open(&app.url("/callback?user=bob")).await;
        tab.shows("this is bob").await;
        for _ in 0..3 {
            let jar = scene.jar().await;
            assert!(jar.iter().all(|piece| piece.size <= 4000), "{jar:?}");
            assert_eq!(jar.len(), pieces * 2, "under both names: {jar:?}");
            assert_eq!(tab.status("GET", "/me").await, 200);
            let seen = app.seen().into_iter().rfind(|seen| seen.path == "/me").unwrap();
            let sent = seen.cookies.join("; ");
            for piece in &jar {
                let pair = format!("{}.{}={}", app.cookie(), piece.at, piece.value);
                assert!(sent.split("; ").any(|it| it == pair), "{pair} in {sent}");
            }
            world.server.expire_all();
            assert_eq!(tab.status("GET", "/api/orders").await, 200);
        }
        scene.redeemed(3).await;
        assert_eq!(tab.status("POST", "/sign_out").await, 204);
        assert_eq!(tab.cookies().await.len(), 0);
    }
}

#[tokio::test]
async fn a_sign_in_whose_tokens_are_too_large_says_so_and_the_session_before_goes_on() {
    let scene = Scene::new().await;
    let Scene { world, app, tab, .. } = &scene;
    let before = scene.jar().await;
    world.server.send_besides("note", 6000);
    tab.open(&app.url("/callback?user=bob")).await;
    tab.shows("and may take 5120: its access token has 11").await;
    assert_eq!(app.count("/callback", Fate::Answered(StatusCode::BAD_GATEWAY)), 1);
    assert_eq!(scene.jar().await, before);
    tab.open(&app.url("/")).await;
    tab.shows("this is alice").await;
    // Refreshed tokens that are too large stay in the memory.
    world.server.expire_all();
    for _ in 0..2 {
        assert_eq!(tab.status("GET", "/api/orders").await, 200);
    }
    assert_eq!(scene.jar().await, before);
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

/// The response that would bring new tokens is late. It puts them into the browser, and they open
/// nothing; nor do those of before, in whatever way they come back.
#[tokio::test]
async fn no_cookie_opens_after_a_sign_out() {
    let scene = Scene::new().await;
    let Scene { world, app, browser, tab } = &scene;
    let other = browser.tab().await;
    other.open(&app.url("/")).await;
    let before = tab.cookies().await;
    world.server.expire_all();
    app.late.close();
    let late = tab.start("return (await fetch('/api/late')).status").await;
    app.late.arrived(1).await;
    assert_eq!(other.status("POST", "/sign_out").await, 204);
    assert_eq!(scene.jar().await, []);
    app.late.open();
    assert_eq!(late.end().await, 200);
    assert_eq!(scene.jar().await.len(), 1, "the dead tokens have arrived");
    let ask = "const response = await fetch('/me');
         return [response.status, response.headers.get('session-ended')]";
    assert_eq!(tab.wait(ask).await, json!([401, "signed_out"]));
    for cookie in before {
        let cookie = json!({
            "name": cookie["name"], "value": cookie["value"], "url": app.url("/"), "path": "/",
            "secure": true, "httpOnly": true,
        });
        let set = tab.devtools("Network.setCookie", cookie).await;
        assert_eq!(set["success"], true);
    }
    assert_eq!(scene.jar().await.len(), 2);
    assert_eq!(tab.wait(ask).await, json!([401, "signed_out"]));
    tab.open(&app.url("/")).await;
    tab.shows("this is nobody").await;
    assert_eq!(world.server.alive(), 0);
    assert_eq!(world.server.reuses(), 0);
}

/// All pieces of the session are older than all others.
#[tokio::test]
async fn more_than_180_cookies_do_not_sign_out() {
    let scene = Scene::new().await;
    let Scene { world, app, tab, .. } = &scene;
    world.server.send_besides("note", 3000);
    tab.open(&app.url("/callback")).await;
    let before = scene.jar().await;
    assert_eq!(before.len(), 4);
    tab.run("for (let n = 0; n < 400; n++) document.cookie = `other${n}=1; secure`").await;
    let count = tab.cookies().await.len();
    assert!(count <= 180, "the browser drops some, and how many is its own affair: {count}");
    assert_eq!(scene.jar().await, before);
    assert_eq!(tab.status("GET", "/me").await, 200);
}

/// Each is a header field of its own.
#[tokio::test]
async fn the_pieces_are_joined_among_other_cookies_over_http2() {
    let scene = Scene::with(Setup { is_tls: true, ..Setup::default() }).await;
    let Scene { world, app, tab, .. } = &scene;
    world.server.send_besides("note", 3000);
    tab.open(&app.url("/callback")).await;
    tab.run("document.cookie = 'a=1; secure'").await;
    let script = "const response = await fetch('/me');
         return [response.status, await response.text()]";
    assert_eq!(tab.wait(script).await, json!([200, "alice"]));
    let seen = app.seen().into_iter().find(|seen| seen.path == "/me").unwrap();
    assert_eq!((seen.version, seen.cookies.len()), (Version::HTTP_2, 5));
}

/// Two generations as large as may be, and 4 KiB of other cookies. What a server refuses for its size comes
/// to no handler that could take a cookie away.
#[tokio::test]
async fn the_most_that_a_session_brings_passes_over_http2() {
    let scene = Scene::with(Setup { is_tls: true, ..Setup::default() }).await;
    let Scene { world, app, tab, .. } = &scene;
    world.server.send_besides("note", 3450);
    for _ in 0..2 {
        world.server.expire_all();
        assert_eq!(tab.status("GET", "/api/newer").await, 200);
    }
    tab.run("document.cookie = `other=${'x'.repeat(4000)}; secure`").await;
    let jar = scene.jar().await;
    let sum: usize = jar.iter().map(|piece| piece.size).sum();
    assert!(jar.len() == 4 && sum > 9600, "{} of {sum} bytes", jar.len());
    assert_eq!(tab.status("GET", "/me").await, 200);
    let seen = app.seen().into_iter().find(|seen| seen.path == "/me").unwrap();
    assert_eq!((seen.version, seen.cookies.len()), (Version::HTTP_2, 5));
}
