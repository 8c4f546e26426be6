//! A first attempt and what takes its body over, in every order of their steps.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use loom::{future::block_on, model, thread};
use testing::script_body::{Script, Step};

use super::{
    budget::{Budget, Charge},
    source::PolledFrame,
    tape::{Playback, Tape},
    tee::{Reader, tee},
};

/// Two chunks, and an end that it tells.
fn two_chunks() -> Script {
    Script::chunks(["one", "two"]).tells_end(true)
}

fn tape(budget: &Budget) -> Tape {
    Tape::new(usize::MAX, budget)
}

/// All that can be read, and whether it has ended well.
fn read(mut poll: impl FnMut(&mut Context<'_>) -> PolledFrame) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    let cx = &mut Context::from_waker(Waker::noop());
    loop {
        match poll(cx) {
            Poll::Ready(Some(Ok(frame))) => read.extend(frame.into_data().unwrap_or_default()),
            Poll::Ready(Some(Err(_))) => return (read, false),
            Poll::Ready(None) => return (read, true),
            Poll::Pending => panic!("it waits"),
        }
    }
}

/// As a client reads that trusts the body's word that it has ended.
fn send(reader: &Reader<Script>) -> (Vec<u8>, bool) {
    read(|cx| if reader.is_end_stream() { Poll::Ready(None) } else { reader.poll_frame(cx) })
}

#[test]
fn a_replay_has_all_of_the_body_and_the_first_attempt_a_beginning_of_it() {
    model(|| {
        let budget = Budget::new(usize::MAX);
        let (reader, keeper) = tee(two_chunks(), tape(&budget));
        let first = thread::spawn(move || send(&reader));
        let (tape, source) = keeper.hand_over().expect("all of it was kept");
        let mut playback = Playback::new(tape, source);
        assert_eq!(read(|cx| playback.poll_frame(cx)), (b"onetwo".to_vec(), true));
        let (sent, has_ended) = first.join().unwrap();
        assert!(b"onetwo".starts_with(&sent));
        assert_eq!(has_ended, sent == b"onetwo", "{sent:?}");
        drop(playback);
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn a_first_attempt_that_waits_for_its_source_is_woken_when_a_replay_takes_it_over() {
    model(|| {
        let (reader, keeper) = tee(Script::new([Step::Pending]), tape(&Budget::new(usize::MAX)));
        let first = thread::spawn(move || block_on(poll_fn(|cx| reader.poll_frame(cx))));
        let _taken = keeper.hand_over().expect("all of it was kept");
        assert!(first.join().unwrap().is_some_and(|frame| frame.is_err()), "superseded");
    });
}

#[test]
fn nothing_is_kept_once_there_will_be_no_replay() {
    model(|| {
        let budget = Budget::new(usize::MAX);
        let (reader, keeper) = tee(two_chunks(), tape(&budget));
        let first = thread::spawn(move || {
            let sent = send(&reader);
            (reader, sent)
        });
        drop(keeper);
        let (_reader, sent) = first.join().unwrap();
        assert_eq!(sent, (b"onetwo".to_vec(), true));
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn a_budget_never_gives_more_than_it_has_and_gets_all_of_it_back() {
    model(|| {
        let budget = Budget::new(10);
        let take = |budget: Budget| {
            let mut charge = Charge::none(&budget);
            let taken = [6, 4].map(|bytes| charge.grow(bytes));
            assert!(budget.used() <= budget.limit());
            charge.shrink(1);
            taken
        };
        let other = thread::spawn({
            let budget = budget.clone();
            move || take(budget)
        });
        let taken = [take(budget.clone()), other.join().unwrap()];
        assert!(taken.iter().flatten().any(|taken| *taken));
        assert_eq!(budget.used(), 0);
    });
}
