//! The machine against a model of the world around it: a store, a server that
//! rotates refresh tokens, callers, sign-ins and sign-outs, and a clock. Events are
//! tried in every order up to a depth, and at random far beyond it; after each one
//! the invariants are checked. Nothing here is asynchronous: every interleaving
//! that the shell can produce is a sequence of these events.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    flight::{Outcome, Step},
    fresh::Upkeep,
    machine::{Answer, Machine, Ticket},
    policy::{Policy, WhileUnsaved},
};
use crate::{
    error::RefreshError,
    store::Record,
    tokens::{Generation, Time, Tokens},
};

const LIFE: Duration = Duration::from_secs(100);

/// What can happen next. The number is the node it happens to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Request(usize),
    /// A 401 for the current generation, or for the one before it.
    Challenge(usize, Age),
    Refresh(usize),
    /// The flight's step is done, and this came of it.
    Step(usize, Fate),
    /// A flight that has landed gives its lease back; the next one may be waiting.
    Release(usize),
    /// The flight's runtime is gone.
    Abort(usize),
    SignIn(usize),
    SignOut(usize),
    /// The next part of a sign-in or sign-out under way, which may fail.
    Write(usize, Fate),
    Pass(u64),
    /// The server forgets every session.
    Revoke,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Age {
    Current,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Works,
    Fails,
    /// It works, but is reported as failed.
    WorksUnheard,
    Panics,
}

/// One process: a machine, and what its shell would hold.
#[derive(Clone)]
struct Node {
    machine: Machine,
    step: Option<Step>,
    waiters: Vec<Ticket>,
    /// Sign-ins and sign-outs under way, one after the other.
    writes: VecDeque<Write>,
    /// No token may be seen here.
    signed_out: bool,
    /// The refresh token that the server has rejected last.
    rejected: Option<u64>,
    generation: Generation,
}

#[derive(Clone)]
enum Write {
    Save(u64),
    Publish(Record, u64),
    Delete,
    Deleted(Generation),
}

#[derive(Clone)]
struct World {
    nodes: Vec<Node>,
    time: Time,
    store: Record,
    lease: Option<usize>,
    /// Refresh tokens by number: those that can be redeemed, and those that were.
    valid: HashSet<u64>,
    spent: HashSet<u64>,
    issued: u64,
    /// Tokens that may be lost: superseded by a sign-in or sign-out, or handed to
    /// the discard hook.
    let_go: HashSet<u64>,
    redeems: u64,
}

fn number(tokens: &Tokens) -> u64 {
    tokens.refresh_token().and_then(|token| token.parse().ok()).unwrap()
}

impl World {
    fn new(nodes: usize, policy: &Policy, signed_in: bool) -> Self {
        let node = Node {
            machine: Machine::unread(policy.clone(), None),
            step: None,
            waiters: Vec::new(),
            writes: VecDeque::new(),
            signed_out: false,
            rejected: None,
            generation: Generation::ZERO,
        };
        let mut world = Self {
            nodes: vec![node; nodes],
            time: Time { now: Instant::now(), wall: SystemTime::UNIX_EPOCH },
            store: Record::default(),
            lease: None,
            valid: HashSet::new(),
            spent: HashSet::new(),
            issued: 0,
            let_go: HashSet::new(),
            redeems: 0,
        };
        if signed_in {
            let tokens = world.issue();
            world.store = Record { generation: Generation::new(1), tokens: Some(tokens) };
            world.store.tokens = world.store.tokens.map(|tokens| tokens.absolute(world.time));
        }
        world
    }

    fn issue(&mut self) -> Tokens {
        self.issued += 1;
        self.valid.insert(self.issued);
        Tokens::new("access").with_refresh_token(self.issued.to_string()).with_expires_in(LIFE)
    }

