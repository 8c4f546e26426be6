//! `--check`: what a person would do on the page, by a browser without a screen. It has one cookie jar
//! and several tabs, each with its own connections; every second tab speaks HTTP/2.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use openidconnect::url::Url;
use serde_json::Value;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower_refresh::BoxError;

use crate::{
    api::Api,
    app::BACK_CHANNEL,
    options::Options,
    server::{Fate, Server},
    timeline::REQUEST_ID,
};

/// How many requests a tab sends at once.
const AT_ONCE: usize = 100;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long one thing may take to be seen elsewhere.
const SOON: Duration = Duration::from_secs(10);

/// Does everything, and prints what came of it. `false`: not all is as it should be.
pub(crate) async fn run(
    address: &str,
    options: &Options,
    (server, api): (&Server, &Api),
) -> Result<bool, BoxError> {
    timeout(PATIENCE, check(address, options, (server, api))).await?
}

async fn check(
    address: &str,
    options: &Options,
    (server, api): (&Server, &Api),
) -> Result<bool, BoxError> {
    let mut wrong = Vec::new();
    let mut expect = |is_right: bool, what: &str| {
        if !is_right {
            wrong.push(what.to_owned());
        }
    };
    let browser = Browser::new(address)?;
    let tabs: Vec<_> = (0..options.tabs).map(|number| browser.tab(number)).collect();
    let [tab, ..] = &tabs[..] else { return Err("there is no tab".into()) };

    // A user who opens a page is taken to the sign-in, and back to that page; a script is not.
    expect(tab.fetch(Method::GET, "/api/orders").await?.status == 401, "a fetch without a session");
    let landed = tab.sign_in("/profile", "alice").await?;
    expect(landed.text.starts_with("You are user-alice,"), "the page that was asked for");
    let sid = tab.who().await?["sid"].as_str().ok_or("nobody is signed in")?.to_owned();
    let is_begun = browser.jar.lock().keys().any(|(_, name)| name.ends_with("-sign-in"));
    expect(!is_begun, "the state of the sign-in is gone");
    let forged = tab.send(tab.request(Method::POST, "/sign_out", "cross-site")?).await?;
    expect(forged.status == 403, "another site's page cannot sign out");

    // All tabs at once, each time the token has run out.
    let stream = tab.stream().await?;
    let (mut requests, mut ok) = (0, 0);
    for round in 0..options.rounds {
        expect(tab.fetch(Method::POST, "/kill").await?.status == 204, "the token runs out");
        let mut herd = JoinSet::new();
        for (tab, number) in tabs.iter().zip(0..) {
            for request in 0..AT_ONCE {
                let (tab, id) = (tab.clone(), format!("{number}-{round}-{request}"));
                herd.spawn(async move { tab.order(&id).await });
            }
        }
        requests += herd.len();
        while let Some(answer) = herd.join_next().await {
            // An error is a request that was not answered.
            ok += usize::from(answer?.unwrap_or_default());
        }
    }
    let (fate, refreshes) = server.family(&sid).ok_or("the sign-in is not known")?;
    expect(refreshes == options.rounds, "one refresh each time");
    expect(api.refused() >= options.rounds, "the API has refused");
    expect(api.accepted() == requests, "each request was served once");

    // Another browser of the same user signs out while a refresh is under way.
    let leaver = Browser::new(address)?.tab(0);
    leaver.sign_in("/", "alice").await?;
    let left = leaver.who().await?["sid"].as_str().ok_or("the other is not signed in")?.to_owned();
    let left_stream = leaver.stream().await?;
    leaver.fetch(Method::POST, "/kill").await?;
    let mut herd = JoinSet::new();
    for number in 0..20 {
        let leaver = leaver.clone();
        herd.spawn(async move { leaver.order(&format!("leaver-{number}")).await });
    }
    soon(|| server.family(&left).is_some_and(|(_, refreshes)| refreshes == 1)).await;
    let copy = leaver.browser.copy().tab(0);
    expect(leaver.fetch(Method::POST, "/sign_out").await?.status == 204, "a sign-out");
    // They are served or refused, as it comes.
    herd.join_all().await;
    expect(leaver.browser.jar.lock().is_empty(), "a sign-out takes the cookie away");
    let revoked = soon(|| server.family(&left).is_some_and(|it| it.0 == Fate::Revoked)).await;
    expect(revoked, "a sign-out revokes the tokens");
    expect(timeout(SOON, left_stream.ended).await.is_ok(), "a sign-out ends its event stream");
    let who = copy.who().await?;
    expect(who["user"].is_null(), "a copy of the cookie opens nothing");
    expect(who["ended"] == "signed_out", "a copy of the cookie is told why");

    // A third one, which the first ends.
    let third = Browser::new(address)?.tab(1);
    third.sign_in("/", "alice").await?;
    let ended = tab.fetch(Method::POST, "/others").await?.json();
    expect(ended["ended"] == 1, "the user's other sessions end");
    let refused = third.fetch(Method::GET, "/api/orders").await?;
    let reason = refused.headers.get("session-ended").and_then(|reason| reason.to_str().ok());
    expect(
        (refused.status, reason) == (StatusCode::UNAUTHORIZED, Some("signed_out_elsewhere")),
        "why",
    );

    // A fourth one, which signs out at the provider.
    let fourth = Browser::new(address)?.tab(0);
    fourth.sign_in("/", "alice").await?;
    let left = fourth.who().await?["sid"].as_str().ok_or("the fourth is not signed in")?.to_owned();
    let left_stream = fourth.stream().await?;
    let copy = fourth.browser.copy().tab(0);
    expect(fourth.fetch(Method::POST, "/elsewhere").await?.status == 204, "the back channel");
    expect(timeout(SOON, left_stream.ended).await.is_ok(), "a logout ends its event stream");
    expect(copy.who().await?["ended"] == "signed_out_elsewhere", "a logout by the provider");
    expect(server.family(&left).is_some_and(|it| it.0 == Fate::SignedOut), "it began there");
    let url = fourth.browser.address.join(BACK_CHANNEL)?;
    let unsigned = fourth.navigate(url, Method::POST, "logout_token=a.b.c").await?.1;
    expect(unsigned.status == 400, "a logout that nobody has signed");

    // The first one has not noticed anything.
    let lives = tab.order("last").await? && fate == Fate::Lives;
    let lost = server.lost().max(usize::from(!lives));
    expect(
        stream.refreshes.load(Ordering::Relaxed) == options.rounds,
        "the page sees each refresh",
    );

    for what in &wrong {
        eprintln!("not as it should be: {what}");
    }
    let (tabs, reuses) = (options.tabs, server.reuses());
    println!(
        "tabs={tabs} requests={requests} ok={ok} refreshes={refreshes} token_reuse={reuses} \
         sessions_lost={lost}"
    );
    Ok(wrong.is_empty() && requests == ok && (reuses, lost) == (0, 0))
}

