//! What a browser's request says of itself ([`Visitor`]).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, header::ACCEPT, request::Parts,
    uri::PathAndQuery,
};

use super::csrf::is_same_origin;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Stands at the end of the query of a request that was asked to come again.
const AGAIN: &str = "session_again";

/// What the layer's own answers depend on, before the service below is called.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// A user opens a page.
    pub(super) is_navigation: bool,
    /// No handler has asked for it yet.
    pub(super) is_prefetch: bool,
    /// A page of the application has sent it.
    pub(super) is_same_origin: bool,
}

impl Visitor {
    pub(super) fn of(parts: &Parts) -> Self {
        let headers = &parts.headers;
        let is = |name, value: &str| headers.get(name).is_some_and(|it: &HeaderValue| it == value);
        let is_get = parts.method == Method::GET || parts.method == Method::HEAD;
        let is_prefetch = is_prefetch(headers);
        let is_framed = is(SEC_FETCH_DEST, "iframe");
        Self {
            is_navigation: is_get && is(SEC_FETCH_MODE, "navigate") && !is_framed && !is_prefetch,
            is_prefetch,
            is_same_origin: is_same_origin(parts),
        }
    }
}

/// Whether the browser asks before its user does (`Sec-Purpose`: prefetch, prerender). Answer such a
/// request to a route that begins a sign-in with 503: the browser asks again when the user clicks.
#[must_use]
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_PURPOSE)
}

/// Whether an `EventSource` has sent it.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.split(',').any(|it| it.trim() == "text/event-stream"))
}

/// Where a request comes again: itself, with a mark. Relative, since the path that the browser sees may
/// be longer than the one here.
pub(super) fn again(uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("?{query}&{AGAIN}"),
        None => format!("?{AGAIN}"),
    }
}

/// Takes the mark off a request that comes again.
pub(super) fn take_mark(uri: &mut Uri) -> bool {
    let Some(rest) = uri.query().and_then(|query| query.strip_suffix(AGAIN)) else { return false };
    let path = match rest.strip_suffix('&') {
        Some(rest) => format!("{}?{rest}", uri.path()),
        None if rest.is_empty() => uri.path().to_owned(),
        None => return false,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    match Uri::from_parts(parts) {
        Ok(unmarked) => *uri = unmarked,
        Err(_) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn visitor(headers: &[(&str, &str)]) -> Visitor {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Visitor::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_mark_comes_off_as_it_went_on() {
        for uri in ["/", "/a/b", "/a?b=c", "/a?", "/a?session_again=1", "http://app.test/a?b&c=%20"]
        {
            let uri: Uri = uri.parse().unwrap();
            let again = format!("http://app.test{}{}", uri.path(), again(&uri));
            let mut again: Uri = again.parse().unwrap();
            assert!(take_mark(&mut again), "{again}");
            assert_eq!(again.path(), uri.path());
            assert_eq!(
                again.query(),
                uri.query().filter(|query| !query.is_empty()).or(again.query())
            );
        }
        for uri in ["/", "/a?xsession_again", "/session_again", "/a?session_again=1"] {
            let mut same: Uri = uri.parse().unwrap();
            assert!(!take_mark(&mut same), "{uri}");
            assert_eq!(same, *uri);
        }
    }

    #[test]
    fn s14_only_a_user_who_opens_a_page_navigates() {
        let navigates = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(visitor(&navigates).is_navigation);
        // Behind a service worker.
        assert!(
            visitor(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty")]).is_navigation
        );
        for other in [
            &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")][..],
            &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            &[("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch")],
            &[("accept", "text/html")],
        ] {
            assert!(!visitor(other).is_navigation, "{other:?}");
        }
    }

    #[test]
    fn an_event_source_says_what_it_takes() {
        let accepts = |value| {
            is_event_stream(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]))
        };
        assert!(accepts("text/event-stream"));
        assert!(!accepts("*/*"));
        assert!(!is_event_stream(&HeaderMap::new()));
    }
}
