//! The replayable body against a plain model of it, step by step.
//!
//! The model keeps frames in a `Vec`, shares nothing and polls a twin of the source. After every
//! operation all that can be seen must agree: frames, size hints, ends, verdicts, the budget.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use proptest::prelude::*;
use testing::script_body::{Got, Hint, Script, Step, Wakes, hint_of, poll};
use tower_refresh::body::{BodyError, BodyErrorKind, Budget, NotReplayable, Replay, ReplayBody};

#[derive(Clone, Copy, Debug)]
enum Op {
    PollFirst,
    PollReplay,
    Release,
    HandOver,
    DropFirst,
    DropHandle,
}

/// Errors by what they say, so that two can be compared.
type Seen = Got<&'static str>;

const BROKEN: &str = "disk on fire";
const SUPERSEDED: &str = "superseded";

fn seen(got: Got<BodyError>) -> Seen {
    match got {
        Got::Failed(error) => Got::Failed(match error.kind() {
            BodyErrorKind::Superseded => SUPERSEDED,
            _ => {
                assert_eq!(error.to_string(), BROKEN);
                BROKEN
            }
        }),
        Got::Pending => Got::Pending,
        Got::Data(data) => Got::Data(data),
        Got::Trailers(trailers) => Got::Trailers(trailers),
        Got::End => Got::End,
    }
}

enum Attempt {
    Streaming,
    Ended,
    Failed,
    Superseded,
}

struct Model {
    source: Script,
    first: Attempt,
    /// `Some` once there is a replay: whether it still streams.
    second: Option<Attempt>,
    kept: VecDeque<Step>,
    verdict: Result<(), NotReplayable>,
    /// What `is_sent` says; `None` for a handle that knows nothing.
    sent: Option<bool>,
    room: usize,
    limit: usize,
}

fn bytes_of(step: &Step) -> usize {
    match step {
        Step::Data(data) => data.len(),
        Step::Trailers(map) => {
            map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
        }
        _ => 0,
    }
}

fn cost_of(step: &Step) -> usize {
    bytes_of(step)
        + match step {
            Step::Trailers(map) => 64 * (1 + map.len()),
            _ => 64,
        }
}

impl Model {
    fn new(source: Script, cap: usize, limit: usize) -> Self {
        let empty = source.is_end_stream();
        let too_large = !empty && source.size_hint().lower() > cap as u64;
        Self {
            sent: (!too_large).then_some(empty),
            verdict: if too_large { Err(NotReplayable::TooLarge) } else { Ok(()) },
            source,
            first: Attempt::Streaming,
            second: None,
            kept: VecDeque::new(),
            room: cap,
            limit,
        }
    }

    fn used(&self) -> usize {
        self.kept.iter().map(cost_of).sum()
    }

    fn stop(&mut self, reason: NotReplayable) {
        if self.verdict.is_ok() {
            self.verdict = Err(reason);
            self.kept.clear();
        }
    }

    fn keep(&mut self, step: &Step) {
        if self.verdict.is_err() || !carries(step) {
            return;
        }
        if bytes_of(step) > self.room {
            return self.stop(NotReplayable::TooLarge);
        }
        self.room -= bytes_of(step);
        if self.used() + cost_of(step) > self.limit {
            return self.stop(NotReplayable::OverBudget);
        }
        self.kept.push_back(step.clone());
    }

    fn poll_first(&mut self) -> Seen {
        match self.first {
            Attempt::Streaming => {}
            Attempt::Ended | Attempt::Failed => return Got::End,
            Attempt::Superseded => {
                self.first = Attempt::Failed;
                return Got::Failed(SUPERSEDED);
            }
        }
        let step = self.source.steps.pop_front();
        if let Some(step) = &step {
            self.keep(step);
        }
        match step {
            None => {
                self.first = Attempt::Ended;
                Got::End
            }
            Some(Step::Fail) => {
                self.first = Attempt::Failed;
                self.stop(NotReplayable::SourceFailed);
                Got::Failed(BROKEN)
            }
            Some(step) => got(step),
        }
    }

    fn poll_second(&mut self) -> Seen {
        if let Some(step) = self.kept.pop_front() {
            return got(step);
        }
        if !matches!(self.second, Some(Attempt::Streaming)) {
            return Got::End;
        }
        match self.source.steps.pop_front() {
            None => {
                self.second = Some(Attempt::Ended);
                Got::End
            }
            Some(Step::Fail) => {
                self.second = Some(Attempt::Failed);
                Got::Failed(BROKEN)
            }
            Some(step) => got(step),
        }
    }

    fn ends(&self, attempt: &Attempt) -> bool {
        match attempt {
            Attempt::Streaming => self.source.is_end_stream(),
            Attempt::Ended => true,
            Attempt::Failed | Attempt::Superseded => false,
        }
    }

