//! A body that follows a script, and insists on being polled by the rules.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Wake},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What one poll gives.
#[derive(Clone, Debug)]
pub enum Step {
    /// A chunk.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
    /// Not ready once; no waker is woken.
    Pending,
    /// An error.
    Fail,
    /// A panic.
    Panic,
}

/// What `size_hint` says.
#[derive(Clone, Copy, Debug)]
pub enum Hint {
    /// The exact number of data bytes that are left.
    Right,
    /// Nothing.
    Unknown,
    /// Always the same, right or wrong.
    Fixed(u64, Option<u64>),
}

/// The body. It panics if it is polled after its end.
#[derive(Clone, Debug)]
pub struct Script {
    /// What is left.
    pub steps: VecDeque<Step>,
    /// What `size_hint` says.
    pub hint: Hint,
    /// Whether `is_end_stream` ever says so.
    pub tells_end: bool,
    over: bool,
}

impl Script {
    /// These steps, with an exact hint.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            hint: Hint::Right,
            tells_end: false,
            over: false,
        }
    }

    /// These chunks.
    pub fn chunks<const N: usize>(chunks: [&'static str; N]) -> Self {
        Self::new(chunks.map(data))
    }

    /// With this hint.
    pub fn hint(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }

    /// With an `is_end_stream` that says so at the end, or does not.
    pub fn tells_end(self, tells_end: bool) -> Self {
        Self { tells_end, ..self }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        assert!(!this.over, "polled after the end");
        this.over = matches!(this.steps.front(), None | Some(Step::Fail | Step::Panic));
        Poll::Ready(match this.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err(std::io::Error::other("disk on fire"))),
            Some(Step::Panic) => panic!("scripted"),
            Some(Step::Pending) => return Poll::Pending,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.hint {
            Hint::Right => {
                let left = self.steps.iter().map(|step| match step {
                    Step::Data(data) => data.len() as u64,
                    _ => 0,
                });
                SizeHint::with_exact(left.sum())
            }
            Hint::Unknown => SizeHint::default(),
            Hint::Fixed(lower, upper) => {
                let mut hint = SizeHint::new();
                hint.set_lower(lower);
                if let Some(upper) = upper {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

/// A step that is a chunk.
pub fn data(chunk: &'static str) -> Step {
    Step::Data(Bytes::from_static(chunk.as_bytes()))
}

/// A step that is trailers.
pub fn trailers(fields: &[(&'static str, &'static str)]) -> Step {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    Step::Trailers(map)
}

/// What one poll of a body gave.
#[derive(Debug)]
pub enum Got<E> {
    /// Not ready.
    Pending,
    /// A chunk.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
    /// An error.
    Failed(E),
    /// The end.
    End,
}

/// Errors are equal if they read the same.
impl<E: fmt::Display> PartialEq for Got<E> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pending, Self::Pending) | (Self::End, Self::End) => true,
            (Self::Data(a), Self::Data(b)) => a == b,
            (Self::Trailers(a), Self::Trailers(b)) => a == b,
            (Self::Failed(a), Self::Failed(b)) => a.to_string() == b.to_string(),
            _ => false,
        }
    }
}

/// Polls once, with a waker that counts.
pub fn poll<B: Body<Data = Bytes> + Unpin>(body: &mut B, wakes: &Arc<Wakes>) -> Got<B::Error> {
    let waker = Arc::clone(wakes).into();
    match Pin::new(body).poll_frame(&mut Context::from_waker(&waker)) {
        Poll::Pending => Got::Pending,
        Poll::Ready(None) => Got::End,
        Poll::Ready(Some(Err(error))) => Got::Failed(error),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Got::Data(data),
            Err(frame) => Got::Trailers(frame.into_trailers().unwrap()),
        },
    }
}

/// A waker that counts.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    /// How often it was woken.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A `size_hint` as two numbers.
pub fn hint_of(body: &impl Body) -> (u64, Option<u64>) {
    (body.size_hint().lower(), body.size_hint().upper())
}
