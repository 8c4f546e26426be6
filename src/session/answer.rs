//! The layer's own answers, and what it does to those of others.

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE, VARY, WWW_AUTHENTICATE,
    },
};

use super::{
    body::SessionBody,
    cookie::SessionCookie,
    ended::Ended,
    place::{Slot, Written},
    rules::Rules,
    visitor::{self, Visitor},
};
use crate::metrics;

pub(super) const SESSION_ENDED: HeaderName = HeaderName::from_static("session-ended");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");

/// In seconds. A browser's next try should not be in the middle of the same outage.
const RETRY_IN: &str = "2";

fn answer<B>(status: StatusCode) -> Response<SessionBody<B>> {
    let mut response = Response::new(SessionBody::text(""));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Another site's page has sent it.
pub(super) fn forged<B>() -> Response<SessionBody<B>> {
    metrics::session_refused("csrf");
    answer(StatusCode::FORBIDDEN)
}

/// The store cannot say whether the session lives, or its token cannot be had now. An `EventSource` that is
/// told so by its status never comes again, so it gets an empty stream.
pub(super) fn unavailable<B>(is_event_stream: bool) -> Response<SessionBody<B>> {
    metrics::session_refused("unavailable");
    if is_event_stream {
        let mut response = answer(StatusCode::OK);
        *response.body_mut() = SessionBody::text("retry: 2000\n\n");
        let events = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, events);
        return response;
    }
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_IN));
    response
}

/// The session has ended in the middle of the request, or there is none.
pub(super) fn unauthorized<B>(ended: Option<Ended>) -> Response<SessionBody<B>> {
    metrics::session_refused("no_session");
    let mut response = answer(StatusCode::UNAUTHORIZED);
    if let Some(ended) = ended {
        response.headers_mut().insert(SESSION_ENDED, HeaderValue::from_static(ended.as_str()));
    }
    response
}

/// A session is required, and there is none.
pub(super) fn required<B>(
    rules: &Rules,
    visitor: &Visitor,
    uri: &Uri,
    ended: Option<Ended>,
) -> Response<SessionBody<B>> {
    if visitor.is_prefetch {
        metrics::session_refused("no_session");
        return answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    let sign_in = rules.sign_in_at.as_ref().filter(|_| visitor.is_navigation);
    let location = sign_in.and_then(|path| {
        let here = uri.path_and_query().map_or("/", |it| it.as_str());
        HeaderValue::from_str(&format!("{path}?return_to={}", percent(here))).ok()
    });
    match location {
        Some(location) => {
            let mut response = answer(StatusCode::SEE_OTHER);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        None => unauthorized(ended),
    }
}

/// The browser has a newer cookie by now: it sends that one if it is asked to come again.
pub(super) fn again<B>(uri: &Uri) -> Option<Response<SessionBody<B>>> {
    let location = HeaderValue::from_str(&visitor::again(uri)).ok()?;
    let mut response = answer(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What the service below has answered, on its way to the browser.
pub(super) fn finish(cookie: &SessionCookie, slot: &Slot, headers: &mut HeaderMap) {
    cookie.strip_response(headers);
    strip_challenges(headers);
    let lives = slot.lives().is_some();
    let written = slot.take_written();
    if written.is_some() || (slot.is_asked() && slot.has_cookie()) {
        headers.insert(CACHE_CONTROL, NO_STORE);
    } else if lives {
        make_private(headers);
    }
    if lives || slot.has_cookie() {
        // A CDN goes by these where they are (RFC 9213), and not by `Cache-Control`.
        headers.remove(CDN_CACHE_CONTROL);
        headers.remove(SURROGATE_CONTROL);
    }
    if slot.is_asked() || lives {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
    match written {
        None => {}
        Some(Written::Set(values)) => {
            for value in values {
                headers.append(SET_COOKIE, value);
            }
        }
        Some(Written::Clear) => {
            for value in cookie.clear_all() {
                headers.append(SET_COOKIE, value);
            }
            // Without that, Back shows the page that the user has signed out of.
            headers.insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\""));
        }
    }
}

/// The browser is not to ask its user for a bearer token.
fn strip_challenges(headers: &mut HeaderMap) {
    let is_bearer = |field: &HeaderValue| {
        field.as_bytes().split(|byte| *byte == b',').any(|piece| {
            let scheme = piece.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"dpop")
        })
    };
    if headers.get_all(WWW_AUTHENTICATE).iter().any(is_bearer) {
        let others = headers.get_all(WWW_AUTHENTICATE).iter().filter(|field| !is_bearer(field));
        let others: Vec<_> = others.cloned().collect();
        headers.remove(WWW_AUTHENTICATE);
        for field in others {
            headers.append(WWW_AUTHENTICATE, field);
        }
    }
}

/// No cache that others share keeps what a signed-in browser was sent.
fn make_private(headers: &mut HeaderMap) {
    let fields = headers.get_all(CACHE_CONTROL).iter();
    let directives = fields.filter_map(|field| field.to_str().ok()).flat_map(|it| it.split(','));
    let kept = directives.map(str::trim).filter(|it| !it.is_empty() && !is_shared(it));
    let all: Vec<_> = ["private"].into_iter().chain(kept).collect();
    let value = HeaderValue::from_str(&all.join(", "));
    headers.insert(CACHE_CONTROL, value.unwrap_or(NO_STORE));
}

/// Whether it is for shared caches, or what is put in its place.
fn is_shared(directive: &str) -> bool {
    let name = directive.split('=').next().unwrap_or_default().trim();
    ["public", "private", "s-maxage"].iter().any(|it| name.eq_ignore_ascii_case(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_keep_becomes_the_browsers_own() {
        for (before, after) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["s-maxage=60", "PUBLIC , immutable"], "private, immutable"),
            (&["no-store"], "private, no-store"),
            (&["private=\"x\""], "private"),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            make_private(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], after);
        }
    }

    #[test]
    fn s12_a_challenge_of_the_bearer_scheme_does_not_come_back() {
        let mut headers = HeaderMap::new();
        for value in
            ["Basic realm=\"a\"", "bearer", "Bearer error=\"x\"", "Negotiate, DPoP algs=\"ES256\""]
        {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        strip_challenges(&mut headers);
        let left: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(left, ["Basic realm=\"a\""]);
    }

    #[test]
    fn a_path_in_a_query_is_escaped() {
        assert_eq!(percent("/a b?c=d&e#f"), "/a%20b%3Fc%3Dd%26e%23f");
    }
}
