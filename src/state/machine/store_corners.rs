//! Orders of events in which the store and other processes take part: each was got wrong once.

use super::{Admission, Gate, Machine, Moment, Outcome, Step, parts::Origin, testing::*};
use crate::store::Record;

/// Drives the flight until it has landed: the store holds `held`. Returns the steps' names.
fn ends(machine: &mut Machine, mut step: Step, held: &Record, at: Moment<'_>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for _ in 0..30 {
        names.push(step.name());
        let outcome = match step {
            Step::Land { .. } => break,
            Step::Lease(_) => Outcome::Leased(None),
            Step::Load => Outcome::Loaded(held.clone()),
            Step::Intend(_) => Outcome::Intended,
            Step::Redeem(_) => Outcome::Redeemed(tokens(77)),
            Step::Save { expected, .. } if expected != held.generation => Outcome::Conflict,
            Step::Save { .. } => Outcome::Saved,
            Step::Pause { .. } | Step::Yield { .. } | Step::Discard(_) => Outcome::Done,
        };
        step = machine.advance(outcome, at);
    }
    names
}

/// Invariant 6: an empty store does not displace "an access token that still works". The store
/// has lost its record, and this machine's offer meets another process's offer: that is taken
/// over (`verified`), although a flight that had found it by reading (`loaded`) passes it over.
#[test]
fn an_offer_that_meets_another_offer_does_not_displace_our_token() {
    let (mut machine, rules) = signed_in();
    begin(&mut machine, &rules);
    let _ = machine.advance(Outcome::Leased(None), rules.at(0));
    let save = machine.advance(Outcome::Loaded(Record::default()), rules.at(0));
    assert!(matches!(save, Step::Save { .. }), "{save:?}");
    // Another process's, which is older: a server that ends the old access token with a redeem
    // refuses it.
    let theirs = record(9).tokens.unwrap().without_refresh_token();
    let theirs = Record::new(generation(9000), Origin::Offer.mark(theirs));
    let _ = machine.advance(Outcome::Conflict, rules.at(0));
    let _ = machine.advance(Outcome::Loaded(theirs), rules.at(0));
    assert_eq!(machine.credential().access_token(), Some("access-1"));
}

/// Invariant 6 and 16: what a server refused is the sign-in before the last one. A challenge
/// has a flight follow the superseded one; the second sign-in makes that needless, but the flight
/// begins all the same, holds the requests, and counts the newest token as refused.
#[test]
fn a_second_sign_in_during_a_superseded_flight_needs_no_other_flight() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    machine.signed_in(&record(5), 0, rules.at(0));
    let refused = machine.credential().generation();
    assert!(matches!(machine.challenge(refused, false, None, rules.at(0)), Admission::Wait(_)));
    machine.signed_in(&record(9), 0, rules.at(0));
    let _ = machine.effects();
    let _ = machine.advance(Outcome::Panicked, rules.at(0));
    assert_eq!(machine.credential().access_token(), Some("access-9"));
    assert_eq!(machine.effects().gate, Gate::Open, "nobody has refused access-9");
    assert!(machine.in_flight().is_none(), "nobody has asked for its refresh");
}

/// The same, and the store has lost its record meanwhile: access-9, which works, is taken away.
#[test]
fn an_empty_store_leaves_the_token_of_a_second_sign_in() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    machine.signed_in(&record(5), 0, rules.at(0));
    let refused = machine.credential().generation();
    let _ = machine.challenge(refused, false, None, rules.at(0));
    machine.signed_in(&record(9), 0, rules.at(0));
    let step = machine.advance(Outcome::Panicked, rules.at(0));
    let _ = ends(&mut machine, step, &Record::default(), rules.at(0));
    assert_eq!(machine.credential().access_token(), Some("access-9"));
}

/// `Tokens::new`: "begins with its refresh token, which is redeemed before the first request is
/// sent." A first `refresh()` finds the store empty and saves its tokens to begin with; another
/// process was first with the same. They are published as they are, and the caller is given them
/// as if they were fresh.
#[test]
fn a_first_refresh_whose_tokens_to_begin_with_meet_the_same_of_another_process_redeems() {
    let seed = begins_with(1).tokens.unwrap();
    let (mut machine, rules) = begun_with(seed);
    assert!(machine.read(rules.at(1)).is_some());
    let step = machine.effects().begin.unwrap().step;
    assert!(matches!(step, Step::Load), "{step:?}");
    let step = machine.advance(Outcome::Loaded(Record::default()), rules.at(1));
    let theirs = begins_with(1).tokens.unwrap();
    let theirs = Record::new(generation(500), Origin::Seed.mark(theirs));
    let names = ends(&mut machine, step, &theirs, rules.at(2));
    assert!(names.contains(&"redeem"), "{names:?}");
}

