//! A scheme, a host and a port ([`Origin`]).

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use crate::error::ConfigError;

/// A scheme, host and port (RFC 9110, section 4.3.1). Two are the same if these three are.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.is_at(&other.authority)
    }
}

impl Origin {
    /// From a setting. `what` it is, is what its error begins with: "an allowed origin".
    pub(crate) fn parse(what: &'static str, text: &str) -> Result<Self, ConfigError> {
        Self::read(text).map_err(|wrong| ConfigError::new(wrong).about(what))
    }

    /// From a URI with nothing but an origin, such as `https://api.example.com`. Otherwise, what is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        let uri: Uri =
            text.parse().map_err(|_| "is not a URI: it is written as `https://host:port`")?;
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
            return Err("has a path or a query: it is `https://host:port` alone");
        }
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err("lacks its scheme or host: it is written as `https://host:port`");
        };
        if authority.as_str().contains('@') {
            return Err("has user information: it is `https://host:port` alone");
        }
        Ok(Self { scheme, authority })
    }

    /// Whether a request to this URI goes there. A URI without scheme and host does not say so.
    pub(crate) fn covers(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme) && uri.authority().is_some_and(|it| self.is_at(it))
    }

    /// Whether this is its host and port.
    pub(crate) fn is_at(&self, authority: &Authority) -> bool {
        is_same_place(&self.scheme, &self.authority, authority)
    }

    /// As it was written.
    #[cfg(feature = "session-proxy")]
    pub(crate) fn parts(&self) -> (&Scheme, &Authority) {
        (&self.scheme, &self.authority)
    }
}

/// Whether two are one host and port to this scheme. Letter by letter first, because that is fast, and
/// nearly always enough.
pub(crate) fn is_same_place(scheme: &Scheme, one: &Authority, other: &Authority) -> bool {
    let port = |it: &Authority| it.port_u16().or_else(|| default_port(scheme));
    one == other || one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    fn covers(origin: &str, uri: &str) -> bool {
        Origin::read(origin).unwrap().covers(&uri.parse().unwrap())
    }

    #[test]
    fn scheme_host_and_port_all_count() {
        assert!(covers("https://api.example.com", "https://API.example.com:443/v1?x=1"));
        assert!(covers("https://api.example.com:443", "https://api.example.com/"));
        assert!(covers("HTTPS://api.example.com", "https://api.example.com:443/"));
        assert!(covers("http://localhost:8080/", "http://localhost:8080/deep/path"));
        assert!(covers("http://[::1]:8080", "http://[::1]:8080/"));
        assert!(!covers("https://api.example.com", "http://api.example.com/"));
        assert!(!covers("https://api.example.com", "https://api.example.com:8443/"));
        assert!(!covers("https://api.example.com", "https://api.example.com.evil.net/"));
        assert!(!covers("https://api.example.com", "https://evil.net/?https://api.example.com"));
        assert!(!covers("https://api.example.com", "https://api.example.com@evil.net/"));
        assert!(!covers("https://api.example.com", "/relative"));
    }

    #[test]
    fn what_is_no_origin_is_refused_and_says_why() {
        for (text, why) in [
            ("", "is not a URI"),
            ("https://", "is not a URI"),
            ("api.example.com", "lacks its scheme"),
            ("api.example.com:443", "lacks its scheme"),
            ("null", "lacks its scheme"),
            ("/path", "has a path"),
            ("/", "lacks its scheme"),
            ("https://a/path", "has a path"),
            ("https://a/?q", "a query"),
            ("https://u@a", "has user information"),
        ] {
            let error = Origin::parse("a trusted origin", text).unwrap_err().to_string();
            assert!(
                error.starts_with("a trusted origin ") && error.contains(why),
                "{text}: {error}"
            );
        }
    }
}
