//! Beside tower-sessions, whose cookie and data are another matter: a basket that is there before anybody
//! signs in. Whichever layer is outside, and however the browser sends its cookies.

use std::{collections::BTreeMap, mem};

use ::axum::{
    Extension, Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{COOKIE, SET_COOKIE},
};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_refresh::session::{Identity, Session, SessionSlot, Sessions};
use tower_sessions::{MemoryStore, Session as Basket, SessionManagerLayer};

use testing::sessions::{ISSUER, World};

const OURS: &str = "__Host-Http-sid";
const THEIRS: &str = "id";

/// Which layer sees a request first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outside {
    Ours,
    Theirs,
}

/// As HTTP/1 sends cookies, and as HTTP/2 may (RFC 9113, section 8.2.3).
#[derive(Clone, Copy, Debug)]
enum Fields {
    One,
    Each,
}

/// A basket is read as a number, and may be kept after a sign-out.
async fn count(basket: &Basket) -> u64 {
    basket.get("count").await.unwrap().unwrap_or(0)
}

async fn add(basket: &Basket) {
    basket.insert("count", count(basket).await + 1).await.unwrap();
}

fn shop(world: &World, outside: Outside) -> Router {
    let sessions = Sessions::builder(world.renewal(), world.place.clone()).build().unwrap();
    let server = world.server.clone();
    let sign_in = async move |slot: SessionSlot, basket: Basket| {
        let identity = Identity::new(ISSUER, "alice");
        if slot.sign_in(server.sign_in(), identity).await.is_err() {
            return StatusCode::BAD_GATEWAY;
        }
        // Against fixation, as tower-sessions advises, once there is no way back.
        basket.cycle_id().await.unwrap();
        StatusCode::NO_CONTENT
    };
    let app = Router::new()
        .route(
            "/",
            get(async |session: Option<Session>, basket: Basket| {
                let name = session.map(|it| it.identity().subject().to_owned());
                format!("{}, {}", name.as_deref().unwrap_or("nobody"), count(&basket).await)
            }),
        )
        .route("/cookies", get(cookies))
        .route("/add", post(async |basket: Basket| add(&basket).await))
        .route("/empty", post(async |basket: Basket| basket.flush().await.unwrap()))
        .route("/buy", post(buy))
        .route("/sign_in", post(sign_in))
        .route("/sign_out", post(async |session: Session| session.sign_out().await.unwrap()));
    let theirs = SessionManagerLayer::new(MemoryStore::default());
    match outside {
        Outside::Ours => app.layer(theirs).layer(sessions.layer()),
        Outside::Theirs => app.layer(sessions.layer()).layer(theirs),
    }
}

/// What comes through to a handler, a field a line.
async fn cookies(headers: HeaderMap) -> String {
    let fields = headers.get_all(COOKIE).iter().map(|it| it.to_str().unwrap());
    fields.collect::<Vec<_>>().join("\n")
}

/// The API refuses the token, which cannot be renewed, after the basket has changed.
async fn buy(session: Session, basket: Basket) -> Response {
    basket.cycle_id().await.unwrap();
    add(&basket).await;
    let known = session.state().current().generation();
    let failure = session.state().challenged(known).await.unwrap_err();
    (StatusCode::UNAUTHORIZED, Extension(failure)).into_response()
}

/// A browser that keeps all cookies.
struct Browser {
    app: Router,
    fields: Fields,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new(app: &Router, fields: Fields) -> Self {
        let cookies = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        Self { app: app.clone(), fields, cookies }
    }

    fn cookie(&self, name: &str) -> &str {
        &self.cookies[name]
    }

