//! The replayable body, case by case.

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error as _,
    fmt::Debug,
    future::ready,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, BodyStream, Empty, Full, StreamBody};
use testing::script_body::{Got, Hint, Script, Step, Wakes, data, hint_of, poll, trailers};
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::body::{BodyError, BodyErrorKind, Budget, NotReplayable, Replay, ReplayBody};

const CAP: usize = 1024;

fn lavish() -> Budget {
    Budget::new(usize::MAX)
}

fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Got<B::Error> {
    poll(body, &Arc::default())
}

/// Reads to the end, or as far as it goes.
fn drain<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Vec<Got<B::Error>> {
    let mut all = Vec::new();
    loop {
        match next(body) {
            Got::End => return all,
            got => all.push(got),
        }
    }
}

fn chunk<E>(chunk: &'static str) -> Got<E> {
    Got::Data(Bytes::from_static(chunk.as_bytes()))
}

#[track_caller]
fn assert_chunks<E: Debug>(got: &[Got<E>], chunks: &[&str]) {
    let got: Vec<&[u8]> = got
        .iter()
        .map(|got| match got {
            Got::Data(data) => &data[..],
            other => panic!("not data: {other:?}"),
        })
        .collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
    assert_eq!(got, chunks);
}

#[track_caller]
fn assert_fails(got: Got<BodyError>, kind: BodyErrorKind) -> BodyError {
    match got {
        Got::Failed(error) if error.kind() == kind => error,
        other => panic!("not {kind:?}: {other:?}"),
    }
}

// The cap.

