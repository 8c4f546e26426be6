//! Orders of events that are easily got wrong: each was once.

use std::{num::NonZeroU32, time::Duration};

use super::{Accepted, Admission, Gate, Machine, Moment, Outcome, Route, Step, testing::*};
use crate::{
    refresher::{RefreshError, Trigger},
    state::failure::FailureKind,
    store::Record,
    time::Time,
};

fn route(number: u32) -> Option<Route> {
    NonZeroU32::new(number)
}

/// A record of tokens without an end.
fn endless(number: u64) -> Record {
    Record::new(generation(number), tokens(number).without_expiry())
}

fn braked(machine: &mut Machine, until: Moment<'_>) {
    machine.troubles_mut().brake = Some(until.after(Duration::ZERO));
}

/// Invariant 9: "It never keeps a token from being refreshed that has run out by its own
/// expiry." `refresh()` is refused although the token has run out.
#[test]
fn the_brake_does_not_keep_refresh_from_a_token_that_has_run_out() {
    let (mut machine, rules) = signed_in();
    braked(&mut machine, rules.at(999));
    assert!(matches!(machine.clone().admit(rules.at(LIFE)), Admission::Wait(_)), "a request may");
    let asked = machine.refresh(rules.at(LIFE));
    assert!(matches!(asked, Admission::Wait(_)), "{asked:?}");
}

/// Invariant 9: "too many refreshes in a window and the state cools down." The refresh of a
/// token that has run out passes the brake, and also lifts it for those that it was made for.
#[test]
fn the_refresh_of_a_token_that_has_run_out_does_not_end_the_brake() {
    let (mut machine, rules) = signed_in();
    braked(&mut machine, rules.at(LIFE + 50));
    assert!(matches!(machine.admit(rules.at(LIFE)), Admission::Wait(_)));
    land(&mut machine, 2, rules.at(LIFE));
    let fresh = machine.credential().generation();
    // The server refuses brand-new tokens, still.
    let refused = machine.challenge(fresh, false, None, rules.at(LIFE));
    let Admission::Refuse(why) = refused else { panic!("braked until 50 s later: {refused:?}") };
    assert_eq!(why.kind(), FailureKind::Braked);
}

/// Invariant 7: every waiter gets its flight's outcome. A strike that brakes tells the waiters
/// of a flight that is under way, and that succeeds.
#[test]
fn the_brake_says_nothing_to_the_waiters_of_a_flight_that_goes_on() {
    let (mut machine, mut rules) = signed_in();
    rules.policy.brake_after = 0;
    machine.minting = super::parts::Minting::BrandNew;
    let Admission::Wait(ticket) = machine.refresh(rules.at(0)) else { panic!("nothing is wrong") };
    let generation = machine.credential().generation();
    let _ = machine.challenge(generation, false, None, rules.at(0));
    assert!(machine.in_flight().is_some(), "it goes on");
    let told = machine.resolve(ticket);
    assert!(told.is_none(), "{told:?}");
}

/// Invariant 16: a doubt "never makes requests wait whose token others accept". One that comes
/// while a superseded flight is in the air begins a flight that closes the gate.
#[test]
fn a_doubt_after_a_superseded_flight_holds_no_request() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    machine.signed_in(&endless(5), 0, rules.at(0));
    let signed_in = machine.credential().generation();
    let doubt = machine.challenge(signed_in, true, route(1), rules.at(1));
    assert!(matches!(doubt, Admission::Wait(_)));
    // The old flight fails, and the next one begins under its lease.
    let _ = machine.advance(Outcome::Panicked, rules.at(1));
    assert!(machine.in_flight().is_some());
    assert_eq!(machine.effects().gate, Gate::Open, "its token is accepted by others");
}

/// The same, while the refresh token is known to be dead and only another process can help:
/// the look into the store closes the gate.
#[test]
fn a_doubt_of_a_token_whose_refresh_token_is_dead_holds_no_request() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let no = Outcome::Refused(RefreshError::rejected("invalid_grant"));
    let _ = machine.advance(no, rules.at(0));
    let _ = machine.advance(Outcome::Loaded(stored()), rules.at(0));
    let generation = machine.credential().generation();
    let doubt = machine.challenge(generation, true, route(1), rules.at(10));
    assert!(matches!(doubt, Admission::Wait(_)));
    assert_eq!(machine.effects().gate, Gate::Open, "its token is accepted by others");
}

