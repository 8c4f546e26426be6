//! The machine against a model of the world around it: a store whose lease runs out, a
//! server that rotates refresh tokens and gives the same pair again to whoever knows that
//! the token may be spent, callers, sign-ins and sign-outs, processes that die, and a clock. Events are
//! tried in every order up to a depth, and at random far beyond it; after each one
//! the invariants are checked. Nothing here is asynchronous: every interleaving
//! that the shell can produce is a sequence of these events.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Answer, Machine, Ticket, Upkeep,
    flight::{Outcome, Step},
    policy::{Policy, WhileUnsaved},
};
use crate::{
    error::RefreshError,
    store::{OpenCause, OpenRedeem, Record},
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
    /// Its lease, or its intent, has run out: it was stalled.
    Expire(usize),
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
    /// The number of the lease that it had last, and what it was told with it.
    fence: u64,
    found: Option<OpenRedeem>,
    /// What it will leave in the lease, as the pilot keeps it.
    left: Option<OpenRedeem>,
    /// It had the lease when it began to redeem.
    redeems: bool,
    /// The lease that it still has to give back.
    landing: Option<(u64, Option<OpenRedeem>)>,
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
    Delete(u64),
    Deleted(Generation, u64),
}

#[derive(Clone)]
struct World {
    nodes: Vec<Node>,
    time: Time,
    store: Record,
    lease: Option<usize>,
    /// How often it was taken, and what whoever takes it next is told.
    fence: u64,
    left: Option<OpenRedeem>,
    /// Refresh tokens by number: those that can be redeemed, and those that were, with
    /// what was given for them.
    valid: HashSet<u64>,
    spent: HashMap<u64, u64>,
    issued: u64,
    /// Tokens that may be lost: superseded by a sign-in or sign-out, or handed to
    /// the discard hook.
    let_go: HashSet<u64>,
    redeems: u64,
}

fn tokens_of(number: u64) -> Tokens {
    Tokens::new("access").with_refresh_token(number.to_string()).with_expires_in(LIFE)
}

fn number(tokens: &Tokens) -> u64 {
    tokens.refresh_token().and_then(|token| token.parse().ok()).unwrap()
}

impl World {
    fn new(nodes: usize, policy: &Policy, signed_in: bool) -> Self {
        let node = Node {
            machine: Machine::unread(policy.clone(), None),
            step: None,
            fence: 0,
            found: None,
            left: None,
            redeems: false,
            landing: None,
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
            fence: 0,
            left: None,
            valid: HashSet::new(),
            spent: HashMap::new(),
            issued: 0,
            let_go: HashSet::new(),
            redeems: 0,
        };
        if signed_in {
            let tokens = world.issue();
            world.store = Record::new(Generation::new(1), tokens);
            world.store.tokens = world.store.tokens.map(|tokens| tokens.absolute(world.time));
        }
        world
    }

