//! A family of many credentials: their refreshes come neither all at one time nor too many at once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use testing::{Gate, idle, secs};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_refresh::{
    RefreshError, RefreshState, Renewal, Tokens,
    refresher::Trigger,
    state::{KeepFresh, RenewalBuilder},
};

const LIFE: u64 = 3600;

/// An authorization server for many.
#[derive(Clone)]
struct Server {
    /// When it was asked, and for which credential.
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    gate: Gate,
}

fn tokens(name: &str) -> Tokens {
    Tokens::new("access").with_refresh_token(name).with_expires_in(secs(LIFE))
}

fn expired(name: &str) -> Tokens {
    tokens(name).with_expires_at(SystemTime::UNIX_EPOCH)
}

impl Server {
    fn new() -> Self {
        Self { asked: Arc::default(), gate: Gate::new() }
    }

    fn family(&self) -> RenewalBuilder {
        let this = self.clone();
        Renewal::builder(async move |spent: Tokens| {
            let name = spent.refresh_token().unwrap_or_default();
            this.asked.lock().unwrap().push((Instant::now(), name.to_owned()));
            this.gate.pass().await;
            Ok::<_, RefreshError>(tokens(name))
        })
    }

    fn names(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, name)| name.clone()).collect()
    }

    /// When it was asked for each credential for the first time, in seconds from then on.
    fn times(&self, since: Instant) -> Vec<f64> {
        let asked = self.asked.lock().unwrap();
        let mut known = HashSet::new();
        let first = asked.iter().filter(|(_, name)| known.insert(name));
        first.map(|(at, _)| (*at - since).as_secs_f64()).collect()
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn many(count: usize, state: impl Fn(&str) -> Arc<RefreshState>) -> Vec<Arc<RefreshState>> {
    (0..count).map(|number| state(&format!("refresh-{number}"))).collect()
}

fn kept(states: &[Arc<RefreshState>]) -> Vec<KeepFresh> {
    states.iter().map(RefreshState::keep_fresh).collect()
}

/// From half an hour to 45 s before the end.
#[tokio::test(start_paused = true)]
async fn tokens_that_were_minted_together_are_renewed_over_half_of_their_life() {
    let server = Server::new();
    let renewal = server.family().build();
    let states = many(2_000, |name| renewal.in_memory(tokens(name)));
    let _guards = kept(&states);
    let begun = Instant::now();
    sleep(secs(LIFE)).await;
    let times = server.times(begun);
    assert_eq!(times.len(), states.len());
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!((1770.0..1850.0).contains(&first), "{first}");
    assert!((3480.0..=3555.2).contains(&last), "{last}");
    // Within the window alone it would be 130 a second.
    let mut seconds = vec![0; 3600];
    times.iter().for_each(|at| seconds[*at as usize] += 1);
    assert!(seconds.iter().max() < Some(&15));
}

#[tokio::test(start_paused = true)]
async fn without_a_spread_the_early_window_is_kept() {
    let server = Server::new();
    let renewal = server.family().early_spread(0).build();
    let states = many(100, |name| renewal.in_memory(tokens(name)));
    let _guards = kept(&states);
    let begun = Instant::now();
    sleep(secs(LIFE)).await;
    let times = server.times(begun);
    assert_eq!(times.len(), states.len());
    assert!(times.iter().all(|at| (3540.0..=3555.2).contains(at)), "{times:?}");
}

/// As after a restart.
#[tokio::test(start_paused = true)]
async fn of_tokens_that_have_all_run_out_few_are_refreshed_at_once() {
    let server = Server::new();
    server.gate.close();
    let renewal = server.family().background_refreshes(3).build();
    let states = many(10, |name| renewal.in_memory(expired(name)));
    let _guards = kept(&states);
    sleep(secs(1)).await;
    assert_eq!(server.gate.count(), 3);
    server.gate.open();
    sleep(secs(1)).await;
    let mut names = server.names();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), states.len(), "each of them, once");
    assert_eq!(server.names().len(), states.len());
}