    fn events(&self) -> Vec<Event> {
        use Fate::*;
        let mut events = vec![Event::Pass(3), Event::Pass(90), Event::Revoke];
        for (n, node) in self.nodes.iter().enumerate() {
            events.extend([
                Event::Request(n),
                Event::Challenge(n, Age::Current),
                Event::Challenge(n, Age::Late),
                Event::Refresh(n),
            ]);
            let fates: &[Fate] = match &node.step {
                None => &[],
                Some(Step::Lease) if self.lease.is_some() => &[],
                Some(Step::Lease | Step::Load) => &[Works, Fails],
                Some(Step::Redeem(_)) => &[Works, Fails, Panics],
                Some(Step::Save { .. }) => &[Works, Fails, WorksUnheard],
                Some(Step::Pause { .. } | Step::Discard(_) | Step::Land) => &[Works],
            };
            if self.is_landing(n) {
                events.push(Event::Release(n));
            }
            events.extend(fates.iter().map(|fate| Event::Step(n, *fate)));
            // A process that dies between redeem and save takes the tokens with it,
            // whatever anyone does; only within one process can they be kept.
            if node.step.is_some() && self.nodes.len() == 1 {
                events.push(Event::Abort(n));
            }
            if node.writes.len() < 2 {
                events.extend([Event::SignIn(n), Event::SignOut(n)]);
            }
            match node.writes.front() {
                None => {}
                Some(Write::Save(_) | Write::Delete) => {
                    events.extend([Event::Write(n, Works), Event::Write(n, Fails)]);
                }
                Some(_) => events.push(Event::Write(n, Works)),
            }
        }
        events
    }

    fn apply(&mut self, event: Event, jitter: f64) {
        match event {
            Event::Pass(seconds) => {
                self.time.now += Duration::from_secs(seconds);
                self.time.wall += Duration::from_secs(seconds);
            }
            Event::Revoke => self.valid.clear(),
            Event::Request(n) => {
                let now = self.time.now;
                self.ask(n, |machine| machine.admit(now));
            }
            Event::Refresh(n) => {
                let now = self.time.now;
                self.ask(n, |machine| machine.refresh(now));
            }
            Event::Challenge(n, age) => self.challenge(n, age),
            Event::Step(n, fate) => self.step(n, fate, jitter),
            Event::Release(_) => self.lease = None,
            Event::Abort(n) => {
                if self.is_superseded(n) {
                    self.let_go_of_held(n);
                }
                if !self.is_landing(n) {
                    self.lease = None;
                }
                self.nodes[n].step = None;
                self.tell(n, Machine::aborted);
            }
            Event::SignIn(n) => {
                let sign_outs = self.nodes[n].machine.sign_outs();
                self.nodes[n].writes.push_back(Write::Save(sign_outs));
            }
            Event::SignOut(n) => {
                self.let_go_of_held(n);
                self.nodes[n].writes.push_back(Write::Delete);
                self.tell(n, Machine::sign_out);
                self.nodes[n].signed_out = true;
            }
            Event::Write(n, fate) => self.write(n, fate, jitter),
        }
        self.check();
    }

    /// What the shell does around every call of the machine.
    fn tell<R>(&mut self, n: usize, event: impl FnOnce(&mut Machine) -> R) -> R {
        let node = &mut self.nodes[n];
        let idle = node.machine.flight().is_none();
        let result = event(&mut node.machine);
        if idle && node.machine.flight().is_some() {
            assert!(node.step.is_none(), "two flights of one machine");
            node.step = Some(Step::Lease);
        }
        result
    }

    fn ask(&mut self, n: usize, question: impl FnOnce(&mut Machine) -> Answer) {
        if let Answer::Wait(ticket) = self.tell(n, question) {
            self.nodes[n].waiters.push(ticket);
        }
    }

    fn challenge(&mut self, n: usize, age: Age) {
        let (now, node) = (self.time.now, &self.nodes[n]);
        let current = node.machine.credential().clone();
        match age {
            Age::Current => {
                self.ask(n, |machine| machine.challenge(current.generation(), true, now))
            }
            Age::Late if current.generation() > Generation::ZERO => {
                let usable = current.expires().is_none_or(|at| at > now);
                let early = current.early().is_some_and(|at| at <= now);
                let idle = node.step.is_none();
                let late = Generation::new(current.generation().get() - 1);
                self.ask(n, |machine| machine.challenge(late, true, now));
                // I2: a newer token is there, so nothing is refreshed on its account.
                if idle && current.is_present() && usable && !early {
                    assert!(self.nodes[n].step.is_none(), "a late challenge started a refresh");
                }
            }
            Age::Late => {}
        }
    }

