//! How long a herd takes: requests that are all refused, wait for one refresh, and are
//! all sent again.
//!
//! ```text
//! cargo bench -p benches --bench herd
//! ```
//!
//! Measured is the time from the refresher's return to the last replay's response, on
//! tokio's runtime of one thread and on that of two, idle and with 64 busy tasks beside
//! it that spin for a microsecond and yield, for ever. The contestants take turns;
//! shown are medians, and ratios to the floor: a list of wakers whose woken tasks send
//! their request again.
//!
//! *Bytes a waiter* is how much the heap grows from the moment when all requests are
//! with the server, which keeps nothing of them, to the moment when all wait. A
//! waiter's task, its future and the copy of the request are there before; they are
//! the second figure. Counted on a runtime of one thread by `allocation-counter`,
//! whose allocator needs no `unsafe` here.

mod contestants;

use std::{hint::spin_loop, sync::Arc, time::Duration};

use benches::time::{median, now};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, yield_now},
};

use contestants::{NAMES, Stage, start};

const HERDS: [usize; 3] = [10, 1_000, 100_000];
const BUSY: usize = 64;

fn main() {
    println!("milliseconds from the refresh's end to the last response\n");
    println!("| herd | threads | beside it | contestant | median | to the floor | refreshes |");
    println!("|--:|--:|---|---|--:|--:|--:|");
    for count in HERDS {
        for threads in [1, 2] {
            for busy in [0, BUSY] {
                times(count, threads, busy);
            }
        }
    }
    println!("\nbytes on the heap\n");
    println!("| herd | contestant | a waiter | a request with the server |");
    println!("|--:|---|--:|--:|");
    for count in &HERDS[1..] {
        for name in NAMES {
            let (request, waiter) = bytes(name, *count);
            println!("| {count} | {name} | {waiter:.0} | {request:.0} |");
        }
    }
}

fn times(count: usize, threads: usize, busy: usize) {
    let rounds = if count > 10_000 { 7 } else { 25 };
    let mut times = vec![Vec::new(); NAMES.len()];
    let mut refreshes = [0; NAMES.len()];
    for round in 0..rounds {
        for (i, name) in NAMES.iter().enumerate() {
            // Handing a lock on takes a turn of the scheduler each time: seconds.
            if name.starts_with("Mutex") && count > 10_000 && busy > 0 && round > 0 {
                continue;
            }
            let (took, refreshed) = herd(name, count, threads, busy);
            times[i].push(took);
            refreshes[i] = refreshes[i].max(refreshed);
        }
    }
    let times: Vec<_> = times.into_iter().map(median).collect();
    let beside = if busy == 0 { "nothing".to_owned() } else { format!("{busy} busy tasks") };
    for (i, name) in NAMES.iter().enumerate() {
        let ratio = times[i] / times[0];
        println!(
            "| {count} | {threads} | {beside} | {name} | {:.3} | {ratio:.2} | {} |",
            times[i], refreshes[i]
        );
    }
}

/// One herd: milliseconds, and how many refreshes there were.
fn herd(name: &str, count: usize, threads: usize, busy: usize) -> (f64, usize) {
    let runtime = runtime(threads);
    let stage = Arc::new(Stage::default());
    let mut tasks = JoinSet::new();
    runtime.block_on(async {
        let mut herd = start(name, count, &stage);
        stage.all_sent(count).await;
        stage.all_refused(count).await;
        for _ in 0..busy {
            tasks.spawn(async {
                loop {
                    let start = now();
                    while start.elapsed() < Duration::from_micros(1) {
                        spin_loop();
                    }
                    yield_now().await;
                }
            });
        }
        if busy > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.release();
        while let Some(done) = herd.join_next().await {
            done.expect("no panic");
        }
    });
    (stage.took(), stage.refreshes())
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_time().build().expect("a runtime")
}

/// Heap bytes of a request with the server, and how many more when it waits.
fn bytes(name: &str, count: usize) -> (f64, f64) {
    let runtime = runtime(1);
    let stage = Arc::new(Stage::default());
    let mut herd = JoinSet::new();
    let requests = growth(|| {
        runtime.block_on(async {
            herd = start(name, count, &stage);
            stage.all_sent(count).await;
        });
    });
    let waiters = growth(|| runtime.block_on(stage.all_refused(count)));
    (requests / count as f64, waiters / count as f64)
}

/// How many bytes more are on the heap afterwards.
fn growth(work: impl FnOnce()) -> f64 {
    allocation_counter::measure(work).bytes_current as f64
}
