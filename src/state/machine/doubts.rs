//! Refusals that may not be about the token: a forbidden route, an API key, a login.
//!
//! A challenge for a token that has run out, or that no server has accepted, is a *fact*. One
//! for a token that was accepted since it was published is a *doubt*:
//!
//! - It may start a refresh, but requests are not held at the gate meanwhile.
//! - While refreshes do not help those who asked for them, the pause before a doubt may start
//!   the next one grows. A replay that is accepted ends that.
//! - It becomes a fact when nothing was accepted for [`SILENCE`] after another doubt (the next
//!   time, unless that has helped, for twice as long), or when
//!   a route refuses the token that it has accepted: so a token that is really revoked does
//!   not wait for the pause to end. A route that has refused a brand-new token, too, is not
//!   believed then until a refresh has helped it, and not in silence either if it has never
//!   accepted any: it refuses for another reason.
//!
//! What is remembered is bounded ([`MAX_ROUTES`]) and forgotten when it is of no use any more.

use std::{num::NonZeroU32, time::Duration};

use super::{Machine, messages::Moment, parts::Minting};
use crate::{
    state::failure::{FailureKind, RefreshFailure},
    time::Due,
    tokens::Generation,
};

/// Where a request goes, as a number: two requests with the same one are of the same route.
pub(crate) type Route = NonZeroU32;

/// How long nothing has to be accepted before a doubt is a fact. Also the first pause.
const SILENCE: Duration = Duration::from_secs(1);

/// The longest pause between two refreshes that doubts start, while they do not help. After as
/// much time without a doubt all is forgotten.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// How many routes are remembered. The one that was not seen for longest makes room.
const MAX_ROUTES: usize = 64;

/// What is known of refusals that may not be about the token.
#[derive(Clone, Debug)]
pub(super) struct Doubts {
    /// Refreshes in a row that did not help.
    fruitless: u32,
    /// The last of them is only presumed to be: no replay with its token was answered yet.
    presumed: bool,
    /// The last refresh that a doubt has started was asked for by a caller without a route,
    /// who says himself that a token was accepted.
    by_caller: bool,
    /// No doubt starts a refresh before this.
    pause: Due,
    /// When all of this is forgotten, unless there is another doubt.
    forgotten: Due,
    /// The newest generation that is known to have been accepted.
    accepted: Generation,
    /// The newest generation that a replay was accepted with.
    helped: Generation,
    /// The newest generation that a replay was refused with.
    refused: Generation,
    /// When it will have been silent for long enough, and the generation that this is about:
    /// since a doubt nothing was accepted.
    silence: Option<(Generation, Due)>,
    /// How often silence was believed in a row, and the refresh did not help.
    silences: u32,
    /// The routes that were seen last come last.
    routes: Vec<Known>,
}

/// What is known of a route.
#[derive(Clone, Copy, Debug)]
struct Known {
    route: Route,
    /// The newest generation that it has accepted.
    accepted: Generation,
    /// It has refused a brand-new token, and no refresh has helped it since.
    unreliable: bool,
}

/// Whose token was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// That of a request, which says nothing of what a refresh has helped.
    Request,
    /// That of a replay, whose request was refused before the redeem began. A refusal that came
    /// later may be the redeem's own doing: some servers end the old access token with it.
    HelpedReplay,
    /// That of a caller without requests.
    Caller,
}

/// What is known of a token from the time when nothing was in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    /// It was accepted.
    pub(crate) accepted: bool,
    /// By a replay, which the refresh has helped.
    pub(crate) helped: bool,
}

/// What a challenge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The token does not work. `brand_new`: it never has, and should have by its own expiry,
    /// so the brake holds for it.
    Fact { brand_new: bool },
    /// The token may work for other requests.
    Doubt,
}

impl Doubts {
    fn new(at: Moment<'_>) -> Self {
        let now = at.after(Duration::ZERO);
        Self {
            fruitless: 0,
            presumed: false,
            by_caller: false,
            pause: now,
            forgotten: at.after(MAX_PAUSE),
            accepted: Generation::ZERO,
            helped: Generation::ZERO,
            refused: Generation::ZERO,
            silence: None,
            silences: 0,
            routes: Vec::new(),
        }
    }