    fn step(&mut self, n: usize, fate: Fate, jitter: f64) {
        let failed = || Outcome::Failed("the store is away".into());
        let outcome = match (self.nodes[n].step.take().unwrap(), fate) {
            (Step::Lease, Fate::Works) => {
                assert!(self.lease.is_none());
                self.lease = Some(n);
                Outcome::Leased
            }
            (Step::Load, Fate::Works) => Outcome::Loaded(self.store.clone()),
            (Step::Redeem(spent), Fate::Works) => self.redeem(n, spent.as_ref()),
            (Step::Redeem(_), Fate::Panics) => Outcome::Panicked,
            (Step::Redeem(_), _) => Outcome::Refused(RefreshError::transient("the network")),
            (Step::Save { .. }, Fate::Fails) => failed(),
            (Step::Save { expected, record }, fate) => {
                if self.store.generation != expected {
                    Outcome::Conflict
                } else {
                    self.overwrite(record);
                    if fate == Fate::Works { Outcome::Saved } else { failed() }
                }
            }
            (Step::Pause { .. } | Step::Discard(_), _) => Outcome::Done,
            (Step::Land, _) => unreachable!("landed already"),
            (Step::Lease | Step::Load, _) => failed(),
        };
        let time = self.time;
        let step = self.nodes[n].machine.advance(outcome, time, jitter);
        match &step {
            Step::Redeem(tokens) => {
                // I1: the lease is held by nobody else, so no other redeem is under way.
                assert_eq!(self.lease, Some(n), "a redeem without the lease");
                let others = |(m, node): (usize, &Node)| {
                    m != n && matches!(node.step, Some(Step::Redeem(_)))
                };
                assert!(!self.nodes.iter().enumerate().any(others), "two redeems at once");
                let known = self.nodes[n].machine.credential().generation();
                let usable = |tokens: &Tokens| tokens.deadline(time) > Some(time.now);
                if self.store.generation > known {
                    let better = self.store.tokens.as_ref().is_some_and(usable);
                    assert!(!better, "redeemed where there was something to adopt");
                }
                if let Some(tokens) = tokens {
                    let token = number(tokens);
                    assert!(!self.spent.contains(&token), "a spent token is redeemed");
                    assert_ne!(self.nodes[n].rejected, Some(token), "a rejected token is redeemed");
                }
                self.redeems += 1;
            }
            Step::Discard(tokens) => {
                let kept = self.store.tokens.as_ref().map(number) == Some(number(tokens));
                assert!(!kept || self.nodes[n].signed_out, "the store's own tokens are revoked");
                self.let_go.insert(number(tokens));
            }
            _ => {}
        }
        self.nodes[n].step = Some(step).filter(|step| !matches!(step, Step::Land));
    }

    /// Whether a flight of this node is over but still holds the lease.
    fn is_landing(&self, n: usize) -> bool {
        self.lease == Some(n) && matches!(self.nodes[n].step, None | Some(Step::Lease))
    }

    fn redeem(&mut self, n: usize, spent: Option<&Tokens>) -> Outcome {
        if let Some(tokens) = spent {
            let token = number(tokens);
            assert!(!self.spent.contains(&token), "a refresh token is spent twice");
            if !self.valid.remove(&token) {
                self.nodes[n].rejected = Some(token);
                return Outcome::Refused(RefreshError::rejected("invalid_grant"));
            }
            self.spent.insert(token);
        }
        Outcome::Redeemed(self.issue())
    }

