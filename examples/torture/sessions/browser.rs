//! A user's tabs, and what they may not see.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use reqwest::{
    header::{COOKIE, ORIGIN, SET_COOKIE},
    redirect::Policy,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower_refresh::BoxError;

use super::{
    Replicas,
    server::{Fate, Server},
};
use crate::SETTLE;

type World = (Replicas, Server, Arc<Seen>, watch::Receiver<bool>);

/// What all users have seen.
#[derive(Default)]
pub(crate) struct Seen {
    requests: AtomicU64,
    ok: AtomicU64,
    aborted: AtomicU64,
    unavailable: AtomicU64,
    sign_ins: AtomicU64,
    sign_outs: AtomicU64,
    /// Answers of the API that a fresh token is refused: it was too old when it came there.
    refused: AtomicU64,
    /// Sessions that ended, and nobody has ended them.
    lost: AtomicU64,
    /// Sessions that were served after they were signed out.
    back: AtomicU64,
    /// Answers for another user.
    mixed_up: AtomicU64,
    /// Families that are alive at the server after their session was signed out.
    unrevoked: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Seen {
    pub(crate) fn report(&self, server: &Server, settled: bool) -> bool {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let book = server.book();
        for (count, what) in [
            (of(&self.ok), "requests that were served"),
            (of(&self.aborted), "requests that their tab has aborted"),
            (of(&self.unavailable), "requests that met an outage"),
            (
                of(&self.refused),
                "requests whose replay was refused, too: the token lives that short",
            ),
            (book.accepted, "requests that the API accepted"),
            (book.refused, "requests that it refused (401)"),
            (of(&self.sign_ins), "sign-ins"),
            (of(&self.sign_outs), "sign-outs, while the tabs go on"),
            (of(&self.unrevoked), "of them whose tokens live on: their replica was killed before"),
        ] {
            println!("{count:>10}  {what}");
        }
        if !settled {
            println!("not every user was served again in the end");
        }
        let lost = of(&self.lost) + u64::from(!settled);
        let (back, mixed_up) = (of(&self.back), of(&self.mixed_up));
        println!(
            "\nsessions={} requests={} redeems={} token_reuse={} sessions_lost={lost} unavoidable={} \
             back={back} mixed_up={mixed_up}",
            of(&self.sign_ins),
            of(&self.requests),
            book.redeems,
            book.reuse,
            book.unavoidable,
        );
        book.reuse == 0 && lost == 0 && back == 0 && mixed_up == 0 && book.redeems > 0
    }
}

/// A browser: its jar, and the family of the session in it.
struct Browser {
    user: String,
    http: reqwest::Client,
    jar: Mutex<Jar>,
    world: World,
}

#[derive(Default)]
struct Jar {
    /// By name.
    cookies: BTreeMap<String, String>,
    /// Which of the server's families it is of.
    family: Option<u64>,
    /// Counts sign-ins and sign-outs.
    turn: u64,
    /// A sign-out is under way, and may have had its effect.
    is_leaving: bool,
}

impl Jar {
    /// As a request brings them.
    fn line(&self) -> Option<String> {
        let all: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// A response sets these.
    fn take(&mut self, set: &[String]) {
        for field in set {
            let (pair, attributes) = field.split_once(';').unwrap_or((field, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            match attributes.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
    }
}

struct Answer {
    status: StatusCode,
    text: String,
    ended: String,
    is_of_api: bool,
    location: String,
    set: Vec<String>,
}

/// One user with so many tabs, until it is told to come to rest. `true`: it is served in the end.
pub(crate) async fn run(user: String, tabs: usize, world: World) -> bool {
    let browser = Arc::new(Browser {
        user,
        http: reqwest::Client::builder().redirect(Policy::none()).build().unwrap_or_default(),
        jar: Mutex::default(),
        world: world.clone(),
    });
    browser.sign_in().await;
    let mut open = JoinSet::new();
    for _ in 0..tabs {
        let browser = Arc::clone(&browser);
        open.spawn(async move { browser.tab().await });
    }
    let mut signed_out = Vec::new();
    let mut stopped = world.3.clone();
    while !*stopped.borrow() {
        let next = Duration::from_millis(fastrand::u64(2_000..8_000));
        let _ = timeout(next, stopped.wait_for(|stop| *stop)).await;
        if !*stopped.borrow() {
            signed_out.extend(browser.sign_out().await);
            browser.sign_in().await;
        }
    }
    open.join_all().await;
    // Nothing of what was signed out has come back, anywhere.
    for (cookie, family) in signed_out {
        browser.is_dead(&cookie).await;
        if family.and_then(|family| world.1.fate(family)) == Some(Fate::Alive) {
            count(&world.2.unrevoked);
        }
    }
    let end = Instant::now() + SETTLE;
    while Instant::now() < end {
        if browser.fetch().await {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

impl Browser {
    fn jar(&self) -> MutexGuard<'_, Jar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        &self,
        (replica, method, path): (&str, &str, &str),
        cookie: Option<&str>,
    ) -> Result<Answer, BoxError> {
        let method = method.parse()?;
        let mut request = self.http.request(method, format!("http://{replica}{path}"));
        request = request.header(ORIGIN, format!("http://{replica}"));
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let answer = timeout(Duration::from_secs(10), request.send()).await??;
        let set = answer.headers().get_all(SET_COOKIE).iter();
        let set = set.filter_map(|it| it.to_str().ok()).map(str::to_owned).collect();
        let text = |name: &str| {
            let value = answer.headers().get(name).and_then(|it| it.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (ended, location) = (text("session-ended"), text("location"));
        let status = answer.status();
        let is_of_api = answer.headers().contains_key("of-api");
        Ok(Answer { status, text: answer.text().await?, ended, is_of_api, location, set })
    }

    async fn sign_in(&self) {
        let path = format!("/sign_in?user={}", self.user);
        loop {
            let answer = self.send((&self.world.0.any(), "POST", &path), None).await;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK && !answer.set.is_empty() => {
                    count(&self.world.2.sign_ins);
                    let mut jar = self.jar();
                    jar.take(&answer.set);
                    jar.family = answer.text.parse().ok();
                    jar.turn += 1;
                    jar.is_leaving = false;
                    return;
                }
                _ => {}
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Until it has worked. Returns the cookie that is dead from now on, and its family.
    async fn sign_out(&self) -> Option<(String, Option<u64>)> {
        let cookie = self.jar().line()?;
        self.jar().is_leaving = true;
        loop {
            let replica = self.world.0.any();
            let answer = self.send((&replica, "POST", "/sign_out"), Some(&cookie)).await;
            match answer {
                // It had its effect, and its answer was lost.
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => break,
                Ok(answer) if answer.status == StatusCode::NO_CONTENT => break,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
        count(&self.world.2.sign_outs);
        let family = {
            let mut jar = self.jar();
            let turn = jar.turn + 1;
            std::mem::replace(&mut *jar, Jar { turn, ..Jar::default() }).family
        };
        self.is_dead(&cookie).await;
        Some((cookie, family))
    }

    /// At every replica, as soon as it can be asked.
    async fn is_dead(&self, cookie: &str) {
        for replica in self.world.0.all() {
            let answer = self.send((&replica, "GET", "/me"), Some(cookie)).await;
            if answer.is_ok_and(|answer| answer.status == StatusCode::OK) {
                eprintln!("{} was served after the sign-out", self.user);
                count(&self.world.2.back);
            }
        }
    }

    async fn tab(&self) {
        let stopped = self.world.3.clone();
        while !*stopped.borrow() {
            sleep(Duration::from_millis(fastrand::u64(..80))).await;
            if fastrand::u32(..100) < 3 {
                // The tab is closed, or goes elsewhere.
                let patience = Duration::from_millis(fastrand::u64(..30));
                if timeout(patience, self.fetch()).await.is_err() {
                    count(&self.world.2.aborted);
                }
                continue;
            }
            self.fetch().await;
        }
    }

    /// One request to the API. Whether it was served.
    async fn fetch(&self) -> bool {
        let seen = &self.world.2;
        let (cookie, turn) = {
            let jar = self.jar();
            (jar.line(), jar.turn)
        };
        let Some(mut cookie) = cookie else { return false };
        count(&seen.requests);
        let mut path = "/api".to_owned();
        let answer = loop {
            let answer = self.send((&self.world.0.any(), "GET", &path), Some(&cookie)).await;
            let Ok(answer) = answer else {
                count(&seen.unavailable);
                return false;
            };
            self.jar().take(&answer.set);
            if answer.status != StatusCode::TEMPORARY_REDIRECT {
                break answer;
            }
            // To itself, with the cookies of by now.
            path = format!("/api{}", answer.location);
            match self.jar().line() {
                Some(newer) => cookie = newer,
                None => return false,
            }
        };
        match answer.status {
            StatusCode::OK => {
                count(&seen.ok);
                if answer.text != self.user {
                    eprintln!("{} was served as {}", self.user, answer.text);
                    count(&seen.mixed_up);
                }
                true
            }
            // The API's own words, which the session's layer has passed on.
            StatusCode::UNAUTHORIZED if answer.is_of_api => {
                count(&seen.refused);
                false
            }
            StatusCode::UNAUTHORIZED => {
                self.refused(turn, &answer.ended).await;
                false
            }
            _ => {
                count(&seen.unavailable);
                false
            }
        }
    }

    /// The session has ended. Somebody must have ended it.
    async fn refused(&self, turn: u64, reason: &str) {
        let family = {
            let mut jar = self.jar();
            // Or nobody is signed in: a response was late, and has brought dead cookies.
            if jar.turn != turn || jar.is_leaving || jar.family.is_none() {
                return;
            }
            jar.turn += 1;
            jar.cookies.clear();
            jar.family
        };
        let fate = family.and_then(|family| self.world.1.fate(family));
        // What was used more than once is in the server's book already.
        if !matches!(fate, Some(Fate::Unavoidable)) {
            eprintln!("{} was signed out: {reason}, family {family:?} is {fate:?}", self.user);
            count(&self.world.2.lost);
        }
        self.sign_in().await;
    }
}
