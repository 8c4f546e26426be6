//! What becomes of tokens that were minted: they are saved, however often that has to be
//! tried, and only then published; or they are discarded, because a sign-in, a sign-out or
//! another process came first.
//!
//! When the flight's runtime is shut down during a save, the pair waits in the machine for the
//! next flight. A sign-in or sign-out before that discards it ([`Effects`](super::Effects)).

use super::{
    flight::{Course, lost_record},
    landing::EMPTY_STORE,
    messages::{Landing, Outcome, Step},
    parts::{Minted, Minting, Origin, Redeem, Stage, Wanted},
    policy::WhileUnsaved,
};
use crate::{
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
    time::Time,
    tokens::{Generation, Tokens},
};

impl Minted {
    fn renumber(&mut self, generation: Generation) {
        self.record.generation = generation;
        self.credential = self.credential.renumbered(generation);
    }

    /// The record holds the refresh token that these tokens were minted from, and the server has
    /// replaced it.
    pub(super) fn has_spent(&self, record: &Record) -> bool {
        let refresh_token = |tokens: &Option<Tokens>| {
            tokens.as_ref().and_then(Tokens::refresh_token).map(str::to_owned)
        };
        let spent = refresh_token(&self.redeemed);
        self.origin == Origin::Refresh { rotated: true }
            && spent.is_some()
            && spent == refresh_token(&record.tokens)
    }

    /// Those that no request will use, to be revoked.
    pub(super) fn into_unused(self) -> Option<Tokens> {
        let tokens = self.record.tokens?;
        match self.origin {
            Origin::Refresh { rotated: true } => Some(tokens),
            // The refresh token is another one's to revoke: that of the sign-out.
            Origin::Refresh { rotated: false } => Some(tokens.without_refresh_token()),
            Origin::Seed | Origin::Offer => None,
        }
    }

    /// Its flight is gone; another one will save it.
    pub(super) fn inherited(self) -> Self {
        Self { failed_saves: 0, inherited: true, maybe_saved: true, ..self }
    }
}