/// The default.
#[tokio::test(start_paused = true)]
async fn no_more_than_64_are_under_way_that_nobody_waits_for() {
    let server = Server::new();
    server.gate.close();
    let renewal = server.family().build();
    let states = many(200, |name| renewal.in_memory(expired(name)));
    let _guards = kept(&states);
    sleep(secs(1)).await;
    assert_eq!(server.gate.count(), 64);
    // The others are not even begun.
    assert_eq!(tasks(), 64 + 1);
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_a_turn() {
    let server = Server::new();
    server.gate.close();
    let renewal = server.family().background_refreshes(1).build();
    let states = many(20, |name| renewal.in_memory(expired(name)));
    let mut callers: Vec<_> = states
        .iter()
        .map(|state| {
            let state = Arc::clone(state);
            task::spawn(async move { state.token().await })
        })
        .collect();
    callers.iter_mut().for_each(|caller| assert_pending!(caller.poll()));
    idle().await;
    assert_eq!(server.gate.count(), 20);
    server.gate.open();
    idle().await;
    callers.iter_mut().for_each(|caller| drop(assert_ready_ok!(caller.poll())));
}

/// So many credentials, each of which was used and is renewed early meanwhile. There is one turn, and
/// the server does not answer.
async fn early_with_one_turn(count: usize) -> (Server, Vec<Arc<RefreshState>>) {
    let server = Server::new();
    let renewal = server.family().early_spread(0).background_refreshes(1).build();
    let states = many(count, |name| renewal.in_memory(tokens(name)));
    sleep(secs(LIFE - 30)).await;
    server.gate.close();
    for state in &states {
        assert_ready_ok!(task::spawn(state.token()).poll());
    }
    (server, states)
}

/// A refresh that has begun in the background, and has no turn yet, goes on as soon as a request waits
/// for it.
#[tokio::test(start_paused = true)]
async fn what_a_request_waits_for_goes_first() {
    let (server, states) = early_with_one_turn(3).await;
    idle().await;
    assert_eq!(server.names(), ["refresh-0"]);
    assert_eq!(states[2].status().in_flight, Some(Trigger::Early));

    let refused = states[2].current().generation();
    let mut waits = task::spawn(states[2].challenged(refused));
    assert_pending!(waits.poll());
    idle().await;
    assert_eq!(server.names(), ["refresh-0", "refresh-2"]);
    server.gate.open();
    idle().await;
    assert_ready_ok!(waits.poll());
    assert_eq!(server.names(), ["refresh-0", "refresh-2", "refresh-1"]);
    assert!(states.iter().all(|state| state.status().counts.refreshes == 1));
}

/// The turn of a flight that fails is the next one's.
#[tokio::test(start_paused = true)]
async fn a_turn_is_given_back_however_a_refresh_ends() {
    for panics in [false, true] {
        let renewal = Renewal::builder(async move |spent: Tokens| match spent.refresh_token() {
            Some("refresh-3") => Ok(tokens("refresh-3")),
            _ if panics => panic!("as told"),
            _ => Err(RefreshError::transient("down")),
        });
        let renewal = renewal.background_refreshes(1).build();
        let states = many(4, |name| renewal.in_memory(expired(name)));
        let _guards = kept(&states);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(states[3].status().counts.refreshes, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_ends_a_refresh_that_has_no_turn_yet() {
    let (server, states) = early_with_one_turn(2).await;
    idle().await;
    assert!(states[1].drain().await.is_clean());
    assert_eq!(server.names(), ["refresh-0"]);
    assert!(states[1].status().in_flight.is_none());
}

/// Whoever signs in meanwhile is not redeemed for.
#[tokio::test(start_paused = true)]
async fn a_sign_in_ends_a_refresh_that_has_no_turn_yet() {
    let (server, states) = early_with_one_turn(2).await;
    states[1].set(tokens("another")).await.unwrap();
    server.gate.open();
    sleep(secs(10)).await;
    assert_eq!(server.names(), ["refresh-0"]);
    assert!(states[1].status().in_flight.is_none());
}

/// Waiters hear of their deadlines from the task that keeps the family's credentials fresh, also while
/// it has no turn to give.
#[tokio::test(start_paused = true)]
async fn deadlines_are_kept_while_others_wait_for_a_turn() {
    let server = Server::new();
    server.gate.close();
    let renewal = server.family().background_refreshes(1).deadline(secs(5)).build();
    let states = many(5, |name| renewal.in_memory(expired(name)));
    let _guards = kept(&states);
    sleep(secs(1)).await;
    let begun = Instant::now();
    let waited = states[0].token().await;
    assert_eq!(testing::kind(waited), tower_refresh::FailureKind::Deadline);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_task_keeps_all_of_a_family_fresh() {
    let server = Server::new();
    let renewal = server.family().build();
    let states = many(1_000, |name| renewal.in_memory(tokens(name)));
    let guards = kept(&states);
    idle().await;
    assert_eq!(tasks(), 1);
    sleep(secs(10 * LIFE)).await;
    assert!(states.iter().all(|state| state.status().counts.refreshes >= 10));
    assert!(tasks() <= 2, "at most one of them is in flight at this moment");
    drop(guards);
    idle().await;
    assert_eq!(tasks(), 0);
}

#[test]
fn to_keep_a_credential_fresh_costs_at_most_150_bytes() {
    const COUNT: usize = 10_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::new();
    let renewal = server.family().build();
    let states = many(COUNT, |name| renewal.in_memory(tokens(name)));
    let mut guards = Vec::with_capacity(COUNT);
    let allocated = allocation_counter::measure(|| {
        let _here = runtime.enter();
        guards.extend(states.iter().map(RefreshState::keep_fresh));
        // Each of them is looked at.
        runtime.block_on(idle());
    });
    let bytes = usize::try_from(allocated.bytes_current).unwrap() / COUNT;
    println!("{bytes} bytes");
    assert!(bytes <= 150, "{bytes} bytes");
}
