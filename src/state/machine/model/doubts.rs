//! Refusals that are about the token and refusals that are not, in every order: a good route,
//! a bad one that refuses whatever it is sent, revocation, expiry, and time. A flight takes no
//! time here; what can happen during one is the other model's.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    state::{
        failure::FailureKind,
        machine::{
            Accepted, Admission, Before, Gate, Machine, Moment, Outcome, Route, Step,
            testing::{LIFE, Rules, record, signed_in, tokens},
        },
    },
    time::Time,
    tokens::Generation,
};

#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many requests at once to each route.
    Requests {
        good: usize,
        bad: usize,
    },
    Revoke,
    Pass(Duration),
}

const SECOND: Duration = Duration::from_secs(1);

struct World<'a> {
    rules: &'a Rules,
    time: Time,
    machine: Machine,
    /// What the server takes. Newer tokens are minted one after the other.
    valid: Option<Generation>,
    minted: u64,
    redeems: Vec<Duration>,
    passed: Duration,
    /// Since when requests to the good route are not helped, with the token that they carry.
    unhelped: Option<(Generation, Duration)>,
}

fn route(good: bool) -> Option<Route> {
    NonZeroU32::new(1 + u32::from(good))
}

impl<'a> World<'a> {
    fn new(rules: &'a Rules, machine: Machine) -> Self {
        Self {
            rules,
            time: rules.at(0).time,
            valid: Some(machine.credential().generation()),
            machine,
            minted: 1,
            redeems: Vec::new(),
            passed: Duration::ZERO,
            unhelped: None,
        }
    }

    fn at(&self) -> Moment<'a> {
        Moment { time: self.time, ..self.rules.at(0) }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Revoke => self.valid = None,
            Event::Pass(time) => {
                self.passed += time;
                self.time.now += time;
                self.time.wall += time;
                if self.machine.credential().has_run_out(self.time) {
                    self.valid = None;
                }
            }
            Event::Requests { good, bad } => self.requests(good, bad),
        }
    }

    /// All are sent with the token that there is, then all are answered.
    fn requests(&mut self, good: usize, bad: usize) {
        let at = self.at();
        let all = || (0..good).map(|_| true).chain((0..bad).map(|_| false));
        if let Admission::Wait(_) = self.machine.admit(at) {
            self.fly();
        }
        let sent = self.machine.credential().generation();
        let works = self.valid == Some(sent) && !self.machine.credential().has_run_out(self.time);
        let mut replays = Vec::new();
        let mut unhelped = false;
        for is_good in all() {
            if is_good && works {
                self.machine.accepted(sent, route(true), Accepted::Request, at);
                continue;
            }
            let listening = self.machine.listens();
            // What the shell knows if the machine need not hear of it.
            let accepted = !listening && works && good > 0;
            match self.machine.challenge(sent, accepted, route(is_good), at) {
                Admission::Proceed => replays.push((is_good, Accepted::Request)),
                Admission::Wait(ticket) => {
                    let what = match ticket.before_redeem {
                        true => Accepted::HelpedReplay,
                        false => Accepted::Request,
                    };
                    replays.push((is_good, what));
                }
                Admission::Refuse(failure) => {
                    let kind = failure.kind();
                    assert!(matches!(kind, FailureKind::Doubted | FailureKind::Braked), "{kind}");
                    unhelped |= is_good && kind == FailureKind::Doubted;
                }
            }
            if works && accepted {
                let gate = self.machine.effects_seen();
                assert_eq!(gate, Gate::Open, "requests are held whose token others accept");
            }
        }
        self.fly();
        let fresh = self.machine.credential().generation();
        for (is_good, what) in replays {
            if is_good && self.valid == Some(fresh) {
                self.machine.accepted(fresh, route(true), what, at);
            } else {
                assert!(!is_good, "refreshed, and refused all the same");
                self.machine.refused_again(fresh, Before::default(), route(false), at);
            }
        }
        match unhelped {
            true => {
                let known = self.unhelped.filter(|(token, _)| *token == sent);
                let (_, since) = *self.unhelped.insert(known.unwrap_or((sent, self.passed)));
                assert!(self.passed - since < 2 * SECOND, "a revoked token is not replaced");
            }
            false if good > 0 => self.unhelped = None,
            false => {}
        }
    }

    /// The flight under way, if there is one, to its end.
    fn fly(&mut self) {
        let at = self.at();
        let effects = self.machine.effects();
        let Some(departure) = effects.begin else { return };
        let mut step = departure.step;
        loop {
            let outcome = match step {
                Step::Lease(_) => Outcome::Leased(None),
                Step::Load => Outcome::Loaded(record(self.machine.stored.get())),
                Step::Intend(_) => Outcome::Intended,
                Step::Redeem(_) => {
                    self.minted += 1;
                    self.redeems.push(self.passed);
                    Outcome::Redeemed(tokens(self.minted))
                }
                Step::Save { .. } => Outcome::Saved,
                Step::Land { .. } => break,
                step => panic!("{step:?}"),
            };
            step = self.machine.advance(outcome, at);
        }
        let _ = self.machine.effects();
        self.valid = Some(self.machine.credential().generation());
    }
}