/// Invariant 6: "Neither a failed early refresh nor an empty store displaces an access token
/// that still works." `keep_fresh` looks for a sign-in elsewhere while the token works, and
/// holds the requests.
#[test]
fn keep_fresh_looks_for_a_sign_in_without_holding_requests_whose_token_works() {
    let (mut machine, rules) = signed_in();
    machine.admit(rules.at(LIFE - 10));
    assert!(machine.effects().begin.is_some(), "an early refresh");
    for outcome in [
        Outcome::Leased(None),
        Outcome::Loaded(stored()),
        Outcome::Intended,
        Outcome::Refused(RefreshError::rejected("invalid_grant")),
        Outcome::Loaded(stored()),
    ] {
        let _ = machine.advance(outcome, rules.at(LIFE - 10));
    }
    let _ = machine.effects();
    assert!(matches!(machine.admit(rules.at(LIFE - 8)), Admission::Proceed));
    let _ = machine.upkeep(rules.at(LIFE - 8));
    assert!(machine.in_flight().is_some(), "it looks");
    assert_eq!(machine.effects().gate, Gate::Open);
    assert!(matches!(machine.admit(rules.at(LIFE - 8)), Admission::Proceed));
}

/// Invariant 6, the empty store. A caller's `refresh()` says nothing against the token, and one
/// that joins a flight which nothing speaks against either (early, or doubtful) takes the token
/// away.
#[test]
fn an_empty_store_leaves_a_token_that_works_also_if_refresh_joins_an_early_flight() {
    for trigger in [Trigger::Early, Trigger::Challenge] {
        let (mut machine, rules) = signed_in();
        match trigger {
            Trigger::Early => drop(machine.admit(rules.at(LIFE - 1))),
            _ => {
                let generation = machine.credential().generation();
                let _ = machine.challenge(generation, true, route(1), rules.at(LIFE - 1));
            }
        }
        assert_eq!(machine.in_flight(), Some(trigger));
        assert!(matches!(machine.refresh(rules.at(LIFE - 1)), Admission::Wait(_)));
        let _ = machine.advance(Outcome::Leased(None), rules.at(LIFE - 1));
        let step = machine.advance(Outcome::Loaded(Record::default()), rules.at(LIFE - 1));
        assert!(machine.credential().is_present(), "{trigger}: it still works");
        assert!(matches!(step, Step::Save { .. }), "{trigger}: {step:?}");
    }
}

/// The same after a sign-in that has superseded a flight: `refresh()` relaunches as if a server
/// had refused the token.
#[test]
fn an_empty_store_leaves_a_token_that_works_also_after_a_superseded_flight() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    machine.signed_in(&record(5), 0, rules.at(0));
    assert!(matches!(machine.refresh(rules.at(1)), Admission::Wait(_)));
    let _ = machine.advance(Outcome::Panicked, rules.at(1));
    assert!(machine.in_flight().is_some());
    let _ = machine.advance(Outcome::Loaded(Record::default()), rules.at(1));
    assert!(machine.credential().is_present());
}

/// "It never loses a rotated refresh token." The store loses its data while a redeem is under
/// way; another process offers its access token; the pair that was minted is given up for it.
#[test]
fn an_offer_of_another_process_does_not_win_over_a_minted_pair() {
    let (mut machine, rules) = signed_in();
    redeeming(&mut machine, &rules);
    let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    assert!(matches!(save, Step::Save { .. }));
    // By now the store was emptied, and this was put there.
    let offered = Record::new(
        generation(1_800_000_000_000),
        super::parts::Origin::Offer.mark(record(1).tokens.unwrap().without_refresh_token()),
    );
    let _ = machine.advance(Outcome::Conflict, rules.at(0));
    let next = machine.advance(Outcome::Loaded(offered), rules.at(0));
    assert!(!matches!(next, Step::Discard(_)), "the only refresh token there is: {next:?}");
}

/// `Refresher::minted_for`: "a state whose refresher names another one does not use the record's
/// tokens". It does if it meets them in a conflict.
#[test]
fn tokens_that_were_minted_for_another_resource_are_not_used_after_a_conflict() {
    let (mut machine, mut rules) = signed_in();
    rules.policy.minted_for = Some("a".to_owned());
    redeeming(&mut machine, &rules);
    let _ = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    let _ = machine.advance(Outcome::Conflict, rules.at(0));
    let mut theirs = Rules::default();
    theirs.policy.minted_for = Some("b".to_owned());
    let theirs = theirs.policy.stamp(tokens(9));
    let _ = machine.advance(Outcome::Loaded(Record::new(generation(9), theirs)), rules.at(0));
    assert_ne!(machine.credential().access_token(), Some("access-9"));
}

