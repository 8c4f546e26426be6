use super::super::{Admission, Gate, Outcome, Step, testing::*};
use super::*;
use crate::{refresher::RefreshError, store::Record};

fn route(number: u32) -> Option<Route> {
    NonZeroU32::new(number)
}

/// A token that works, and refreshing it has not helped the route 1.
fn doubted(rules: &Rules) -> Machine {
    let (mut machine, _) = signed_in();
    machine.signed_in(&stored(), 0, rules.at(0));
    let refused = machine.credential().generation();
    assert!(matches!(machine.challenge(refused, true, route(1), rules.at(0)), Admission::Wait(_)));
    land(&mut machine, 2, rules.at(0));
    let fresh = machine.credential().generation();
    machine.refused_again(fresh, Before::default(), route(1), rules.at(0));
    machine.accepted(fresh, route(2), Accepted::Request, rules.at(0));
    machine
}

fn challenge(machine: &mut Machine, number: u32, at: Moment<'_>) -> Result<(), FailureKind> {
    let refused = machine.credential().generation();
    match machine.challenge(refused, false, route(number), at) {
        Admission::Wait(_) => Ok(()),
        Admission::Refuse(failure) => Err(failure.kind()),
        Admission::Proceed => panic!("it is the current token"),
    }
}

#[test]
fn a_doubt_holds_no_request() {
    let (mut machine, rules) = signed_in();
    let refused = machine.credential().generation();
    let _ = machine.challenge(refused, true, route(1), rules.at(0));
    let effects = machine.effects();
    assert!(effects.begin.is_some());
    assert_eq!(effects.gate, Gate::Open);
    assert!(matches!(machine.admit(rules.at(0)), Admission::Proceed));
}

#[test]
fn a_fact_that_joins_the_flight_of_a_doubt_closes_the_gate() {
    let (mut machine, rules) = signed_in();
    let refused = machine.credential().generation();
    let _ = machine.challenge(refused, true, route(1), rules.at(0));
    let _ = machine.challenge(refused, false, route(2), rules.at(1));
    assert_eq!(machine.effects().gate, Gate::Closed, "nothing was accepted for a second");
}

#[test]
fn the_pause_grows_until_a_refresh_helps() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    for (pause, helped) in [(1, false), (2, false), (4, true), (1, false)] {
        let now = machine.doubts().unwrap().pause;
        let begun = now.now - Duration::from_secs(pause);
        let at = |millis| {
            let passed = Duration::from_millis(millis);
            let time = crate::time::Time { now: begun + passed, wall: rules.at(0).time.wall };
            Moment { time, ..rules.at(0) }
        };
        let fresh = machine.credential().generation();
        machine.accepted(fresh, route(2), Accepted::Request, at(0));
        assert_eq!(challenge(&mut machine, 1, at(pause * 1000 - 1)), Err(FailureKind::Doubted));
        assert_eq!(challenge(&mut machine, 1, at(pause * 1000)), Ok(()));
        land(&mut machine, 3, at(pause * 1000));
        let fresh = machine.credential().generation();
        match helped {
            true => {
                machine.accepted(fresh, route(1), Accepted::HelpedReplay, at(pause * 1000));
                assert_eq!(challenge(&mut machine, 3, at(pause * 1000)), Ok(()), "no pause");
                land(&mut machine, 4, at(pause * 1000));
                let next = machine.doubts().unwrap().pause;
                assert_eq!(next.now, at(pause * 1000 + 1000).now(), "it begins anew");
            }
            false => machine.refused_again(fresh, Before::default(), route(1), at(pause * 1000)),
        }
    }
}

#[test]
fn a_refresh_that_has_helped_one_request_is_not_blamed_for_another() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    assert_eq!(challenge(&mut machine, 2, rules.at(2)), Ok(()));
    land(&mut machine, 3, rules.at(2));
    let fresh = machine.credential().generation();
    machine.accepted(fresh, route(2), Accepted::HelpedReplay, rules.at(2));
    // The token has ended since.
    machine.refused_again(fresh, Before::default(), route(2), rules.at(2));
    assert_eq!(challenge(&mut machine, 2, rules.at(2)), Ok(()), "no pause, and believed");
    assert_eq!(machine.effects().gate, Gate::Closed);
}

