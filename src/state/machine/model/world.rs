//! What there is in the model, and what can happen to it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    state::machine::{
        Admission, Effects, Machine, Moment, Policy, Step, Ticket, testing::shut_down,
    },
    store::{OpenCause, OpenRedeem, Record},
    time::Time,
    tokens::{Generation, Tokens},
};

const LIFE: Duration = Duration::from_secs(100);

/// What can happen next. The number is the node it happens to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    Request(usize),
    /// A 401 for the current generation, or for the one before it.
    Challenge(usize, Age),
    /// The same for the current generation, which was accepted before.
    Doubt(usize),
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
    /// A caller looks at the store, and later its machine is told what was there.
    Look(usize),
    Looked(usize),
    Pass(u64),
    /// The server forgets every session.
    Revoke,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Age {
    Current,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Works,
    Fails,
    /// It works, but is reported as failed.
    WorksUnheard,
    Panics,
}

/// One process: a machine, and what its shell holds.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) step: Option<Step>,
    /// The number of the lease that it had last, and what it was told with it.
    pub(super) fence: u64,
    pub(super) found: Option<OpenRedeem>,
    /// The stored generation that the redeem under way is of, if it had the lease when
    /// that began.
    pub(super) redeems: Option<Generation>,
    /// The lease that it still has to give back, and what it leaves in it.
    pub(super) landing: Option<(u64, Option<OpenRedeem>)>,
    /// Those who sleep until they are woken.
    pub(super) waiters: Vec<Ticket>,
    /// Sign-ins and sign-outs under way, one after the other.
    pub(super) writes: VecDeque<Write>,
    /// A look under way: what was known, and what was found.
    pub(super) look: Option<(Generation, Record)>,
    /// The generation that was refused last, and not only in doubt.
    pub(super) refused: Generation,
    /// No token may be seen here.
    pub(super) signed_out: bool,
    /// The refresh token that the server has rejected last.
    pub(super) rejected: Option<u64>,
    /// The one that it has tried a second time on that account.
    pub(super) tried_again: Option<u64>,
    /// The credential that was published last.
    pub(super) published: Generation,
}

#[derive(Clone)]
pub(super) enum Write {
    Save(u32),
    Publish(Record, u32),
    Delete(u32),
    Deleted(Generation, u32),
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) nodes: Vec<Node>,
    pub(super) time: Time,
    pub(super) store: Record,
    pub(super) lease: Option<usize>,
    /// How often the lease was taken, and what stands in it for its next holder.
    pub(super) fence: u64,
    pub(super) left: Option<OpenRedeem>,
    /// Refresh tokens by number: those that can be redeemed, and those that were, with
    /// what was given for them.
    pub(super) valid: HashSet<u64>,
    pub(super) spent: HashMap<u64, u64>,
    pub(super) issued: u64,
    /// Tokens that may be lost: superseded by a sign-in or sign-out, or handed to
    /// the discard hook.
    pub(super) let_go: HashSet<u64>,
    /// Those of which a save was not heard to have worked: as soon as the store has others, it cannot be
    /// known whether these have come of them.
    pub(super) maybe_saved: HashSet<u64>,
    pub(super) redeems: u64,
}

pub(super) fn tokens_of(number: u64) -> Tokens {
    Tokens::new("access").with_refresh_token(number.to_string()).with_expires_in(LIFE)
}

pub(super) fn number(tokens: &Tokens) -> u64 {
    tokens.refresh_token().and_then(|token| token.parse().ok()).unwrap()
}

impl World {
    pub(super) fn new(nodes: usize, policy: &Policy, signed_in: bool) -> Self {
        let node = Node {
            machine: Machine::unread(true, None),
            step: None,
            fence: 0,
            found: None,
            redeems: None,
            landing: None,
            waiters: Vec::new(),
            writes: VecDeque::new(),
            look: None,
            refused: Generation::ZERO,
            signed_out: false,
            rejected: None,
            tried_again: None,
            published: Generation::ZERO,
        };
        let mut world = Self {
            policy: policy.clone(),
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
            maybe_saved: HashSet::new(),
            redeems: 0,
        };
        if signed_in {
            let tokens = world.issue();
            world.store = Record::new(Generation::new(1), tokens);
            world.store.tokens = world.store.tokens.map(|tokens| tokens.absolute(world.time));
        }
        world
    }