#[test]
fn exactly_the_cap_is_replayed_and_one_byte_more_is_not() {
    for (cap, verdict) in [(10, Ok(())), (9, Err(NotReplayable::TooLarge))] {
        let budget = lavish();
        let body = Script::chunks(["hello", "world"]).hint(Hint::Unknown);
        let (mut first, replay) = ReplayBody::tee(body, cap, &budget);
        assert_eq!(next(&mut first), chunk("hello"));
        assert!(replay.replayable().is_ok());
        assert_eq!(budget.used(), 5 + 64);
        assert_eq!(next(&mut first), chunk("world"), "sent on all the same");
        assert_eq!(replay.replayable(), verdict);
        assert_eq!(budget.used() == 0, verdict.is_err(), "freed at once");
        assert_eq!(replay.into_replay().map(drop), verdict);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn a_body_too_large_by_its_own_word_is_never_kept() {
    let budget = lavish();
    for (cap, verdict) in [(5, Ok(())), (4, Err(NotReplayable::TooLarge))] {
        let (_, replay) = ReplayBody::tee(Script::chunks(["hello"]), cap, &budget);
        assert_eq!(replay.replayable(), verdict);
    }
    let (mut first, replay) = ReplayBody::tee(Script::chunks(["ab", "cde"]), 4, &budget);
    assert_eq!(next(&mut first), chunk("ab"));
    assert_eq!(budget.used(), 0, "not even what would fit");
    assert!(!replay.is_sent());
    assert_chunks(&drain(&mut first), &["cde"]);
}

#[test]
fn a_cap_of_zero_replays_what_turns_out_empty() {
    let cases = [
        (Script::new([]), Ok(())),
        (Script::new([data(""), data("")]), Ok(())),
        (Script::new([data("a")]), Err(NotReplayable::TooLarge)),
        (Script::new([trailers(&[("a", "b")])]), Err(NotReplayable::TooLarge)),
    ];
    for (script, verdict) in cases {
        let (mut first, replay) = ReplayBody::tee(script.hint(Hint::Unknown), 0, &lavish());
        assert!(replay.replayable().is_ok());
        drain(&mut first);
        assert_eq!(replay.replayable(), verdict);
        if let Ok(mut second) = replay.into_replay() {
            assert!(second.is_end_stream());
            assert!(drain(&mut second).is_empty());
        }
    }
}

#[test]
fn an_unlimited_cap_keeps_everything() {
    let chunks: Vec<Step> = (0..1000).map(|_| data("0123456789")).collect();
    let script = Script::new(chunks).hint(Hint::Fixed(u64::MAX, None));
    let (mut first, replay) = ReplayBody::tee(script, usize::MAX, &lavish());
    assert_eq!(drain(&mut first).len(), 1000);
    let second = replay.into_replay().unwrap();
    assert_eq!(second.size_hint().exact(), Some(10_000));
}

// The budget.

#[test]
fn the_budget_is_shared_and_given_back() {
    let budget = Budget::new(2 * (5 + 64));
    let tee = || ReplayBody::tee(Script::chunks(["hello"]), CAP, &budget.clone());
    let (mut one, keep_one) = tee();
    let (mut two, keep_two) = tee();
    let (mut three, refused) = tee();
    for first in [&mut one, &mut two, &mut three] {
        assert_eq!(next(first), chunk("hello"));
    }
    assert_eq!((budget.used(), budget.limit()), (138, 138));
    assert_eq!(refused.replayable(), Err(NotReplayable::OverBudget));

    drop(keep_one);
    assert_eq!(budget.used(), 69);
    let (mut four, keep_four) = tee();
    assert_eq!(next(&mut four), chunk("hello"));
    assert_eq!(keep_four.replayable(), Ok(()));

    let mut second = keep_two.into_replay().unwrap();
    assert_eq!(budget.used(), 138, "until it is sent");
    assert_eq!(next(&mut second), chunk("hello"));
    assert_eq!(budget.used(), 69);
    drop(keep_four.into_replay());
    assert_eq!(budget.used(), 0, "a replay dropped half-way");
}

#[test]
fn a_million_tiny_frames_are_bounded() {
    let budget = Budget::new(1 << 20);
    let tiny = std::iter::repeat_n(data("x"), 1_000_000);
    let script = Script::new(tiny).hint(Hint::Unknown);
    let (mut first, replay) = ReplayBody::tee(script, usize::MAX, &budget);
    let mut frames = 0;
    while replay.replayable().is_ok() {
        assert_eq!(next(&mut first), chunk("x"));
        assert!(budget.used() <= budget.limit());
        frames += 1;
    }
    assert_eq!(frames, (1 << 20) / 65 + 1);
    assert_eq!(replay.replayable(), Err(NotReplayable::OverBudget));
    assert_eq!(budget.used(), 0);
    assert_eq!(drain(&mut first).len(), 1_000_000 - frames);
}

#[test]
fn the_budget_holds_between_threads() {
    let budget = Budget::new(10 * 65);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let script = Script::new(std::iter::repeat_n(data("x"), 8));
                    let (mut first, replay) = ReplayBody::tee(script, CAP, &budget);
                    while next(&mut first) != Got::End {
                        assert!(budget.used() <= budget.limit());
                    }
                    drop((replay, first));
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
}

// Frames.

#[test]
fn an_empty_body_is_not_read_at_all() {
    let budget = Budget::new(0);
    let (first, replay) = ReplayBody::tee(Empty::<Bytes>::new(), 0, &budget);
    assert!(replay.is_sent(), "before anybody asks");
    assert!(first.is_end_stream());
    let mut second = replay.into_replay().unwrap();
    assert!(second.is_end_stream());
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(drain(&mut second).is_empty());
    drop(first);
}

#[test]
fn empty_frames_are_passed_on_and_not_kept() {
    let budget = lavish();
    let script = Script::chunks(["", "a", "", "", "b", ""]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &budget);
    assert_chunks(&drain(&mut first), &["", "a", "", "", "b", ""]);
    assert_eq!(budget.used(), 2 * 65);
    assert_chunks(&drain(&mut replay.into_replay().unwrap()), &["a", "b"]);
}

#[test]
fn all_trailers_are_replayed_in_their_place() {
    let fields: [&[(&str, &str)]; 3] = [&[("a", "1"), ("a", "2")], &[], &[("grpc-status", "0")]];
    let steps = [data("x"), trailers(fields[0]), trailers(fields[1]), trailers(fields[2])];
    let budget = lavish();
    // 1 of data, 4 and 12 of trailers
    for (cap, verdict) in [(17, Ok(())), (16, Err(NotReplayable::TooLarge))] {
        let (mut first, replay) = ReplayBody::tee(Script::new(steps.clone()), cap, &budget);
        let sent = drain(&mut first);
        assert_eq!(sent.len(), 4);
        assert_eq!(replay.replayable(), verdict);
        if let Ok(mut second) = replay.into_replay() {
            assert_eq!(second.size_hint().exact(), Some(1));
            let again = drain(&mut second);
            assert_eq!(format!("{again:?}"), format!("{sent:?}"));
        }
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn the_bodies_people_use_are_replayed() {
    let mut fields = HeaderMap::new();
    fields.insert("checksum", "c0ffee".parse().unwrap());
    let end = Some(Ok::<_, Infallible>(fields.clone()));
    let body = Full::new(Bytes::from("hello")).with_trailers(ready(end));
    let (first, replay) = ReplayBody::tee(body, CAP, &lavish());
    let second = tokio_test::block_on(async {
        first.collect().await.unwrap();
        replay.into_replay().unwrap().collect().await.unwrap()
    });
    assert_eq!(second.trailers(), Some(&fields));
    assert_eq!(second.to_bytes(), "hello");
}

#[test]
fn chunks_are_never_copied() {
    let chunks: Vec<Bytes> = (0..20).map(|n| Bytes::from(vec![n; 100])).collect();
    let at: Vec<_> = chunks.iter().map(|chunk| chunk.as_ptr()).collect();
    let script = Script::new(chunks.into_iter().map(Step::Data));
    let (mut first, replay) = ReplayBody::tee(script, usize::MAX, &lavish());
    let place = |got: &Got<BodyError>| match got {
        Got::Data(data) => data.as_ptr(),
        _ => std::ptr::null(),
    };
    assert_eq!(drain(&mut first).iter().map(place).collect::<Vec<_>>(), at);
    let mut second = replay.into_replay().unwrap();
    assert_eq!(drain(&mut second).iter().map(place).collect::<Vec<_>>(), at);
}

#[test]
fn other_buffers_are_read_whole() {
    let whole = Cursor::new(b"abcdef".to_vec()).chain(&b"ghi"[..]);
    let (mut first, replay) = ReplayBody::tee(Full::new(whole), CAP, &lavish());
    assert_eq!(next(&mut first), chunk("abcdefghi"));
    assert_chunks(&drain(&mut replay.into_replay().unwrap()), &["abcdefghi"]);
}

// What is said of the size and the end.

#[test]
fn sizes_are_right_while_a_replay_is_sent() {
    let script = Script::chunks(["abc", "de", "fghi"]).tells_end(true);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
    assert_eq!(first.size_hint().exact(), Some(9));
    next(&mut first);
    assert_eq!(first.size_hint().exact(), Some(6));
    next(&mut first);
    let mut second = replay.into_replay().unwrap();
    for left in [9, 6, 4] {
        assert_eq!(second.size_hint().exact(), Some(left));
        assert!(!second.is_end_stream());
        next(&mut second);
    }
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(second.is_end_stream());
    assert_eq!(hint_of(&first), (0, None), "somebody else has it");
    assert!(!first.is_end_stream());
}

#[test]
fn a_source_may_be_wrong_about_its_size() {
    let hints = [
        Hint::Fixed(0, Some(0)),
        Hint::Fixed(2, Some(2)),
        Hint::Fixed(0, Some(u64::MAX)),
        Hint::Fixed(900, Some(u64::MAX)),
    ];
    for hint in hints {
        let script = Script::chunks(["abc", "de"]).hint(hint);
        let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
        next(&mut first);
        let mut second = replay.into_replay().unwrap();
        assert!(!second.is_end_stream());
        assert!(second.size_hint().lower() >= 3, "{hint:?}");
        assert_chunks(&drain(&mut second), &["abc", "de"]);
        assert_eq!(second.size_hint().exact(), Some(0));
    }
}

#[test]
fn sent_is_known_without_reading_past_the_end() {
    let (mut first, replay) = ReplayBody::tee(Full::new(Bytes::from("a")), CAP, &lavish());
    assert!(!replay.is_sent());
    next(&mut first);
    assert!(replay.is_sent());
    let second = replay.into_replay().unwrap();
    assert!(first.is_end_stream());
    assert!(drain(&mut first).is_empty(), "it had all of it");
    assert!(!second.is_end_stream(), "the source is over, the replay is not");
    assert_eq!(second.size_hint().exact(), Some(1));
}

/// Ends when it is told to, not when it is polled.
struct Switch(Arc<AtomicBool>);

impl Body for Switch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.load(Ordering::SeqCst) { Poll::Ready(None) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn an_end_that_was_told_stays_the_end() {
    let over = Arc::new(AtomicBool::new(false));
    let (mut first, replay) = ReplayBody::tee(Switch(Arc::clone(&over)), CAP, &lavish());
    assert_eq!(next(&mut first), Got::Pending);
    over.store(true, Ordering::SeqCst);
    assert!(first.is_end_stream() && replay.is_sent());
    let second = replay.into_replay().unwrap();
    assert!(first.is_end_stream() && second.is_end_stream());
    assert_eq!(next(&mut first), Got::End);
}

// Errors.

#[test]
fn a_source_that_fails_is_not_replayed() {
    let budget = lavish();
    let script = Script::new([data("a"), Step::Fail]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &budget);
    next(&mut first);
    assert_eq!(budget.used(), 65);
    let error = assert_fails(next(&mut first), BodyErrorKind::Source);
    assert_eq!(error.to_string(), "disk on fire");
    assert!(error.source().unwrap().is::<std::io::Error>());
    assert_eq!(budget.used(), 0);
    assert_eq!(next(&mut first), Got::End, "and never polls it again");
    assert!(!first.is_end_stream() && !replay.is_sent());
    assert_eq!(replay.into_replay().map(drop), Err(NotReplayable::SourceFailed));
}

#[test]
fn a_source_that_fails_in_the_replay_fails_it() {
    let script = Script::new([data("a"), data("b"), Step::Fail]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
    next(&mut first);
    let mut second = replay.into_replay().unwrap();
    assert_eq!(next(&mut second), chunk("a"));
    assert_eq!(next(&mut second), chunk("b"));
    assert_fails(next(&mut second), BodyErrorKind::Source);
    assert_eq!(next(&mut second), Got::End);
    assert!(!second.is_end_stream(), "it broke off");
}

#[test]
fn a_source_that_panics_is_not_replayed() {
    let budget = lavish();
    let script = Script::new([data("a"), Step::Panic]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &budget);
    next(&mut first);
    catch_unwind(AssertUnwindSafe(|| next(&mut first))).unwrap_err();
    assert_eq!(replay.replayable(), Err(NotReplayable::SourceFailed));
    assert!(!first.is_end_stream());
    assert_eq!(hint_of(&first), (0, None));
    assert_eq!(replay.into_replay().map(drop), Err(NotReplayable::SourceFailed));
    assert_eq!(budget.used(), 0);
    assert_fails(next(&mut first), BodyErrorKind::Source);
    assert_eq!(next(&mut first), Got::End);

    // Nor does a body that is not kept end as if it were whole.
    let mut plain = ReplayBody::plain(Script::new([Step::Panic]));
    catch_unwind(AssertUnwindSafe(|| next(&mut plain))).unwrap_err();
    assert_fails(next(&mut plain), BodyErrorKind::Source);
}

/// Its data panic when they are read; it says it is whole.
struct Mine(VecDeque<u8>);

impl Buf for Mine {
    fn remaining(&self) -> usize {
        self.0.len()
    }
    fn chunk(&self) -> &[u8] {
        panic!("boom")
    }
    fn advance(&mut self, _: usize) {
        panic!("boom")
    }
}

#[test]
fn data_that_panic_are_not_replayed_without() {
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Mine([1].into())))]);
    let (mut first, replay) = ReplayBody::tee(StreamBody::new(stream), CAP, &lavish());
    catch_unwind(AssertUnwindSafe(|| next(&mut first))).unwrap_err();
    assert_eq!(replay.replayable(), Err(NotReplayable::SourceFailed));
}

/// Panics when it is asked whether it is over.
struct Shy(Option<Bytes>);

impl Body for Shy {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().expect("do not ask").is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[test]
fn a_panic_after_a_frame_was_read_does_not_lose_it() {
    let (mut first, replay) = ReplayBody::tee(Shy(Some(Bytes::from("a"))), CAP, &lavish());
    catch_unwind(AssertUnwindSafe(|| next(&mut first))).unwrap_err();
    assert_chunks(&drain(&mut replay.into_replay().unwrap()), &["a"]);
}

// Handing over.

#[test]
fn a_superseded_attempt_is_woken_and_ends_in_an_error() {
    let script = Script::new([data("a"), Step::Pending, Step::Pending, data("b")]);
    let (first, replay) = ReplayBody::tee(script, CAP, &lavish());
    let mut first = task::spawn(BodyStream::new(first));
    assert_ready!(first.poll_next()).unwrap().unwrap();
    assert_pending!(first.poll_next());
    assert_pending!(first.poll_next());
    assert!(!first.is_woken());

    let mut second = replay.into_replay().unwrap();
    assert!(first.is_woken());
    let error = assert_ready!(first.poll_next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), BodyErrorKind::Superseded);
    assert!(error.source().is_none());
    assert!(assert_ready!(first.poll_next()).is_none());
    assert_chunks(&drain(&mut second), &["a", "b"]);
}

#[test]
fn the_last_waker_is_the_one_woken_and_none_is_kept() {
    let (old, new) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let script = Script::new([Step::Pending, Step::Pending]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
    poll(&mut first, &old);
    poll(&mut first, &new);
    assert_eq!(Arc::strong_count(&old), 1);
    assert_eq!(Arc::strong_count(&new), 2);
    let second = replay.into_replay();
    assert_eq!((old.count(), new.count()), (0, 1));
    assert_eq!(Arc::strong_count(&new), 1);
    drop((first, second));

    let script = Script::new([Step::Pending, Step::Pending]);
    let (mut first, mut replay) = ReplayBody::tee(script, CAP, &lavish());
    poll(&mut first, &new);
    replay.release();
    poll(&mut first, &new);
    assert_eq!(Arc::strong_count(&new), 1, "nobody will need it");
}

#[test]
fn a_first_attempt_that_never_read_leaves_the_whole_body() {
    for read in 0..4 {
        let script = Script::new([data("a"), data("b"), trailers(&[("c", "d")])]);
        let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
        for _ in 0..read {
            next(&mut first);
        }
        drop(first);
        let mut second = replay.into_replay().unwrap();
        assert_eq!(second.size_hint().exact(), Some(2));
        assert_eq!(next(&mut second), chunk("a"));
        assert_eq!(next(&mut second), chunk("b"));
        assert!(matches!(next(&mut second), Got::Trailers(map) if map["c"] == "d"));
        assert_eq!(next(&mut second), Got::End);
    }
}

#[test]
fn a_hand_over_between_threads_loses_nothing() {
    for _ in 0..500 {
        let script = Script::new((0..20).map(|_| data("ab"))).tells_end(true);
        let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || drain(&mut first));
            let again = drain(&mut replay.into_replay().unwrap());
            assert_chunks(&again, &["ab"; 20]);
            let mut sent = sent.join().unwrap();
            if matches!(sent.last(), Some(Got::Failed(_))) {
                assert_fails(sent.pop().unwrap(), BodyErrorKind::Superseded);
            } else {
                assert_eq!(sent.len(), 20, "ended, so it had all of it");
            }
        });
    }
}

