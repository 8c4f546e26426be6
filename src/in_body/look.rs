//! [`BodyLook`]: gives the bytes of a body to the rules.

use std::{fmt, io::IoSlice, time::Duration};

use bytes::Buf;
use http::Response;
use http_body::Frame;

use super::{
    InBodyLayer,
    rule::{Head, Reader, Said},
};
use crate::{
    layer::Verdict,
    peek::{Look, Next, Peek},
};

/// A look by all rules that the response is of interest for.
pub struct BodyLook {
    readers: Vec<Box<dyn Reader>>,
    found: Option<Verdict>,
    /// How many bytes may still be looked at.
    left: usize,
    hold: Duration,
}

impl Peek for InBodyLayer {
    type Look = BodyLook;

    fn begin<B>(&self, response: &Response<B>) -> Option<BodyLook> {
        let head = Head { status: response.status(), headers: response.headers(), cap: self.cap };
        // A layer below may know better.
        if !head.is_readable() || response.extensions().get::<Verdict>().is_some() {
            return None;
        }
        let readers: Vec<_> = self.rules.iter().filter_map(|rule| rule.begin(&head)).collect();
        let look = BodyLook { readers, found: None, left: self.cap, hold: self.hold };
        (!look.readers.is_empty()).then_some(look)
    }
}

/// In how many pieces at most a chunk may lie in memory.
const PIECES: usize = 16;

impl Look for BodyLook {
    fn frame<D: Buf>(&mut self, frame: &Frame<D>) -> Next {
        // Trailers are the last frame.
        let Some(data) = frame.data_ref() else { return Next::Enough };
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = data.chunks_vectored(&mut pieces);
        let (mut next, mut seen) = (Next::Wait, 0);
        for piece in &pieces[..count] {
            let piece = &piece[..piece.len().min(self.left - seen)];
            seen += piece.len();
            next = self.read(piece);
            if next == Next::Enough {
                return next;
            }
        }
        if seen == 0 {
            next = self.read(&[]);
        }
        // An empty chunk counts as well: there may be any number of them.
        self.left = self.left.saturating_sub(seen.max(1));
        // Either the cap is reached, or the chunk cannot be seen whole.
        if self.left == 0 || seen < data.remaining() { Next::Enough } else { next }
    }

    fn conclude<B>(mut self, response: &mut Response<B>) {
        let found = self.found.or_else(|| self.readers.iter_mut().find_map(|it| it.end()));
        if let Some(verdict) = found {
            tracing::debug!(?verdict, "found in a response's body");
            response.extensions_mut().insert(verdict);
        }
    }

    fn hold(&self) -> Duration {
        self.hold
    }
}

impl BodyLook {
    fn read(&mut self, bytes: &[u8]) -> Next {
        let (mut next, mut found) = (Next::Enough, None);
        self.readers.retain_mut(|reader| {
            if found.is_some() {
                return true;
            }
            match reader.read(bytes) {
                Said::More => next = Next::Wait,
                Said::Glance if next == Next::Enough => next = Next::Glance,
                Said::Glance => {}
                Said::Found(verdict) => found = Some(verdict),
                Said::Nothing => return false,
            }
            true
        });
        self.found = found;
        if found.is_some() { Next::Enough } else { next }
    }
}

// By hand, because what is looked at may be secret.
impl fmt::Debug for BodyLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyLook").finish_non_exhaustive()
    }
}
