//! Which requests are of the same route, as far as refusals are concerned.

use std::num::NonZeroU32;

use http::{Method, Uri};

use crate::state::Route;

/// Requests with the same method, authority and path are of the same route. Each request that is
/// refused computes this, so it is a plain hash (FNV-1a, by words of eight bytes): should two
/// routes have the same number, nothing but the pace of refreshes differs.
pub(super) fn route(method: &Method, uri: &Uri) -> Option<Route> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let hash = fnv(0xcbf2_9ce4_8422_2325, method.as_str());
    let hash = fnv(fnv(hash, authority), uri.path());
    // The high bits are those that every byte has gone into.
    NonZeroU32::new((hash >> 32) as u32)
}

fn fnv(mut hash: u64, text: &str) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let mut bytes = text.as_bytes();
    while let Some((word, rest)) = bytes.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*word));
        bytes = rest;
    }
    bytes.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_authority_and_path_make_a_route_and_the_query_does_not() {
        let of = |method: Method, uri: &'static str| route(&method, &Uri::from_static(uri));
        let one = of(Method::GET, "http://one.example.com/a?x=1");
        assert_eq!(one, of(Method::GET, "http://one.example.com/a?x=2"));
        for (method, uri) in [
            (Method::POST, "http://one.example.com/a"),
            (Method::GET, "http://two.example.com/a"),
            (Method::GET, "http://one.example.com/b"),
            (Method::GET, "/a"),
        ] {
            assert_ne!(one, of(method, uri));
        }
    }
}
