//! gzip (RFC 1952) and deflate (RFC 1950, RFC 1951), which some servers and proxies send
//! although they were asked not to, with a header that says so or without.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header::CONTENT_ENCODING};

/// A body without its compression.
pub(super) struct Decoded {
    pub(super) body: Bytes,
    pub(super) was_compressed: bool,
    /// Whether something may be missing at its end.
    pub(super) is_cut: bool,
}

/// Decompresses a body that begins as compressed ones do, whatever the header says of it: to
/// `max` bytes at most, and as far as it can be read. What cannot be is left as it is.
pub(super) fn decode(body: Bytes, headers: &HeaderMap, max: usize) -> Decoded {
    let decompressed = match &*body {
        // A server that flushes may begin another member (RFC 1952, section 2.2).
        [0x1f, 0x8b, 8, ..] => read(MultiGzDecoder::new(&*body), max),
        [method, flags, ..] if is_zlib(*method, *flags) => read(ZlibDecoder::new(&*body), max),
        // Any text may begin like this: it is compressed if all of it makes sense.
        _ if is_named_deflate(headers) => {
            read(DeflateDecoder::new(&*body), max).filter(|(_, is_cut)| !is_cut)
        }
        _ => None,
    };
    match decompressed {
        Some((body, is_cut)) => Decoded { body, was_compressed: true, is_cut },
        None => Decoded { body, was_compressed: false, is_cut: false },
    }
}

/// RFC 1950, section 2.2.
fn is_zlib(method: u8, flags: u8) -> bool {
    method & 0x8f == 8 && u16::from_be_bytes([method, flags]) % 31 == 0
}

/// Without the frame of RFC 1950, which some servers leave out, nothing but the header tells.
fn is_named_deflate(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("deflate"))
}

/// What can be read, and whether that is not all of it. `None`: nothing can.
fn read(decoder: impl Read, max: usize) -> Option<(Bytes, bool)> {
    let mut text = Vec::new();
    let ended = decoder.take((max as u64).saturating_add(1)).read_to_end(&mut text).is_ok();
    let is_cut = !ended || text.len() > max;
    text.truncate(max);
    (!text.is_empty()).then(|| (text.into(), is_cut))
}