    fn known(&self, route: Option<Route>) -> Option<&Known> {
        self.routes.iter().find(|known| Some(known.route) == route)
    }

    /// Notes what a route has done, as the last that was seen.
    fn note(&mut self, route: Option<Route>, note: impl FnOnce(&mut Known)) {
        let Some(route) = route else { return };
        let mut known = Known { route, accepted: Generation::ZERO, unreliable: false };
        if let Some(place) = self.routes.iter().position(|known| known.route == route) {
            known = self.routes.remove(place);
        } else if self.routes.len() == MAX_ROUTES {
            self.routes.remove(0);
        }
        note(&mut known);
        self.routes.push(known);
    }

    /// The pause begins now.
    fn pause_from(&mut self, at: Moment<'_>) {
        let pause = doubled(self.fruitless.saturating_sub(1));
        self.pause = self.pause.max(at.after(pause));
        self.forgotten = self.pause.max(at.after(MAX_PAUSE));
    }
}

/// [`SILENCE`], doubled so often.
fn doubled(times: u32) -> Duration {
    SILENCE.saturating_mul(1 << times.min(16)).min(MAX_PAUSE)
}

impl Machine {
    fn doubts(&self) -> Option<&Doubts> {
        self.troubles.as_ref()?.doubts.as_deref()
    }

    fn doubts_mut(&mut self, at: Moment<'_>) -> &mut Doubts {
        let doubts = &mut self.troubles_mut().doubts;
        doubts.get_or_insert_with(|| Box::new(Doubts::new(at)))
    }

    fn forget_old_doubts(&mut self, at: Moment<'_>) {
        if self.doubts().is_some_and(|doubts| at.has_come(doubts.forgotten)) {
            self.troubles_mut().doubts = None;
        }
    }

    /// Whether it has to hear of every response that accepts a token, and not only of the
    /// first for each generation.
    pub(crate) fn listens(&self) -> bool {
        self.doubts().is_some()
    }

    /// A server has accepted the token of this generation on this route.
    pub(crate) fn accepted(
        &mut self,
        generation: Generation,
        route: Option<Route>,
        what: Accepted,
        at: Moment<'_>,
    ) {
        self.forget_old_doubts(at);
        if generation != self.credential.generation() {
            return;
        }
        let minted_here = self.minting != Minting::Elsewhere;
        let doubts = self.troubles.as_mut().and_then(|troubles| troubles.doubts.as_mut());
        let Some(doubts) = doubts else { return };
        let helped = match what {
            Accepted::Request => false,
            // What another process has refreshed may have ended our token for no need of ours.
            Accepted::HelpedReplay => minted_here,
            Accepted::Caller => doubts.presumed && doubts.by_caller,
        };
        doubts.accepted = generation;
        doubts.silence = None;
        doubts.note(route, |known| {
            known.accepted = generation;
            known.unreliable &= !helped;
        });
        if what == Accepted::HelpedReplay {
            doubts.silences = 0;
        }
        if helped {
            doubts.helped = generation;
            doubts.fruitless = 0;
            doubts.silences = 0;
            doubts.presumed = false;
            doubts.pause = at.after(Duration::ZERO);
        }
    }

    /// A replay was refused with the token of this generation. `before`: what is known of it from
    /// the time when nothing was in doubt.
    pub(crate) fn refused_again(
        &mut self,
        generation: Generation,
        before: Before,
        route: Option<Route>,
        at: Moment<'_>,
    ) {
        // What another process has refreshed need not be new.
        let minted_here = self.minting != Minting::Elsewhere;
        if before.helped || !minted_here || generation != self.credential.generation() {
            return;
        }
        let doubts = self.doubts_mut(at);
        if before.accepted {
            doubts.accepted = generation;
        }
        // Where the refresh has helped another replay, it is not to be blamed for this one.
        if doubts.refused < generation && doubts.helped < generation {
            doubts.refused = generation;
            if !std::mem::take(&mut doubts.presumed) {
                doubts.fruitless = doubts.fruitless.saturating_add(1);
            }
            doubts.pause_from(at);
        }
        if doubts.accepted < generation {
            let silence = doubled(doubts.silences);
            doubts.silence.get_or_insert((generation, at.after(silence)));
        }
        // A route that has accepted this very token says that it has ended since, if the refresh
        // has helped at all; otherwise it refuses some requests for a reason of their own.
        let has_helped = doubts.helped >= generation;
        doubts.note(route, |known| {
            known.unreliable |= known.accepted < generation || !has_helped;
        });
    }

