//! Beside tower-sessions: a shop whose basket is in a session of that crate, and whose sign-in is in one
//! of this crate.
//!
//! ```text
//! cargo run -p examples --example beside_tower_sessions
//! ```
//!
//! To copy it, turn on the features `axum`, `oauth2-client`, `session`, and add the crate `tower-sessions`.
//!
//! Starts an authorization server and the shop on loopback. A browser fills a basket, signs in, and
//! signs out. Each crate has a cookie of its own and leaves the other's alone, so the basket is there
//! before, during and after the sign-in. Exits with 1 if anything is not as it should be.

use std::{collections::BTreeMap, error::Error, process::ExitCode, time::Duration};

use axum::{
    Router,
    http::{
        Request, StatusCode,
        header::{COOKIE, SET_COOKIE},
    },
    routing::{get, post},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::loopback::{CLIENT_ID, Loopback};
use tokio::net::TcpListener;
use tower_refresh::{
    Renewal, Tokens, oauth2,
    session::{Identity, Session, SessionSlot, Sessions},
    store::MemoryStores,
};
use tower_sessions::{MemoryStore, Session as Visit, SessionManagerLayer};

type AnyError = Box<dyn Error + Send + Sync>;

// ---- What a user of both crates writes.

fn shop(
    sessions: &Sessions,
    redeem_code: impl Fn() -> Tokens + Clone + Send + Sync + 'static,
) -> Router {
    let callback = async move |slot: SessionSlot, visit: Visit| {
        let identity = Identity::new("https://id.example.com", "alice");
        slot.sign_in(redeem_code(), identity).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        // After the sign-in: the basket's old id is deleted at once, and the new one is stored with the
        // response, unless that is a 5xx.
        visit.cycle_id().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        slot.land("/").map_err(|_| StatusCode::BAD_REQUEST)
    };
    Router::new()
        .route("/", get(page))
        .route("/basket", post(add))
        .route("/callback", get(callback))
        .route("/sign_out", post(sign_out))
        .layer(SessionManagerLayer::new(MemoryStore::default()))
        // Outside: tower-sessions gets to see no cookie of ours, and has saved the basket when this
        // layer answers in the place of a handler whose token could not be refreshed.
        .layer(sessions.layer())
}

async fn page(session: Option<Session>, visit: Visit) -> String {
    let basket: u32 = visit.get("basket").await.ok().flatten().unwrap_or(0);
    let name = session.map(|session| session.identity().subject().to_owned());
    format!("{} has {basket} in the basket", name.as_deref().unwrap_or("nobody"))
}

async fn add(visit: Visit) -> Result<StatusCode, StatusCode> {
    let basket: u32 = visit.get("basket").await.ok().flatten().unwrap_or(0);
    let added = visit.insert("basket", basket + 1).await;
    added.map_or(Err(StatusCode::INTERNAL_SERVER_ERROR), |()| Ok(StatusCode::NO_CONTENT))
}

async fn sign_out(session: Session) -> StatusCode {
    // `visit.flush()` besides, if the next user of this browser should find an empty basket.
    session.sign_out().await.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::NO_CONTENT)
}
// ----

/// A browser: what it was told to keep.
struct Browser {
    address: String,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Returns the text, and how many cookies were set.
    async fn send(&mut self, method: &str, path: &str) -> Result<(String, usize), AnyError> {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("sec-fetch-site", "same-origin")
            .header(COOKIE, cookies.collect::<Vec<_>>().join("; "))
            .body(Empty::<bytes::Bytes>::new())?;
        let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        let (head, body) = response.into_parts();
        let fields = head.headers.get_all(SET_COOKIE);
        for field in &fields {
            let field = field.to_str()?;
            let pair = field.split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = pair.ok_or("no cookie")?;
            match field.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        let text = body.collect().await?.to_bytes();
        Ok((String::from_utf8(text.to_vec())?, fields.iter().count()))
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(20)).await?;
    let oauth = oauth2::Client::builder(&servers.token_endpoint(), CLIENT_ID)?.build()?;
    let renewal = Renewal::builder(oauth.refresh_token_grant());
    let sessions = Sessions::builder(renewal, MemoryStores::new()).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let shop = shop(&sessions, move || servers.sign_in());
    tokio::spawn(async move { axum::serve(listener, shop).await });

    let mut browser = Browser { address, cookies: BTreeMap::new() };
    browser.send("POST", "/basket").await?;
    let (before, _) = browser.send("GET", "/").await?;
    // One response, in which both cookies are set.
    let (_, at_sign_in) = browser.send("GET", "/callback").await?;
    browser.send("POST", "/basket").await?;
    let (during, _) = browser.send("GET", "/").await?;
    // One, in which ours is taken away.
    let (_, at_sign_out) = browser.send("POST", "/sign_out").await?;
    let (after, _) = browser.send("GET", "/").await?;

    println!(
        "before the sign-in  {before}\nsigned in           {during}\nsigned out          {after}"
    );
    println!("cookies_at_sign_in={at_sign_in} cookies_at_sign_out={at_sign_out}");
    let pages = [before, during, after];
    let expected = ["nobody has 1", "alice has 2", "nobody has 2"];
    let ok = pages.iter().zip(expected).all(|(page, it)| *page == format!("{it} in the basket"))
        && (at_sign_in, at_sign_out) == (2, 1);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