/// Invariant 7 and `token`: "The token to use now". A redeem is under way, and another process signs in
/// with a refresh token alone. What is found by reading (`loaded`) is redeemed; what a save meets
/// (`verified`) is published though it has run out, and the waiters get it.
#[test]
fn what_a_save_meets_is_redeemed_if_it_has_run_out() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    let names = ends(&mut machine, save, &begins_with(9), rules.at(0));
    assert!(names.contains(&"redeem"), "{names:?}");
}

/// Invariant 5: "a signed-out credential is never resurrected." A redeem is under way; the
/// sign-out is over, the store has deleted its tokens, and then loses the trace of that. The
/// flight puts the pair of the session that has ended into the empty store, and nothing
/// deletes it there.
#[test]
fn what_a_sign_out_has_superseded_is_not_put_into_a_store_that_was_emptied_after_it() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let number = machine.sign_out();
    machine.deleted(generation(2), number);
    let mut step = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    let mut held = Record::new(generation(2), None);
    // The first save meets what the sign-out has left; then the store loses that.
    for _ in 0..20 {
        let outcome = match step {
            Step::Land { .. } => return,
            Step::Save { ref record, expected } if expected == held.generation => {
                panic!("saved after the sign-out: {record:?}")
            }
            Step::Save { .. } => {
                held = Record::default();
                Outcome::Conflict
            }
            Step::Load => Outcome::Loaded(held.clone()),
            Step::Lease(_) => Outcome::Leased(None),
            Step::Pause { .. } | Step::Discard(_) => Outcome::Done,
            step => panic!("{step:?}"),
        };
        step = machine.advance(outcome, rules.at(0));
    }
    panic!("it does not end");
}

/// Invariant 5, the same with a sign-in: its record is lost, and the pair that it has superseded
/// takes its place, and is handed to the discard hook besides. The next flight redeems that pair:
/// the session that was left is back, by tokens that were just revoked.
#[test]
fn what_a_sign_in_has_superseded_is_not_redeemed_after_the_store_was_emptied() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    machine.signed_in(&record(5), 0, rules.at(0));
    let mut step = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    // The store was emptied.
    let mut held = Record::default();
    for _ in 0..20 {
        let outcome = match step {
            Step::Land { .. } => break,
            Step::Save { expected, record } if expected == held.generation => {
                held = record;
                Outcome::Saved
            }
            Step::Save { .. } => Outcome::Conflict,
            Step::Load => Outcome::Loaded(held.clone()),
            Step::Lease(_) => Outcome::Leased(None),
            Step::Pause { .. } | Step::Discard(_) => Outcome::Done,
            step => panic!("{step:?}"),
        };
        step = machine.advance(outcome, rules.at(0));
    }
    assert!(machine.in_flight().is_none());
    begin(&mut machine, &rules);
    let _ = machine.advance(Outcome::Leased(None), rules.at(0));
    let next = machine.advance(Outcome::Loaded(held), rules.at(0));
    assert!(!matches!(next, Step::Intend(_)), "refresh-2, which was discarded");
}

/// `Origin::outranks`: an access token without a refresh token gives way "to all others". A seed
/// that meets an offer in a conflict takes its place (`verified`); one that finds it by reading
/// (`loaded`) does not, and the refresh token to begin with is never used.
#[test]
fn tokens_to_begin_with_take_the_place_of_an_offer_that_is_found_by_reading() {
    let (mut machine, rules) = begun_with(tokens(1));
    let _ = machine.admit(rules.at(0));
    let _ = machine.effects();
    let theirs = record(9).tokens.unwrap().without_refresh_token();
    let theirs = Record::new(generation(9000), Origin::Offer.mark(theirs));
    let _ = machine.advance(Outcome::Leased(None), rules.at(0));
    let mut step = machine.advance(Outcome::Loaded(theirs.clone()), rules.at(0));
    if let Step::Land { .. } = step {
        // It is used to its end; and then?
        assert!(matches!(machine.admit(rules.at(LIFE)), Admission::Wait(_)));
        let _ = machine.effects();
        let _ = machine.advance(Outcome::Leased(None), rules.at(LIFE));
        step = machine.advance(Outcome::Loaded(theirs), rules.at(LIFE));
    }
    let Step::Save { record, .. } = &step else {
        panic!("it asks without a refresh token: {step:?}")
    };
    assert_eq!(record.tokens.as_ref().unwrap().refresh_token(), Some("refresh-1"));
}
