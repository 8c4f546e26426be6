//! What a request costs that is not refused.
//!
//! ```text
//! cargo bench -p benches --bench hot_path
//! ```
//!
//! A POST with five ordinary headers goes to an inner service that is always ready,
//! reads the body to its end and says 200. Every contestant builds every request anew
//! and in the same way: three of its headers are text of the program, two are memory
//! of the request's own, name and value (in one table all five are static).
//!
//! *Overhead* is what a contestant costs above the bare service, as a share of what
//! `tower::retry::Retry` costs above it, with a policy that clones requests, over a
//! layer that reads a prebuilt header from a watch channel. That one is 1.00.
//! Instructions and allocations are exact and come from valgrind; times are the best of
//! many rounds in which the contestants take turns, and hold as ratios only.

mod contestants;
mod traffic;

use std::{sync::Barrier, thread};

use benches::{
    time::{least, now, thread_cpu},
    valgrind::{self, Cost},
};

use crate::{
    contestants::{ATTACH, BARE, Contestant, LEAN, RETRY, WATCH, all},
    traffic::{Size, Template, Values},
};

const ROUNDS: usize = 31;

/// One of the things that are measured of every contestant.
struct Setting {
    title: &'static str,
    size: Size,
    values: Values,
    /// Whether each request has a clone of the service.
    cloned: bool,
}

fn main() {
    let mut settings: Vec<_> = Size::ALL
        .iter()
        .map(|&(title, size)| Setting { title, size, values: Values::Owned, cloned: false })
        .collect();
    settings.push(Setting {
        title: "none, all headers static",
        size: Size::None,
        values: Values::Static,
        cloned: false,
    });
    settings.push(Setting {
        title: "none, a clone of the service for each request",
        size: Size::None,
        values: Values::Owned,
        cloned: true,
    });

    let args: Vec<String> = std::env::args().collect();
    if let [_, _child, setting, contestant, count] = args.as_slice() {
        let number = |text: &String| text.parse::<usize>().expect("a number");
        let (_, mut contestant) = all().swap_remove(number(contestant));
        run(&settings[number(setting)], &mut *contestant, number(count) as u64);
        return;
    }

    let counts = valgrind::is_here();
    for (index, setting) in settings.iter().enumerate() {
        let times = times(setting);
        let costs = counts.then(|| costs(index));
        print(setting.title, &times, costs.as_deref());
    }
    two_threads();
}

fn run(setting: &Setting, contestant: &mut dyn Contestant, count: u64) {
    let template = Template::new(setting.size, setting.values);
    if setting.cloned {
        contestant.cloned(&template, count);
    } else {
        contestant.kept(&template, count);
    }
}

/// Nanoseconds a request, in the order of [`all`].
fn times(setting: &Setting) -> Vec<f64> {
    const COUNT: u64 = 500;
    let mut contestants = all();
    let mut times = vec![Vec::new(); contestants.len()];
    for _ in 0..10 * ROUNDS {
        for ((_, contestant), times) in contestants.iter_mut().zip(&mut times) {
            let start = thread_cpu();
            run(setting, &mut **contestant, COUNT);
            times.push((thread_cpu() - start).as_nanos() as f64 / COUNT as f64);
        }
    }
    times.into_iter().map(least).collect()
}

fn costs(setting: usize) -> Vec<Cost> {
    let cost = |contestant: usize| {
        valgrind::cost(&["child", &setting.to_string(), &contestant.to_string()], 500, true)
    };
    (0..all().len()).map(cost).collect()
}

