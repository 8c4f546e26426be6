//! [`SessionLayer`]: finds each request's session.

use std::{fmt, sync::Arc};

use http::request::Parts;

use super::{rules::Rules, shared::Shared, slot::is_local_path};
use crate::error::ConfigError;

/// A tower layer that finds the session of each request by the browser's cookie, for routes of a
/// server. What it does, in order:
///
/// 1. refuses unsafe requests that another site's page has sent (403);
/// 2. looks at the store, once, whether the session lives; with several cookies of its name the first
///    that does is the one;
/// 3. takes its cookie, and any `Authorization`, off the request;
/// 4. puts a [`SessionSlot`](super::SessionSlot), and of a session that lives its
///    `Arc<RefreshState>`, into the request's extensions, and calls the service below;
/// 5. sets or clears the cookie if there was a sign-in or a sign-out, says whether caches may store the
///    response, and takes off what a server behind has put on it: a cookie of the same name, a
///    challenge of the bearer scheme.
///
/// It answers 503 itself while the store cannot be asked, or no token can be had; the browser then
/// keeps its cookie. A layer inside another one of the same [`Sessions`](super::Sessions) takes over
/// what the outer one has found.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_refresh::session::{Session, SessionSlot, Sessions};
///
/// # fn app(sessions: &Sessions) -> Result<(), tower_refresh::ConfigError> {
/// let private = ServiceBuilder::new()
///     .layer(sessions.layer().sign_in_at("/login")?) // a page without a session goes there
///     .service(service_fn(async |request: Request<String>| {
///         let slot = request.extensions().get::<SessionSlot>();
///         let session = slot.and_then(SessionSlot::session).ok_or("no session")?;
///         let name = session.identity().subject().to_owned();
///         Ok::<_, tower_refresh::BoxError>(Response::new(name))
///     }));
/// # let _ = private;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SessionLayer {
    pub(super) shared: Arc<Shared>,
    pub(super) rules: Arc<Rules>,
}

impl SessionLayer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, rules: Arc::default() }
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }

    /// Requires a session: the layer answers requests without one itself, with 401, and with the reason
    /// in the header `Session-Ended` if it is known. A prefetch gets 503, so that the browser asks again
    /// when the user clicks.
    pub fn required(self) -> Self {
        self.with(|rules| rules.is_required = true)
    }

    /// As [`required`](Self::required), but a user who opens a page without a session is redirected to
    /// this path, which begins a sign-in and needs no session itself. The page's own path is in the
    /// query, as `return_to`. (It is the path that this layer sees, so put the layer around a nested
    /// router, not into it.) Only navigations are redirected: a script that fetches gets its 401, and a
    /// prefetch begins no sign-in.
    ///
    /// # Errors
    ///
    /// The text is not a path of this application: it has to begin with one `/`.
    pub fn sign_in_at(self, path: &str) -> Result<Self, ConfigError> {
        if !is_local_path(path) || !path.is_ascii() || path.contains(['?', '#']) {
            return Err(ConfigError::new(
                "a sign-in begins at a path of the application: it begins with one `/`, and has no query",
            ));
        }
        Ok(self.required().with(|rules| rules.sign_in_at = Some(path.into())))
    }

    /// Lets unsafe requests of other sites' pages through if this predicate says `true`. For the callback
    /// of an authorization server that answers by `form_post`; its handler has to check the request by
    /// other means (`state`).
    pub fn csrf_exempt(self, exempt: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|rules| rules.exempt = Some(Arc::new(exempt)))
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("cookie", &self.shared.cookie)
            .field("is_required", &self.rules.is_required)
            .field("sign_in_at", &self.rules.sign_in_at)
            .finish_non_exhaustive()
    }
}
