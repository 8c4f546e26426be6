//! Requests that another site's page has made a browser send ([`CsrfCheck`]).

use http::{
    HeaderMap, HeaderName, Method,
    header::{HOST, ORIGIN, UPGRADE},
    request::Parts,
    uri::Authority,
};

use crate::{error::ConfigError, origin::Origin};

pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which unsafe requests are let through: those of the application's own pages.
///
/// | the browser says | |
/// |---|---|
/// | `Origin` of a trusted page | passes |
/// | `Sec-Fetch-Site: same-origin` | passes |
/// | `Sec-Fetch-Site` of any other kind, `none` too | refused |
/// | only `Origin` (plain `http`, old browsers) | passes if it is that of the request's host |
/// | neither | passes without a session's cookie: there is nothing to abuse |
///
/// Requests that open a WebSocket are unsafe, too, whatever their method.
#[derive(Clone, Debug, Default)]
pub(super) struct CsrfCheck {
    trusted: Vec<Origin>,
    header: Option<HeaderName>,
}

/// The one field of this name. Of several, browsers send none.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?;
    fields.next().is_none().then(|| field.to_str().ok())?
}

/// A page of the application itself has sent it, as far as the browser says so.
pub(super) fn is_same_origin(parts: &Parts) -> bool {
    single(&parts.headers, &SEC_FETCH_SITE) == Some("same-origin")
}

/// Whether a browser leaves a cookie out of this request that it may have: another site has begun it. With
/// Lax a navigation brings it all the same.
pub(super) fn is_withheld(parts: &Parts, is_strict: bool) -> bool {
    let from_elsewhere = match single(&parts.headers, &SEC_FETCH_SITE) {
        Some(site) => !matches!(site, "same-origin" | "none"),
        // An older browser, or none.
        None => is_strict || parts.headers.contains_key(ORIGIN),
    };
    from_elsewhere && (is_strict || !is_safe(parts))
}

impl CsrfCheck {
    pub(super) fn trust(&mut self, origin: &str) -> Result<(), ConfigError> {
        self.trusted.push(Origin::parse("a trusted origin", origin)?);
        Ok(())
    }

    pub(super) fn require(&mut self, name: HeaderName) {
        self.header = Some(name);
    }

    /// `has_cookie`: it brings a cookie of our name.
    pub(super) fn allows(&self, parts: &Parts, has_cookie: bool) -> bool {
        if is_safe(parts) {
            return true;
        }
        let headers = &parts.headers;
        // No script can set one where it opens a socket.
        let may_have_one = has_cookie && !opens_a_socket(parts);
        if may_have_one && self.header.as_ref().is_some_and(|name| !headers.contains_key(name)) {
            return false;
        }
        let origin = single(headers, &ORIGIN).and_then(|origin| Origin::read(origin).ok());
        if origin.as_ref().is_some_and(|origin| self.trusted.contains(origin)) {
            return true;
        }
        if headers.contains_key(SEC_FETCH_SITE) {
            return is_same_origin(parts);
        }
        match origin {
            Some(origin) => host(parts).is_some_and(|host| origin.is_at(&host)),
            // `Origin: null` is there, and no origin.
            None => !has_cookie && !headers.contains_key(ORIGIN),
        }
    }
}

/// Where the browser has sent it.
fn host(parts: &Parts) -> Option<Authority> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => single(&parts.headers, &HOST)?.parse().ok(),
    }
}

fn is_safe(parts: &Parts) -> bool {
    let is_safe =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(&parts.method);
    is_safe && !opens_a_socket(parts)
}

