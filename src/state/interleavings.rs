//! The gate word and the waiters, while a flight lands, in every order of their steps.

use std::sync::Arc;

use loom::{future::block_on, model::Builder, thread};
use tokio::runtime;

use super::{
    RefreshState, Wait,
    machine::{Admission, Machine, Outcome, Step, Ticket},
};
use crate::{
    store::Record,
    tokens::{Generation, Tokens},
};

/// With a runtime whose tasks never run: the flight's steps are done here. `preemptions`: how often a
/// thread is interrupted at most.
fn model(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let runtime =
            runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        check();
    });
}

fn tokens(name: &str) -> Tokens {
    Tokens::new(name).with_refresh_token("refresh")
}

fn record(generation: u64) -> Record {
    Record::new(Generation::new(generation), tokens("other"))
}

pub(crate) fn signed_in() -> Arc<RefreshState> {
    let refresher = async |_: Tokens| Ok(tokens("never asked"));
    let state = RefreshState::builder(refresher).tokens(tokens("first")).build();
    publish(&state, 1);
    state
}

/// As after a sign-in.
pub(crate) fn publish(state: &Arc<RefreshState>, generation: u64) {
    state.with(|machine, at| machine.signed_in(&record(generation), machine.sign_outs(), at));
}

/// A flight that has redeemed, and its first waiter's ticket.
fn saving(state: &Arc<RefreshState>) -> Ticket {
    let ticket = challenge(state);
    let mut outcome = Outcome::Leased(None);
    loop {
        let step = state.with(|machine, at| machine.advance(outcome, at));
        outcome = match step {
            Step::Load => Outcome::Loaded(record(1)),
            Step::Intend(_) => Outcome::Intended,
            Step::Redeem(_) => Outcome::Redeemed(tokens("second")),
            Step::Save { .. } => return ticket,
            step => panic!("{}", step.name()),
        };
    }
}

fn challenge(state: &Arc<RefreshState>) -> Ticket {
    match state.challenge(Generation::new(1), || None) {
        Admission::Wait(ticket) => ticket,
        answer => panic!("{answer:?}"),
    }
}

/// The flight's last step: new tokens are published.
fn land(state: &Arc<RefreshState>) {
    let step = state.with(|machine, at| machine.advance(Outcome::Saved, at));
    assert!(matches!(step, Step::Land { .. }));
}

fn generation(state: &RefreshState) -> u64 {
    state.lock().machine.credential().generation().get()
}

#[test]
fn waiters_hear_of_a_landing_whenever_they_come() {
    model(3, || {
        let state = signed_in();
        let ticket = saving(&state);
        let [one, two] = [(); 2].map(|()| {
            let state = Arc::clone(&state);
            thread::spawn(move || block_on(Wait::new(state, ticket)).map(|it| it.generation()))
        });
        land(&state);
        for waiter in [one, two] {
            assert_eq!(waiter.join().unwrap().ok(), Some(Generation::new(2)));
        }
        assert!(!state.lock().waiters.are_there());
    });
}

#[test]
fn a_waiter_that_leaves_takes_nothing_from_the_others() {
    model(3, || {
        let state = signed_in();
        let ticket = saving(&state);
        let stays = thread::spawn({
            let state = Arc::clone(&state);
            move || block_on(Wait::new(state, ticket)).is_ok()
        });
        let leaves = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let mut wait = tokio_test::task::spawn(Wait::new(state, ticket));
                let _ = wait.poll();
            }
        });
        land(&state);
        leaves.join().unwrap();
        assert!(stays.join().unwrap());
    });
}

#[test]
fn waiters_hear_if_the_flight_is_given_up() {
    model(3, || {
        let state = signed_in();
        let ticket = challenge(&state);
        let waiter = thread::spawn({
            let state = Arc::clone(&state);
            move || block_on(Wait::new(state, ticket)).is_err()
        });
        let shut_down = super::FailureKind::Shutdown;
        state.with(|machine, _| machine.aborted(super::RefreshFailure::new(shut_down)));
        assert!(waiter.join().unwrap());
    });
}

/// A sign-in and a landing at once: a request that reads the word finds a credential that is at least as new,
/// the word never goes back, and in the end it names what is there.
#[test]
fn the_gate_word_never_goes_back_and_is_never_ahead_of_the_credential() {
    model(3, || {
        let state = signed_in();
        saving(&state);
        let signs_in = thread::spawn({
            let state = Arc::clone(&state);
            move || publish(&state, 5)
        });
        let reads = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let before = state.gate_word();
                assert!(generation(&state) >= before >> 1);
                assert!(state.gate_word() >> 1 >= before >> 1);
            }
        });
        state.with(|machine: &mut Machine, at| machine.advance(Outcome::Saved, at));
        signs_in.join().unwrap();
        reads.join().unwrap();
        assert_eq!(state.gate_word() >> 1, generation(&state));
    });
}