    pub(super) fn issue(&mut self) -> Tokens {
        self.issued += 1;
        self.valid.insert(self.issued);
        tokens_of(self.issued)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        use Fate::*;
        let mut events = vec![Event::Pass(3), Event::Pass(90), Event::Revoke];
        for (n, node) in self.nodes.iter().enumerate() {
            events.extend([
                Event::Request(n),
                Event::Challenge(n, Age::Current),
                Event::Challenge(n, Age::Late),
                Event::Doubt(n),
                Event::Refresh(n),
            ]);
            let fates: &[Fate] = match &node.step {
                None => &[],
                Some(Step::Lease(known)) if self.waits(*known) => &[],
                Some(Step::Lease(_) | Step::Load) => &[Works, Fails],
                Some(Step::Intend(_)) => &[Works, Fails, WorksUnheard],
                Some(Step::Redeem(_)) => &[Works, Fails, WorksUnheard, Panics],
                Some(Step::Save { .. }) => &[Works, Fails, WorksUnheard],
                Some(
                    Step::Pause { .. } | Step::Yield { .. } | Step::Discard(_) | Step::Land { .. },
                ) => &[Works],
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
            match node.look {
                Some(_) => events.push(Event::Looked(n)),
                // Otherwise there is nothing to see.
                None if self.store.generation != node.machine.stored() => {
                    events.push(Event::Look(n));
                }
                None => {}
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

    pub(super) fn apply(&mut self, event: Event, jitter: f64) {
        match event {
            Event::Pass(seconds) => {
                self.time.now += Duration::from_secs(seconds);
                self.time.wall += Duration::from_secs(seconds);
            }
            Event::Revoke => self.valid.clear(),
            Event::Request(n) => self.ask(n, jitter, Machine::admit),
            Event::Refresh(n) => self.ask(n, jitter, Machine::refresh),
            Event::Challenge(n, age) => self.challenge(n, age, jitter),
            Event::Doubt(n) => {
                let current = self.nodes[n].machine.credential().generation();
                // It was accepted since.
                self.nodes[n].refused = Generation::ZERO;
                self.ask(n, jitter, |machine, at| machine.challenge(current, true, None, at));
            }
            Event::Step(n, fate) => self.step(n, fate, jitter),
            Event::Release(n) => self.release(n),
            Event::Expire(_) => {
                self.lease = None;
                // An intent that is there was the stalled one's.
                if let Some(left) = &mut self.left {
                    left.cause = OpenCause::HolderSilent;
                }
            }
            Event::Abort(n) => self.abort(n, jitter),
            Event::SignIn(n) => {
                let sign_outs = self.nodes[n].machine.sign_outs();
                self.nodes[n].writes.push_back(Write::Save(sign_outs));
            }
            Event::SignOut(n) => {
                let sign_out = self.tell(n, jitter, |machine, _| machine.sign_out());
                self.nodes[n].writes.push_back(Write::Delete(sign_out));
                self.nodes[n].signed_out = true;
            }
            Event::Write(n, fate) => self.write(n, fate, jitter),
            Event::Look(n) => {
                let known = self.nodes[n].machine.stored();
                self.nodes[n].look = Some((known, self.store.clone()));
            }
            Event::Looked(n) => {
                if let Some((known, record)) = self.nodes[n].look.take() {
                    self.tell(n, jitter, |machine, at| machine.looked(known, &record, at));
                }
            }
        }
        self.check();
    }

    /// What the shell does around every call of the machine.
    pub(super) fn tell<R>(
        &mut self,
        n: usize,
        jitter: f64,
        event: impl FnOnce(&mut Machine, Moment<'_>) -> R,
    ) -> R {
        let at = Moment { policy: &self.policy, time: self.time, jitter, may_redeem: true };
        let node = &mut self.nodes[n];
        let result = event(&mut node.machine, at);
        let effects = node.machine.effects();
        let Effects { gate: _, publish, wake, failed: _, discard, begin } = effects;
        if let Some(credential) = publish {
            assert!(credential.generation() > node.published, "the generation went back");
            node.published = credential.generation();
        }
        if let Some(tokens) = discard {
            let kept = self.store.tokens.as_ref().map(number) == Some(number(&tokens));
            assert!(!kept || node.signed_out, "the store's own tokens are revoked");
            self.let_go.insert(number(&tokens));
        }
        if wake {
            let machine = &node.machine;
            node.waiters.retain(|ticket| machine.resolve(*ticket).is_none());
        }
        if let Some(departure) = begin {
            assert!(node.step.is_none(), "two flights of one machine");
            node.step = Some(departure.step);
        }
        result
    }

    fn ask(
        &mut self,
        n: usize,
        jitter: f64,
        question: impl FnOnce(&mut Machine, Moment<'_>) -> Admission,
    ) {
        if let Admission::Wait(ticket) = self.tell(n, jitter, question) {
            self.nodes[n].waiters.push(ticket);
        }
    }

    fn challenge(&mut self, n: usize, age: Age, jitter: f64) {
        let node = &self.nodes[n];
        let current = node.machine.credential().clone();
        match age {
            Age::Current => {
                let refused = current.generation();
                self.ask(n, jitter, |machine, at| machine.challenge(refused, false, None, at));
                let machine = &self.nodes[n].machine;
                let doubted = machine.listens() && !current.has_run_out(self.time);
                if !doubted && machine.credential().generation() == refused {
                    self.nodes[n].refused = refused;
                }
            }
            Age::Late if current.generation() > Generation::ZERO => {
                let usable = !current.has_run_out(self.time);
                let early = current.early().is_some_and(|early| early.has_come(self.time));
                let idle = node.step.is_none();
                let late = Generation::new(current.generation().get() - 1);
                self.ask(n, jitter, |machine, at| machine.challenge(late, true, None, at));
                // I2: a newer token is there, so nothing is refreshed on its account.
                if idle && current.is_present() && usable && !early {
                    assert!(self.nodes[n].step.is_none(), "a late challenge started a refresh");
                }
            }
            Age::Late => {}
        }
    }

    fn abort(&mut self, n: usize, jitter: f64) {
        // A flight that has landed gives its lease back whatever becomes of the next.
        let landed = self.nodes[n].landing.is_some_and(|(fence, _)| fence == self.fence);
        if self.lease == Some(n) && !landed {
            self.lease = None;
        }
        let held: Vec<_> = self.nodes[n].machine.held().into_iter().map(number).collect();
        self.maybe_saved.extend(held);
        self.nodes[n].step = None;
        self.nodes[n].redeems = None;
        self.tell(n, jitter, |machine, _| machine.aborted(shut_down()));
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
                if sign_outs == self.nodes[n].machine.sign_outs() {
                    self.nodes[n].signed_out = false;
                }
                self.tell(n, jitter, |machine, at| machine.signed_in(&record, sign_outs, at));
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
                self.tell(n, jitter, |machine, _| machine.deleted(generation, sign_out));
            }
        }
    }

    pub(super) fn overwrite(&mut self, record: Record) {
        assert!(record.generation > self.store.generation, "the store's generation went back");
        self.store = record;
    }
}