    /// The flight that a doubt had started has refreshed nothing, so that it says nothing of the
    /// refusal: it has failed, which has a pause of its own, or it has found what another process
    /// has refreshed.
    pub(super) fn doubt_is_void(&mut self, at: Moment<'_>) {
        let doubts = self.troubles.as_mut().and_then(|troubles| troubles.doubts.as_mut());
        if let Some(doubts) = doubts.filter(|doubts| doubts.presumed) {
            doubts.presumed = false;
            doubts.fruitless = doubts.fruitless.saturating_sub(1);
            doubts.pause = at.after(Duration::ZERO);
        }
    }

    /// The token of this generation was helped by a refresh before anything was in doubt.
    pub(crate) fn helped_before(&mut self, generation: Generation) {
        if let Some(doubts) = self.troubles.as_mut().and_then(|troubles| troubles.doubts.as_mut()) {
            doubts.helped = doubts.helped.max(generation);
        }
    }

    /// The newest generation that was accepted while it was listened to.
    pub(crate) fn heard(&self) -> Generation {
        self.doubts().map_or(Generation::ZERO, |doubts| doubts.accepted)
    }

    /// What a challenge of the current token says. `accepted`: this token was accepted at
    /// some time before.
    pub(super) fn weigh(&mut self, accepted: bool, route: Option<Route>, at: Moment<'_>) -> Weight {
        let generation = self.credential.generation();
        let known_good =
            accepted || self.doubts().is_some_and(|doubts| doubts.accepted == generation);
        self.forget_old_doubts(at);
        if self.credential.has_run_out(at.time) {
            return Weight::Fact { brand_new: false };
        }
        if !known_good && self.doubts().is_none_or(|doubts| doubts.fruitless == 0) {
            return Weight::Fact { brand_new: true };
        }
        let doubts = self.doubts_mut(at);
        if known_good {
            doubts.accepted = generation;
        }
        doubts.forgotten = doubts.pause.max(at.after(MAX_PAUSE));
        doubts.silence = doubts.silence.filter(|(of, _)| *of == generation);
        let silent = doubts.silence.is_some_and(|(_, due)| at.has_come(due));
        let silence = doubled(doubts.silences);
        doubts.silence.get_or_insert((generation, at.after(silence)));
        let route = doubts.known(route);
        let unreliable = route.is_some_and(|route| route.unreliable);
        let changed = route.is_some_and(|route| route.accepted == generation);
        let hopeless = unreliable && route.is_some_and(|route| route.accepted == Generation::ZERO);
        let believed = silent && !hopeless;
        let fact = (known_good && changed && !unreliable) || believed;
        if believed {
            // Until the refresh has helped, the next silence has to be longer.
            doubts.silences = doubts.silences.saturating_add(1);
            doubts.silence = None;
        }
        if fact { Weight::Fact { brand_new: !known_good } } else { Weight::Doubt }
    }

    /// Why a doubt may not start a refresh now.
    pub(super) fn doubt_pauses(&self, at: Moment<'_>) -> Option<RefreshFailure> {
        let pause = self.doubts()?.pause;
        let pauses = !at.has_come(pause);
        pauses.then(|| RefreshFailure::new(FailureKind::Doubted).with_retry_at(pause))
    }

    /// A doubt starts a refresh. It is presumed not to help, because that may never be heard.
    pub(super) fn doubt_begins(&mut self, route: Option<Route>, at: Moment<'_>) {
        let doubts = self.doubts_mut(at);
        doubts.presumed = true;
        doubts.by_caller = route.is_none();
        doubts.fruitless = doubts.fruitless.saturating_add(1);
        doubts.pause_from(at);
    }
}

#[cfg(test)]
mod tests;
