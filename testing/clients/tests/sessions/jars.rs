//! A browser at its worst, in front of sealed sessions: it fixes a request's cookies long before the
//! request is sent, takes responses in any order, loses some, and has copies of its jar elsewhere. Each
//! history of a few steps is played, and random ones of many.
//!
//! Checked for each: no spent token is redeemed; once everything has arrived or is lost, the session
//! lives, and after one more request the browser has the newest pair, which a process that remembers
//! nothing can redeem.
//!
//! The one assumption is that of [`SealedBuilder::transit`](tower_refresh::session::SealedBuilder::transit): no
//! response is on its way for longer. A request may be.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use testing::sessions::{Browser, Place, Replica, World, settle};
use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{advance, sleep},
};

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// A page asks: the cookies of the request are fixed.
    Ask,
    /// One of the requests is answered by one of the replicas.
    Serve {
        request: usize,
        replica: usize,
    },
    /// All of them are, at once.
    ServeAll,
    /// It is given to a handler that takes its time.
    Hold {
        request: usize,
        replica: usize,
    },
    /// Which answers now.
    Release,
    /// It is broken off in the middle of its refresh, if it has one.
    BreakOff {
        request: usize,
    },
    /// One of the responses arrives.
    Arrive {
        response: usize,
    },
    Lose {
        response: usize,
    },
    /// No access token is good any more.
    Expire,
    /// A response would have arrived by now.
    Wait,
    /// Somebody takes a copy of the jar.
    Copy,
    /// And uses it: an old jar that stays as it is, such as one that was restored.
    UseCopy,
    /// The processes are new ones, over the same memory.
    Restart,
}

/// The default of [`SealedBuilder::transit`](tower_refresh::session::SealedBuilder::transit).
const TRANSIT: Duration = Duration::from_secs(600);

struct History {
    world: World,
    replicas: [Replica; 2],
    browser: Browser,
    /// Jars as they were when the request was asked for, and where it goes.
    asked: Vec<(Browser, String)>,
    answered: Vec<(HeaderMap, StatusCode)>,
    held: Option<JoinHandle<(HeaderMap, StatusCode)>>,
    copy: Option<Browser>,
    /// How many tokens have run out while a response was on its way.
    expired: u32,
}

/// How long an access token is good at least: with less, refusals are doubted.
const LIFE: Duration = Duration::from_secs(20);

const MAX_ASKED: usize = 3;
const MAX_ANSWERED: usize = 4;

impl History {
    async fn begin() -> Self {
        let world = World::sealed();
        let replicas = Self::processes(&world);
        let browser = Browser::new();
        browser.sign_in(&replicas[0], "alice").await;
        Self {
            world,
            replicas,
            browser,
            asked: Vec::new(),
            answered: Vec::new(),
            held: None,
            copy: None,
            expired: 0,
        }
    }

    fn processes(world: &World) -> [Replica; 2] {
        // A user who is away for that long is signed out, and that is another matter.
        [(); 2].map(|()| world.replica_with(|it| it.idle(None).max_age(Duration::MAX / 4)))
    }

