//! What must hold after every event, and in the end.

use std::collections::HashSet;

use super::world::{Event, Fate, World, Write, number};
use crate::state::machine::{
    Gate, Moment, Step, Upkeep,
    parts::{Flight, Standing},
};

impl World {
    pub(super) fn check(&mut self) {
        let at = Moment { policy: &self.policy, time: self.time, jitter: 0.5, may_redeem: true };
        let mut held: HashSet<u64> = self.store.tokens.iter().map(number).collect();
        for node in &mut self.nodes {
            let machine = &node.machine;
            // I7: every waiter was woken when there was news for it, and what sleeps on has
            // a flight to wait for.
            for ticket in &node.waiters {
                assert!(machine.resolve(*ticket).is_none(), "a waiter sleeps through its news");
            }
            assert!(node.waiters.is_empty() || machine.flight.is_some(), "waiting for nothing");
            assert_eq!(machine.flight.is_some(), node.step.is_some());
            assert_eq!(machine.credential().generation(), node.published, "not published");
            // A gate that is closed opens again: a flight is there, or will be at the first
            // request.
            let mut looked = machine.clone();
            let gate = looked.effects().gate;
            if gate == Gate::Closed {
                let unread = machine.standing == Standing::Unread;
                assert!(unread || machine.flight.is_some(), "the gate stays closed");
            }
            let replaced = |flight: &Flight| flight.base == machine.credential().generation();
            let is_refused = node.refused == machine.credential().generation();
            if machine.flight.as_deref().is_some_and(replaced)
                && !node.waiters.is_empty()
                && is_refused
            {
                assert_eq!(gate, Gate::Closed, "a token is sent that others have been refused");
            }
            // `keep_fresh` neither spins nor sleeps on.
            match looked.upkeep(at) {
                Upkeep::Until(due) => {
                    assert!(!due.has_come(self.time) && looked.flight.is_none(), "it spins");
                }
                upkeep => {
                    let hopeless =
                        looked.is_unredeemable() || looked.credential().early().is_none();
                    assert_eq!(upkeep, Upkeep::News);
                    assert!(looked.flight.is_some() || hopeless, "nothing wakes it");
                }
            }
            // I5: only a sign-in ends a sign-out, in this process or, once the store
            // has heard of the sign-out, in another.
            if node.signed_out && machine.credential().is_present() {
                let told = !node.writes.iter().any(|write| matches!(write, Write::Delete(_)));
                assert!(told && self.store.tokens.is_some(), "a signed-out credential came back");
                node.signed_out = false;
            }
            held.extend(machine.held().into_iter().map(number));
        }
        // A redeem of what the store holds brings the same pair again, and its flight knows
        // that it may.
        let stored = self.store.tokens.as_ref().map(number);
        held.extend(stored.and_then(|token| self.spent.get(&token)));
        // I4: what the server takes is in a machine's hands or in the store.
        for token in &self.valid {
            let in_doubt = self.maybe_saved.contains(token) && self.store.tokens.is_some();
            let is_let_go = in_doubt || self.let_go.contains(token);
            assert!(held.contains(token) || is_let_go, "a minted token is lost");
        }
    }

    /// Lets everything under way come to a good end: then no waiter is left.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            while let Some(n) = (0..self.nodes.len()).find(|n| self.nodes[*n].landing.is_some()) {
                self.apply(Event::Release(n), 0.5);
            }
            let next = (0..self.nodes.len()).find(|&n| {
                let blocked =
                    matches!(self.nodes[n].step, Some(Step::Lease(known)) if self.waits(known));
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
