//! Tests: the two clocks apart. A machine that sleeps stops the monotonic one; the wall clock
//! is set.

use std::time::Duration;

use super::{Admission, Moment, Outcome, Step, Upkeep, testing::*};
use crate::{
    refresher::{RefreshError, Trigger},
    state::failure::FailureKind,
    store::Record,
    time::Time,
    tokens::Generation,
};

const HOUR: u64 = 3600;

/// So many seconds after the beginning by the monotonic clock, and by the wall clock.
fn at(rules: &Rules, monotonic: u64, wall: i64) -> Moment<'_> {
    let (start, moved) = (rules.at(0).time, Duration::from_secs(wall.unsigned_abs()));
    let wall = if wall < 0 { start.wall - moved } else { start.wall + moved };
    Moment { time: Time { wall, ..rules.at(monotonic).time }, ..rules.at(0) }
}

#[test]
fn a_token_that_has_run_out_while_the_machine_slept_is_not_used() {
    let (mut machine, rules) = signed_in();
    assert!(matches!(machine.admit(at(&rules, 1, 1)), Admission::Proceed));
    assert!(matches!(machine.admit(at(&rules, 1, LIFE as i64)), Admission::Wait(_)));
    assert_eq!(machine.in_flight(), Some(Trigger::Expired));
}

#[test]
fn the_early_moment_comes_by_either_clock() {
    for moment in [(LIFE - 1, 0), (0, LIFE as i64 - 1)] {
        let (mut machine, rules) = signed_in();
        assert!(matches!(machine.admit(at(&rules, moment.0, moment.1)), Admission::Proceed));
        assert_eq!(machine.in_flight(), Some(Trigger::Early));
    }
}

#[test]
fn keep_fresh_names_a_moment_by_both_clocks() {
    let (mut machine, rules) = signed_in();
    let Upkeep::Until(due) = machine.upkeep(rules.at(0)) else { panic!("nothing is due") };
    assert!(!due.has_come(at(&rules, 1, 1).time));
    assert!(due.has_come(at(&rules, 1, LIFE as i64).time));
}

#[test]
fn pauses_are_over_by_either_clock() {
    for over in [(HOUR, 0), (0, HOUR as i64)] {
        // A server's `Retry-After`.
        let (mut machine, rules) = signed_in();
        redeeming(&mut machine, &rules);
        let busy = RefreshError::transient("503").with_retry_after(Duration::from_secs(HOUR));
        let _ = machine.advance(Outcome::Refused(busy), rules.at(0));
        let refused = machine.refresh(at(&rules, 50, 50));
        assert!(matches!(refused, Admission::Refuse(why) if why.kind() == FailureKind::Transient));
        assert!(matches!(machine.refresh(at(&rules, over.0, over.1)), Admission::Wait(_)));

        // The brake.
        let (mut machine, rules) = signed_in();
        for _ in 0..=rules.policy.brake_after {
            machine.minting = super::parts::Minting::BrandNew;
            let refused = machine.credential().generation();
            let _ = machine.challenge(refused, false, None, rules.at(0));
            machine.flight = None;
        }
        let refused = machine.refresh(at(&rules, 50, 50));
        assert!(matches!(refused, Admission::Refuse(why) if why.kind() == FailureKind::Braked));
        assert!(matches!(machine.refresh(at(&rules, over.0, over.1)), Admission::Wait(_)));

        // The distance of two looks at the store.
        let (mut machine, rules) = signed_in();
        machine.sign_out();
        machine.deleted(generation(2), machine.sign_outs());
        assert!(matches!(machine.token(rules.at(0)), Admission::Wait(_)));
        machine.flight = None;
        let _ = machine.effects();
        assert!(matches!(machine.token(rules.at(0)), Admission::Proceed));
        assert!(matches!(machine.token(at(&rules, over.0, over.1)), Admission::Wait(_)));
    }
}

/// Whichever way it is set, and back again.
#[test]
fn a_wall_clock_that_is_set_by_hours_costs_one_refresh_at_most() {
    for hours in [-5_i64, 5] {
        let (mut machine, rules) = signed_in();
        let moved = hours * HOUR as i64;
        let mut refreshes = 0;
        let mut number = 2;
        for (monotonic, wall) in [
            (1, 1),
            (2, moved + 2),
            (3, moved + 3),
            (4, moved + 4),
            // Set right.
            (5, 5),
            (6, 6),
        ] {
            let now = at(&rules, monotonic, wall);
            if let Admission::Wait(_) = machine.admit(now) {
                land(&mut machine, number, now);
                number += 1;
                refreshes += 1;
            }
            let used = machine.admit(now);
            assert!(matches!(used, Admission::Proceed), "its token is there");
            assert!(machine.in_flight().is_none());
        }
        assert!(refreshes <= 1, "{refreshes} refreshes");
        // By the monotonic clock its life goes on as it would have.
        assert!(matches!(machine.admit(at(&rules, LIFE + 10, 10)), Admission::Wait(_)));
    }
}

/// Tokens to begin with that have run out before the first use, whichever clock says so.
#[test]
fn tokens_to_begin_with_are_not_used_after_their_end() {
    for (monotonic, wall) in [(LIFE, LIFE), (LIFE, 0), (0, LIFE)] {
        let (mut machine, rules) = begun_with(tokens(1));
        let now = at(&rules, monotonic, wall as i64);
        let _ = machine.admit(now);
        let _ = machine.advance(Outcome::Leased(None), now);
        let save = machine.advance(Outcome::Loaded(Record::default()), now);
        let Step::Save { record, .. } = save else { panic!("{save:?}") };
        assert!(record.tokens.unwrap().expires_at().unwrap() <= now.time.wall);
        let _ = machine.advance(Outcome::Saved, now);
        assert!(!machine.credential().is_present(), "after {monotonic} s and {wall} s");
        assert!(machine.in_flight().is_some(), "it is redeemed");
    }
}

#[test]
fn a_life_counts_from_the_request_and_not_from_the_answer() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(30));
    let Step::Save { record, .. } = save else { panic!("{save:?}") };
    let _ = machine.advance(Outcome::Saved, rules.at(40));
    let end = rules.at(LIFE).time.wall;
    assert_eq!(record.tokens.unwrap().expires_at(), Some(end));
    assert_eq!(machine.credential().expires_at(), Some(end));
    assert_eq!(machine.credential().generation(), Generation::new(2));
}
