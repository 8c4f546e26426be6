//! Where requests go, and what of the origin a browser sees ([`Route`]).

use http::{HeaderValue, Uri};

use crate::origin::Origin;

#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) passes_cookies: bool,
    pub(super) origin: Origin,
    pub(super) prefix: Box<str>,
}

impl Route {
    /// Where a request for this goes. `None`: nowhere.
    pub(super) fn target(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(&*self.prefix)?;
        let rest = match rest.as_bytes().first() {
            None => "/",
            Some(b'/') => rest,
            Some(_) => return None,
        };
        let path = match uri.query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let (scheme, authority) = self.origin.parts();
        let target = Uri::builder().scheme(scheme.clone()).authority(authority.clone());
        target.path_and_query(path).build().ok()
    }

    /// A place at the origin, as the browser is to see it.
    pub(super) fn here(&self, location: &HeaderValue) -> Option<HeaderValue> {
        let uri: Uri = location.to_str().ok()?.parse().ok()?;
        let path = match uri.authority() {
            Some(_) if self.origin.covers(&uri) => uri.path_and_query()?.as_str(),
            // Of the same server, which knows nothing of the prefix.
            None if uri.scheme().is_none() && uri.path().starts_with('/') => {
                location.to_str().ok()?
            }
            _ => return None,
        };
        HeaderValue::from_str(&format!("{}{path}", self.prefix)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ProxyLayer, *};

    fn route() -> Route {
        let layer = ProxyLayer::to("http://api.test:81").unwrap().strip_prefix("/api").unwrap();
        Route::clone(&layer.0)
    }

    #[test]
    fn a_request_goes_to_the_origin_and_nowhere_else() {
        for (uri, target) in [
            ("/api", Some("http://api.test:81/")),
            ("/api/a/b?c=d", Some("http://api.test:81/a/b?c=d")),
            ("/api//evil.test/a", Some("http://api.test:81//evil.test/a")),
            ("http://app.test/api/a", Some("http://api.test:81/a")),
            ("/apifoo", None),
            ("/", None),
        ] {
            let target = target.map(|target| target.parse().unwrap());
            assert_eq!(route().target(&uri.parse().unwrap()), target, "{uri}");
        }
    }

    #[test]
    fn a_redirect_at_the_origin_stays_behind_the_proxy() {
        for (location, here) in [
            ("http://api.test:81/a?b", Some("/api/a?b")),
            ("/a?b", Some("/api/a?b")),
            ("a", None),
            ("https://api.test:81/a", None),
            ("http://other.test/a", None),
        ] {
            let here = here.map(HeaderValue::from_static);
            assert_eq!(route().here(&HeaderValue::from_static(location)), here, "{location}");
        }
    }
}
