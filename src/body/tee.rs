//! What a first attempt ([`Reader`]) shares with the handle that may replay it ([`Keeper`]).

use std::{
    mem,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use http_body::{Body, SizeHint};

use crate::{
    error::BoxError,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use super::{
    error::NotReplayable,
    source::{PolledFrame, Source},
    tape::Tape,
};

/// A first attempt and its handle, tied to one source.
pub(super) fn tee<B: Body>(body: B, tape: Tape) -> (Reader<B>, Keeper<B>) {
    let core = Arc::new(Core {
        end: AtomicU8::new(until_end(&body.size_hint())),
        state: Mutex::new(State {
            source: Source::new(body),
            ended: false,
            kept: Ok(tape),
            waker: None,
        }),
    });
    (Reader(Arc::clone(&core)), Keeper(core))
}

/// The first attempt's end: reads the source, and keeps on the tape what it reads.
pub(super) struct Reader<B>(Arc<Core<B>>);

/// The handle's end: takes tape and source over, or frees the tape, at the latest when it is
/// dropped.
pub(super) struct Keeper<B>(Arc<Core<B>>);

struct Core<B> {
    /// What the first attempt knows of its source's end without the lock. It alone reads and
    /// writes it.
    end: AtomicU8,
    state: Mutex<State<B>>,
}

/// The source is to be asked: it may learn of its end between two polls.
const UNKNOWN: u8 = 0;

/// The source has said how many bytes it has yet.
const TO_COME: u8 = 1;

const REACHED: u8 = 2;

fn until_end(hint: &SizeHint) -> u8 {
    match hint.exact() {
        Some(1..) => TO_COME,
        _ => UNKNOWN,
    }
}

struct State<B> {
    source: Source<B>,
    /// Whether the first attempt has read all of the source, or was told so. Stored, because the
    /// handle's methods do not know that `B` is a body.
    ended: bool,
    kept: Result<Tape, NotReplayable>,
    /// Wakes a first attempt that waits for its source, for as long as a replay can supersede it.
    waker: Option<Waker>,
}

impl<B> Core<B> {
    /// Does not mind a poisoned lock: only the source can panic under it, and [`Source`] remembers
    /// that itself.
    ///
    /// What is taken out of the state must be dropped after the guard. Destructors are the user's
    /// code, and that of a waker may drop the very task that holds the handle.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    fn replayable(&self) -> Result<(), NotReplayable> {
        match &self.kept {
            Err(reason) => Err(*reason),
            Ok(_) if self.source.is_broken() => Err(NotReplayable::SourceFailed),
            Ok(_) => Ok(()),
        }
    }

    /// Stops keeping, unless it has stopped for another reason already.
    fn stop(&mut self, reason: NotReplayable) -> Option<Tape> {
        self.kept.as_ref().ok()?;
        mem::replace(&mut self.kept, Err(reason)).ok()
    }
}

impl<B> Reader<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> PolledFrame {
        // Declared before the guard, and therefore dropped after it.
        let mut _freed = None;
        let mut _stale = None;

        let mut guard = self.0.lock();
        let state = &mut *guard;
        let polled = state.source.poll_frame(cx);
        if let Ok(tape) = &mut state.kept {
            let kept = match &polled {
                Poll::Ready(Some(Ok(frame))) => tape.keep(frame),
                Poll::Ready(Some(Err(_))) => Err(NotReplayable::SourceFailed),
                Poll::Ready(None) => Ok(()),
                Poll::Pending => {
                    let known = state.waker.as_ref();
                    if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {
                        _stale = state.waker.replace(cx.waker().clone());
                    }
                    Ok(())
                }
            };
            if let Err(reason) = kept {
                _freed = state.stop(reason);
            }
        }
        // Last: should the source panic here, its frame is on the tape already.
        state.ended = state.source.is_end_stream();
        let end = if state.ended { REACHED } else { until_end(&state.source.size_hint()) };
        self.0.end.store(end, Relaxed);
        polled
    }
}

impl<B: Body> Reader<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        match self.0.end.load(Relaxed) {
            REACHED => return true,
            TO_COME => return false,
            _ => {}
        }
        let mut state = self.0.lock();
        // A source can learn of its end between two polls. Once the client is told, it stays so: a
        // replay that takes the source over must not turn this end into an error.
        state.ended |= state.source.is_end_stream();
        state.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.0.lock().source.size_hint()
    }
}

impl<B> Keeper<B> {
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        self.0.lock().replayable()
    }

    pub(super) fn is_sent(&self) -> bool {
        self.0.lock().ended
    }

    pub(super) fn release(&self) {
        let mut state = self.0.lock();
        let freed = (state.stop(NotReplayable::Released), state.waker.take());
        drop(state);
        drop(freed);
    }

    /// Takes what was kept and the source out, and ends a first attempt that still streams.
    pub(super) fn hand_over(self) -> Result<(Tape, Source<B>), NotReplayable> {
        let mut state = self.0.lock();
        state.replayable()?;
        let tape = mem::replace(&mut state.kept, Err(NotReplayable::Released))?;
        let left = if state.ended { Source::Over } else { Source::Superseded };
        let source = mem::replace(&mut state.source, left);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok((tape, source))
    }
}

impl<B> Drop for Keeper<B> {
    fn drop(&mut self) {
        // In most cases the first attempt is over by now, and the core goes with this end.
        if Arc::strong_count(&self.0) > 1 {
            self.release();
        }
    }
}
