//! Orders of events in which what is promised does not hold yet: each case fails, and is
//! therefore ignored. `cargo test -- --ignored` shows them.

use std::time::Duration;

use super::{Admission, Gate, Machine, Outcome, Route, Step, policy::offered, testing::*};
use crate::{
    refresher::RefreshError,
    state::failure::{FailureKind, RefreshFailure},
    store::Record,
};

fn route(number: u32) -> Option<Route> {
    Route::new(number)
}

/// Invariant 7: nobody hangs. A save meets tokens that were minted for another resource: they are
/// not used, the pair is discarded, and the waiters of the flight are told nothing.
#[test]
#[ignore = "does not hold yet"]
fn the_waiters_of_a_flight_hear_that_the_store_holds_tokens_for_another_resource() {
    let (mut machine, mut rules) = signed_in();
    rules.policy.minted_for = Some("a".to_owned());
    let Admission::Wait(ticket) = machine.refresh(rules.at(0)) else { panic!("nothing is wrong") };
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

/// The rules of the machine: "a request that is told to wait has one to wait for", and every
/// generation is published once. Tokens to begin with are being saved when the runtime goes away;
/// the save has worked, unheard. A first `refresh()` reads, adopts, and goes on to a lease, where
/// the pair that was left is taken up once more.
#[test]
#[ignore = "does not hold yet"]
fn a_first_refresh_after_an_aborted_save_that_had_worked_ends_well() {
    let (mut machine, rules) = (Machine::unread(true, Some(tokens(1))), Rules::default());
    assert!(matches!(machine.admit(rules.at(1)), Admission::Wait(_)));
    let _ = machine.effects();
    let _ = machine.advance(Outcome::Leased(None), rules.at(1));
    let save = machine.advance(Outcome::Loaded(Record::default()), rules.at(1));
    let Step::Save { record, .. } = save else { panic!("{save:?}") };
    machine.aborted();
    let _ = machine.effects();
    // In another runtime.
    assert!(machine.read(rules.at(5)).is_some());
    assert!(machine.effects().begin.is_some());
    let _ = machine.advance(Outcome::Loaded(record.clone()), rules.at(5));
    let Admission::Wait(ticket) = machine.refresh(rules.at(5)) else { panic!("it is under way") };
    let mut step = machine.advance(Outcome::Leased(None), rules.at(5));
    for _ in 0..10 {
        let outcome = match step {
            Step::Save { expected, .. } if expected != record.generation => Outcome::Conflict,
            Step::Save { .. } => Outcome::Saved,
            Step::Load => Outcome::Loaded(record.clone()),
            Step::Intend(_) => Outcome::Intended,
            Step::Redeem(_) => Outcome::Redeemed(tokens(2)),
            Step::Lease(_) => Outcome::Leased(None),
            Step::Land { .. } => break,
            step => panic!("{step:?}"),
        };
        step = machine.advance(outcome, rules.at(5));
    }
    assert!(matches!(step, Step::Land { .. }), "{step:?}");
    assert!(machine.resolve(ticket).is_some(), "it waits for a flight that has landed");
}

/// Invariant 9, the brake. A token that has run out passes it; should that refresh fail once, the
/// short pause of the failure takes the place of the brake.
#[test]
#[ignore = "does not hold yet"]
fn a_failure_does_not_end_the_brake() {
    let (mut machine, rules) = signed_in();
    let until = rules.at(LIFE + 50).after(Duration::ZERO);
    machine.troubles_mut().blocked_by =
        Some(RefreshFailure::new(FailureKind::Braked).with_retry_at(until));
    assert!(matches!(machine.admit(rules.at(LIFE)), Admission::Wait(_)));
    let _ = machine.effects();
    for outcome in [
        Outcome::Leased(None),
        Outcome::Loaded(stored()),
        Outcome::Intended,
        Outcome::Refused(RefreshError::transient("503")),
    ] {
        let _ = machine.advance(outcome, rules.at(LIFE));
    }
    let _ = machine.effects();
    assert!(matches!(machine.admit(rules.at(LIFE + 2)), Admission::Wait(_)));
    land(&mut machine, 2, rules.at(LIFE + 2));
    let fresh = machine.credential().generation();
    let refused = machine.challenge(fresh, false, None, rules.at(LIFE + 2));
    let Admission::Refuse(why) = refused else { panic!("braked for 48 s yet: {refused:?}") };
    assert_eq!(why.kind(), FailureKind::Braked);
}

/// A pause is for refreshes that do not help. A flight that has nothing to do with the doubt
/// (early, or a caller's) fails once, and the pause is gone: the refresh that the doubt has had
/// was not answered by a replay (an upload), and counts as void.
#[test]
#[ignore = "does not hold yet"]
fn the_failure_of_another_flight_does_not_end_the_pause_of_doubts() {
    let (mut machine, rules) = signed_in();
    let endless = Record::new(generation(5), tokens(5).without_expiry());
    machine.signed_in(&endless, 0, rules.at(0));
    let _ = machine.effects();
    let mut now = 1;
    for pause in [1, 2, 4, 8, 16, 32] {
        let current = machine.credential().generation();
        let doubt = machine.challenge(current, true, route(1), rules.at(now));
        assert!(matches!(doubt, Admission::Wait(_)), "{doubt:?}");
        land(&mut machine, 2, rules.at(now));
        now += pause;
    }
    // 32 s of pause have begun at `now - 32`, and the caller's refresh fails 5 s later.
    let now = now - 27;
    assert!(matches!(machine.refresh(rules.at(now)), Admission::Wait(_)));
    let _ = machine.effects();
    let stored = record(machine.stored.get());
    for outcome in [
        Outcome::Leased(None),
        Outcome::Loaded(stored),
        Outcome::Intended,
        Outcome::Refused(RefreshError::transient("503")),
    ] {
        let _ = machine.advance(outcome, rules.at(now));
    }
    let _ = machine.effects();
    let current = machine.credential().generation();
    let doubt = machine.challenge(current, true, route(1), rules.at(now + 2));
    let Admission::Refuse(why) = doubt else { panic!("25 s of the pause are left: {doubt:?}") };
    assert_eq!(why.kind(), FailureKind::Doubted);
}

/// The refresh token is dead, and `keep_fresh` looks for a sign-in elsewhere without holding
/// requests. A server refuses the token now, for certain: requests are to be held, and are not.
#[test]
#[ignore = "does not hold yet"]
fn a_fact_that_joins_a_look_into_the_store_closes_the_gate() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
    let _ = machine.advance(no, rules.at(0));
    let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
    let _ = machine.upkeep(rules.at(10));
    assert!(machine.in_flight().is_some());
    let refused = machine.credential().generation();
    assert!(matches!(machine.challenge(refused, false, None, rules.at(10)), Admission::Wait(_)));
    assert_eq!(machine.effects().gate, Gate::Closed);
}

/// Invariant 6: "re-read the store, adopt if it moved". The refresh token is dead and a server has
/// refused the access token; another process has put one that works into the store, which had
/// lost its record. It is passed over, as if ours were as good.
#[test]
#[ignore = "does not hold yet"]
fn what_another_process_has_offered_is_adopted_when_our_own_token_is_refused() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
    let _ = machine.advance(no, rules.at(0));
    let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
    let refused = machine.credential().generation();
    assert!(matches!(machine.challenge(refused, false, None, rules.at(10)), Admission::Wait(_)));
    let _ = machine.effects();
    let theirs = record(9).tokens.unwrap().without_refresh_token();
    let theirs = Record::new(generation(9000), offered(theirs));
    let _ = machine.advance(Outcome::Leased(None), rules.at(10));
    let _ = machine.advance(Outcome::Loaded(theirs), rules.at(10));
    assert_eq!(machine.credential().access_token(), Some("access-9"));
}
