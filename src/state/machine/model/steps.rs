//! A flight's step: what the store and the server make of it.

use super::world::{Fate, Node, World, number, tokens_of};
use crate::{
    refresher::RefreshError,
    state::machine::{Outcome, Step, parts::Stage},
    store::{OpenCause, OpenRedeem},
    tokens::{Generation, Tokens},
};

impl World {
    /// Does the flight's step, as its driver would, and has the machine decide the next.
    pub(super) fn step(&mut self, n: usize, fate: Fate, jitter: f64) {
        let step = self.nodes[n].step.take().unwrap();
        let outcome = self.outcome(n, step, fate);
        let next = self.tell(n, jitter, |machine, at| machine.advance(outcome, at));
        match &next {
            Step::Intend(_) => self.finds_nothing_to_adopt(n),
            Step::Redeem(request) => self.begin_redeem(n, request.tokens.as_ref()),
            Step::Discard(tokens) => {
                let kept = self.store.tokens.as_ref().map(number) == Some(number(tokens));
                assert!(!kept || self.nodes[n].signed_out, "the store's own tokens are revoked");
                // A server ends the session of a spent one, too.
                let came_of_it = self.spent.get(&number(tokens)).copied();
                let in_use = came_of_it == self.store.tokens.as_ref().map(number);
                assert!(came_of_it.is_none() || !in_use, "what the store's came of is revoked");
                self.let_go.insert(number(tokens));
            }
            Step::Land { open_redeem } if self.lease == Some(n) => {
                let node = &mut self.nodes[n];
                node.landing = Some((node.fence, *open_redeem));
            }
            _ => {}
        }
        self.nodes[n].step = Some(next).filter(|step| !matches!(step, Step::Land { .. }));
    }

    fn outcome(&mut self, n: usize, step: Step, fate: Fate) -> Outcome {
        let failed = || Outcome::failed("the store is away");
        match (step, fate) {
            (Step::Lease(known), Fate::Works) if self.store.generation > known => {
                Outcome::Newer(self.store.clone())
            }
            (Step::Lease(_), Fate::Works) => {
                assert!(self.lease.is_none());
                self.lease = Some(n);
                self.fence += 1;
                let node = &mut self.nodes[n];
                (node.fence, node.found) = (self.fence, self.left);
                Outcome::Leased(self.left)
            }
            (Step::Load, Fate::Works) => Outcome::Loaded(self.store.clone()),
            // The lease tells its holder that it is gone, or the store does.
            (Step::Intend(_), _) if self.lease != Some(n) => failed(),
            (Step::Intend(_), Fate::Fails) => failed(),
            (Step::Intend(from), fate) => {
                self.left = Some(OpenRedeem::new(from, OpenCause::HolderEnded));
                if fate == Fate::Works { Outcome::Intended } else { failed() }
            }
            (Step::Redeem(request), fate) => match self.nodes[n].redeems.take() {
                Some(_) => self.redeem(n, request.tokens.as_ref(), fate),
                None => failed(),
            },
            (Step::Save { .. }, _) if self.nodes[n].fence != self.fence => Outcome::LeaseLost,
            (Step::Save { record, .. }, Fate::Fails) => {
                self.maybe_saved.extend(record.tokens.as_ref().map(number));
                failed()
            }
            (Step::Save { expected, .. }, _) if self.store.generation != expected => {
                Outcome::Conflict
            }
            (Step::Save { record, .. }, fate) => {
                if fate != Fate::Works {
                    self.maybe_saved.extend(record.tokens.as_ref().map(number));
                }
                self.overwrite(record);
                self.left = None;
                // As a store may, in the same step.
                self.lease = None;
                if fate == Fate::Works { Outcome::Saved } else { failed() }
            }
            (Step::Yield { open_redeem, .. }, _) => {
                if self.lease == Some(n) {
                    (self.lease, self.left) = (None, open_redeem);
                }
                let node = &mut self.nodes[n];
                let rejected = node.rejected.take();
                assert!(rejected.is_some() && rejected != node.tried_again, "tried a third time");
                node.tried_again = rejected;
                Outcome::Done
            }
            (Step::Pause { .. } | Step::Discard(_), _) => Outcome::Done,
            (Step::Land { .. }, _) => unreachable!("landed already"),
            (Step::Lease(_) | Step::Load, _) => failed(),
        }
    }

