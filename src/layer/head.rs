//! A copy of a request's head, to send the request again.
//!
//! `HeaderMap::clone` costs two allocations, and one more for each value that is not
//! shared yet, on every request, for the sake of the few that are replayed. [`Head`] writes
//! names and values one after the other into one block instead, and builds a map from it
//! only for a replay. When a request is done, its thread keeps the block for the next one.
//!
//! Every block is wiped when its request is done, and also when a longer one takes its place:
//! cookies and keys that a caller has sent do not stay behind in memory that is used again or
//! given back.

use std::{cell::Cell, mem, sync::Arc};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::AUTHORIZATION,
    request::{Parts, Request},
};
use tokio::time::Instant;

use super::route::route;
use crate::{
    grpc::timeout,
    state::{RefreshState, Route},
};

/// A copy of a request's head.
pub(super) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    /// The extensions were nothing but the request's own credential. That is kept elsewhere, and a
    /// copy of them would be three allocations.
    is_own_state_left_out: bool,
    /// Until when the request has time, by its `grpc-timeout`.
    deadline: Option<Instant>,
    headers: Block,
}

/// Headers, one after the other: both lengths and whether the value is sensitive
/// ([`LENGTHS`] bytes), name, value. Zero from `used` on.
struct Block {
    bytes: Vec<u8>,
    used: usize,
}

/// What was seen while headers were written.
struct Written {
    has_timeout: bool,
}

thread_local! {
    /// The block of the last head that was dropped on this thread. All zero.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger blocks are freed: the thread may never need one again, and would keep it until its
/// end.
const MAX_SPARE: usize = 4 << 10;

/// How many bytes stand before each header.
const LENGTHS: usize = 8;

/// The bit beside the lengths that marks a value sensitive.
const SENSITIVE: u64 = 1 << 63;

/// The longest name or value that can be written.
const MAX_LENGTH: usize = (1 << 31) - 1;

impl Head {
    /// Copies a head, but for its `Authorization`: a request that brings its own is left
    /// alone and not copied, so the one that is there is this attempt's token, and the replay
    /// carries another. `None` if a header is longer than anything that can be sent (2 GiB).
    /// `own_state` is the request's own credential, and will be there for
    /// [`restore`](Self::restore).
    pub(super) fn save(parts: &Parts, own_state: Option<&Arc<RefreshState>>) -> Option<Self> {
        let mut headers = Block::spare();
        let Written { has_timeout } = loop {
            match headers.write(&parts.headers) {
                Some(written) => break written,
                None => headers = headers.longer(&parts.headers)?,
            }
        };
        let is_own_state_left_out =
            own_state.is_some_and(|state| has_nothing_but(&parts.extensions, state));
        let extensions = match is_own_state_left_out {
            true => Extensions::new(),
            false => parts.extensions.clone(),
        };
        Some(Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            extensions,
            is_own_state_left_out,
            deadline: if has_timeout { timeout::deadline(&parts.headers) } else { None },
            headers,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn route(&self) -> Option<Route> {
        route(&self.method, &self.uri)
    }

    pub(super) fn restore(self, own_state: Option<&Arc<RefreshState>>) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.headers = self.headers.header_map();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.extensions = self.extensions;
        if let Some(state) = own_state.filter(|_| self.is_own_state_left_out) {
            parts.extensions.insert(Arc::clone(state));
        }
        parts
    }
}

impl Block {
    /// This thread's spare, or an empty one.
    fn spare() -> Self {
        // A thread that ends has no spare any more.
        Self { bytes: SPARE.try_with(Cell::take).unwrap_or_default(), used: 0 }
    }

    /// One with room for all of these, in place of one that has not. `None` if this one has: then
    /// a header is too long.
    #[cold]
    fn longer(self, headers: &HeaderMap) -> Option<Self> {
        let size = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTHS + name.as_str().len() + value.len()
        };
        let copied = headers.iter().filter(|(name, _)| **name != AUTHORIZATION);
        let size = copied.map(size).sum();
        (size > self.bytes.len()).then(|| Self { bytes: vec![0; size], used: 0 })
    }

    /// Writes headers into an empty block. `None` if there is no room, or one is too long.
    fn write(&mut self, headers: &HeaderMap) -> Option<Written> {
        // All of it is to be wiped, should this end early.
        self.used = self.bytes.len();
        let mut room = self.bytes.as_mut_slice();
        let mut has_timeout = false;
        for (name, value) in headers {
            if *name == AUTHORIZATION {
                continue;
            }
            let (name, sensitive) = (name.as_str().as_bytes(), value.is_sensitive());
            // The first letter tells nearly all of them apart.
            if name.first() == Some(&b'g') && name == timeout::NAME.as_bytes() {
                has_timeout = true;
            }
            room = put(room, name, value.as_bytes(), sensitive)?;
        }
        let left = room.len();
        self.used -= left;
        Some(Written { has_timeout })
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        let mut rest = &self.bytes[..self.used];
        while let Some((name, value, after)) = first(rest) {
            rest = after;
            map.append(name, value);
        }
        debug_assert!(rest.is_empty());
        map
    }

    fn wipe(&mut self) {
        let used = &mut self.bytes[..mem::take(&mut self.used)];
        used.fill(0);
        // Without it the compiler may leave out zeros that are never read.
        zeroize::optimization_barrier(used);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.wipe();
        if (1..=MAX_SPARE).contains(&self.bytes.len()) {
            // A thread that ends does not take it, and it is freed.
            let _ = SPARE.try_with(|spare| spare.set(mem::take(&mut self.bytes)));
        }
    }
}

fn has_nothing_but(extensions: &Extensions, state: &Arc<RefreshState>) -> bool {
    extensions.len() == 1 && extensions.get().is_some_and(|found| Arc::ptr_eq(found, state))
}

/// Writes a header to the beginning; the room that is left. `None` if it is too small.
fn put<'a>(room: &'a mut [u8], name: &[u8], value: &[u8], sensitive: bool) -> Option<&'a mut [u8]> {
    let lengths = lengths(name, value, sensitive)?;
    // Does not overflow, because neither is longer than `MAX_LENGTH`.
    let (place, left) = room.split_at_mut_checked(LENGTHS + name.len() + value.len())?;
    let (beginning, text) = place.split_first_chunk_mut()?;
    *beginning = lengths.to_ne_bytes();
    let (first, second) = text.split_at_mut_checked(name.len())?;
    first.copy_from_slice(name);
    second.copy_from_slice(value);
    Some(left)
}