    fn write(&mut self, n: usize, fate: Fate, jitter: f64) {
        let write = self.nodes[n].writes.pop_front().unwrap();
        if fate == Fate::Fails {
            return;
        }
        match write {
            Write::Save(sign_outs) => {
                let known = self.nodes[n].machine.credential().generation();
                let tokens = self.issue().absolute(self.time);
                let generation = known.max(self.store.generation).next();
                let record = Record { generation, tokens: Some(tokens) };
                // The winner ends every other session of this credential.
                self.let_go
                    .extend(self.valid.iter().copied().filter(|token| *token != self.issued));
                self.overwrite(record.clone());
                self.nodes[n].writes.push_front(Write::Publish(record, sign_outs));
            }
            Write::Publish(record, sign_outs) => {
                let time = self.time;
                if sign_outs == self.nodes[n].machine.sign_outs() {
                    self.let_go_of_held(n);
                    self.nodes[n].signed_out = false;
                }
                self.tell(n, |machine| machine.signed_in(&record, sign_outs, time, jitter));
                // I5: whatever a flight has read meanwhile, older tokens are not used any more.
                let machine = &self.nodes[n].machine;
                let newest = self.store.generation == record.generation;
                if newest && sign_outs == machine.sign_outs() {
                    assert!(machine.credential().generation() >= record.generation, "passed over");
                }
            }
            Write::Delete => {
                self.let_go.extend(self.valid.iter().copied());
                let generation = self.store.generation.next();
                self.overwrite(Record { generation, tokens: None });
                self.nodes[n].writes.push_front(Write::Deleted(generation));
            }
            Write::Deleted(generation) => self.tell(n, |machine| machine.deleted(generation)),
        }
    }

    fn overwrite(&mut self, record: Record) {
        assert!(record.generation > self.store.generation, "the store's generation went back");
        self.store = record;
    }

    fn is_superseded(&self, n: usize) -> bool {
        let machine = &self.nodes[n].machine;
        machine.flight().is_some_and(|flight| machine.superseded(flight))
    }

    fn let_go_of_held(&mut self, n: usize) {
        let held = self.nodes[n].machine.held().into_iter().map(number).collect::<Vec<_>>();
        self.let_go.extend(held);
    }

    fn check(&mut self) {
        let mut held: HashSet<u64> = self.store.tokens.iter().map(number).collect();
        for node in &mut self.nodes {
            let machine = &node.machine;
            node.waiters.retain(|ticket| machine.resolve(*ticket).is_none());
            // I7: nobody waits without a flight.
            assert!(node.waiters.is_empty() || machine.flight().is_some(), "waiting for nothing");
            assert_eq!(machine.flight().is_some(), node.step.is_some());
            // Whoever looks ahead neither spins nor sleeps on.
            let mut looked = machine.clone();
            match looked.upkeep(self.time.now) {
                Upkeep::Until(at) => {
                    assert!(at > self.time.now && looked.flight().is_none(), "it spins");
                }
                upkeep => {
                    let hopeless = looked.is_dead() || looked.credential().early().is_none();
                    assert_eq!(upkeep, Upkeep::News);
                    assert!(looked.flight().is_some() || hopeless, "nobody wakes it");
                }
            }
            let generation = machine.credential().generation();
            assert!(generation >= node.generation, "the generation went back");
            node.generation = generation;
            // I5: only a sign-in ends a sign-out, in this process or, once the store
            // has heard of the sign-out, in another.
            if node.signed_out && machine.credential().is_present() {
                let told = !node.writes.iter().any(|write| matches!(write, Write::Delete));
                assert!(told && self.store.tokens.is_some(), "a signed-out credential came back");
                node.signed_out = false;
            }
            held.extend(machine.held().into_iter().map(number));
        }
        // I4: what the server takes is in somebody's hands.
        for token in &self.valid {
            assert!(held.contains(token) || self.let_go.contains(token), "a minted token is lost");
        }
    }

    /// Lets everything under way come to a good end: then nobody waits any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            if let Some(n) = (0..self.nodes.len()).find(|n| self.is_landing(*n)) {
                self.apply(Event::Release(n), 0.5);
            }
            let next = (0..self.nodes.len()).find(|&n| {
                let blocked =
                    matches!(self.nodes[n].step, Some(Step::Lease)) && self.lease.is_some();
                self.nodes[n].step.is_some() && !blocked
            });
            let Some(n) = next else {
                assert!(
                    self.nodes.iter().all(|node| node.waiters.is_empty() && node.step.is_none())
                );
                assert!(self.lease.is_none(), "the lease was not given back");
                return;
            };
            self.apply(Event::Step(n, Fate::Works), 0.5);
        }
        panic!("a flight does not end");
    }
}

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
        for _ in 0..random.usize(..150) {
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
