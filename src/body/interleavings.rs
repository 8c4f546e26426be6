//! A first attempt and what takes its body over, in every order of their steps.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use loom::{future::block_on, model, thread};

use super::{
    budget::{Budget, Charge},
    source::PolledFrame,
    tape::{Playback, Tape},
    tee::{Reader, tee},
};

/// These frames; and then its end, or nothing any more.
struct Script {
    frames: VecDeque<Bytes>,
    ends: bool,
}

impl Script {
    fn new(frames: [&'static str; 2]) -> Self {
        Self { frames: frames.map(Bytes::from).into(), ends: true }
    }

    fn endless() -> Self {
        Self { frames: VecDeque::new(), ends: false }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.frames.is_empty()
    }
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
        let (reader, keeper) = tee(Script::new(["one", "two"]), tape(&budget));
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
        let (reader, keeper) = tee(Script::endless(), tape(&Budget::new(usize::MAX)));
        let first = thread::spawn(move || block_on(poll_fn(|cx| reader.poll_frame(cx))));
        let _taken = keeper.hand_over().expect("all of it was kept");
        assert!(first.join().unwrap().is_some_and(|frame| frame.is_err()), "superseded");
    });
}

#[test]
fn nothing_is_kept_once_there_will_be_no_replay() {
    model(|| {
        let budget = Budget::new(usize::MAX);
        let (reader, keeper) = tee(Script::new(["one", "two"]), tape(&budget));
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
