//! Every knob of [`Sessions`].

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    cookie::SessionCookie, csrf::CsrfCheck, index::Index, refresher::CheckedRefresher,
    registry::Registry, sealed::Sealed, sessions::Sessions, shared::Shared, status::Counters,
};
use crate::{error::ConfigError, state::RenewalBuilder, store::Stores};

/// Configures [`Sessions`].
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{Renewal, Tokens, store::MemoryStores};
/// use tower_refresh::session::{SessionCookie, Sessions};
///
/// let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next")));
/// let sessions = Sessions::builder(renewal, MemoryStores::new())
///     .cookie(SessionCookie::host("shop")?)
///     .idle(Duration::from_secs(3600))
///     .trusted_origin("https://www.example.com")?
///     .build()?;
/// # let _ = sessions;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[must_use]
pub struct SessionsBuilder {
    renewal: RenewalBuilder,
    stores: Arc<dyn Stores>,
    sealed: Option<Sealed>,
    cookie: Option<SessionCookie>,
    csrf: CsrfCheck,
    max_age: Duration,
    idle: Option<Duration>,
    trust_for: Duration,
    watch_every: Duration,
}

/// How long a session stays loaded that no request uses.
const KEEP_LOADED: Duration = Duration::from_secs(60);

impl Sessions {
    /// Begins with how tokens are renewed, which all sessions share, and where they live. Everything
    /// else has a default.
    ///
    /// The hooks of the [`Renewal`](crate::Renewal) revoke what sessions leave behind: `on_sign_out` and `on_discard`.
    /// Its [`empty_store_ends`](RenewalBuilder::empty_store_ends) is always on: a session whose record
    /// is gone has ended. A [`RefreshLayer`](crate::RefreshLayer) sends a session's token to no origin that
    /// it was not told of ([`allow_origin`](crate::RefreshLayer::allow_origin)).
    pub fn builder(renewal: RenewalBuilder, stores: impl Stores) -> SessionsBuilder {
        SessionsBuilder::new(renewal, None, Arc::new(stores))
    }
}

impl SessionsBuilder {
    pub(super) fn sealed(renewal: RenewalBuilder, sealed: Sealed, stores: impl Stores) -> Self {
        Self::new(renewal, Some(sealed), Arc::new(stores))
    }

    fn new(renewal: RenewalBuilder, sealed: Option<Sealed>, stores: Arc<dyn Stores>) -> Self {
        let drops_id_token = sealed.as_ref().is_some_and(|sealed| !sealed.keeps_id_token);
        let checked =
            move |refresher, discard| CheckedRefresher::new(refresher, discard, drops_id_token);
        Self {
            renewal: renewal.empty_store_ends(true).wrap(checked),
            stores,
            sealed,
            cookie: None,
            csrf: CsrfCheck::default(),
            max_age: Duration::from_secs(12 * 3600),
            idle: Some(Duration::from_secs(1800)),
            trust_for: Duration::ZERO,
            watch_every: Duration::from_secs(5),
        }
    }

    /// The cookie. Default: [`SessionCookie::host`] with the name `sid`.
    pub fn cookie(mut self, cookie: SessionCookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// How long after its sign-in a session ends at the latest. It ends earlier if the provider has said
    /// so ([`Identity::expires_at`](super::Identity::expires_at)). Default: 12 hours.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// After how long without a request a session ends. Refreshes and open streams do not count as
    /// requests. Each process tells the store of a use at most once in a tenth of that time, so a
    /// session may end that much earlier. `None`: no session ends for that reason. Default: 30 minutes.
    ///
    /// This needs a store that keeps ends ([`TokenStore::keep_until`](crate::store::TokenStore::keep_until)), as all of this crate do. With
    /// another one, only [`max_age`](Self::max_age) counts.
    pub fn idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// For how long a process believes its last look at the store. With zero each request looks, so a
    /// session that was ended on one replica has ended on all. With a longer time the process asks the
    /// store less often, and may serve a session for that long after it was ended elsewhere. Default:
    /// zero.
    pub fn trust_for(mut self, time: Duration) -> Self {
        self.trust_for = time;
        self
    }

    /// How often an open stream looks at the store whether its session lives
    /// ([`Session::ended`](super::Session::ended)). Default: 5 seconds.
    pub fn watch_every(mut self, time: Duration) -> Self {
        self.watch_every = time.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3600));
        self
    }

    /// Lets pages of this origin send unsafe requests, besides the application's own pages. (The
    /// application's own origin is that of the request's `Host`, and need not be named.)
    ///
    /// # Errors
    ///
    /// The text is not a scheme and an authority, such as `https://app.example.com`.
    pub fn trusted_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        self.csrf.trust(origin)?;
        Ok(self)
    }

    /// Requires this header of unsafe requests, whatever its value is. A page of another origin cannot
    /// send it unless CORS allows it. Your own scripts have to set it; forms cannot. Default: none.
    pub fn csrf_header(mut self, name: HeaderName) -> Self {
        self.csrf.require(name);
        self
    }

    /// Builds them. Nothing is read yet.
    ///
    /// # Errors
    ///
    /// The time of [`max_age`](Self::max_age) or [`idle`](Self::idle) is shorter than a second.
    pub fn build(self) -> Result<Sessions, ConfigError> {
        let second = Duration::from_secs(1);
        if self.max_age < second || self.idle.is_some_and(|idle| idle < second) {
            return Err(ConfigError::new(
                "a session's `max_age` and `idle` are a second or more: shorter ones would end it at once",
            ));
        }
        let cookie = match self.cookie {
            Some(cookie) => cookie,
            None => SessionCookie::host("sid")?,
        };
        let cookie = if self.sealed.is_some() { cookie.sealed() } else { cookie };
        Ok(Sessions(Arc::new(Shared {
            renewal: self.renewal.build(),
            index: Index::new(Arc::clone(&self.stores)),
            stores: self.stores,
            sealed: self.sealed,
            cookie,
            csrf: self.csrf,
            max_age: self.max_age,
            idle: self.idle,
            trust_for: self.trust_for,
            watch_every: self.watch_every,
            registry: Registry::new(KEEP_LOADED.max(self.trust_for)),
            counters: Counters::default(),
        })))
    }
}

impl fmt::Debug for SessionsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsBuilder")
            .field("cookie", &self.cookie)
            .field("max_age", &self.max_age)
            .field("idle", &self.idle)
            .field("trust_for", &self.trust_for)
            .finish_non_exhaustive()
    }
}