fn print(title: &str, times: &[f64], costs: Option<&[Cost]>) {
    let names: Vec<_> = all().into_iter().map(|(name, _)| name).collect();
    let place = |wanted| names.iter().position(|name| *name == wanted).expect("takes part");
    let (bare, retry) = (place(BARE), place(RETRY));
    let share = |of: &dyn Fn(usize) -> f64, i| (of(i) - of(bare)) / (of(retry) - of(bare));

    println!("body: {title}\n");
    println!("| contestant | instructions | allocations | bytes allocated | overhead | by time |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (i, name) in names.iter().enumerate() {
        let time = share(&|i| times[i], i);

        match costs {
            Some(costs) => {
                let Cost { instructions, allocations, bytes } = costs[i];
                // What the bare request allocates is its own.
                let (allocations, bytes) =
                    (allocations - costs[bare].allocations, bytes - costs[bare].bytes);
                let overhead = share(&|i| costs[i].instructions, i);
                println!(
                    "| {name} | {instructions:.0} | {allocations:.2} | {bytes:.0} | {overhead:.2} | {time:.2} |"
                );
            }
            None => println!("| {name} | | | | | {time:.2} |"),
        }
    }
    println!();
}

/// What it costs that two threads share a credential: each with a clone of one service,
/// against each with a service and a credential of its own. Both times both run at
/// once, since two threads of one core slow each other down whatever they do.
///
/// Counted is the time that the threads themselves ran, in the best of the rounds in
/// which both really had a processor.
fn two_threads() {
    const COUNT: u64 = 20_000;
    const AT_ONCE: f64 = 0.9;
    const ENOUGH: usize = 20;
    const SIZES: [(&str, Size); 2] = [("none", Size::None), ("1 KiB", Size::OneKib)];
    println!("two threads at once, a credential shared over one for each\n");
    println!("| contestant | body | whole call | above the bare service | rounds |");
    println!("|---|---|--:|--:|--:|");
    for (title, size) in SIZES {
        let setting = Setting { title, size, values: Values::Owned, cloned: false };
        let mut contestants: Vec<_> = all()
            .into_iter()
            .zip(all())
            .filter(|((name, _), _)| [BARE, WATCH, ATTACH, RETRY, LEAN].contains(name))
            .map(|((name, one), (_, own))| {
                let shared = [one.another(), one.another()];
                (name, [shared, [one, own]], [Vec::new(), Vec::new()])
            })
            .collect();
        for _ in 0..3 * ROUNDS {
            for (_, pairs, times) in &mut contestants {
                for (pair, times) in pairs.iter_mut().zip(times) {
                    let (time, share) = at_once(&setting, pair, COUNT);
                    if share > AT_ONCE {
                        times.push(time);
                    }
                }
            }
        }
        let mut bare = None;
        for (name, _, [shared, apart]) in contestants {
            let rounds = shared.len().min(apart.len());
            let (shared, apart) = (least(shared), least(apart));
            let (none, nothing) = *bare.get_or_insert((shared, apart));
            let above = (shared - none) / (apart - nothing);
            let whole = shared / apart;
            match (rounds, name) {
                (0..ENOUGH, _) => println!("| {name} | {title} | ? | ? | {rounds} |"),
                (_, BARE) => println!("| {name} | {title} | {whole:.2} | | {rounds} |"),
                _ => println!("| {name} | {title} | {whole:.2} | {above:.2} | {rounds} |"),
            }
        }
    }
    println!("\n`rounds`: of {}, in how many both threads had a processor.", 3 * ROUNDS);
    println!("`?`: in too few; to be repeated on a machine that does nothing else.");
}

/// Nanoseconds a request, and the share of the time that each thread really ran.
fn at_once(setting: &Setting, contestants: &mut [Box<dyn Contestant>], count: u64) -> (f64, f64) {
    let start = Barrier::new(contestants.len());
    let used: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = contestants
            .iter_mut()
            .map(|contestant| {
                scope.spawn(|| {
                    // Settles the clone, and warms up.
                    run(setting, &mut **contestant, 100);
                    start.wait();
                    let (wall, cpu) = (now(), thread_cpu());
                    run(setting, &mut **contestant, count);
                    ((thread_cpu() - cpu).as_secs_f64(), wall.elapsed().as_secs_f64())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let threads = used.len() as f64;
    let cpu = used.iter().map(|(cpu, _)| cpu).sum::<f64>() / threads;
    let share = used.iter().map(|(cpu, wall)| cpu / wall).fold(1.0, f64::min);
    (1e9 * cpu / count as f64, share)
}