    fn hint(&self, attempt: &Attempt) -> (u64, Option<u64>) {
        match attempt {
            Attempt::Streaming => hint_of(&self.source),
            Attempt::Ended => (0, Some(0)),
            Attempt::Failed | Attempt::Superseded => (0, None),
        }
    }

    fn hand_over(&mut self) {
        self.second = Some(match self.first {
            Attempt::Ended => Attempt::Ended,
            _ => Attempt::Streaming,
        });
        self.first = if self.ends(&self.first) { Attempt::Ended } else { Attempt::Superseded };
    }
}

fn got(step: Step) -> Seen {
    match step {
        Step::Data(data) => Got::Data(data),
        Step::Trailers(trailers) => Got::Trailers(trailers),
        _ => Got::Pending,
    }
}

/// Whether a replay has to repeat it.
fn carries(step: &Step) -> bool {
    match step {
        Step::Data(data) => !data.is_empty(),
        Step::Trailers(_) => true,
        _ => false,
    }
}

fn frames(script: &Script) -> Vec<Seen> {
    let steps = script.steps.iter().filter(|step| carries(step));
    steps.cloned().map(got).collect()
}

fn is_frame(got: &Seen) -> bool {
    match got {
        Got::Data(data) => !data.is_empty(),
        Got::Trailers(_) => true,
        _ => false,
    }
}

struct Run {
    model: Model,
    budget: Budget,
    first: Option<ReplayBody<Script>>,
    handle: Option<Replay<Script>>,
    second: Option<ReplayBody<Script>>,
    wakes: Arc<Wakes>,
    first_waits: bool,
    /// All that the replay sent.
    repeated: Vec<Seen>,
}

impl Run {
    fn new(script: Script, cap: usize, limit: usize) -> Self {
        let budget = Budget::new(limit);
        let (first, handle) = ReplayBody::tee(script.clone(), cap, &budget);
        Self {
            model: Model::new(script, cap, limit),
            budget,
            first: Some(first),
            handle: Some(handle),
            second: None,
            wakes: Arc::default(),
            first_waits: false,
            repeated: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::PollFirst => {
                if let Some(first) = &mut self.first {
                    let got = seen(poll(first, &self.wakes));
                    self.first_waits = got == Got::Pending;
                    assert_eq!(got, self.model.poll_first());
                }
            }
            Op::PollReplay => {
                if let Some(second) = &mut self.second {
                    let got = seen(poll(second, &self.wakes));
                    assert_eq!(got, self.model.poll_second());
                    if is_frame(&got) {
                        self.repeated.push(got);
                    }
                }
            }
            Op::Release => {
                if let Some(handle) = &mut self.handle {
                    handle.release();
                    self.model.stop(NotReplayable::Released);
                }
            }
            Op::HandOver => self.hand_over(),
            Op::DropFirst => self.first = None,
            Op::DropHandle => {
                if self.handle.take().is_some() {
                    self.model.stop(NotReplayable::Released);
                }
            }
        }
    }

    fn hand_over(&mut self) {
        let Some(handle) = self.handle.take() else {
            return;
        };
        let before = self.wakes.count();
        let skipped = self.model.sent == Some(true);
        match handle.into_replay() {
            Ok(second) => {
                assert_eq!(self.model.verdict, Ok(()));
                self.second = Some(second);
                if skipped {
                    // The first attempt has the empty source for itself.
                    self.model.second = Some(Attempt::Ended);
                    return;
                }
                self.model.hand_over();
                let superseded = matches!(self.model.first, Attempt::Superseded);
                if self.first_waits && superseded {
                    assert_eq!(self.wakes.count(), before + 1, "left to wait");
                }
            }
            Err(reason) => {
                assert_eq!(self.model.verdict, Err(reason));
                assert_eq!(self.wakes.count(), before, "woken for nothing");
            }
        }
    }

    fn agree(&self) {
        let model = &self.model;
        if let Some(first) = &self.first {
            assert_eq!(first.is_end_stream(), model.ends(&model.first));
            assert_eq!(hint_of(first), model.hint(&model.first));
        }
        if let Some(handle) = &self.handle {
            assert_eq!(handle.replayable(), model.verdict);
            if self.first.is_some() {
                let sent = model.sent.is_some() && model.ends(&model.first);
                assert_eq!(handle.is_sent(), sent || model.sent == Some(true));
            }
        }
        if let (Some(second), Some(attempt)) = (&self.second, &model.second) {
            let ends = model.kept.is_empty() && model.ends(attempt);
            assert_eq!(second.is_end_stream(), ends);
            let kept = model.kept.iter().filter(|step| matches!(step, Step::Data(_)));
            let kept = kept.map(bytes_of).sum::<usize>() as u64;
            let (lower, upper) = model.hint(attempt);
            let upper = upper.and_then(|upper| upper.checked_add(kept));
            assert_eq!(hint_of(second), (lower.saturating_add(kept), upper));
        }
        assert_eq!(self.budget.used(), model.used());
        assert!(self.budget.used() <= self.budget.limit());
    }
}