/// Both lengths and the mark in one number, so that they are written at once.
fn lengths(name: &[u8], value: &[u8], sensitive: bool) -> Option<u64> {
    let mark = if sensitive { SENSITIVE } else { 0 };
    let short = (name.len() | value.len()) <= MAX_LENGTH;
    short.then_some((name.len() as u64) << 32 | value.len() as u64 | mark)
}

/// The first header, and what comes after it. `None` at the end of the used bytes, and not
/// before: what was written comes from a valid map.
fn first(used: &[u8]) -> Option<(HeaderName, HeaderValue, &[u8])> {
    let (lengths, rest) = used.split_first_chunk::<LENGTHS>()?;
    let lengths = u64::from_ne_bytes(*lengths);
    let (name, rest) = rest.split_at_checked(((lengths & !SENSITIVE) >> 32) as usize)?;
    let (value, rest) = rest.split_at_checked(lengths as usize & MAX_LENGTH)?;
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(lengths & SENSITIVE != 0);
    Some((HeaderName::from_bytes(name).ok()?, value, rest))
}

/// How long the block of this thread's spare is, and whether all of it is zero. `None` without
/// a spare: a head of this thread has it.
#[cfg(test)]
pub(super) fn spare() -> Option<(usize, bool)> {
    let spare = SPARE.take();
    let found = (spare.len(), spare.iter().all(|byte| *byte == 0));
    SPARE.set(spare);
    (found.0 > 0).then_some(found)
}

#[cfg(test)]
mod tests;
