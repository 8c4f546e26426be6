//! The place of a request's session: [`SessionSlot`].

use std::{fmt, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    ended::Ended,
    error::SignInError,
    identity::Identity,
    place::{Found, Slot, Written},
    sealed::Shown,
    session::Session,
    shared::{Shared, Visit, finish},
};
use crate::{error::ConfigError, tokens::Tokens};

/// A request's place for a session: what the browser has, and what the response will set. The
/// [`SessionLayer`](super::SessionLayer) puts one into the extensions of each request.
///
/// A handler that takes one, or asks it, makes its response private to the browser.
///
/// ```
/// use http::Response;
/// use tower_refresh::{BoxError, Tokens, session::{Identity, SessionSlot}};
///
/// /// The callback, once it has redeemed the code and checked the ID token.
/// async fn signed_in(
///     slot: SessionSlot,
///     tokens: Tokens,
///     identity: Identity,
/// ) -> Result<Response<String>, BoxError> {
///     slot.sign_in(tokens, identity).await?;
///     Ok(slot.land("/")?)
/// }
/// ```
#[derive(Clone)]
pub struct SessionSlot(pub(super) Arc<Slot>);

impl SessionSlot {
    pub(super) fn new(
        shared: Arc<Shared>,
        found: (Found, Option<Arc<Shown>>),
        is_blind: bool,
    ) -> Self {
        Self(Slot::new(shared, found, is_blind))
    }

    /// The session, if there is one that lives; after a [`sign_in`](Self::sign_in) the new one.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.0.ask();
        self.session_unasked()
    }

    /// The same, by the layer itself.
    pub(super) fn session_unasked(&self) -> Option<Session> {
        self.0.lives().map(|entry| Session::new(entry, Arc::clone(&self.0)))
    }

    /// Why the session of the browser's cookie has ended. `None`: it lives, there never was one, or it
    /// ended more than ten minutes ago.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.0.ask();
        self.0.ended()
    }

    /// Signs in: stores a new session under a new id, which the response gives to the browser, and then
    /// ends the one that the browser had. The callback of the authorization server calls it, once it
    /// has redeemed the code and checked the ID token.
    ///
    /// It goes on if the caller is cancelled.
    ///
    /// # Errors
    ///
    /// The session is not stored, the response sets no cookie, and the session before goes on. The tokens
    /// are given to the [hook](crate::state::RenewalBuilder::on_sign_out) that revokes them.
    pub async fn sign_in(
        &self,
        tokens: Tokens,
        identity: Identity,
    ) -> Result<Session, SignInError> {
        self.0.ask();
        let slot = self.clone();
        finish(async move { slot.begin(tokens, identity).await }).await
    }

    async fn begin(self, tokens: Tokens, identity: Identity) -> Result<Session, SignInError> {
        let shared = &self.0.shared;
        let old = self.0.lives();
        let entry = match &shared.sealed {
            None => {
                let (id, entry) = shared.begin(tokens, identity).await?;
                let cookie = match self.0.is_blind {
                    false => shared.cookie.set(&id),
                    true => shared.cookie.set_beside(&id),
                };
                self.0.write(Written::Set(vec![cookie]), Visit::Lives(Arc::clone(&entry)));
                entry
            }
            Some(sealed) => {
                let entry = shared.begin_sealed(sealed, (tokens, identity)).await?;
                self.0.begun(&entry);
                entry
            }
        };
        if let Some(old) = old {
            if shared.end(&old, Ended::Replaced).await.is_err() {
                // Both live then: the browser has the new one, and the old one ends by itself.
                tracing::warn!(session = %old.name(), "the session before a sign-in could not be ended");
            }
        }
        Ok(Session::new(entry, self.0))
    }

    /// The response that ends a sign-in: it takes the browser to this path of the application. With a
    /// [`strict`](super::SessionCookie::strict) cookie it is a page that goes on by itself, because the
    /// browser would not send the cookie after a redirect from the authorization server; else it is a
    /// redirect.
    ///
    /// # Errors
    ///
    /// The text is not a path of this application: it has to begin with one `/`.
    pub fn land(&self, path: &str) -> Result<Response<String>, ConfigError> {
        let is_path = is_local_path(path);
        let value = HeaderValue::from_str(path).ok().filter(|_| is_path).ok_or(ConfigError::new(
            "a sign-in ends at a path of the application: it begins with one `/`, and has no control \
             characters",
        ))?;
        let mut response = Response::new(String::new());
        if self.0.shared.cookie.is_strict() {
            let path = escape(path);
            *response.body_mut() = format!(
                "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={path}\">\
                 <title>Signed in</title><a href=\"{path}\">Go on</a>"
            );
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
        } else {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(header::LOCATION, value);
        }
        Ok(response)
    }
}

/// Whether this is a path of the application itself, to which a sign-in may send the browser. It begins
/// with one `/`, since browsers read `//` and `/\` as another host, and has neither white space nor
/// control characters.
#[must_use]
pub fn is_local_path(path: &str) -> bool {
    let mut letters = path.bytes();
    letters.next() == Some(b'/')
        && !matches!(letters.next(), Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic() || !byte.is_ascii())
}

fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

impl fmt::Debug for SessionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.lives().map(|entry| entry.name());
        f.debug_struct("SessionSlot").field("session", &name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_this_host_is_one() {
        for path in ["/", "/a", "/a?b=/c//d", "/ä"] {
            assert!(is_local_path(path), "{path}");
        }
        for path in [
            "",
            "a",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "/a b",
            "/\n",
            "/\t/evil.test",
        ] {
            assert!(!is_local_path(path), "{path}");
        }
    }

    #[test]
    fn a_path_cannot_leave_its_attribute() {
        assert_eq!(escape("/?\"><script>&'"), "/?&quot;&gt;&lt;script&gt;&amp;&#39;");
    }
}
