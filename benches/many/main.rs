//! What many credentials cost: a server's, one for each user or session.
//!
//! ```text
//! cargo bench -p benches --bench many
//! ```
//!
//! - **At once**: 1 000 credentials are refreshed at the same time, one caller each, again and again,
//!   on tokio's runtime of one thread, by a refresher that yields once. Shown is what one refresh
//!   costs, over moka's `get_with`, which runs one future for a key.
//! - **Idle**: signed-in credentials are built and dropped. Over `Arc<Mutex<Session>>` with the same
//!   texts.
//! - **A request**: with a credential of its own, which it brings in its extensions, above one whose
//!   layer has one for all, which gets the same extensions.
//! - **A fleet**: how many refreshes a second the authorization server sees of 100 000 credentials.
//!
//! Instructions and allocations are counted by valgrind; times are the least of several rounds in
//! which the contestants take turns.

mod contestants;
mod fleet;

use benches::{
    time::{least, process_cpu},
    valgrind::{self, Cost},
};

use contestants::{AT_ONCE, Contestant, IDLE, REQUESTS};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, child, contestant, count] = args.as_slice() {
        if let Some((_, contestants)) = GROUPS.iter().find(|(name, _)| name == child) {
            let number = |text: &String| text.parse::<usize>().expect("a number");
            (contestants[number(contestant)].run)(number(count));
            return;
        }
    }
    for (name, contestants) in GROUPS {
        print(name, contestants);
    }
    fleet::print();
}

const GROUPS: [(&str, &[Contestant]); 3] =
    [("at once", AT_ONCE), ("idle", IDLE), ("a request", REQUESTS)];

fn print(group: &str, contestants: &[Contestant]) {
    const COUNT: usize = 10_000;
    const ROUNDS: usize = 11;
    let mut times = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (contestant, times) in contestants.iter().zip(&mut times) {
            let start = process_cpu();
            (contestant.run)(COUNT);
            times.push((process_cpu() - start).as_secs_f64());
        }
    }
    let times: Vec<f64> = times.into_iter().map(least).collect();
    let costs: Option<Vec<Cost>> = valgrind::is_here().then(|| {
        let cost = |i: usize| valgrind::cost(&[group, &i.to_string()], 2_000, true);
        (0..contestants.len()).map(cost).collect()
    });
    println!("{group}\n");
    println!("| contestant | instructions | allocations | to the first | by time |");
    println!("|---|--:|--:|--:|--:|");
    for (i, Contestant { name, .. }) in contestants.iter().enumerate() {
        let time = times[i] / times[0];
        match &costs {
            Some(costs) => {
                let Cost { instructions, allocations, .. } = costs[i];
                let ratio = instructions / costs[0].instructions;
                println!(
                    "| {name} | {instructions:.0} | {allocations:.1} | {ratio:.2} | {time:.2} |"
                );
            }
            None => println!("| {name} | | | | {time:.2} |"),
        }
    }
    println!();
}