    /// All that can happen now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if LIFE * (self.expired + 1) < TRANSIT {
            steps.push(Step::Expire);
        }
        if self.asked.len() < MAX_ASKED {
            steps.push(Step::Ask);
        }
        if self.answered.len() < MAX_ANSWERED {
            for request in 0..self.asked.len() {
                steps.extend([0, 1].map(|replica| Step::Serve { request, replica }));
                steps.push(Step::BreakOff { request });
                if self.held.is_none() {
                    steps.extend([0, 1].map(|replica| Step::Hold { request, replica }));
                }
            }
        }
        if self.asked.len() > 1 && self.answered.len() + self.asked.len() <= MAX_ANSWERED {
            steps.push(Step::ServeAll);
        }
        if self.held.is_some() && self.answered.len() < MAX_ANSWERED {
            steps.push(Step::Release);
        }
        for response in 0..self.answered.len() {
            steps.extend([Step::Arrive { response }, Step::Lose { response }]);
        }
        if self.answered.is_empty() {
            steps.push(Step::Wait);
        }
        steps.push(if self.copy.is_some() { Step::UseCopy } else { Step::Copy });
        steps.push(Step::Restart);
        steps
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Ask => self.asked.push((self.browser.copy(), "/api".to_owned())),
            Step::Serve { request, replica } => {
                let asked = self.asked.remove(request);
                let answer = Self::serve(&self.replicas[replica], &asked).await;
                self.answered.push(answer);
            }
            Step::ServeAll => {
                let asked = std::mem::take(&mut self.asked);
                let replicas = self.replicas.iter().cycle();
                let all = asked.iter().zip(replicas).map(|(it, replica)| Self::serve(replica, it));
                self.answered.extend(futures_util::future::join_all(all).await);
            }
            Step::BreakOff { request } => {
                let asked = self.asked.remove(request);
                self.world.server.1.close();
                let answer = tokio::select! {
                    biased;
                    answer = Self::serve(&self.replicas[0], &asked) => Some(answer),
                    () = sleep(Duration::from_millis(1)) => None,
                };
                self.world.server.1.open();
                self.answered.extend(answer);
            }
            Step::Hold { request, replica } => {
                let (jar, _) = self.asked.remove(request);
                let replica = self.replicas[replica].clone();
                self.world.held.close();
                let serving =
                    async move { Self::serve(&replica, &(jar, "/held".to_owned())).await };
                self.held = Some(tokio::spawn(serving));
            }
            Step::Release => self.release().await,
            Step::Arrive { response } => {
                let (headers, status) = self.answered.remove(response);
                self.arrive(&headers, status);
            }
            Step::Lose { response } => drop(self.answered.remove(response)),
            Step::Expire => self.expire().await,
            Step::Wait => advance(TRANSIT).await,
            Step::Copy => self.copy = Some(self.browser.copy()),
            Step::UseCopy => {
                let copy = self.copy.as_ref().unwrap().copy();
                Self::ask(&self.replicas[1], &copy).await;
            }
            Step::Restart => self.replicas = Self::processes(&self.world),
        }
        settle().await;
        if self.answered.is_empty() {
            self.expired = 0;
        }
        assert_eq!(self.world.server.reuses(), 0, "a spent token was redeemed");
    }

    async fn expire(&mut self) {
        advance(LIFE).await;
        self.expired += 1;
        self.world.server.expire_all();
    }

    async fn release(&mut self) {
        self.world.held.open();
        if let Some(held) = self.held.take() {
            self.answered.push(held.await.unwrap());
        }
    }

    fn arrive(&mut self, headers: &HeaderMap, status: StatusCode) {
        self.browser.take(headers);
        if status == StatusCode::TEMPORARY_REDIRECT {
            let location = headers["location"].to_str().unwrap();
            self.asked.push((self.browser.copy(), format!("/api{location}")));
        }
    }

    /// The response's head.
    async fn serve(replica: &Replica, (jar, path): &(Browser, String)) -> (HeaderMap, StatusCode) {
        let response = jar.begin(replica, jar.request(Method::GET, path)).await;
        (response.headers().clone(), response.status())
    }

    /// A request and its response, with nothing between them.
    async fn ask(replica: &Replica, browser: &Browser) -> StatusCode {
        let mut path = "/api".to_owned();
        loop {
            let (headers, status) = Self::serve(replica, &(browser.clone(), path.clone())).await;
            if status != StatusCode::TEMPORARY_REDIRECT {
                return status;
            }
            assert!(!path.contains("session_again"), "it is told to come again and again");
            path = format!("/api{}", headers["location"].to_str().unwrap());
        }
    }

    /// Everything comes to its end.
    async fn end(mut self) {
        self.release().await;
        while let Some((headers, status)) = self.answered.pop() {
            self.arrive(&headers, status);
        }
        self.asked.clear();
        self.expire().await;
        assert_eq!(Self::ask(&self.replicas[0], &self.browser).await, StatusCode::OK);
        settle().await;
        assert_eq!(self.world.server.reuses(), 0, "a spent token was redeemed");
        self.expire().await;
        let forgetful = World { place: Place::default(), ..self.world.clone() };
        let [replica, _] = Self::processes(&forgetful);
        assert_eq!(Self::ask(&replica, &self.browser).await, StatusCode::OK);
        assert_eq!(self.world.server.reuses(), 0, "the browser has not the newest pair");
    }
}