/// Whether it becomes so.
async fn soon(is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + SOON;
    while !is_so() && Instant::now() < end {
        sleep(Duration::from_millis(5)).await;
    }
    is_so()
}

/// A browser: a cookie jar. Clones are the same.
#[derive(Clone)]
struct Browser {
    address: Url,
    jar: Jar,
}

/// Cookies by the host that has set them, and name. Ports share theirs.
#[derive(Clone, Default)]
struct Jar(Arc<Mutex<Cookies>>);

type Cookies = BTreeMap<(String, String), String>;

/// A tab of it.
#[derive(Clone)]
struct Tab {
    browser: Browser,
    client: Client<HttpConnector, Full<Bytes>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// What it says. A refusal says nothing.
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// An open event stream.
struct Stream {
    refreshes: Arc<AtomicUsize>,
    ended: JoinHandle<()>,
}

impl Browser {
    fn new(address: &str) -> Result<Self, BoxError> {
        Ok(Self { address: Url::parse(address)?, jar: Jar::default() })
    }

    /// One that has a copy of this one's cookies, as they are now.
    fn copy(&self) -> Self {
        let jar = Jar(Arc::new(Mutex::new(self.jar.lock().clone())));
        Self { address: self.address.clone(), jar }
    }

    fn tab(&self, number: usize) -> Tab {
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(number % 2 == 1);
        Tab { browser: self.clone(), client: client.build_http() }
    }
}

impl Jar {
    fn lock(&self) -> MutexGuard<'_, Cookies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, host: &str) -> String {
        let jar = self.lock();
        let ours = jar.iter().filter(|((of, _), _)| of == host);
        ours.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn take(&self, host: &str, headers: &HeaderMap) {
        for field in headers.get_all(SET_COOKIE).iter().filter_map(|field| field.to_str().ok()) {
            let (pair, attributes) = field.split_once(';').unwrap_or((field, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            let key = (host.to_owned(), name.to_owned());
            match attributes.split(';').any(|it| it.trim() == "Max-Age=0") {
                true => self.lock().remove(&key),
                false => self.lock().insert(key, value.to_owned()),
            };
        }
    }
}

impl Tab {
    /// As a browser sends it from a page of this site.
    fn request(
        &self,
        method: Method,
        path: &str,
        site: &str,
    ) -> Result<Request<Full<Bytes>>, BoxError> {
        let url = self.browser.address.join(path)?;
        let request = Request::builder().method(method).uri(url.as_str());
        let request = request.header("sec-fetch-site", site).header("sec-fetch-mode", "cors");
        Ok(request.body(Full::default())?)
    }

    async fn open(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, BoxError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let cookies = self.browser.jar.of(&host);
        if !cookies.is_empty() {
            request.headers_mut().insert(COOKIE, cookies.parse()?);
        }
        let response = self.client.request(request).await?;
        self.browser.jar.take(&host, response.headers());
        Ok(response)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
        let (parts, body) = self.open(request).await?.into_parts();
        let text = String::from_utf8(body.collect().await?.to_bytes().into())?;
        Ok(Answer { status: parts.status, headers: parts.headers, text })
    }

    /// A script of the application's page sends it.
    async fn fetch(&self, method: Method, path: &str) -> Result<Answer, BoxError> {
        self.send(self.request(method, path, "same-origin")?).await
    }

    /// A request to the API. Whether the API has answered it.
    async fn order(&self, id: &str) -> Result<bool, BoxError> {
        let mut request = self.request(Method::GET, "/api/orders", "same-origin")?;
        request.headers_mut().insert(REQUEST_ID, id.parse()?);
        let answer = self.send(request).await?;
        Ok(answer.status == StatusCode::OK && answer.json()["request"] == id)
    }

    async fn who(&self) -> Result<Value, BoxError> {
        Ok(self.fetch(Method::GET, "/session").await?.json())
    }

    /// Opens a page, signs in where that leads to, and comes back.
    async fn sign_in(&self, path: &str, user: &str) -> Result<Answer, BoxError> {
        let url = self.browser.address.join(path)?;
        let (form, answer) = self.navigate(url, Method::GET, "").await?;
        if !answer.text.contains("<form") {
            // The page itself needs no session.
            let login = self.browser.address.join("/login")?;
            let (form, _) = self.navigate(login, Method::GET, "").await?;
            return Ok(self.navigate(form, Method::POST, &format!("user={user}")).await?.1);
        }
        Ok(self.navigate(form, Method::POST, &format!("user={user}")).await?.1)
    }

    /// Follows redirects. Returns where that led to.
    async fn navigate(
        &self,
        mut url: Url,
        mut method: Method,
        form: &str,
    ) -> Result<(Url, Answer), BoxError> {
        let mut form = Full::from(form.to_owned());
        for _ in 0..10 {
            let request = Request::builder().method(&method).uri(url.as_str());
            let request = request.header("sec-fetch-mode", "navigate");
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let answer = self.send(request.body(std::mem::take(&mut form))?).await?;
            match answer.headers.get(LOCATION).filter(|_| answer.status.is_redirection()) {
                Some(location) => url = url.join(location.to_str()?)?,
                None => return Ok((url, answer)),
            }
            method = Method::GET;
        }
        Err("the redirects do not end".into())
    }

    async fn stream(&self) -> Result<Stream, BoxError> {
        let mut body =
            self.open(self.request(Method::GET, "/events", "same-origin")?).await?.into_body();
        // The first event says that it has begun.
        let hello = body.frame().await.ok_or("an event stream ends at once")??;
        let hello = hello.into_data().unwrap_or_default();
        if !hello.starts_with(b"data:") {
            return Err("an event stream does not begin".into());
        }
        let refreshes = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&refreshes);
        let ended = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(&data));
                while let Some((line, rest)) = text.split_once('\n') {
                    if line.contains(r#""kind":"refresh_ended""#) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    text = rest.to_owned();
                }
            }
        });
        Ok(Stream { refreshes, ended })
    }
}