    /// The driver calls the refresher, unless the lease is lost. I1, and what else must hold
    /// at that moment.
    fn begin_redeem(&mut self, n: usize, tokens: Option<&Tokens>) {
        let node = &self.nodes[n];
        let from = match node.machine.flight.as_ref().map(|flight| &flight.stage) {
            Some(Stage::Redeeming(redeem)) => redeem.from,
            stage => panic!("a redeem out of turn: {stage:?}"),
        };
        let held = self.lease == Some(n);
        self.nodes[n].redeems = held.then_some(from);
        // No other redeem of the same token is under way, unless its holder has outlived
        // its intent, which this one knows.
        let told = !held || self.told(n, from);
        let spends = |node: &Node| matches!(&node.step, Some(Step::Redeem(request)) if request.tokens.is_some());
        let others =
            |(m, node): (usize, &Node)| m != n && spends(node) && node.redeems == Some(from);
        let alone = !self.nodes.iter().enumerate().any(others);
        assert!(alone || told, "two redeems at once");

        if let Some(tokens) = tokens {
            let token = number(tokens);
            assert!(!self.spent.contains_key(&token) || told, "a spent token is redeemed");
            let rejected = self.nodes[n].rejected == Some(token) && self.policy.needs_tokens;
            assert!(!rejected, "a rejected token is redeemed");
            let noted = self.left.is_some_and(|left| left.generation == from);
            assert!(!held || noted, "a token is spent without a note of it");
        } else {
            self.finds_nothing_to_adopt(n);
        }
        self.redeems += 1;
    }

    /// The store was just read, and a redeem follows.
    fn finds_nothing_to_adopt(&self, n: usize) {
        let known = self.nodes[n].machine.credential().generation();
        let time = self.time;
        let usable = |tokens: &Tokens| !tokens.has_run_out(time);
        if self.store.generation > known {
            let better = self.store.tokens.as_ref().is_some_and(usable);
            assert!(!better, "redeems where there is something to adopt");
        }
    }

    fn redeem(&mut self, n: usize, tokens: Option<&Tokens>, fate: Fate) -> Outcome {
        match fate {
            Fate::Works => self.serve(n, tokens),
            Fate::WorksUnheard => {
                let heard = self.nodes[n].rejected;
                self.serve(n, tokens);
                self.nodes[n].rejected = heard;
                // The same is not asked for again where there was nothing to spend, or
                // where a sign-in has come between.
                let spent = tokens.map(number);
                if spent.is_none() || spent != self.store.tokens.as_ref().map(number) {
                    self.let_go.insert(self.issued);
                }
                Outcome::Refused(RefreshError::transient("the network"))
            }
            Fate::Fails => Outcome::Refused(RefreshError::transient("no connection").unspent()),
            Fate::Panics => Outcome::Panicked,
        }
    }

    /// The authorization server's answer.
    fn serve(&mut self, n: usize, spent: Option<&Tokens>) -> Outcome {
        let Some(tokens) = spent else {
            return Outcome::Redeemed(self.issue());
        };
        let token = number(tokens);
        let given = self.spent.get(&token).copied();
        match given {
            // Within the grace period: the same pair again.
            Some(given) if self.valid.contains(&given) => Outcome::Redeemed(tokens_of(given)),
            None if self.valid.remove(&token) => {
                let tokens = self.issue();
                self.spent.insert(token, self.issued);
                Outcome::Redeemed(tokens)
            }
            _ => {
                self.nodes[n].rejected = Some(token);
                Outcome::Refused(RefreshError::rejected("invalid_grant"))
            }
        }
    }

    /// The lease is another's, or its own former flight's, and there is nothing newer.
    pub(super) fn waits(&self, known: Generation) -> bool {
        self.lease.is_some() && self.store.generation <= known
    }

    /// Whether it knows that this generation's token may be spent.
    fn told(&self, n: usize, from: Generation) -> bool {
        self.nodes[n].found.is_some_and(|found| found.generation == from)
    }

    pub(super) fn release(&mut self, n: usize) {
        let (fence, open_redeem) = self.nodes[n].landing.take().unwrap();
        if fence == self.fence {
            self.left = open_redeem;
            self.lease = None;
        }
    }
}