impl Course<'_> {
    /// The store has nothing that does not give way, and the user has given tokens to begin with.
    pub(super) fn save_seed(self, (seed, begun): (Tokens, Time), over: Generation) -> Step {
        let run_out = seed.stated_end(begun).filter(|end| self.at.has_come(*end));
        let seed = match run_out {
            // By the one clock perhaps, and the store keeps the end by the other.
            Some(end) => seed.with_expires_at(end.wall.min(self.at.time.wall)),
            None => seed,
        };
        let minted = self.mint(over, seed, begun, Origin::Seed);
        self.save(minted)
    }

    /// The store has lost the tokens that are in use.
    pub(super) fn save_offered(self, tokens: Tokens) -> Step {
        let minted = self.mint(Generation::ZERO, tokens, self.at.time, Origin::Offer);
        self.save(minted)
    }

    /// The refresher's answer.
    pub(super) fn redeemed(self, tokens: Tokens, redeem: Redeem) -> Step {
        let tokens = tokens.without_reserved();
        let mut tokens = match &redeem.tokens {
            Some(redeemed) => tokens.or_keep(redeemed),
            None => tokens,
        };
        let spent = redeem.refresh_token();
        let rotated = spent.is_none() || spent != tokens.refresh_token();
        // A token that has run out the moment it was made tells of clocks that
        // disagree, not of its life: better to learn its end from a challenge.
        if tokens.stated_end(redeem.begun).is_none_or(|end| end.now <= self.at.now()) {
            tokens = tokens.without_expiry();
        }
        let origin = Origin::Refresh { rotated };
        let minted = self.mint(redeem.from, tokens, redeem.begun, origin);
        self.save(Minted { redeemed: redeem.tokens, ..minted })
    }

    /// Tokens as the next generation, to be saved over the stored one `expected`.
    fn mint(&self, expected: Generation, tokens: Tokens, begun: Time, origin: Origin) -> Minted {
        let machine = &self.machine;
        let known = machine.credential.generation().max(machine.stored).max(expected);
        let generation = machine.next_generation(known, expected, self.at.time);
        let end = match origin {
            // What has just been minted is as new as it gets, even if it is empty.
            Origin::Refresh { .. } => tokens.stated_end(begun),
            Origin::Seed | Origin::Offer => tokens.end(begun),
        };
        let mut tokens = self.at.policy.stamp(tokens);
        if machine.shared {
            tokens = origin.mark(tokens);
        }
        Minted {
            expected,
            credential: self.at.credential(generation, &tokens, end, begun),
            record: Record::new(generation, tokens.absolute(begun)),
            origin,
            redeemed: None,
            failed_saves: 0,
            served: false,
            inherited: false,
            lease_retaken: false,
            maybe_saved: false,
        }
    }

    /// Saves, or saves again; even what was superseded by now. The store's
    /// compare-and-swap is the fence there, and the record must not be left with a
    /// token that is spent.
    pub(super) fn save(self, minted: Minted) -> Step {
        let step = match self.flight.leased {
            true => Step::Save { expected: minted.expected, record: minted.record.clone() },
            // Another process took it over; what is newer than ours may be there.
            false => Step::Lease(minted.expected),
        };
        self.go(Stage::Saving(minted), step)
    }

    /// What came of a step on the way into the store.
    pub(super) fn save_ended(mut self, mut minted: Minted, outcome: Outcome) -> Step {
        match outcome {
            Outcome::Saved => {
                // A store may have given it back in the same step: a flight that goes on takes it
                // anew.
                self.flight.lost_lease();
                self.saved(minted)
            }
            // A pause is over.
            Outcome::Done => self.save(minted),
            Outcome::Conflict => self.go(Stage::Verifying(minted), Step::Load),
            Outcome::Loaded(record) | Outcome::Newer(record) => self.verified(minted, record),
            Outcome::Leased(found) => {
                self.flight.took_lease(found);
                self.save(minted)
            }
            Outcome::LeaseLost => {
                self.flight.lost_lease();
                // It is taken anew, once without a pause.
                if std::mem::replace(&mut minted.lease_retaken, true) {
                    return self.save_failed(minted, Outcome::LeaseLost);
                }
                self.save(minted)
            }
            outcome => self.save_failed(minted, outcome),
        }
    }

    fn saved(mut self, minted: Minted) -> Step {
        self.machine.stored = self.machine.stored.max(minted.record.generation);
        if self.is_superseded() {
            return self.discard(minted);
        }
        self.machine.seed = None;
        let run_out = minted.credential.has_run_out(self.at.time);
        if minted.origin == Origin::Seed && run_out {
            // Known to the store now, and of no use but to be redeemed.
            self.flight.record_is_new = true;
            return self.loaded(minted.record);
        }
        if minted.served && minted.inherited {
            // Its token was in use already: the request that began this flight waits for
            // the token after it.
            let known = self.machine.stored;
            return self.go(Stage::Leasing, Step::Lease(known));
        }
        if minted.origin == Origin::Offer {
            // For this process's requests it is the same token, so nothing is published.
            return self.fail(lost_record(), None);
        }
        if !minted.served {
            self.serve(&minted);
        }
        self.machine.recovered();
        if let Some(troubles) = &mut self.machine.troubles {
            troubles.doubted_over = None;
        }
        match minted.origin {
            Origin::Seed => self.refresh_or_finish(),
            _ => self.finish_or_relaunch(),
        }
    }

    fn serve(&mut self, minted: &Minted) {
        let is_refresh = matches!(minted.origin, Origin::Refresh { .. });
        self.machine.publish(minted.credential.clone());
        self.flight.landing = match minted.origin {
            Origin::Refresh { .. } => Landing::Renewed,
            Origin::Seed => Landing::Read,
            Origin::Offer => Landing::Nothing,
        };
        self.machine.minting = if is_refresh { Minting::BrandNew } else { Minting::Elsewhere };
        self.machine.refreshes = self.machine.refreshes.saturating_add(is_refresh.into());
    }

    fn save_failed(mut self, mut minted: Minted, outcome: Outcome) -> Step {
        if minted.origin == Origin::Offer {
            // Nothing is lost that the store had not lost before.
            return self.fail(outcome.into_failure(FailureKind::Store), None);
        }
        minted.failed_saves = minted.failed_saves.saturating_add(1);
        minted.maybe_saved |= matches!(outcome, Outcome::Failed(_));
        if minted.failed_saves == 1 && !self.is_superseded() {
            let failure = outcome.into_failure(FailureKind::Unsaved);
            if self.at.policy.while_unsaved == WhileUnsaved::Serve && !minted.served {
                self.serve(&minted);
                minted.served = true;
                self.flight.base = self.machine.credential.generation();
            }
            self.machine.tell_waiters(failure);
        }
        let wait = self.at.policy.backoff(minted.failed_saves, self.at.jitter);
        let generation = self.machine.credential.generation();
        self.go(Stage::Saving(minted), Step::Pause { wait, generation })
    }

    /// The save met a conflict, or the lease is another process's; this is what the store
    /// holds.
    pub(super) fn verified(mut self, mut minted: Minted, record: Record) -> Step {
        if record.is_same(&minted.record) {
            // An earlier try had worked, though it was reported as failed.
            return self.saved(minted);
        }
        if minted.has_spent(&record) {
            // A sign-in with the refresh token that was being spent: it is of the same session.
            if record.generation == self.machine.stored && !self.machine.signing_out {
                self.flight.base = self.machine.credential.generation();
            }
            return self.save_over(minted, &record);
        }
        if self.is_superseded() && self.machine.stored > minted.expected {
            return self.discard_for(minted, &record);
        }
        if minted.origin.outranks(&record) {
            // The store has lost what was there, and another process has put there what it had.
            return self.save_over(minted, &record);
        }
        // A sign-out of what was gone has taken its number from a clock, which may be behind.
        let is_gone = record.tokens.is_none()
            && record.generation <= minted.expected
            && minted.expected > Generation::ZERO;
        if is_gone && self.at.policy.absent_ends {
            return self.ended_meanwhile(minted);
        }
        if record.generation <= minted.expected {
            // The store went back (it lost data): ours is the newer.
            minted.expected = record.generation;
            return self.save_failed(minted, Outcome::Conflict);
        }
        if self.keeps_own(&record) {
            return self.fail(lost_record(), None);
        }
        if let Some(failure) = self.for_another(&record) {
            self.cool_down(failure, None);
        } else if !self.is_superseded() {
            self.doubt_is_void();
            if self.is_usable(&record) {
                self.machine.publish_record(&record, self.at);
                self.flight.landing = Landing::Adopted;
                self.machine.recovered();
            } else {
                // It is redeemed next. The waiters wait on.
                let wanted = Wanted { refused: false, ..self.flight.wanted };
                self.flight.relaunch = Some(wanted);
            }
        }
        if record.has_tokens_of(&minted.record) {
            // A server with a grace period gave another process the same: they are in use.
            return self.finish_or_relaunch();
        }
        self.discard_for(minted, &record)
    }

    /// The store holds this record instead. It may have been minted from these tokens, after a save of
    /// them that was not heard of: then to revoke them would end the session that it is of.
    fn discard_for(self, minted: Minted, record: &Record) -> Step {
        // The same refresh token may be in use there; and a server may end the session by its access
        // token, too (oidc-provider 9.13.3 does).
        let is_of_same = minted.origin == Origin::Refresh { rotated: false };
        if record.tokens.is_some() && (minted.maybe_saved || is_of_same) {
            return self.finish_or_relaunch();
        }
        self.discard(minted)
    }

    /// The record was the session, and it is gone: it has run out, or was removed. A save would bring
    /// the session back.
    fn ended_meanwhile(self, minted: Minted) -> Step {
        if !self.is_superseded() {
            let next = self.machine.credential.generation().next();
            self.machine.publish_absent(next);
            self.machine.tell_waiters(RefreshFailure::signed_out().with_code(EMPTY_STORE));
        }
        self.discard(minted)
    }

    /// These tokens take the place of that record.
    fn save_over(self, mut minted: Minted, record: &Record) -> Step {
        let number = minted.record.generation;
        let next = self.machine.next_generation(number, record.generation, self.at.time);
        minted.renumber(next.max(record.generation.next()));
        minted.expected = record.generation;
        self.save(minted)
    }

    fn discard(mut self, minted: Minted) -> Step {
        if self.flight.landing == Landing::Renewed {
            self.flight.landing = Landing::Superseded;
        }
        match minted.into_unused() {
            Some(tokens) => self.go(Stage::Discarding, Step::Discard(tokens)),
            None => self.finish_or_relaunch(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, testing::*};
    use super::*;

    #[test]
    fn tokens_are_saved_before_they_are_published() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        assert!(matches!(save, Step::Save { expected, .. } if expected == stored().generation));
        assert!(machine.effects().publish.is_none());
        let landed = machine.advance(Outcome::Saved, rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
        let published = machine.effects().publish.expect("they are stored");
        assert_eq!(published.access_token(), Some("access-2"));
    }

    #[test]
    fn an_empty_refresh_token_in_an_answer_does_not_replace_the_one_that_is_kept() {
        for answer in [Tokens::new("access-2"), Tokens::new("access-2").with_refresh_token(" ")] {
            let (mut machine, rules) = signed_in();
            redeeming(&mut machine, &rules);
            let save = machine.advance(Outcome::Redeemed(answer), rules.at(0));
            let Step::Save { record, .. } = save else { panic!("{save:?}") };
            assert_eq!(record.tokens.unwrap().refresh_token(), Some("refresh-1"));
        }
    }

    #[test]
    fn a_save_that_fails_is_tried_again_with_the_same_tokens() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let pause = machine.advance(Outcome::failed("disk full"), rules.at(0));
        assert!(matches!(pause, Step::Pause { .. }));
        assert!(machine.effects().wake, "the waiters hear that it takes time");
        let again = machine.advance(Outcome::Done, rules.at(1));
        assert!(matches!(again, Step::Save { record, .. } if record.tokens == record_of(2)));
    }

    #[test]
    fn a_save_that_had_worked_unheard_is_found_by_reading() {
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let Step::Save { record, .. } = save else { panic!("{save:?}") };
        let load = machine.advance(Outcome::Conflict, rules.at(0));
        assert!(matches!(load, Step::Load));
        let landed = machine.advance(Outcome::Loaded(record), rules.at(0));
        assert!(matches!(landed, Step::Land { .. }));
        assert_eq!(machine.credential().access_token(), Some("access-2"));
    }

    #[test]
    fn of_what_another_process_came_before_what_was_not_rotated_is_spared() {
        for (minted, discarded) in
            [(tokens(2), Some(tokens(2))), (tokens(2).with_refresh_token("refresh-1"), None)]
        {
            let (mut machine, rules) = signed_in();
            redeeming(&mut machine, &rules);
            let _ = machine.advance(Outcome::Redeemed(minted), rules.at(0));
            let _ = machine.advance(Outcome::Conflict, rules.at(0));
            let next = machine.advance(Outcome::Loaded(record(9)), rules.at(0));
            let tokens = match next {
                Step::Discard(tokens) => Some(tokens),
                Step::Land { .. } => None,
                step => panic!("{step:?}"),
            };
            assert_eq!(tokens, discarded.map(|tokens| tokens.absolute(rules.at(0).time)));
            assert_eq!(machine.credential().access_token(), Some("access-9"));
        }
    }

    /// The save had worked, its answer was lost, and another process has redeemed what it has written.
    /// Servers end a whole session when a refresh token is revoked, a spent one too (RFC 7009, section
    /// 2.1).
    #[test]
    fn what_may_have_been_saved_and_redeemed_by_another_process_is_not_revoked() {
        for lost in [Outcome::Conflict, Outcome::LeaseLost] {
            let (mut machine, rules) = signed_in();
            redeeming(&mut machine, &rules);
            let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
            let _ = machine.advance(Outcome::failed("no answer"), rules.at(0));
            let _ = machine.advance(Outcome::Done, rules.at(1));
            let next = machine.advance(lost, rules.at(1));
            let found = match next {
                Step::Load => Outcome::Loaded(record(9)),
                _ => Outcome::Newer(record(9)),
            };
            let landed = machine.advance(found, rules.at(1));
            assert!(matches!(landed, Step::Land { .. }), "{landed:?}");
            assert_eq!(machine.credential().access_token(), Some("access-9"));
        }
        // After a sign-out nothing is in use.
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let _ = machine.advance(Outcome::failed("no answer"), rules.at(0));
        let _ = machine.advance(Outcome::Done, rules.at(1));
        let _ = machine.advance(Outcome::Conflict, rules.at(1));
        let out = Record::new(generation(9), None);
        let discard = machine.advance(Outcome::Loaded(out), rules.at(1));
        assert!(matches!(discard, Step::Discard(_)), "{discard:?}");
    }

    /// Invariant 7: no waiter hangs. A save meets tokens that were minted for another resource: they
    /// are not used, the pair is discarded, and the waiters of the flight hear why.
    #[test]
    fn the_waiters_of_a_flight_hear_that_the_store_holds_tokens_for_another_resource() {
        let (mut machine, mut rules) = signed_in();
        rules.policy.minted_for = Some("a".to_owned());
        let Admission::Wait(ticket) = machine.refresh(rules.at(0)) else {
            panic!("nothing is wrong")
        };
        for outcome in [Outcome::Leased(None), Outcome::Loaded(stored()), Outcome::Intended] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
        let _ = machine.advance(Outcome::Conflict, rules.at(0));
        let mut theirs = Rules::default();
        theirs.policy.minted_for = Some("b".to_owned());
        let theirs = Record::new(generation(9), theirs.policy.stamp(tokens(9)));
        let mut step = machine.advance(Outcome::Loaded(theirs), rules.at(0));
        if let Step::Discard(_) = step {
            step = machine.advance(Outcome::Done, rules.at(0));
        }
        assert!(matches!(step, Step::Land { .. }), "{step:?}");
        assert!(machine.in_flight().is_none());
        assert!(machine.resolve(ticket).is_some(), "it waits for a flight that has landed");
    }
}