impl Machine {
    fn effects_seen(&self) -> Gate {
        self.clone().effects().gate
    }
}

/// Good requests before, so that the token is known to work, or none.
fn worlds(rules: &Rules, run: impl Fn(World<'_>)) {
    for good in [0, 1] {
        let (machine, _) = signed_in();
        let mut world = World::new(rules, machine);
        world.machine.signed_in(&record(1), 0, rules.at(0));
        world.apply(Event::Requests { good, bad: 0 });
        run(world);
    }
}

fn events(many: usize) -> Vec<Event> {
    vec![
        Event::Requests { good: many, bad: 0 },
        Event::Requests { good: 0, bad: many },
        Event::Requests { good: many, bad: many },
        Event::Requests { good: 1, bad: many },
        Event::Revoke,
        Event::Pass(SECOND),
        Event::Pass(Duration::from_secs(LIFE)),
    ]
}

fn copy<'a>(world: &World<'a>) -> World<'a> {
    World { machine: world.machine.clone(), redeems: world.redeems.clone(), ..*world }
}

fn every_order(world: World<'_>, events: &[Event], depth: u32) {
    if depth == 0 {
        return;
    }
    for event in events {
        let mut next = copy(&world);
        next.apply(*event);
        every_order(next, events, depth - 1);
    }
}

#[test]
fn a_token_that_is_revoked_is_replaced_soon_in_every_order_of_refusals() {
    let (_, rules) = signed_in();
    for (many, depth) in [(1, 6), (100, 3)] {
        worlds(&rules, |world| every_order(world, &events(many), depth));
    }
}

#[test]
fn a_token_that_is_revoked_is_replaced_soon_in_a_long_life() {
    let (_, rules) = signed_in();
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = events(random.usize(1..=3));
        worlds(&rules, |mut world| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..300 {
                // The server is asked for something else far more often than it revokes.
                let event = events[random.usize(..events.len())];
                let rare = matches!(event, Event::Revoke | Event::Pass(_));
                if !rare || random.u8(..4) == 0 {
                    world.apply(event);
                }
            }
        });
    }
}

/// Ten requests a second, and one in so many is good.
#[test]
fn refreshes_that_do_not_help_become_rare_whatever_the_share_of_good_requests() {
    let (_, mut rules) = signed_in();
    rules.policy.early = Duration::ZERO;
    for one_in in [1, 2, 3, 10, 50, 300, usize::MAX] {
        for many in [1, 100] {
            worlds(&rules, |mut world| {
                // Not to be mixed up with expiry.
                let forever = record(1).tokens.unwrap().without_expiry();
                let record = crate::store::Record::new(Generation::new(7), forever);
                world.machine.signed_in(&record, 0, rules.at(0));
                let _ = world.machine.effects();
                world.valid = Some(world.machine.credential().generation());
                for tick in 0..600_usize {
                    let good = usize::from(tick % one_in == one_in - 1);
                    world.apply(Event::Requests { good, bad: many });
                    world.apply(Event::Pass(SECOND / 10));
                }
                let redeems = world.redeems.len();
                assert!(redeems <= 12, "one good in {one_in}: {redeems} in a minute");
            });
        }
    }
}