fn play(history: impl Future<Output = ()>) {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(history);
}

/// Plays these steps, and says which steps could follow.
fn replay(steps: &[Step], is_last: bool) -> Vec<Step> {
    let mut next = Vec::new();
    play(async {
        let mut history = History::begin().await;
        for step in steps {
            history.take(*step).await;
        }
        next = history.steps();
        if is_last {
            history.end().await;
        }
    });
    next
}

/// What fails says by which history.
struct Told<'a>(&'a [Step]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the history: {:?}", self.0);
        }
    }
}

fn explore(steps: &mut Vec<Step>, depth: usize, count: &mut usize) {
    let told = Told(steps);
    let next = replay(steps, depth == 0);
    drop(told);
    if depth == 0 {
        *count += 1;
        return;
    }
    for step in next {
        steps.push(step);
        explore(steps, depth - 1, count);
        steps.pop();
    }
}

#[test]
fn every_short_history_ends_well() {
    let mut count = 0;
    explore(&mut Vec::new(), 4, &mut count);
    println!("{count} histories");
    assert!(count > 1_000, "{count}");
}

/// Three generations are on their way at once, and the newest arrives first and is shown.
#[test]
fn an_older_cookie_that_arrives_after_the_newest_was_shown_loses_nothing() {
    let serve = Step::Serve { request: 0, replica: 0 };
    let refresh = [Step::Expire, Step::Ask, serve];
    let arrive = |response| Step::Arrive { response };
    let mut steps = [refresh, refresh, refresh].concat();
    steps.extend([arrive(2), Step::Ask, serve, arrive(2), arrive(0), arrive(0), Step::Restart]);
    let told = Told(&steps);
    replay(&steps, true);
    drop(told);
}

/// A handler at a replica that has heard of no refresh answers after everything was forgotten.
#[test]
fn a_slow_answer_with_tokens_that_are_spent_loses_nothing() {
    let ask = [Step::Ask, Step::Serve { request: 0, replica: 0 }, Step::Arrive { response: 0 }];
    let mut steps = vec![Step::Ask, Step::Hold { request: 0, replica: 1 }, Step::Expire];
    // Two refreshes: the newest tokens have the name of the spent ones.
    steps.extend([&ask[..], &[Step::Expire], &ask, &[Step::Wait], &ask, &ask].concat());
    steps.extend([Step::Release, Step::Arrive { response: 0 }, Step::Restart]);
    let told = Told(&steps);
    replay(&steps, true);
    drop(told);
}

#[test]
fn long_histories_end_well() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..600 {
        let mut steps = Vec::new();
        play(async {
            let mut history = History::begin().await;
            for _ in 0..40 {
                let mut all = history.steps();
                // What the browser does itself comes more often than what is done to it.
                let is_seldom =
                    |step: &Step| matches!(step, Step::Copy | Step::UseCopy | Step::Wait);
                all.retain(|step| !is_seldom(step) || random.u8(..) < 64);
                let Some(step) = random.choice(all) else { continue };
                steps.push(step);
                let told = Told(&steps);
                history.take(steps[steps.len() - 1]).await;
                drop(told);
            }
            let told = Told(&steps);
            history.end().await;
            drop(told);
        });
    }
}