/// By HTTP/1.1, or by HTTP/2 (RFC 8441).
fn opens_a_socket(parts: &Parts) -> bool {
    parts.headers.contains_key(UPGRADE) || parts.method == Method::CONNECT
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn allows(check: &CsrfCheck, method: &str, headers: &[(&str, &str)], has_cookie: bool) -> bool {
        let mut request =
            Request::builder().method(method).uri("/orders").header("host", "app.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check.allows(&request.body(()).unwrap().into_parts().0, has_cookie)
    }

    #[test]
    fn s14_only_pages_of_the_application_send_unsafe_requests() {
        let check = CsrfCheck::default();
        for (headers, passes) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://app.test")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "Same-Origin")], false),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.test")], false),
            (&[("origin", "https://app.test")], true),
            (&[("origin", "https://APP.test:443")], true),
            (&[("origin", "http://app.test")], true),
            (&[("origin", "https://app.test:8443")], false),
            (&[("origin", "https://app.test.evil.test")], false),
            (&[("origin", "https://evil.test")], false),
            (&[("origin", "https://app.test@evil.test")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://app.test"), ("origin", "https://evil.test")], false),
            (&[], false),
        ] {
            for method in ["POST", "PUT", "DELETE", "PATCH", "QUERY", "CONNECT"] {
                assert_eq!(allows(&check, method, headers, true), passes, "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(allows(&check, method, headers, true), "{method} {headers:?}");
                let opens = [&[("upgrade", "websocket")], headers].concat();
                assert_eq!(allows(&check, method, &opens, true), passes, "{method} {opens:?}");
            }
        }
    }

    /// A program sends neither header. Without a cookie there is nothing that it could abuse.
    #[test]
    fn without_a_cookie_programs_pass_and_foreign_pages_do_not() {
        let check = CsrfCheck::default();
        assert!(allows(&check, "POST", &[], false));
        assert!(!allows(&check, "POST", &[("sec-fetch-site", "cross-site")], false));
        assert!(!allows(&check, "POST", &[("origin", "https://evil.test")], false));
        assert!(!allows(&check, "POST", &[("origin", "null")], false));
    }

    #[test]
    fn a_trusted_origin_passes_and_only_that_one() {
        let mut check = CsrfCheck::default();
        check.trust("https://www.app.test").unwrap();
        let from = |origin| [("sec-fetch-site", "same-site"), ("origin", origin)];
        assert!(allows(&check, "POST", &from("https://www.app.test"), true));
        assert!(!allows(&check, "POST", &from("http://www.app.test"), true));
        assert!(!allows(&check, "POST", &from("https://app.test"), true));
        for wrong in ["app.test", "https://app.test/path", "https://u@app.test", "null", ""] {
            assert!(check.trust(wrong).is_err(), "{wrong}");
        }
    }

    /// S8: what the callback of a provider does not see.
    #[test]
    fn s8_a_cookie_is_withheld_from_what_another_site_has_begun() {
        let parts = |method: Method, headers: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method).uri("/callback");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        };
        let cross = ("sec-fetch-site", "cross-site");
        let (get, post) = (Method::GET, Method::POST);
        for (method, headers, lax, strict) in [
            (&get, &[cross][..], false, true),
            (&post, &[cross], true, true),
            (&get, &[("sec-fetch-site", "same-site")], false, true),
            (&get, &[("sec-fetch-site", "same-origin")], false, false),
            (&post, &[("sec-fetch-site", "same-origin")], false, false),
            (&get, &[("sec-fetch-site", "none")], false, false),
            // Older browsers; the last one is none.
            (&get, &[], false, true),
            (&post, &[("origin", "https://id.test")], true, true),
            (&post, &[], false, true),
        ] {
            let parts = parts(method.clone(), headers);
            let withheld = [false, true].map(|is_strict| is_withheld(&parts, is_strict));
            assert_eq!(withheld, [lax, strict], "{method} {headers:?}");
        }
    }

    #[test]
    fn a_header_of_yours_is_asked_for_besides() {
        let mut check = CsrfCheck::default();
        check.require(HeaderName::from_static("x-csrf"));
        let same = ("sec-fetch-site", "same-origin");
        assert!(!allows(&check, "POST", &[same], true));
        assert!(allows(&check, "POST", &[same, ("x-csrf", "1")], true));
        assert!(!allows(&check, "POST", &[("x-csrf", "1"), ("sec-fetch-site", "none")], true));
        assert!(allows(&check, "GET", &[], true));
        for (method, upgrade) in [("GET", &[("upgrade", "websocket")][..]), ("CONNECT", &[])] {
            let from = |origin| [&[("origin", origin)][..], upgrade].concat();
            assert!(allows(&check, method, &from("https://app.test"), true), "{method}");
            assert!(!allows(&check, method, &from("https://evil.test"), true), "{method}");
        }
    }
}
