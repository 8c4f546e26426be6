//! For how long one request has to wait at most while the registry is busy with 100 000 others.
//!
//! A thread of its own sends requests of one session, one after the other, while two workers sign
//! 100 000 others in, and then load them all at once on another replica. It waits for processors, too,
//! of which there may be two: the first line has two threads beside it that take them and touch nothing
//! of this crate, and the last column leaves that wait out, as Linux counts it. What is dropped after a
//! minute is dropped by a request, which is timed.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use benches::time::{least, now, thread_delay};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{Layer, service_fn};
use tower_refresh::{session::Sessions, store::MemoryStores};

use crate::{block_on, requests, sessions, sign_in, whoami};

const SESSIONS: usize = 100_000;
const ROUNDS: usize = 5;
const WORKERS: usize = 2;

fn workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime")
}

/// The longest of one request after the other, for as long as this work takes: with its wait for a
/// processor, and without.
fn longest_beside(sessions: &Sessions, cookie: &str, work: impl FnOnce()) -> [Duration; 2] {
    let app = sessions.layer().layer(service_fn(whoami));
    // It is loaded.
    block_on(requests(app.clone(), 10, cookie));
    let (start, is_done) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let probe = scope.spawn(|| {
            block_on(async {
                let mut longest = [Duration::ZERO; 2];
                start.wait();
                while !is_done.load(Ordering::Relaxed) {
                    let (delay, begun) = (thread_delay(), now());
                    requests(app.clone(), 1, cookie).await;
                    let time = begun.elapsed();
                    let without = time.saturating_sub(thread_delay() - delay);
                    longest = [longest[0].max(time), longest[1].max(without)];
                }
                longest
            })
        });
        start.wait();
        work();
        is_done.store(true, Ordering::Relaxed);
        probe.join().expect("it runs")
    })
}

/// As many threads as there are workers, for so long.
fn count_only(time: Duration) {
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let begun = now();
                while begun.elapsed() < time {
                    black_box((0..1_000).map(black_box).sum::<u64>());
                }
            });
        }
    });
}

/// All of them, with their cookies.
fn sign_in_all(runtime: &Runtime, sessions: &Sessions) -> Vec<String> {
    let cookies = runtime.block_on(async {
        let mut all = JoinSet::new();
        for worker in 0..WORKERS {
            let sessions = sessions.clone();
            all.spawn(async move {
                let mut cookies = Vec::new();
                for user in 0..SESSIONS / WORKERS {
                    cookies.push(sign_in(&sessions, &format!("user{worker}-{user}")).await);
                }
                cookies
            });
        }
        all.join_all().await
    });
    cookies.concat()
}

/// One request each, all at once.
fn load_all(runtime: &Runtime, sessions: &Sessions, cookies: Vec<String>) {
    let app = sessions.layer().layer(service_fn(whoami));
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for cookie in cookies {
            let app = app.clone();
            all.spawn(async move { requests(app, 1, &cookie).await });
        }
        all.join_all().await;
    });
    assert!(sessions.status().loaded > SESSIONS);
}

/// The longest request of those that drop what nobody has used for a minute.
fn longest_drop() -> Duration {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let sessions = sessions(MemoryStores::new(), Duration::ZERO);
        for user in 0..SESSIONS {
            sign_in(&sessions, &format!("user{user}")).await;
        }
        tokio::time::advance(Duration::from_secs(120)).await;
        let mut longest = Duration::ZERO;
        for user in 0..SESSIONS / 50 {
            let begun = now();
            sign_in(&sessions, &format!("late{user}")).await;
            longest = longest.max(begun.elapsed());
        }
        assert!(sessions.status().loaded < SESSIONS / 10);
        longest
    })
}

pub(crate) fn print() {
    let mut rounds = [[[Duration::ZERO; 2]; 3]; ROUNDS];
    let mut took = Duration::MAX;
    for [counting, signing_in, loading] in &mut rounds {
        let stores = MemoryStores::new();
        let here = sessions(stores.clone(), Duration::ZERO);
        let there = sessions(stores, Duration::ZERO);
        let cookie = block_on(sign_in(&here, "alice"));
        let runtime = workers();
        let mut cookies = Vec::new();
        *signing_in = longest_beside(&here, &cookie, || cookies = sign_in_all(&runtime, &here));
        *loading = longest_beside(&there, &cookie, || {
            let begun = now();
            load_all(&runtime, &there, cookies);
            took = took.min(begun.elapsed());
        });
        *counting = longest_beside(&there, &cookie, || count_only(took));
    }
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    println!("the longest wait of one request beside {SESSIONS} others, ms\n");
    println!("| meanwhile | least of {ROUNDS} rounds | most | most, given a processor |");
    println!("|---|--:|--:|--:|");
    for (at, what) in ["two threads only count", "sign-ins", "loads"].into_iter().enumerate() {
        let [all, given] = [0, 1].map(|which| rounds.map(|round| millis(round[at][which])));
        let most = |times: [f64; ROUNDS]| times.into_iter().fold(0.0, f64::max);
        let least = least(all.to_vec());
        println!("| {what} | {least:.1} | {:.1} | {:.1} |", most(all), most(given));
    }
    println!("\n{SESSIONS} are loaded within {:.0} ms.", millis(took));
    let drop = (0..ROUNDS).map(|_| longest_drop()).min().unwrap_or_default();
    println!(
        "Of the requests that drop them after a minute, the longest: {:.1} ms.\n",
        millis(drop)
    );
}
