//! Where requests go: a URL whose query may have a secret, and a name for it without the query.

use std::fmt;

use ::oauth2::url::{Host, Url};
use http::Uri;

use crate::error::ConfigError;

/// A token or revocation endpoint.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) uri: Uri,
    url: Url,
    schemes: Schemes,
}

/// Where an endpoint may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schemes {
    /// RFC 6749, section 3.2: what is sent must not be read on the way.
    HttpsOrLoopback,
    /// The user takes `http` for good enough.
    HttpsOrHttp,
}

impl Endpoint {
    pub(super) fn parse(text: &str, schemes: Schemes) -> Result<Self, ConfigError> {
        let url = Url::parse(text).map_err(|_| ConfigError::new("an endpoint is not a URL"))?;
        if url.fragment().is_some() {
            return Err(ConfigError::new("an endpoint has a fragment"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConfigError::new("an endpoint has user information"));
        }
        match url.scheme() {
            "https" => {}
            "http" if schemes == Schemes::HttpsOrHttp => {}
            "http" if url.host().is_some_and(is_loopback) => {}
            "http" => {
                return Err(ConfigError::new(
                    "an endpoint is http, and not on loopback: if it has to be, begin with `builder_allowing_http`",
                ));
            }
            _ => return Err(ConfigError::new("an endpoint is not https")),
        }
        let uri = url.as_str().parse();
        let uri = uri.map_err(|_| ConfigError::new("an endpoint is not a URI"))?;
        Ok(Self { uri, url, schemes })
    }

    /// Where this client's other endpoints may be.
    pub(super) fn schemes(&self) -> Schemes {
        self.schemes
    }

    #[cfg(feature = "oauth2-client")]
    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The same with the scheme `https`, because the oauth2 crate takes no other for a
    /// revocation. Requests go to [`uri`](Self::uri) all the same.
    pub(super) fn as_https(&self) -> String {
        let mut url = self.url.clone();
        // It fails only between schemes that are special (http, https) and those that are not.
        let _ = url.set_scheme("https");
        url.into()
    }
}

fn is_loopback(host: Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.to_canonical().is_loopback(),
    }
}

/// `localhost` and the names below it (RFC 6761, section 6.3), in lower case.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.strip_suffix("localhost").is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Without the query, which may hold a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.url.origin().ascii_serialization(), self.url.path())
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Schemes};

    fn parse(text: &str) -> Result<Endpoint, crate::ConfigError> {
        Endpoint::parse(text, Schemes::HttpsOrLoopback)
    }

    #[test]
    fn https_or_loopback() {
        for good in [
            "https://auth.example.com/token",
            "https://auth.example.com:8443/token?tenant=1",
            "http://localhost:8080/token",
            "http://LOCALHOST/token",
            "http://127.0.0.1:1/token",
            "http://127.8.7.6/token",
            "http://[::1]:8080/token",
            "http://[::ffff:127.0.0.1]:8080/token",
            "http://localhost./token",
            "http://auth.localhost:8080/token",
            "http://a.b.localhost./token",
        ] {
            let endpoint = parse(good).unwrap();
            assert!(endpoint.as_https().starts_with("https://"), "{good}");
        }
        for bad in [
            "",
            "/token",
            "auth.example.com/token",
            "ftp://localhost/token",
            "http://auth.example.com/token",
            "http://localhost.example.com/token",
            "http://128.0.0.1/token",
            "http://[::2]/token",
            "http://[::ffff:128.0.0.1]/token",
            "http://notlocalhost/token",
            "http://auth.localhost.example.com/token",
            "https://user@auth.example.com/token",
            "https://:word@auth.example.com/token",
            "https://auth.example.com/token#here",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn http_anywhere_if_the_user_says_so_and_nothing_else() {
        for good in ["http://auth:8080/token", "https://auth.example.com/token"] {
            let endpoint = Endpoint::parse(good, Schemes::HttpsOrHttp).unwrap();
            assert_eq!(endpoint.uri, good);
        }
        for bad in ["ftp://auth/token", "http://user@auth/token", "http://auth/token#here"] {
            assert!(Endpoint::parse(bad, Schemes::HttpsOrHttp).is_err(), "{bad}");
        }
    }

    #[test]
    fn its_name_has_no_query() {
        let endpoint = parse("https://auth.example.com:8443/a/token?key=hush").unwrap();
        assert_eq!(endpoint.to_string(), "https://auth.example.com:8443/a/token");
        assert_eq!(endpoint.uri, "https://auth.example.com:8443/a/token?key=hush");
    }
}
