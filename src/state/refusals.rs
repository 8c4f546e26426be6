//! What responses say of the token. The machine weighs refusals, and for that it has to hear of
//! what is accepted: of the first response for each generation, or, while something is in doubt,
//! of each.
//!
//! The state's field `accepted` is a word that the hot path reads instead of asking the machine.

use std::sync::{Arc, atomic::Ordering};

use super::{
    FailureKind, RefreshState,
    machine::{Accepted, Admission, Before, Machine, Route},
};
use crate::{metrics, tokens::Generation};

impl RefreshState {
    /// The token of this generation was refused. The route is asked for only if it matters.
    pub(crate) fn challenge(
        self: &Arc<Self>,
        generation: Generation,
        route: impl FnOnce() -> Option<Route>,
    ) -> Admission {
        let answer = self.with(|machine, at| {
            let accepted = self.accepted.load(Ordering::Relaxed) >> 1
                >= machine.credential().generation().get();
            let route = if accepted || machine.listens() { route() } else { None };
            let answer = machine.challenge(generation, accepted, route, at);
            self.listen(machine);
            answer
        });
        if matches!(&answer, Admission::Refuse(why) if why.kind() == FailureKind::Doubted) {
            metrics::failed(FailureKind::Doubted.as_str());
        }
        answer
    }

    /// The token of this generation was accepted. The route is asked for only if it matters.
    #[inline]
    pub(crate) fn accepted_on(
        &self,
        generation: Generation,
        what: Accepted,
        route: impl FnOnce() -> Option<Route>,
    ) {
        if self.accepted.load(Ordering::Relaxed) < accepted_word(generation, what) {
            self.heed(generation, what, route());
        }
    }

    #[cold]
    fn heed(&self, generation: Generation, what: Accepted, route: Option<Route>) {
        let machine = &mut self.lock().machine;
        let heard = machine.heard();
        machine.accepted(generation, route, what, self.renewal.moment());
        if !machine.listens() {
            self.accepted.fetch_max(heard.get() << 1, Ordering::Relaxed);
            self.accepted.fetch_max(accepted_word(generation, what), Ordering::Relaxed);
        }
    }

    /// If the machine has to hear of each response that accepts a token, makes it so: then
    /// none counts as known. Called under the lock, as is all else that writes there.
    fn listen(&self, machine: &mut Machine) {
        if machine.listens() {
            let word = self.accepted.swap(0, Ordering::Relaxed);
            if word & 1 == 1 {
                machine.helped_before(Generation::new(word >> 1));
            }
        }
    }

    /// Whether routes may matter to the next response.
    pub(crate) fn hears_all(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) == 0
    }

    /// A replay was refused, too.
    pub(crate) fn refused_again(&self, generation: Generation, route: Option<Route>) {
        let machine = &mut self.lock().machine;
        let word = self.accepted.load(Ordering::Relaxed);
        let before = Before {
            accepted: word >> 1 == generation.get(),
            helped: word == accepted_word(generation, Accepted::HelpedReplay),
        };
        machine.refused_again(generation, before, route, self.renewal.moment());
        self.listen(machine);
    }
}

fn accepted_word(generation: Generation, what: Accepted) -> u64 {
    generation.get() << 1 | u64::from(what == Accepted::HelpedReplay)
}