#[test]
fn dropping_a_waker_may_drop_the_handle() {
    /// A task that holds the handle and that only its waker keeps alive.
    struct Task {
        _replay: std::sync::Mutex<Option<Replay<Script>>>,
    }
    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let script = Script::new([Step::Pending, Step::Pending, data("a")]);
    let (mut first, replay) = ReplayBody::tee(script, CAP, &lavish());
    let waker = Arc::new(Task { _replay: Some(replay).into() }).into();
    let mut cx = Context::from_waker(&waker);
    assert_pending!(Pin::new(&mut first).poll_frame(&mut cx));
    drop(waker);
    assert_eq!(next(&mut first), Got::Pending, "no deadlock");
    assert_eq!(next(&mut first), chunk("a"));
}

// Releasing.

#[test]
fn an_endless_stream_is_bounded_and_freed_on_release() {
    let stream = futures_util::stream::iter(std::iter::repeat_with(|| {
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 100])))
    }));
    let budget = lavish();
    let (mut first, mut replay) = ReplayBody::tee(StreamBody::new(stream), 1000, &budget);
    for _ in 0..10 {
        next(&mut first);
    }
    assert_eq!(budget.used(), 10 * 164);
    replay.release();
    assert_eq!(budget.used(), 0);
    replay.release();
    for _ in 0..1000 {
        assert!(matches!(next(&mut first), Got::Data(_)));
        assert_eq!(budget.used(), 0);
    }
    assert_eq!(replay.replayable(), Err(NotReplayable::Released));
}

