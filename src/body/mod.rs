//! Request bodies that can be sent a second time.
//!
//! A [`RefreshLayer`](crate::RefreshLayer) sends a request's body `B` as a [`ReplayBody<B>`]: this is
//! what the inner service receives, for the first attempt as for the replay. The first attempt's body
//! is kept while it is sent. Nothing is read ahead, and nothing is copied: chunks are
//! reference-counted [`Bytes`].
//!
//! # Rules
//!
//! - A replay is byte for byte the original, trailers included, or there is none and
//!   [`NotReplayable`] says why. Frames without data are not repeated.
//! - At most [`replay_cap`](crate::RefreshLayer::replay_cap) bytes are kept of one body, and of all
//!   bodies together no more than their [`Budget`] allows. A longer body is sent on, and what was kept
//!   of it is freed.
//! - What was kept is freed when the response's head accepts the token. The first attempt goes on
//!   streaming for as long as it likes.
//! - A replay can begin while the first attempt still streams. It takes the source over; the first
//!   attempt is woken and ends in [`BodyErrorKind::Superseded`].
//! - [`is_end_stream`](Body::is_end_stream) and [`size_hint`](Body::size_hint) are those of the
//!   bytes still to come, at every moment. HTTP/1 clients choose the framing by them.
//!
//! # Caveats
//!
//! - The first attempt polls the source under a lock, and a replay that takes the source over waits
//!   for that poll.
//! - A source that says `is_end_stream` is believed: if it does so at the start, it replays as an
//!   empty body.
//! - After a source has panicked while it was polled there is no replay, and its reader gets an error.
//!
//! # Clients with a fixed body type
//!
//! hyper-util's client is generic: the compiler makes it a `Client<_, ReplayBody<B>>`. A client that
//! takes one type only, such as tonic's channel, gets one line between the layer and itself:
//!
#![cfg_attr(not(doctest), doc = include_str!("tonic.md"))]
//!
//! # Testing a service that stands below the layer
//!
//! [`ReplayBody::plain`] makes the body of a request for it, without a layer.

mod budget;
mod error;
mod keep;
mod source;
mod tape;
mod tee;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

use self::{
    budget::Charge,
    source::Source,
    tape::{ENTRY_COST, Playback, Tape},
    tee::{Keeper, Reader},
};

pub(crate) use self::keep::KeepBody;
pub use self::{
    budget::Budget,
    error::{BodyError, BodyErrorKind, NotReplayable},
    keep::{CloneBody, Tee, TryCloneBody},
};

/// The body of an attempt: the request's own, which may be kept while it is sent, or what was kept
/// of it and then the rest.
///
/// Its data are [`Bytes`], and its error is a [`BodyError`]. After its end or an error, polling it
/// again gives `None`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_refresh::body::ReplayBody;
///
/// /// A service that stands below the layer.
/// async fn server(request: Request<ReplayBody<Full<Bytes>>>) -> Response<Full<Bytes>> {
///     Response::new(Full::from(format!("{} {}", request.method(), request.uri().path())))
/// }
/// # let body = ReplayBody::plain(Full::<Bytes>::from("hello"));
/// # drop(server(Request::new(body)));
/// ```
pub struct ReplayBody<B>(Inner<B>);

// Each of them is a pointer at most: a request is moved about on its way through a client, and all of
// it with it.
enum Inner<B> {
    Empty,
    /// The source is this body's alone.
    Alone(Box<Source<B>>),
    /// The source is shared with the handle that may replay it.
    First(Reader<B>),
    Second(Box<Playback<B>>),
}

/// The handle that may replay a request's body, once.
///
/// Dropping it is a [`release`](Self::release).
// Public for this crate's own tests. Hidden, because nothing in the crate's API takes or gives one,
// and what is not promised can still be changed.
#[doc(hidden)]
pub struct Replay<B>(Kept<B>);

enum Kept<B> {
    Nothing {
        reason: NotReplayable,
        is_sent: bool,
    },
    Empty,
    Clone {
        body: B,
        /// Held for as long as the clone is.
        _charge: Charge,
    },
    Tee(Keeper<B>),
}

