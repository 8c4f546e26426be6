//! A copy of a request's head, to send it again.
//!
//! `HeaderMap::clone` costs two allocations and one more for each value that is not
//! shared yet, on every request, for the sake of the few that are replayed. Here
//! names and values are written one after the other into one block, and a map is
//! built from it only when it is needed. The block of a request that is done serves
//! the thread's next one.

use std::{cell::Cell, mem};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    request::{Parts, Request},
};
use tokio::time::Instant;

use crate::grpc::timeout;

/// A request's head, without its headers' map.
pub(crate) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    /// Until when the request has time, by its `grpc-timeout`.
    deadline: Option<Instant>,
    /// For each header: both lengths and whether it is sensitive (8 bytes), name,
    /// value.
    headers: Block,
}

struct Block(Vec<u8>);

thread_local! {
    /// What the last head that was dropped on this thread has left.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger block is not kept: nobody knows how long the thread goes on.
const LARGEST_SPARE: usize = 4 << 10;

/// The bit beside the lengths that marks a value sensitive.
const SENSITIVE: u64 = 1 << 63;

const LENGTHS: usize = 8;

/// The longest name or value that can be noted.
const MOST: usize = (1 << 31) - 1;

impl Head {
    /// `None` if a header is longer than anything that can be sent (2 GiB).
    pub(crate) fn save(parts: &Parts) -> Option<Self> {
        let mut block = Block::take();
        let size = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTHS + name.as_str().len() + value.len()
        };
        let Block(headers) = &mut block;
        if headers.capacity() == 0 {
            headers.reserve_exact(parts.headers.iter().map(size).sum());
        }
        let mut in_a_hurry = false;
        for (name, value) in &parts.headers {
            let (name, sensitive) = (name.as_str().as_bytes(), value.is_sensitive());
            // The first letter tells nearly all of them apart.
            if name.first() == Some(&b'g') && name == timeout::NAME.as_bytes() {
                in_a_hurry = true;
            }
            let value = value.as_bytes();
            headers.extend_from_slice(&lengths(name, value, sensitive)?.to_ne_bytes());
            headers.extend_from_slice(name);
            headers.extend_from_slice(value);
        }
        Some(Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            extensions: parts.extensions.clone(),
            deadline: if in_a_hurry { timeout::deadline(&parts.headers) } else { None },
            headers: block,
        })
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn restore(self) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.headers = self.header_map();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.extensions = self.extensions;
        parts
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        let mut rest = self.headers.0.as_slice();
        while let Some((name, value, left)) = next(rest) {
            rest = left;
            map.append(name, value);
        }
        debug_assert!(rest.is_empty());
        map
    }
}

impl Block {
    /// An empty one, which may have room.
    fn take() -> Self {
        // A thread that ends has none.
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut block = mem::take(&mut self.0);
        if (1..=LARGEST_SPARE).contains(&block.capacity()) {
            block.clear();
            // As above: then it is freed.
            let _ = SPARE.try_with(|spare| spare.set(block));
        }
    }
}

/// Both lengths and the mark in one number, so that they are written at once.
fn lengths(name: &[u8], value: &[u8], sensitive: bool) -> Option<u64> {
    let mark = if sensitive { SENSITIVE } else { 0 };
    let short = (name.len() | value.len()) <= MOST;
    short.then_some((name.len() as u64) << 32 | value.len() as u64 | mark)
}

/// The first header of the block. `None` at its end, and never before: what was
/// written comes from a valid map.
fn next(block: &[u8]) -> Option<(HeaderName, HeaderValue, &[u8])> {
    let (lengths, rest) = block.split_first_chunk::<LENGTHS>()?;
    let lengths = u64::from_ne_bytes(*lengths);
    let (name, rest) = rest.split_at_checked(((lengths & !SENSITIVE) >> 32) as usize)?;
    let (value, rest) = rest.split_at_checked(lengths as usize & MOST)?;
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(lengths & SENSITIVE != 0);
    Some((HeaderName::from_bytes(name).ok()?, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_whole() {
        #[derive(Clone, Debug, PartialEq)]
        struct Mark(u8);
        let mut secret = HeaderValue::from_static("hush");
        secret.set_sensitive(true);
        let request = Request::builder()
            .method("PROPFIND")
            .uri("https://user@example.com:8443/a/b?c=d")
            .version(Version::HTTP_2)
            .header("accept", "text/html")
            .header("x-many", "one")
            .header("x-many", "two")
            .header("cookie", secret)
            .header("x-many", "three")
            .header("x-empty", "")
            .header("x-opaque", HeaderValue::from_bytes(b"\xff\xfe").unwrap())
            .extension(Mark(7))
            .body(())
            .unwrap();
        let (before, ()) = request.into_parts();
        let after = Head::save(&before).unwrap().restore();

        assert_eq!(before.method, after.method);
        assert_eq!(before.uri, after.uri);
        assert_eq!(before.version, after.version);
        assert_eq!(after.extensions.get::<Mark>(), Some(&Mark(7)));
        let list = |parts: &Parts| {
            let one = |(name, value): (&HeaderName, &HeaderValue)| {
                (name.clone(), value.clone(), value.is_sensitive())
            };
            parts.headers.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(list(&before), list(&after));
    }

    #[test]
    fn nothing_of_one_request_comes_back_with_the_next() {
        let with = |name: &'static str| {
            let request = Request::builder().header(name, "value").body(()).unwrap();
            request.into_parts().0
        };
        drop(Head::save(&with("x-first")));
        let first = Head::save(&with("x-second")).unwrap();
        // Two at once, and one after the other, all on one thread.
        let second = Head::save(&with("x-third")).unwrap();
        assert_eq!(first.restore().headers, with("x-second").headers);
        assert_eq!(second.restore().headers, with("x-third").headers);
    }

    #[test]
    fn odd_uris_come_back() {
        for (method, uri) in
            [("OPTIONS", "*"), ("CONNECT", "example.com:443"), ("GET", "/"), ("GET", "/?q")]
        {
            let (before, ()) =
                Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
            assert_eq!(Head::save(&before).unwrap().restore().uri, before.uri);
        }
    }

    #[test]
    fn a_name_too_long_to_note_is_not_saved_wrong() {
        let longest = "x".repeat(u16::MAX as usize);
        let Ok(name) = HeaderName::try_from(longest) else { return };
        let (parts, ()) = Request::builder().header(name, "v").body(()).unwrap().into_parts();
        assert!(Head::save(&parts).is_none_or(|head| head.restore().headers == parts.headers));
    }
}