#[test]
fn released_chunks_are_freed_and_the_first_reason_stays() {
    let chunk = Bytes::from(vec![0; 100]);
    let script = Script::new([Step::Data(chunk.clone()), data("more")]).hint(Hint::Unknown);
    let (mut first, mut replay) = ReplayBody::tee(script.clone(), CAP, &lavish());
    drop(script);
    drop(next(&mut first));
    assert!(!chunk.is_unique());
    replay.release();
    assert!(chunk.is_unique());
    drop((first, replay));

    let script = Script::chunks(["ab", "cd"]).hint(Hint::Unknown);
    let (mut first, mut replay) = ReplayBody::tee(script, 3, &lavish());
    drain(&mut first);
    replay.release();
    assert_eq!(replay.replayable(), Err(NotReplayable::TooLarge));
    assert!(replay.is_sent());
}

// The other ways to make one.

#[test]
fn a_clone_is_charged_until_it_is_used() {
    let budget = Budget::new(69);
    let body = Full::new(Bytes::from("hello"));
    let cloned = || ReplayBody::cloned(body.clone(), Full::clone, 5, &budget);
    let (mut first, mut replay) = cloned();
    assert_eq!(budget.used(), 69);
    assert!(replay.is_sent(), "nothing to hand over");
    let (_, refused) = cloned();
    assert_eq!(refused.replayable(), Err(NotReplayable::OverBudget));
    replay.release();
    assert_eq!(replay.replayable(), Err(NotReplayable::Released));
    assert!(replay.is_sent());
    assert_eq!(budget.used(), 0);

    let (_, again) = cloned();
    let mut second = again.into_replay().unwrap();
    assert_eq!(budget.used(), 0);
    assert_eq!(next(&mut first), chunk("hello"));
    assert_eq!(next(&mut second), chunk("hello"));
}