impl<B> ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// A body that is sent once: nothing of it is kept.
    pub fn plain(body: B) -> Self {
        // Its word alone will not do: clients announce the length that its hint names.
        match body.is_end_stream() && body.size_hint().exact() == Some(0) {
            true => Self(Inner::Empty),
            false => Self::whole(body),
        }
    }

    /// Keeps what the body yields while it is sent: at most `cap` bytes of data and trailers, charged to
    /// `budget`.
    ///
    /// Exactly `cap` bytes can be replayed. With a cap of `0` that is bodies without any, with
    /// `usize::MAX` only the budget limits. A body that is longer by its own
    /// [size hint](Body::size_hint) is not kept at all, and neither is one that is empty by its own
    /// word, which can always be replayed.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full};
    /// use tower_refresh::body::{Budget, NotReplayable, ReplayBody};
    ///
    /// # tokio_test::block_on(async {
    /// let budget = Budget::new(64 * 1024 * 1024);
    ///
    /// let (first, replay) = ReplayBody::tee(Full::new(Bytes::from("hello")), 1024, &budget);
    /// assert_eq!(first.collect().await?.to_bytes(), "hello");
    /// let second = replay.into_replay()?;
    /// assert_eq!(second.collect().await?.to_bytes(), "hello");
    /// assert_eq!(budget.used(), 0);
    ///
    /// // More than may be kept: sent as ever, but once.
    /// let (first, replay) = ReplayBody::tee(Full::new(Bytes::from("hello")), 4, &budget);
    /// assert_eq!(first.collect().await?.to_bytes(), "hello");
    /// assert_eq!(replay.replayable(), Err(NotReplayable::TooLarge));
    /// # Ok::<_, tower_refresh::BoxError>(())
    /// # }).unwrap();
    /// ```
    #[doc(hidden)] // as `Replay` is
    pub fn tee(body: B, cap: usize, budget: &Budget) -> (Self, Replay<B>) {
        if body.is_end_stream() {
            return (Self::plain(body), Replay(Kept::Empty));
        }
        if body.size_hint().lower() > cap as u64 {
            return (Self::plain(body), Replay::never(NotReplayable::TooLarge));
        }
        let (reader, keeper) = tee::tee(body, Tape::new(cap, budget));
        (Self(Inner::First(reader)), Replay(Kept::Tee(keeper)))
    }

    /// Keeps a copy made by `clone`, for bodies that are cheap to clone.
    ///
    /// The copy is charged to `budget` until the replay begins or is given up. The two share
    /// nothing, so a replay does not end the first attempt.
    ///
    /// The body's size hint is trusted for its size, trailers not counted. A body that does not
    /// know its exact size, or is longer than `cap`, is handled as by [`tee`](Self::tee).
    #[doc(hidden)] // as `Replay` is
    pub fn cloned(body: B, clone: fn(&B) -> B, cap: usize, budget: &Budget) -> (Self, Replay<B>) {
        Self::with_copy(body, clone, cap, budget)
    }

    /// [`cloned`](Self::cloned), with a closure that may have made the copy before.
    pub(crate) fn with_copy(
        body: B,
        clone: impl FnOnce(&B) -> B,
        cap: usize,
        budget: &Budget,
    ) -> (Self, Replay<B>) {
        let exact = body.size_hint().exact();
        let size = match exact.and_then(|exact| usize::try_from(exact).ok()) {
            Some(size) if size <= cap && !body.is_end_stream() => size,
            _ => return Self::tee(body, cap, budget),
        };
        let mut charge = Charge::none(budget);
        let replay = if charge.grow(size.saturating_add(ENTRY_COST)) {
            Replay(Kept::Clone { body: clone(&body), _charge: charge })
        } else {
            Replay::never(NotReplayable::OverBudget)
        };
        (Self::plain(body), replay)
    }

    /// Keeps a copy if there can be one, and never anything else: both bodies are the source's own
    /// type, whole and alone. A body is taken to be as large as it says at least.
    pub(crate) fn with_whole_copy(
        body: B,
        clone: impl FnOnce(&B) -> Option<B>,
        cap: usize,
        budget: &Budget,
    ) -> (Self, Replay<B>) {
        let size = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut charge = Charge::none(budget);
        let copy = if size > cap {
            Err(NotReplayable::TooLarge)
        } else if !body.is_end_stream() && !charge.grow(size.saturating_add(ENTRY_COST)) {
            Err(NotReplayable::OverBudget)
        } else {
            clone(&body).ok_or(NotReplayable::Uncloneable)
        };
        let replay = match copy {
            Ok(body) => Replay(Kept::Clone { body, _charge: charge }),
            Err(reason) => Replay::never(reason),
        };
        (Self::whole(body), replay)
    }
}