/// "The record says what it was minted for." A refresher that does not say it keeps what the
/// spent tokens said.
#[test]
fn what_tokens_were_minted_for_is_not_kept_from_those_that_were_spent() {
    let (mut machine, mut rules) = signed_in();
    rules.policy.minted_for = Some("b".to_owned());
    let stored = Record::new(stored().generation, rules.policy.stamp(tokens(1)));
    rules.policy.minted_for = None;
    begin(&mut machine, &rules);
    for outcome in [Outcome::Leased(None), Outcome::Loaded(stored), Outcome::Intended] {
        let _ = machine.advance(outcome, rules.at(0));
    }
    let save = machine.advance(Outcome::Redeemed(tokens(2)), rules.at(0));
    let Step::Save { record, .. } = save else { panic!("{save:?}") };
    let said: Vec<_> = record.tokens.as_ref().unwrap().extras().collect();
    assert_eq!(said, [], "nobody knows what these were minted for");
}

/// Invariant 17 and `set`: "stores these tokens and uses them from then on". After an offer the
/// store's number is ahead of the credential's; should the store lose it again, and the wall
/// clock be set back, the number of a sign-in is smaller, and the sign-in is passed over.
#[test]
fn a_sign_in_after_an_offer_and_a_clock_that_was_set_back_counts() {
    let (mut machine, rules) = signed_in();
    let at = |wall: u64| {
        let time = Time { now: rules.at(1).time.now, wall: rules.at(wall).time.wall };
        Moment { time, ..rules.at(0) }
    };
    assert!(matches!(machine.refresh(at(50)), Admission::Wait(_)));
    let _ = machine.advance(Outcome::Leased(None), at(50));
    let _ = machine.advance(Outcome::Loaded(Record::default()), at(50));
    let _ = machine.advance(Outcome::Saved, at(50));
    // As `RefreshState::set` does over a store that is empty.
    let held = Record::default();
    let known = machine.credential().generation().max(held.generation);
    let number = machine.next_generation(known, held.generation, at(20).time);
    let record = Record::new(number, tokens(7));
    machine.signed_in(&record, machine.sign_outs(), at(20));
    assert_eq!(machine.credential().access_token(), Some("access-7"));
}

/// Invariant 16: "A challenge for a token that has been accepted since it was published [...] is
/// a doubt", when a replay was refused in between.
#[test]
fn what_was_accepted_is_known_after_a_refused_replay() {
    let rules = Rules::default();
    let (mut machine, _) = signed_in();
    machine.signed_in(&endless(5), 0, rules.at(0));
    let _ = machine.effects();
    let refused = machine.credential().generation();
    assert!(matches!(machine.challenge(refused, false, route(1), rules.at(0)), Admission::Wait(_)));
    land(&mut machine, 6, rules.at(0));
    let fresh = machine.credential().generation();
    machine.accepted(fresh, route(2), Accepted::Request, rules.at(0));
    // The shell keeps this now, since the machine does not listen; and forgets it right here.
    assert!(!machine.listens());
    let before = super::Before { accepted: true, helped: false };
    machine.refused_again(fresh, before, route(1), rules.at(0));
    assert!(machine.listens());
    let _ = machine.challenge(fresh, false, route(1), rules.at(2));
    assert_eq!(machine.effects().gate, Gate::Open, "others accept it");
}

/// Invariant 9, the brake. A token that has run out passes it; should that refresh fail once, the
/// short pause of the failure takes the place of the brake.
#[test]
fn a_failure_does_not_end_the_brake() {
    let (mut machine, rules) = signed_in();
    let until = rules.at(LIFE + 50).after(Duration::ZERO);
    machine.troubles_mut().brake = Some(until);
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

/// The rules of the machine: "a request that is told to wait has one to wait for", and every
/// generation is published once. Tokens to begin with are being saved when the runtime goes away;
/// the save has worked, unheard. A first `refresh()` reads, adopts, and goes on to a lease, where
/// the pair that was left is taken up once more.
#[test]
fn a_first_refresh_after_an_aborted_save_that_had_worked_ends_well() {
    let (mut machine, rules) = begun_with(tokens(1));
    assert!(matches!(machine.admit(rules.at(1)), Admission::Wait(_)));
    let _ = machine.effects();
    let _ = machine.advance(Outcome::Leased(None), rules.at(1));
    let save = machine.advance(Outcome::Loaded(Record::default()), rules.at(1));
    let Step::Save { record, .. } = save else { panic!("{save:?}") };
    machine.aborted(shut_down());
    let _ = machine.effects();
    // In another runtime.
    let ticket = machine.read(rules.at(5)).expect("it was never read");
    let mut step = machine.effects().begin.expect("there is none under way").step;
    let mut redeemed = false;
    for _ in 0..20 {
        redeemed |= matches!(step, Step::Redeem(_));
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
    assert!(matches!(step, Step::Land { .. }) && redeemed, "{step:?}");
    assert_eq!(machine.credential().access_token(), Some("access-2"));
    assert!(machine.resolve(ticket).is_some(), "it waits for a flight that has landed");
}