#[test]
fn a_clone_keeps_to_the_cap() {
    let cloned = |script, cap| ReplayBody::cloned(script, Script::clone, cap, &lavish());
    let known = Script::chunks(["ab", "cd"]);
    assert!(cloned(known.clone(), 4).1.replayable().is_ok());
    let (_, replay) = cloned(known.clone(), 3);
    assert_eq!(replay.replayable(), Err(NotReplayable::TooLarge));
    // Only the stream itself can tell.
    let (mut first, replay) = cloned(known.hint(Hint::Unknown), 3);
    assert_eq!(next(&mut first), chunk("ab"));
    assert!(replay.replayable().is_ok());
    assert_eq!(next(&mut first), chunk("cd"));
    assert_eq!(replay.replayable(), Err(NotReplayable::TooLarge));
}

#[test]
fn a_plain_body_is_what_it_was() {
    let script = Script::new([data("a"), data(""), trailers(&[("b", "c")])]).tells_end(true);
    let mut plain = ReplayBody::plain(script);
    assert_eq!(plain.size_hint().exact(), Some(1));
    assert!(!plain.is_end_stream());
    assert_eq!(drain(&mut plain).len(), 3);
    assert!(plain.is_end_stream());
    assert_eq!(next(&mut plain), Got::End);

    for reason in [NotReplayable::Forbidden, NotReplayable::TooLarge] {
        let mut replay = Replay::<Script>::never(reason);
        replay.release();
        assert_eq!(replay.replayable(), Err(reason));
        assert_eq!(replay.into_replay().map(drop), Err(reason));
    }
}

