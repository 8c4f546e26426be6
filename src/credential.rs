//! The snapshot of a credential that everyone may read: [`Credential`].

use std::{
    fmt,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tokio::time::Instant;

use crate::tokens::{Extra, Generation, Tokens};

/// One generation of a credential, as requests see it: the access token without
/// the refresh token. Cheap to clone; `Debug` shows no secret.
#[derive(Clone)]
pub struct Credential(Arc<Snapshot>);

struct Snapshot {
    generation: Generation,
    access: Option<Access>,
}

struct Access {
    token: Token,
    expires: Option<Instant>,
    /// How long before that it should be renewed, in milliseconds.
    early: u32,
    /// The end by the wall clock, packed.
    wall: Option<WallTime>,
    extra: Option<Arc<Extra>>,
}

/// The access token, once.
enum Token {
    /// As requests carry it, after [`BEARER`].
    Bearer(HeaderValue),
    /// It cannot stand in a header.
    Unsendable(SecretString),
}

const BEARER: &str = "Bearer ";

impl Credential {
    /// A generation without a token: never signed in, or signed out.
    pub(crate) fn absent(generation: Generation) -> Self {
        Self(Arc::new(Snapshot { generation, access: None }))
    }

    pub(crate) fn new(
        generation: Generation,
        tokens: &Tokens,
        expires: Option<Instant>,
        early: Option<Instant>,
    ) -> Self {
        Self(Arc::new(Snapshot {
            generation,
            access: Some(Access {
                token: match header(BEARER, tokens.access_token()) {
                    Some(value) => Token::Bearer(value),
                    None => Token::Unsendable(tokens.access_token().into()),
                },
                expires,
                early: expires.zip(early).map_or(0, |(end, early)| window(early, end)),
                wall: tokens.expires_at().map(WallTime::pack),
                extra: tokens.shared_extra(),
            }),
        }))
    }

    /// Which generation this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// The access token; `None` when signed out or not signed in yet.
    #[must_use]
    pub fn access_token(&self) -> Option<&str> {
        match &self.0.access.as_ref()?.token {
            // It is `BEARER` and a string, as `header` has put them together.
            Token::Bearer(value) => std::str::from_utf8(value.as_bytes().get(BEARER.len()..)?).ok(),
            Token::Unsendable(token) => Some(token.expose_secret()),
        }
    }

    /// `Bearer <token>` (RFC 6750, section 2.1), marked sensitive. `None` without
    /// a token, or if the token cannot stand in a header.
    #[must_use]
    pub fn bearer(&self) -> Option<HeaderValue> {
        match &self.0.access.as_ref()?.token {
            Token::Bearer(value) => Some(value.clone()),
            Token::Unsendable(_) => None,
        }
    }

    /// When the access token runs out by the wall clock, if that is known.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.access.as_ref()?.wall?.unpack()
    }

    /// Another field that the server sent with the token.
    #[must_use]
    pub fn extra(&self, name: &str) -> Option<&str> {
        Some(self.0.access.as_ref()?.extra.as_ref()?.get(name)?.expose_secret())
    }

    /// When the access token runs out.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.0.access.as_ref()?.expires
    }

    /// From when on it should be renewed ahead of its end.
    pub(crate) fn early(&self) -> Option<Instant> {
        let access = self.0.access.as_ref()?;
        let window = Duration::from_millis(access.early.into());
        Some(access.expires?.checked_sub(window).unwrap_or_else(Instant::now))
    }

    pub(crate) fn is_present(&self) -> bool {
        self.0.access.is_some()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("generation", &self.generation())
            .field("access_token", &self.access_token().map(|_| "[redacted]"))
            .field("expires_at", &self.expires_at())
            .finish()
    }
}

/// A moment in 8 bytes instead of 16: there is one for each of many credentials. Counts
/// nanoseconds since the Unix epoch, plus one; it ends in the year 2554.
#[derive(Clone, Copy)]
struct WallTime(NonZeroU64);

impl WallTime {
    fn pack(at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    fn unpack(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(self.0.get() - 1))
    }
}

fn window(early: Instant, end: Instant) -> u32 {
    u32::try_from(end.saturating_duration_since(early).as_millis()).unwrap_or(u32::MAX)
}

/// A sensitive header value in memory of its own, which is wiped with its last
/// clone. `None` if the text cannot stand in a header.
pub(crate) fn header(prefix: &str, secret: &str) -> Option<HeaderValue> {
    if secret.is_empty() {
        return None;
    }
    let text = [prefix.as_bytes(), secret.as_bytes()].concat();
    let text = Zeroizing::new(text.into_boxed_slice());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}
