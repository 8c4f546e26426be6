//! The header fields that are about one connection, and cookies.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

/// The protocol that the other side is asked to change to, or changes to.
pub(super) fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let fields = headers.get_all(CONNECTION).iter().filter_map(|field| field.to_str().ok());
    let upgrades =
        fields.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| upgrades).cloned()
}

/// Takes off what is about one connection.
pub(super) fn strip_hops(headers: &mut HeaderMap) {
    let fields = headers.get_all(CONNECTION).iter().filter_map(|field| field.to_str().ok());
    let named = fields.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse().ok());
    let named: Vec<HeaderName> = named.collect();
    let known = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.into_iter().chain(known) {
        headers.remove(name);
    }
}

/// HTTP/2 may have each cookie in a field of its own, HTTP/1.1 must not (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() > 1 {
        if let Ok(one) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
            headers.insert(COOKIE, one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("x-stays", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hops(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-stays"]);
    }
}
