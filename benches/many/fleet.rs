//! When a fleet of credentials asks the authorization server, on tokio's paused clock.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};
use tower_refresh::{RefreshError, RefreshState, Renewal, Tokens};

const COUNT: usize = 100_000;

/// How long the server takes for an answer.
const ANSWER: Duration = Duration::from_millis(50);

/// So many lifetimes are looked at.
const LIVES: u32 = 4;

#[derive(Default)]
struct Load {
    /// How many refreshes there were in each second.
    seconds: Vec<u32>,
    now: usize,
    most: usize,
}

pub(crate) fn print() {
    println!("a fleet of {COUNT} credentials that are kept fresh, an answer takes 50 ms\n");
    println!("| tokens | life | refreshes a second, peak over mean | most at once |");
    println!("|---|--:|--:|--:|");
    for life in [20, 3600] {
        for all_run_out in [false, true] {
            let load = run(Duration::from_secs(life), all_run_out);
            let (peak, sum) = (load.seconds.iter().max(), load.seconds.iter().sum::<u32>());
            let peak = f64::from(*peak.expect("seconds"));
            let ratio = peak / (f64::from(sum) / load.seconds.len() as f64);
            let tokens = if all_run_out { "all run out" } else { "minted together" };
            println!("| {tokens} | {life} s | {ratio:.2} | {} |", load.most);
        }
    }
    println!();
}

/// For so many lives; after a restart for as long as it takes.
fn run(life: Duration, all_run_out: bool) -> Load {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let load = Arc::new(Mutex::new(Load::default()));
    runtime.expect("a runtime").block_on(async {
        let begun = Instant::now();
        let renewal = renewal(&load, begun, life);
        let tokens = pair().with_expires_in(life);
        let tokens = match all_run_out {
            true => tokens.with_expires_at(SystemTime::UNIX_EPOCH),
            false => tokens,
        };
        let states: Vec<_> = (0..COUNT).map(|_| renewal.in_memory(tokens.clone())).collect();
        let _guards: Vec<_> = states.iter().map(RefreshState::keep_fresh).collect();
        match all_run_out {
            true => {
                while states.iter().any(|state| state.status().counts.refreshes == 0) {
                    sleep(Duration::from_secs(1)).await;
                }
            }
            false => sleep(life * LIVES).await,
        }
    });
    std::mem::take(&mut *load.lock().expect("no panic"))
}

fn pair() -> Tokens {
    Tokens::new("access").with_refresh_token("refresh")
}

fn renewal(load: &Arc<Mutex<Load>>, begun: Instant, life: Duration) -> Renewal {
    let load = Arc::clone(load);
    Renewal::builder(async move |_: Tokens| {
        {
            let mut load = load.lock().expect("no panic");
            let second = begun.elapsed().as_secs() as usize;
            let seconds = load.seconds.len().max(second + 1);
            load.seconds.resize(seconds, 0);
            load.seconds[second] += 1;
            load.now += 1;
            load.most = load.most.max(load.now);
        }
        sleep(ANSWER).await;
        load.lock().expect("no panic").now -= 1;
        Ok::<_, RefreshError>(pair().with_expires_in(life))
    })
    .build()
}
