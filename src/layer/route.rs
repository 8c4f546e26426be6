//! Which requests are of the same route, as far as refusals are concerned.

use std::num::NonZeroU32;

use http::{Method, Uri};

use crate::state::Route;

/// Requests with the same method, authority and path are of the same route; parts of the path
/// that look like the name of one thing among many (`/orders/1042`) do not count. Each request
/// that is refused computes this, so it is a plain hash (FNV-1a, by words of eight bytes): should
/// two routes have the same number, nothing but the pace of refreshes differs.
pub(super) fn route(method: &Method, uri: &Uri) -> Option<Route> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let hash = fnv(0xcbf2_9ce4_8422_2325, method.as_str());
    let parts = uri.path().split('/').map(|part| if is_id(part) { "0" } else { part });
    let hash = parts.fold(fnv(hash, authority), |hash, part| fnv(fnv(hash, "/"), part));
    // The high bits are those that every byte has gone into.
    NonZeroU32::new((hash >> 32) as u32)
}

/// Numbers, UUIDs and the like: they begin with a digit, or have one and are long. A dot is of a
/// file's name, or of a gRPC service's (`pkg.v1.Orders`); and `v1` is a version.
fn is_id(part: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let is_version = matches!(bytes, [b'v' | b'V', digit, ..] if is_digit(digit));
    let begins = bytes.first().is_some_and(is_digit);
    let has_digit = begins || bytes.len() >= 6 && bytes.iter().any(is_digit);
    has_digit && !is_version && !bytes.contains(&b'.')
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

    #[test]
    fn the_names_of_things_do_not_make_a_route() {
        let of = |uri: &'static str| route(&Method::GET, &Uri::from_static(uri));
        for (one, other, same) in [
            ("/orders/1042", "/orders/7", true),
            ("/orders/1042/lines", "/orders/7/lines", true),
            (
                "/b/0af7651916cd43dd8448eb211c80319c",
                "/b/fd9a83c0-4d67-4a34-b84d-26f0f5b6b6a1",
                true,
            ),
            ("/orders/1042", "/orders", false),
            ("/orders/1042", "/users/1042", false),
            ("/orders/1042", "/orders/1042/lines", false),
            ("/orders/new", "/orders/all", false),
            ("/items/item-42", "/items/item-43", true),
            ("/pkg.v1.Orders/Get", "/pkg.v1.Users/Get", false),
            ("/v1/orders", "/v2/orders", false),
            ("/v1beta1/orders", "/v1beta2/orders", false),
            ("/s3/orders", "/ec2/orders", false),
            ("/ab", "/a/b", false),
        ] {
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }
}