    /// Returns the status, the names of the cookies that were set or taken away, and the text.
    async fn send(&mut self, method: Method, path: &str) -> (StatusCode, Vec<String>, String) {
        let request = Request::builder().method(method).uri(path).header("host", "app.test");
        let mut request =
            request.header("sec-fetch-site", "same-origin").body(Body::empty()).unwrap();
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<_> = pairs.collect();
        let fields = match self.fields {
            Fields::One => vec![pairs.join("; ")],
            Fields::Each => pairs,
        };
        for field in fields {
            request.headers_mut().append(COOKIE, HeaderValue::try_from(field).unwrap());
        }
        let (head, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let cleared = head.headers.get("clear-site-data").map(|it| it.to_str().unwrap());
        if cleared.is_some_and(|it| it.contains("cookies") || it.contains('*')) {
            self.cookies.clear();
        }
        let mut set = Vec::new();
        for field in head.headers.get_all(SET_COOKIE) {
            let field = field.to_str().unwrap();
            let (name, value) = field.split(';').next().unwrap().split_once('=').unwrap();
            match field.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
            set.push(name.to_owned());
        }
        set.sort();
        let text = body.collect().await.unwrap().to_bytes();
        (head.status, set, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(Method::GET, path).await.2
    }

    /// The names of the cookies that were set or taken away.
    async fn post(&mut self, path: &str) -> Vec<String> {
        self.send(Method::POST, path).await.1
    }
}

/// In each order of layers, and with each form of cookies.
async fn in_each_way(test: impl AsyncFn(World, Browser, Outside)) {
    for outside in [Outside::Ours, Outside::Theirs] {
        for fields in [Fields::One, Fields::Each] {
            println!("{outside:?}, {fields:?}");
            let world = World::new();
            let browser = Browser::new(&shop(&world, outside), fields);
            test(world, browser, outside).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_cookies_of_one_response_are_kept_and_read() {
    in_each_way(async |_, mut browser, _| {
        // Before there is either.
        assert_eq!(browser.get("/").await, "nobody, 0");
        assert_eq!(browser.post("/add").await, [THEIRS]);
        assert_eq!(browser.post("/sign_in").await, [OURS, THEIRS]);
        assert_eq!(browser.get("/").await, "alice, 1");
        // Ours goes no further, and theirs and all others come through as they are.
        let theirs = browser.cookie(THEIRS);
        let seen = match browser.fields {
            Fields::One => format!("a=1; id={theirs}"),
            Fields::Each => format!("a=1\nid={theirs}"),
        };
        assert_eq!(browser.get("/cookies").await, seen);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn neither_cookie_is_looked_up_by_the_other() {
    in_each_way(async |world, mut browser, _| {
        browser.post("/add").await;
        // Theirs alone is nothing that our store is asked for.
        assert_eq!(browser.get("/").await, "nobody, 1");
        assert_eq!(world.place.looks(), 0);
        // Each under the other's name: neither a session nor a basket.
        browser.post("/sign_in").await;
        let ours = browser.cookies.remove(OURS).unwrap();
        let theirs = browser.cookies.insert(THEIRS.to_owned(), ours.clone()).unwrap();
        browser.cookies.insert(OURS.to_owned(), theirs.clone());
        let looks = world.place.looks();
        assert_eq!(browser.get("/").await, "nobody, 0");
        assert_eq!(world.place.looks(), looks);
        browser.cookies.extend([(OURS.to_owned(), ours), (THEIRS.to_owned(), theirs)]);
        assert_eq!(browser.get("/").await, "alice, 1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_of_one_leaves_the_other() {
    in_each_way(async |_, mut browser, _| {
        browser.post("/sign_in").await;
        browser.post("/add").await;
        let theirs = browser.cookie(THEIRS).to_owned();
        assert_eq!(browser.post("/sign_out").await, [OURS]);
        assert_eq!(browser.cookie(THEIRS), theirs);
        assert_eq!(browser.get("/").await, "nobody, 1");
        // The other way round.
        browser.post("/sign_in").await;
        assert_eq!(browser.get("/").await, "alice, 1");
        assert_eq!(browser.post("/empty").await, [THEIRS]);
        assert_eq!(browser.get("/").await, "alice, 0");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_basket_is_there_after_a_sign_in_that_gives_both_a_new_id() {
    in_each_way(async |_, mut browser, _| {
        browser.post("/add").await;
        let mut before = browser.cookies.clone();
        // The second one replaces a session that lives.
        for _ in 0..2 {
            assert_eq!(browser.post("/sign_in").await, [OURS, THEIRS]);
            assert_eq!(browser.get("/").await, "alice, 1");
            let after = browser.cookies.clone();
            // What the browser had is worth nothing any more.
            mem::swap(&mut browser.cookies, &mut before);
            browser.cookies.remove(OURS);
            assert_eq!(browser.get("/").await, "nobody, 0");
            browser.cookies.clone_from(&after);
            before = after;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_fails_costs_no_basket() {
    in_each_way(async |world, mut browser, _| {
        browser.post("/add").await;
        world.place.go_away(true);
        let (status, set, _) = browser.send(Method::POST, "/sign_in").await;
        assert_eq!((status, set), (StatusCode::BAD_GATEWAY, vec![]));
        world.place.go_away(false);
        assert_eq!(browser.get("/").await, "nobody, 1");
    })
    .await;
}

/// The answer is another one then, and the basket's cookie is in it: its old id is gone.
#[tokio::test(start_paused = true)]
async fn a_basket_survives_the_end_of_a_session_in_mid_request() {
    in_each_way(async |world, mut browser, _| {
        browser.post("/add").await;
        browser.post("/sign_in").await;
        world.server.revoke_all();
        let (status, set, _) = browser.send(Method::POST, "/buy").await;
        assert_eq!((status, &*set), (StatusCode::UNAUTHORIZED, &[THEIRS.to_owned()][..]));
        assert_eq!(browser.get("/").await, "nobody, 2");
    })
    .await;
}

/// Outside, tower-sessions does not save what comes with a 503, though it has deleted the old record.
#[tokio::test(start_paused = true)]
async fn a_basket_survives_an_outage_if_our_layer_is_outside() {
    in_each_way(async |world, mut browser, outside| {
        browser.post("/add").await;
        browser.post("/sign_in").await;
        world.server.expire_all();
        world.server.go_away(true);
        let (status, set, _) = browser.send(Method::POST, "/buy").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let kept = match outside {
            Outside::Ours => (vec![THEIRS.to_owned()], "alice, 2"),
            Outside::Theirs => (vec![], "alice, 0"),
        };
        assert_eq!((set, &*browser.get("/").await), kept);
    })
    .await;
}