impl<B> ReplayBody<B> {
    /// As [`plain`](Self::plain), and it has the body even if that is empty.
    pub(crate) fn whole(body: B) -> Self {
        Self(Inner::Alone(Box::new(Source::new(body))))
    }

    /// The request's own body, if this attempt alone has it and no poll of it has panicked.
    pub(crate) fn into_source(self) -> Result<B, Self> {
        match self.0 {
            Inner::Alone(source) => match *source {
                Source::Live { body, intact: true } => Ok(body),
                source => Err(Self(Inner::Alone(Box::new(source)))),
            },
            inner => Err(Self(inner)),
        }
    }
}

impl<B> Replay<B> {
    /// A handle that has no body and says why there is no replay.
    pub fn never(reason: NotReplayable) -> Self {
        Self(Kept::Nothing { reason, is_sent: false })
    }

    /// Whether the body can be replayed as things are now.
    ///
    /// # Errors
    ///
    /// The reason why not, which is final. `Ok` is not: the first attempt may go on to read more
    /// than can be kept.
    pub fn replayable(&self) -> Result<(), NotReplayable> {
        match &self.0 {
            Kept::Nothing { reason, .. } => Err(*reason),
            Kept::Empty | Kept::Clone { .. } => Ok(()),
            Kept::Tee(keeper) => keeper.replayable(),
        }
    }

    /// Whether a replay would leave the first attempt alone: that one has read its source to the
    /// end, or has a source of its own.
    ///
    /// `false` if nothing is known of the body, as with [`never`](Self::never).
    pub fn is_sent(&self) -> bool {
        match &self.0 {
            Kept::Nothing { is_sent, .. } => *is_sent,
            Kept::Empty | Kept::Clone { .. } => true,
            Kept::Tee(keeper) => keeper.is_sent(),
        }
    }

    /// Stops keeping, and frees what was kept: there will be no replay. The first attempt goes on.
    ///
    /// Another call changes nothing.
    pub fn release(&mut self) {
        match &self.0 {
            Kept::Nothing { .. } => {}
            Kept::Empty | Kept::Clone { .. } => {
                self.0 = Kept::Nothing { reason: NotReplayable::Released, is_sent: true };
            }
            Kept::Tee(keeper) => keeper.release(),
        }
    }

    /// The body of the replay: what was kept, then what the source still has.
    ///
    /// A first attempt that still streams is woken and ends in [`BodyErrorKind::Superseded`]. Kept
    /// chunks are freed one by one as they are sent.
    ///
    /// # Errors
    ///
    /// The reason why there is no replay. The first attempt goes on undisturbed.
    pub fn into_replay(self) -> Result<ReplayBody<B>, NotReplayable> {
        Ok(ReplayBody(match self.0 {
            Kept::Nothing { reason, .. } => return Err(reason),
            Kept::Empty => Inner::Empty,
            Kept::Clone { body, .. } => Inner::Alone(Box::new(Source::new(body))),
            Kept::Tee(keeper) => {
                let (tape, source) = keeper.hand_over()?;
                Inner::Second(Box::new(Playback::new(tape, source)))
            }
        }))
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Alone(source) => source.poll_frame(cx),
            Inner::First(reader) => reader.poll_frame(cx),
            Inner::Second(playback) => playback.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Alone(source) => source.is_end_stream(),
            Inner::First(reader) => reader.is_end_stream(),
            Inner::Second(playback) => playback.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Alone(source) => source.size_hint(),
            Inner::First(reader) => reader.size_hint(),
            Inner::Second(playback) => playback.size_hint(),
        }
    }
}

/// An empty body. Layers that send a request on without its body ask for one, such as those that
/// follow redirects.
impl<B> Default for ReplayBody<B> {
    fn default() -> Self {
        Self(Inner::Empty)
    }
}

// A body that is polled has to be `Unpin` itself, so nothing in here is ever pinned.
impl<B> Unpin for ReplayBody<B> {}

// By hand, because a body's bytes may be secret; and without looking under the lock, which the
// caller may hold.
impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Empty => "ReplayBody(empty)",
            Inner::Alone(_) => "ReplayBody(alone)",
            Inner::First(_) => "ReplayBody(first)",
            Inner::Second(_) => "ReplayBody(second)",
        })
    }
}

impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Nothing { reason, .. } => write!(f, "Replay({reason:?})"),
            Kept::Empty => f.write_str("Replay(empty)"),
            Kept::Clone { .. } => f.write_str("Replay(clone)"),
            Kept::Tee(_) => f.write_str("Replay(tee)"),
        }
    }
}
