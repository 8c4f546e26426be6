//! Servers that refuse a token in words of their own ([`Refusals`]).

use http::{HeaderMap, StatusCode, Uri, header::LOCATION};

use super::classify::{Classify, ResponseHead, Verdict, classify, found_below, refused};

/// The [default classifier](classify()) with additional refusals, for servers that answer an expired
/// token neither with a 401 nor with another response that a standard defines.
///
/// ```
/// use http::StatusCode;
/// use tower_refresh::{RefreshLayer, RefreshState, layer::Refusals};
///
/// # fn layers(state: std::sync::Arc<RefreshState>) {
/// // Django REST framework whose first authentication class is a session's says 403.
/// let layer = RefreshLayer::new(state).classify(Refusals::new().also([StatusCode::FORBIDDEN]));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    statuses: Vec<StatusCode>,
    paths: Vec<String>,
}

impl Refusals {
    /// Those of the default classifier.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Responses with these statuses are judged like a 401: they are challenges, unless their
    /// `WWW-Authenticate` asks for what no refresh brings, such as another scope. If the server uses
    /// these statuses for other reasons, too, some refreshes do not help. The layer starts those ever
    /// more rarely, and they make no other request wait.
    #[must_use]
    pub fn also(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses.extend(statuses);
        self
    }

    /// Redirects (301, 302, 303, 307, 308) to this path are judged like a 401: a login page,
    /// for instance. What counts of the `Location` is its path alone, and the whole of it, so
    /// that `/login` is also `https://id.example.com/login?next=%2Forders`, and not
    /// `/login/help`. Redirects must not be followed below the layer.
    #[must_use]
    pub fn redirect_to(mut self, path: impl Into<String>) -> Self {
        self.paths.push(path.into());
        self
    }

    fn knows(&self, head: &ResponseHead<'_>) -> bool {
        self.statuses.contains(&head.status())
            || matches!(head.status().as_u16(), 301 | 302 | 303 | 307 | 308)
                && path_of(head.headers()).is_some_and(|path| self.paths.contains(&path))
    }
}

impl Classify for Refusals {
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict {
        // What a layer below has found out may be that a part was carried out.
        let known = found_below(head).is_none() && self.knows(head);
        if known { refused(head.headers()) } else { classify(head) }
    }

    fn reads_uri(&self) -> bool {
        false
    }
}

/// The path of a `Location` (RFC 9110, section 10.2.2), which may be relative. A path without a
/// slash at its beginning is taken for one below the root.
fn path_of(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?.trim();
    let location = location.split(['?', '#']).next()?;
    if location.contains("://") {
        return Some(location.parse::<Uri>().ok()?.path().to_owned());
    }
    if let Some(authority) = location.strip_prefix("//") {
        return Some(authority.find('/').map_or("/", |path| &authority[path..]).to_owned());
    }
    Some(format!("/{}", location.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use http::{Response, header::WWW_AUTHENTICATE};

    use super::*;

    fn judge(rules: &Refusals, status: u16, name: &str, value: &str) -> Verdict {
        let response = Response::builder().status(status).header(name, value).body(()).unwrap();
        rules.classify(&ResponseHead::of(&response))
    }

    #[test]
    fn a_status_that_is_named_is_judged_like_a_401() {
        let rules = Refusals::new().also([StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST]);
        let authenticate = WWW_AUTHENTICATE.as_str();
        for (status, value, expected) in [
            (403, "Bearer", Verdict::Challenge),
            (403, "Session realm=\"api\"", Verdict::Challenge),
            (403, "Bearer error=\"insufficient_scope\"", Verdict::Ignore),
            (400, "", Verdict::Challenge),
            (401, "Bearer", Verdict::Challenge),
            (422, "", Verdict::Accept),
            (500, "", Verdict::Ignore),
        ] {
            assert_eq!(judge(&rules, status, authenticate, value), expected, "{status} {value}");
        }
        assert_eq!(judge(&Refusals::new(), 403, authenticate, "Basic"), Verdict::Accept);
    }

    #[test]
    fn a_redirect_to_a_path_that_is_named_is_judged_like_a_401() {
        let rules = Refusals::new().redirect_to("/login");
        for (location, expected) in [
            ("/login", Verdict::Challenge),
            ("login", Verdict::Challenge),
            ("/login?next=%2Forders", Verdict::Challenge),
            ("https://id.example.com/login#top", Verdict::Challenge),
            ("//id.example.com/login", Verdict::Challenge),
            ("/login/help", Verdict::Accept),
            ("/orders?then=/login", Verdict::Accept),
            ("https://login", Verdict::Accept),
            ("//login", Verdict::Accept),
            ("", Verdict::Accept),
        ] {
            for status in [301, 302, 303, 307, 308] {
                assert_eq!(judge(&rules, status, "location", location), expected, "{location}");
            }
            assert_eq!(judge(&rules, 201, "location", location), Verdict::Accept);
        }
    }

    #[test]
    fn a_redirect_with_a_bearer_challenge_needs_no_rule() {
        for (status, value, expected) in [
            (302, "Bearer realm=\"api\", error=\"invalid_token\"", Verdict::Challenge),
            (307, "Bearer error=insufficient_scope", Verdict::Ignore),
            (302, "Basic realm=\"api\"", Verdict::Accept),
            (200, "Bearer", Verdict::Accept),
        ] {
            let response = Response::builder().status(status).header(WWW_AUTHENTICATE, value);
            let response = response.body(()).unwrap();
            assert_eq!(classify(&ResponseHead::of(&response)), expected, "{status} {value}");
        }
    }
}
