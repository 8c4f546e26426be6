//! What is kept of a body, and how it is played back.

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
/// of a list that grows by doubling. [`Budget`]'s documentation names the number.
pub(super) const ENTRY_COST: usize = 64;

/// Slots taken at once when the first frame is not the last: sixteen chunks and the trailers make
/// one allocation.
const SPILL: usize = 16;

/// Most bodies are one frame, and that one needs no list.
type Frames = SmallVec<[Kept; 1]>;

enum Kept {
    Data(Bytes),
    /// Boxed because it is rare and three times the size of the other.
    Trailers(Box<HeaderMap>),
}

/// The size of a frame.
#[derive(Default)]
struct Weight {
    /// Bytes of the body, as the cap counts them.
    bytes: usize,
    /// Pieces that need memory of their own.
    entries: usize,
}

impl Weight {
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

    /// As the budget counts them.
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
    pub(super) fn new(cap: usize, budget: &Budget) -> Self {
        Self { frames: Frames::new(), data: 0, room: cap, charge: Charge::none(budget) }
    }

    /// Keeps a frame. After an error the tape has a hole and is of no more use.
    pub(super) fn keep(&mut self, frame: &Frame<Bytes>) -> Result<(), NotReplayable> {
        if let Some(data) = frame.data_ref() {
            // It would cost memory and carries nothing.
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

    fn admit(&mut self, weight: &Weight) -> Result<(), NotReplayable> {
        self.room = self.room.checked_sub(weight.bytes).ok_or(NotReplayable::TooLarge)?;
        if self.charge.grow(weight.cost()) { Ok(()) } else { Err(NotReplayable::OverBudget) }
    }

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
    /// Bytes of the data frames still to come from `frames`.
    data: u64,
    charge: Charge,
    source: Source<B>,
}

impl<B> Playback<B> {
    pub(super) fn new(tape: Tape, source: Source<B>) -> Self {
        Self { frames: tape.frames.into_iter(), data: tape.data, charge: tape.charge, source }
    }

    /// The next kept frame; it is kept and charged no longer.
    fn next_kept(&mut self) -> Option<Frame<Bytes>> {
        let kept = self.frames.next()?;
        if self.frames.len() == 0 {
            // The list itself would stay for as long as the source goes on.
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
        // The source may claim anything. No upper bound is better than a wrong one.
        hint.set_lower(rest.lower().saturating_add(self.data));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(self.data)) {
            hint.set_upper(upper);
        }
        hint
    }
}
