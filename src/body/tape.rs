//! What is kept of a body ([`Tape`]), and how it is sent again ([`Playback`]).

use std::task::Context;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use smallvec::{IntoIter, SmallVec};

use crate::error::BoxError;

use super::{
    budget::{Budget, Charge},
    error::NotReplayable,
    source::{PolledFrame, Source},
};

/// What the budget is charged for a kept frame or trailer field besides its bytes: about two slots
/// of a list that grows by doubling. The public docs of [`Budget`] name this number.
pub(super) const ENTRY_COST: usize = 64;

/// How many slots the list takes at once when there is a second frame, so that a body of up to
/// seventeen makes one allocation.
const SPILL: usize = 16;

/// Most bodies are one frame, which needs no list on the heap.
type Frames = SmallVec<[Kept; 1]>;

enum Kept {
    Data(Bytes),
    /// Boxed because trailers are rare, and three times the size of data.
    Trailers(Box<HeaderMap>),
}

/// What it costs to keep a frame.
#[derive(Default)]
struct Weight {
    /// Bytes of the body, as the cap counts them.
    bytes: usize,
    /// How many pieces need memory of their own: the frame, and each trailer field.
    entries: usize,
}

impl Weight {
    #[inline]
    fn data(data: &Bytes) -> Self {
        Self { bytes: data.len(), entries: 1 }
    }

    fn trailers(trailers: &HeaderMap) -> Self {
        let bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            name.as_str().len().saturating_add(value.len())
        };
        Self {
            bytes: trailers.iter().map(bytes).fold(0, usize::saturating_add),
            entries: 1 + trailers.len(),
        }
    }

    /// The bytes as the budget counts them.
    #[inline]
    fn cost(&self) -> usize {
        self.entries.saturating_mul(ENTRY_COST).saturating_add(self.bytes)
    }
}

/// The frames kept so far, within the cap and the budget.
pub(super) struct Tape {
    frames: Frames,
    /// Bytes of the kept data frames.
    data: u64,
    /// What the cap still allows, in bytes.
    room: usize,
    charge: Charge,
}

impl Tape {
    #[inline]
    pub(super) fn new(cap: usize, budget: &Budget) -> Self {
        Self { frames: Frames::new(), data: 0, room: cap, charge: Charge::none(budget) }
    }

    /// Keeps a frame. After an error the tape lacks one, and must not be played back.
    #[inline]
    pub(super) fn keep(&mut self, frame: &Frame<Bytes>) -> Result<(), NotReplayable> {
        if let Some(data) = frame.data_ref() {
            // An empty chunk would cost memory and carries nothing.
            if data.is_empty() {
                return Ok(());
            }
            self.admit(&Weight::data(data))?;
            self.data = self.data.saturating_add(data.len() as u64);
            self.push(Kept::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.admit(&Weight::trailers(trailers))?;
            self.push(Kept::Trailers(Box::new(trailers.clone())));
        } else {
            return Err(NotReplayable::Forbidden);
        }
        Ok(())
    }

    #[inline]
    fn admit(&mut self, weight: &Weight) -> Result<(), NotReplayable> {
        self.room = self.room.checked_sub(weight.bytes).ok_or(NotReplayable::TooLarge)?;
        if self.charge.grow(weight.cost()) { Ok(()) } else { Err(NotReplayable::OverBudget) }
    }

    #[inline]
    fn push(&mut self, frame: Kept) {
        if self.frames.len() == self.frames.inline_size() && !self.frames.spilled() {
            self.frames.reserve_exact(SPILL);
        }
        self.frames.push(frame);
    }
}

/// The body of a replay: what was kept, then the rest of the source. It owns both.
pub(super) struct Playback<B> {
    frames: IntoIter<[Kept; 1]>,
    /// How many bytes are in the data frames that `frames` still has.
    data: u64,
    charge: Charge,
    source: Source<B>,
}

impl<B> Playback<B> {
    pub(super) fn new(tape: Tape, source: Source<B>) -> Self {
        Self { frames: tape.frames.into_iter(), data: tape.data, charge: tape.charge, source }
    }

    /// Takes the next kept frame out, and gives back what it was charged.
    fn next_kept(&mut self) -> Option<Frame<Bytes>> {
        let kept = self.frames.next()?;
        if self.frames.len() == 0 {
            // Frees the list itself, which would stay for as long as the source goes on.
            self.frames = Frames::new().into_iter();
        }
        let (weight, frame) = match kept {
            Kept::Data(data) => {
                self.data = self.data.saturating_sub(data.len() as u64);
                (Weight::data(&data), Frame::data(data))
            }
            Kept::Trailers(trailers) => (Weight::trailers(&trailers), Frame::trailers(*trailers)),
        };
        self.charge.shrink(weight.cost());
        Some(frame)
    }
}

impl<B> Playback<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        match self.next_kept() {
            Some(frame) => PolledFrame::Ready(Some(Ok(frame))),
            None => self.source.poll_frame(cx),
        }
    }
}

impl<B: Body> Playback<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        self.frames.len() == 0 && self.source.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = self.source.size_hint();
        let mut hint = SizeHint::new();
        // A source may claim any size, so the sum may overflow: then there is no upper bound,
        // which is better than a wrong one.
        hint.set_lower(rest.lower().saturating_add(self.data));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(self.data)) {
            hint.set_upper(upper);
        }
        hint
    }
}
