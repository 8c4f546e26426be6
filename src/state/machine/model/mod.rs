//! The machine against a model of the world around it: a store whose lease runs out, a
//! server that rotates refresh tokens and gives the same pair again to a holder who knows
//! that the token may be spent, callers, sign-ins and sign-outs, processes that die, and a
//! clock. Events are tried in every order up to a depth, and at random far beyond it; after
//! each one the invariants are checked. Nothing here is asynchronous: every interleaving that
//! the shell can produce is a sequence of these events.
//!
//! Like the shell, the model carries out what the machine says ([`Step`](super::Step),
//! [`Effects`](super::Effects)) and has no rule of its own about it: a machine that forgets
//! to note an intent or to wake its waiters fails here.
//!
//! | file | what is in it |
//! |---|---|
//! | `world.rs` | what there is, and what can happen |
//! | `steps.rs` | a flight's step: what the store and the server make of it |
//! | `doubts.rs` | a smaller world: what refusals are about |
//! | `checks.rs` | what must hold after every event, and in the end |

mod checks;
mod doubts;
mod steps;
mod world;

use self::world::{Event, World};
use super::policy::{Policy, WhileUnsaved};

/// Prints what led to a failure.
struct Trace {
    seed: u64,
    events: Vec<Event>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}: {:?}", self.seed, self.events);
        }
    }
}

fn policies() -> Vec<Policy> {
    let mut policies = Vec::new();
    for while_unsaved in [WhileUnsaved::Refuse, WhileUnsaved::Serve] {
        for needs_tokens in [true, false] {
            policies.push(Policy { while_unsaved, needs_tokens, ..Policy::default() });
        }
    }
    policies
}

/// Every order of events up to `depth`; returns how many sequences there were.
fn every_order(world: &World, depth: u32) -> u64 {
    let mut end = world.clone();
    end.settle();
    if depth == 0 {
        return 1;
    }
    let mut sequences = 1;
    for event in world.events() {
        let mut next = world.clone();
        next.apply(event, 0.5);
        sequences += every_order(&next, depth - 1);
    }
    sequences
}

#[test]
fn every_short_sequence_keeps_the_invariants() {
    let mut sequences = 0;
    for policy in policies() {
        for signed_in in [true, false] {
            sequences += every_order(&World::new(1, &policy, signed_in), 5);
        }
        // From here a redeem is four events away.
        let mut in_use = World::new(1, &policy, true);
        in_use.apply(Event::Request(0), 0.5);
        in_use.settle();
        sequences += every_order(&in_use, 5);
    }
    println!("{sequences} sequences of up to 5 events");
    assert!(sequences > 100_000, "{sequences}");
}

const SEQUENCES: u64 = 10_000;

#[test]
fn long_random_sequences_keep_the_invariants() {
    let (policies, mut events, mut redeems) = (policies(), 0_u64, 0);
    for seed in 0..SEQUENCES {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = &policies[random.usize(..policies.len())];
        let mut world = World::new(random.usize(1..=2), policy, random.bool());
        let mut trace = Trace { seed, events: Vec::new() };
        for _ in 0..random.usize(..200) {
            let choices = world.events();
            let mut event = choices[random.usize(..choices.len())];
            // Rare, or nothing else would ever come about.
            let rare = matches!(event, Event::Revoke | Event::SignOut(_) | Event::Abort(_));
            if rare && random.u8(..10) > 0 {
                event = Event::Request(0);
            }
            trace.events.push(event);
            world.apply(event, random.f64());
            events += 1;
        }
        world.settle();
        redeems += world.redeems;
    }
    println!("{SEQUENCES} sequences, {events} events, {redeems} redeems");
    assert!(redeems > 1000, "{redeems}");
}