#[test]
fn a_refresh_that_has_failed_says_nothing_of_the_refusal() {
    for error in [RefreshError::transient("503"), RefreshError::rejected("invalid_grant")] {
        let (mut machine, rules) = signed_in();
        let refused = machine.credential().generation();
        let _ = machine.challenge(refused, true, route(1), rules.at(0));
        let _ = machine.effects();
        for outcome in [
            Outcome::Leased(None),
            Outcome::Loaded(stored()),
            Outcome::Intended,
            Outcome::Refused(error),
            Outcome::Loaded(stored()),
        ] {
            let _ = machine.advance(outcome, rules.at(0));
        }
        let doubts = machine.doubts().unwrap();
        assert_eq!((doubts.fruitless, doubts.presumed), (0, false));
        assert!(machine.doubt_pauses(rules.at(0)).is_none());
    }
}

/// As with replicas that share a credential, of which one is the first to refresh.
#[test]
fn what_another_process_has_refreshed_neither_lengthens_a_pause_nor_ends_it() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    let before = machine.doubts().unwrap().fruitless;
    for number in 10..20 {
        let at = rules.at(number);
        machine.doubts_mut(at).pause = at.after(Duration::ZERO);
        assert_eq!(challenge(&mut machine, 2, at), Ok(()));
        assert!(machine.effects().begin.is_some());
        let landed = machine.advance(Outcome::Newer(record(number)), at);
        assert!(matches!(landed, Step::Land { .. }));
        let adopted = machine.credential().generation();
        machine.accepted(adopted, route(2), Accepted::HelpedReplay, at);
        machine.refused_again(adopted, Before::default(), route(1), at);
        assert_eq!(machine.doubts().unwrap().fruitless, before);
    }
}

#[test]
fn what_the_redeem_itself_has_ended_does_not_count_as_helped() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    let late = machine.credential().generation();
    assert_eq!(challenge(&mut machine, 1, rules.at(1)), Ok(()));
    assert!(machine.effects().begin.is_some());
    for outcome in [Outcome::Leased(None), Outcome::Loaded(record(2)), Outcome::Intended] {
        let _ = machine.advance(outcome, rules.at(1));
    }
    let Admission::Wait(ticket) = machine.challenge(late, false, route(3), rules.at(1)) else {
        panic!("it joins the flight")
    };
    assert!(!ticket.before_redeem);
}

#[test]
fn a_route_that_refuses_what_it_has_accepted_is_believed_at_once() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    assert_eq!(challenge(&mut machine, 3, rules.at(0)), Err(FailureKind::Doubted));
    let fresh = machine.credential().generation();
    machine.accepted(fresh, route(3), Accepted::Request, rules.at(0));
    machine.accepted(fresh, route(2), Accepted::Request, rules.at(0));
    assert_eq!(challenge(&mut machine, 2, rules.at(0)), Ok(()));
}

#[test]
fn in_silence_every_route_is_believed_but_one_that_refuses_whatever_it_is_sent() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    assert_eq!(challenge(&mut machine, 1, rules.at(0)), Err(FailureKind::Doubted));
    let pause = machine.doubts_mut(rules.at(0));
    pause.pause = rules.at(50).after(Duration::ZERO);
    assert_eq!(challenge(&mut machine, 1, rules.at(2)), Err(FailureKind::Doubted));
    assert_eq!(challenge(&mut machine, 3, rules.at(2)), Ok(()));
}

#[test]
fn a_token_that_has_run_out_is_in_no_doubt_and_not_braked() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    machine.troubles_mut().brake = Some(rules.at(999).after(Duration::ZERO));
    assert_eq!(challenge(&mut machine, 1, rules.at(LIFE - 1)), Err(FailureKind::Braked));
    let mut request = machine.clone();
    assert!(matches!(request.admit(rules.at(LIFE)), Admission::Wait(_)));
    assert_eq!(challenge(&mut machine, 1, rules.at(LIFE)), Ok(()));
}

#[test]
fn what_is_remembered_of_routes_is_bounded() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    let fresh = machine.credential().generation();
    for number in 10..1000 {
        machine.accepted(fresh, route(number), Accepted::Request, rules.at(0));
    }
    let doubts = machine.doubts().unwrap();
    assert_eq!(doubts.routes.len(), MAX_ROUTES);
    assert!(doubts.known(route(999)).is_some() && doubts.known(route(10)).is_none());
}

#[test]
fn doubts_are_forgotten_in_time() {
    let rules = Rules::default();
    let mut machine = doubted(&rules);
    assert!(machine.listens());
    let fresh = machine.credential().generation();
    machine.accepted(fresh, route(2), Accepted::Request, rules.at(299));
    assert!(machine.listens());
    machine.accepted(fresh, route(2), Accepted::Request, rules.at(302));
    assert!(!machine.listens());
}

/// A pause is for refreshes that do not help. A flight that has nothing to do with the doubt
/// (early, or a caller's) fails once, while no replay has answered the refresh that the doubt has had
/// (an upload): the pause goes on.
#[test]
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