fn step() -> impl Strategy<Value = Step> {
    let chunk = prop::collection::vec(any::<u8>(), 0..6);
    let fields = prop::collection::vec((0..3usize, "[a-z]{0,4}"), 0..3);
    prop_oneof![
        12 => chunk.prop_map(|chunk| Step::Data(Bytes::from(chunk))),
        3 => Just(Step::Pending),
        2 => fields.prop_map(|fields| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                let name = HeaderName::from_static(["a", "x-bb", "grpc-status"][name]);
                map.append(name, HeaderValue::from_str(&value).unwrap());
            }
            Step::Trailers(map)
        }),
        1 => Just(Step::Fail),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let hint = prop_oneof![
        4 => Just(Hint::Right),
        2 => Just(Hint::Unknown),
        1 => (0..9u64).prop_map(|n| Hint::Fixed(n, Some(n))),
        1 => (0..9u64, 0..9u64).prop_map(|(n, more)| Hint::Fixed(n, Some(n + more))),
        1 => Just(Hint::Fixed(0, Some(u64::MAX))),
        1 => Just(Hint::Fixed(3, None)),
    ];
    // Long ones outgrow the list's first allocation.
    let steps = prop_oneof![
        3 => prop::collection::vec(step(), 0..12),
        1 => prop::collection::vec(step(), 12..60),
    ];
    (steps, hint, any::<bool>())
        .prop_map(|(steps, hint, tells_end)| Script::new(steps).hint(hint).tells_end(tells_end))
}

/// A length of script read by the first attempt, then anything.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => Just(Op::PollFirst),
        8 => Just(Op::PollReplay),
        1 => Just(Op::Release),
        4 => Just(Op::HandOver),
        1 => Just(Op::DropFirst),
        1 => Just(Op::DropHandle),
    ];
    (0..40usize, prop::collection::vec(op, 0..30)).prop_map(|(head, tail)| {
        let mut ops = vec![Op::PollFirst; head];
        ops.extend(tail);
        ops
    })
}

fn bound(small: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![3 => small, 2 => Just(usize::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn body_agrees_with_the_model(
        script in script(),
        ops in ops(),
        cap in bound(0..40),
        limit in bound(0..1200),
    ) {
        let whole = frames(&script);
        let fails = script.steps.iter().any(|step| matches!(step, Step::Fail));
        let rest = script.steps.len() + 2;

        let mut run = Run::new(script, cap, limit);
        run.agree();
        for op in ops {
            run.apply(op);
            run.agree();
        }
        for _ in 0..rest {
            for op in [Op::PollReplay, Op::PollFirst] {
                run.apply(op);
                run.agree();
            }
        }

        // And without the model: all of it, or an error.
        if run.second.is_some() {
            if fails {
                prop_assert!(whole.starts_with(&run.repeated));
            } else {
                prop_assert_eq!(&run.repeated, &whole);
            }
        }
        let Run { budget, first, handle, second, .. } = run;
        drop((first, handle, second));
        prop_assert_eq!(budget.used(), 0);
    }

    /// The clone is charged while it may be needed, and both attempts see the original's frames.
    #[test]
    fn a_clone_is_the_whole_body(
        script in script(),
        read in 0..12usize,
        cap in bound(0..40),
        limit in bound(0..400),
    ) {
        let budget = Budget::new(limit);
        let wakes = Arc::<Wakes>::default();
        let exact = script.size_hint().exact();
        let (mut first, replay) =
            ReplayBody::cloned(script.clone(), Script::clone, cap, &budget);
        let cloned = !script.is_end_stream() && exact.is_some_and(|exact| exact <= cap as u64);
        if cloned {
            let cost = exact.unwrap() as usize + 64;
            prop_assert_eq!(replay.replayable().is_ok(), cost <= limit);
            prop_assert_eq!(budget.used(), if cost <= limit { cost } else { 0 });
        }
        for _ in 0..read {
            poll(&mut first, &wakes);
        }
        if let Ok(mut second) = replay.into_replay() {
            if cloned {
                prop_assert_eq!(hint_of(&second), hint_of(&script));
            }
            let fails = script.steps.iter().any(|step| matches!(step, Step::Fail));
            let mut repeated = Vec::new();
            for _ in 0..script.steps.len() + 1 {
                let got = seen(poll(&mut second, &wakes));
                if is_frame(&got) {
                    repeated.push(got);
                }
            }
            let whole = frames(&script);
            prop_assert!(whole.starts_with(&repeated));
            prop_assert!(fails || whole == repeated);
        }
        drop(first);
        prop_assert_eq!(budget.used(), 0);
    }
}