#[test]
fn debug_shows_no_bytes() {
    let (mut first, replay) = ReplayBody::tee(Script::chunks(["secret"]), CAP, &lavish());
    next(&mut first);
    let shown = format!("{first:?} {replay:?}");
    let shown = format!("{shown} {:?}", replay.into_replay());
    assert!(shown.contains("Replay") && !shown.contains("secret"));
    assert_eq!(format!("{:?}", Budget::new(7)), "Budget { used: 0, limit: 7 }");
}

/// `Send`, but neither `Sync` nor `Unpin`.
type Awkward = (std::cell::Cell<()>, std::marker::PhantomPinned);

#[test]
fn auto_traits() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_unpin<T: Unpin>() {}
    fn is_static<T: 'static>() {}
    is_send::<(ReplayBody<Awkward>, Replay<Awkward>)>();
    is_unpin::<(ReplayBody<Awkward>, Budget)>();
    is_unpin::<Replay<Script>>();
    is_sync::<(ReplayBody<Script>, Replay<Script>)>();
    is_send::<(Budget, BodyError, NotReplayable)>();
    is_sync::<(Budget, BodyError, NotReplayable)>();
    is_static::<(ReplayBody<Script>, BodyError)>();
}

/// A request is copied several times on its way through a client, and copies of more than 256 bytes
/// are much dearer in glibc.
#[test]
fn a_request_with_a_kept_body_is_of_a_size_that_is_copied_quickly() {
    assert_eq!(size_of::<ReplayBody<Full<Bytes>>>(), 16);
    assert!(size_of::<http::Request<ReplayBody<Full<Bytes>>>>() <= 256);
}