    fn issue(&mut self) -> Tokens {
        self.issued += 1;
        self.valid.insert(self.issued);
        tokens_of(self.issued)
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
                Some(Step::Lease(seen)) if self.waits(*seen) => &[],
                Some(Step::Lease(_) | Step::Load) => &[Works, Fails],
                Some(Step::Redeem(..)) => &[Works, Fails, WorksUnheard, Panics],
                Some(Step::Save { .. }) => &[Works, Fails, WorksUnheard],
                Some(Step::Pause { .. } | Step::Discard(_) | Step::Land) => &[Works],
            };
            if node.landing.is_some() {
                events.push(Event::Release(n));
            }
            events.extend(fates.iter().map(|fate| Event::Step(n, *fate)));
            if node.step.is_some() {
                events.push(Event::Abort(n));
            }
            if self.lease == Some(n) {
                events.push(Event::Expire(n));
            }
            if node.writes.len() < 2 {
                events.extend([Event::SignIn(n), Event::SignOut(n)]);
            }
            match node.writes.front() {
                None => {}
                Some(Write::Save(_) | Write::Delete(_)) => {
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
            Event::Release(n) => self.release(n),
            Event::Expire(_) => {
                self.lease = None;
                // An intent that is there was the stalled one's.
                if let Some(left) = &mut self.left {
                    left.cause = OpenCause::HolderSilent;
                }
            }
            Event::Abort(n) => {
                if self.is_superseded(n) {
                    self.let_go_of_held(n);
                }
                // A flight that has landed gives its lease back whatever becomes of the next.
                let landed = self.nodes[n].landing.is_some_and(|(fence, _)| fence == self.fence);
                if self.lease == Some(n) && !landed {
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
                let sign_out = self.tell(n, Machine::sign_out);
                self.nodes[n].writes.push_back(Write::Delete(sign_out));
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
            node.step = Some(Step::Lease(node.machine.stored()));
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
            (Step::Lease(seen), Fate::Works) if self.store.generation > seen => {
                Outcome::Newer(self.store.clone())
            }
            (Step::Lease(_), Fate::Works) => {
                assert!(self.lease.is_none());
                self.lease = Some(n);
                self.fence += 1;
                let node = &mut self.nodes[n];
                (node.fence, node.found, node.left) = (self.fence, self.left, self.left);
                Outcome::Leased(self.left)
            }
            (Step::Load, Fate::Works) => Outcome::Loaded(self.store.clone()),
            (Step::Redeem(..), _) if !self.nodes[n].redeems => failed(),
            (Step::Redeem(from, spent), fate) => {
                let unknown = spent.is_some().then(|| OpenRedeem::new(from, OpenCause::AnswerLost));
                let known = self.nodes[n].left;
                self.nodes[n].left = unknown.or(known);
                match fate {
                    Fate::Works => self.redeem(n, spent.as_ref()),
                    Fate::WorksUnheard => {
                        let heard = self.nodes[n].rejected;
                        self.redeem(n, spent.as_ref());
                        self.nodes[n].rejected = heard;
                        // Nobody will ask for the same again where there was nothing to
                        // spend, or where a sign-in has come between.
                        let spent = spent.as_ref().map(number);
                        if spent.is_none() || spent != self.store.tokens.as_ref().map(number) {
                            self.let_go.insert(self.issued);
                        }
                        Outcome::Refused(RefreshError::transient("the network"))
                    }
                    Fate::Fails => {
                        self.nodes[n].left = known;
                        Outcome::Refused(RefreshError::transient("no connection").unspent())
                    }
                    Fate::Panics => Outcome::Panicked,
                }
            }
            (Step::Save { .. }, _) if self.nodes[n].fence != self.fence => Outcome::LeaseLost,
            (Step::Save { .. }, Fate::Fails) => failed(),
            (Step::Save { expected, record }, fate) => {
                if self.store.generation != expected {
                    Outcome::Conflict
                } else {
                    self.overwrite(record);
                    self.left = None;
                    if fate == Fate::Works {
                        self.nodes[n].left = None;
                        Outcome::Saved
                    } else {
                        failed()
                    }
                }
            }
            (Step::Pause { .. } | Step::Discard(_), _) => Outcome::Done,
            (Step::Land, _) => unreachable!("landed already"),
            (Step::Lease(_) | Step::Load, _) => failed(),
        };
        let time = self.time;
        let step = self.nodes[n].machine.advance(outcome, time, jitter);
        match &step {
            Step::Redeem(from, tokens) => {
                // The pilot's first act, which fails without the lease.
                let held = self.lease == Some(n);
                self.nodes[n].redeems = held;
                if held && tokens.is_some() {
                    self.left = Some(OpenRedeem::new(*from, OpenCause::HolderEnded));
                }
                // I1: no other redeem is under way, unless its holder has outlived its
                // intent, which this one knows.
                let told = !held || self.told(n, *from);
                let others = |(m, node): (usize, &Node)| {
                    let same =
                        matches!(node.step, Some(Step::Redeem(other, Some(_))) if other == *from);
                    m != n && same && node.redeems
                };
                let alone = !self.nodes.iter().enumerate().any(others);
                assert!(alone || told, "two redeems at once");
                let known = self.nodes[n].machine.credential().generation();
                let usable = |tokens: &Tokens| tokens.deadline(time) > Some(time.now);
                if self.store.generation > known {
                    let better = self.store.tokens.as_ref().is_some_and(usable);
                    assert!(!better, "redeemed where there was something to adopt");
                }
                if let Some(tokens) = tokens {
                    let token = number(tokens);
                    assert!(!self.spent.contains_key(&token) || told, "a spent token is redeemed");
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
        let node = &mut self.nodes[n];
        if matches!(step, Step::Land) && self.lease == Some(n) {
            node.landing = Some((node.fence, node.left));
        }
        node.step = Some(step).filter(|step| !matches!(step, Step::Land));
    }

    /// The lease is somebody else's, or its own former flight's, and there is nothing newer.
    fn waits(&self, seen: Generation) -> bool {
        self.lease.is_some() && self.store.generation <= seen
    }

    /// Whether it knows that this generation's token may be spent.
    fn told(&self, n: usize, from: Generation) -> bool {
        self.nodes[n].found.is_some_and(|found| found.generation == from)
    }

    fn release(&mut self, n: usize) {
        let (fence, left) = self.nodes[n].landing.take().unwrap();
        if fence == self.fence {
            self.left = left;
            self.lease = None;
        }
    }

    fn redeem(&mut self, n: usize, spent: Option<&Tokens>) -> Outcome {
        if let Some(tokens) = spent {
            let token = number(tokens);
            let rejected = || Outcome::Refused(RefreshError::rejected("invalid_grant"));
            if let Some(&given) = self.spent.get(&token) {
                // Within the grace period: the same pair again.
                if self.valid.contains(&given) {
                    return Outcome::Redeemed(tokens_of(given));
                }
                self.nodes[n].rejected = Some(token);
                return rejected();
            }
            if !self.valid.remove(&token) {
                self.nodes[n].rejected = Some(token);
                return rejected();
            }
            let tokens = self.issue();
            self.spent.insert(token, self.issued);
            return Outcome::Redeemed(tokens);
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
                let record = Record::new(generation, tokens);
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
            Write::Delete(sign_out) => {
                self.let_go.extend(self.valid.iter().copied());
                let generation = self.store.generation.next();
                self.overwrite(Record::new(generation, None));
                self.nodes[n].writes.push_front(Write::Deleted(generation, sign_out));
            }
            Write::Deleted(generation, sign_out) => {
                self.tell(n, |machine| machine.deleted(generation, sign_out));
            }
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
                let told = !node.writes.iter().any(|write| matches!(write, Write::Delete(_)));
                assert!(told && self.store.tokens.is_some(), "a signed-out credential came back");
                node.signed_out = false;
            }
            held.extend(machine.held().into_iter().map(number));
        }
        // Whoever redeems what the store holds gets the same pair again, and knows that it
        // may.
        let stored = self.store.tokens.as_ref().map(number);
        held.extend(stored.and_then(|token| self.spent.get(&token)));
        // I4: what the server takes is in somebody's hands.
        for token in &self.valid {
            assert!(held.contains(token) || self.let_go.contains(token), "a minted token is lost");
        }
    }

    /// Lets everything under way come to a good end: then nobody waits any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            while let Some(n) = (0..self.nodes.len()).find(|n| self.nodes[*n].landing.is_some()) {
                self.apply(Event::Release(n), 0.5);
            }
            let next = (0..self.nodes.len()).find(|&n| {
                let blocked =
                    matches!(self.nodes[n].step, Some(Step::Lease(seen)) if self.waits(seen));
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
            let shared = true;
            policies.push(Policy { while_unsaved, needs_tokens, shared, ..Policy::default() });
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
