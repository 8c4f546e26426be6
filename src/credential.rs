//! The snapshot of a credential that everyone may read: [`Credential`].

use std::{
    fmt,
    num::NonZeroI64,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tokio::time::Instant;

use crate::{
    extra::Extra,
    time::{Due, Time},
    tokens::{Generation, Tokens},
};

/// One generation of a credential, as requests see it: the access token without
/// the refresh token. Cheap to clone; `Debug` shows no secret.
///
/// ```
/// use tower_refresh::{RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("next")))
///     .tokens(Tokens::new("first"))
///     .build();
/// let credential = state.current();
/// assert_eq!(credential.access_token(), Some("first"));
/// assert!(credential.bearer().is_some_and(|value| value.is_sensitive()));
/// ```
#[derive(Clone)]
pub struct Credential(Arc<Snapshot>);

struct Snapshot {
    generation: Generation,
    access: Option<Access>,
}

#[derive(Clone)]
struct Access {
    token: Token,
    expires: Option<Instant>,
    /// How long before that it should be renewed, in nanoseconds.
    early: u64,
    /// The end by the wall clock, packed.
    wall: Option<WallTime>,
    extra: Option<Arc<Extra>>,
}

/// The access token, once.
#[derive(Clone)]
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

    /// `end` is the end of the access token, `early` how long before that it should be renewed.
    pub(crate) fn new(
        generation: Generation,
        tokens: &Tokens,
        end: Option<Due>,
        early: Duration,
    ) -> Self {
        Self(Arc::new(Snapshot {
            generation,
            access: Some(Access {
                token: match header(BEARER, tokens.access_token()) {
                    Some(value) => Token::Bearer(value),
                    None => Token::Unsendable(tokens.access_token().into()),
                },
                expires: end.map(|end| end.now),
                early: u64::try_from(early.as_nanos()).unwrap_or(u64::MAX),
                wall: end
                    .map(|end| end.wall)
                    .or_else(|| tokens.expires_at())
                    .and_then(WallTime::pack),
                extra: tokens.shared_extra(),
            }),
        }))
    }

    /// Which generation this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// The access token; `None` when signed out, not signed in yet, or signed in with a refresh
    /// token alone.
    #[must_use]
    pub fn access_token(&self) -> Option<&str> {
        match &self.0.access.as_ref()?.token {
            // It is `BEARER` and a string, as `header` has put them together.
            Token::Bearer(value) => std::str::from_utf8(value.as_bytes().get(BEARER.len()..)?).ok(),
            Token::Unsendable(token) => Some(token.expose_secret()).filter(|it| !it.is_empty()),
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
    pub(crate) fn end(&self) -> Option<Due> {
        let access = self.0.access.as_ref()?;
        Some(Due { now: access.expires?, wall: access.wall?.unpack()? })
    }

    /// From when on it should be renewed ahead of its end.
    pub(crate) fn early(&self) -> Option<Due> {
        let window = Duration::from_nanos(self.0.access.as_ref()?.early);
        Some(self.end()?.before(window))
    }

    /// The same by the clocks.
    pub(crate) fn has_run_out_now(&self) -> bool {
        self.end().is_some_and(|end| end.has_come(Time::now()))
    }

    pub(crate) fn has_run_out(&self, time: Time) -> bool {
        self.end().is_some_and(|end| end.has_come(time))
    }

    /// The same as another generation.
    pub(crate) fn renumbered(&self, generation: Generation) -> Self {
        Self(Arc::new(Snapshot { generation, access: self.0.access.clone() }))
    }

    /// The access token and what came with it. Never a refresh token.
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        let mut tokens = Tokens::new(self.access_token()?);
        if let Some(at) = self.expires_at() {
            tokens = tokens.with_expires_at(at);
        }
        Some(tokens.with_extras(self.0.access.as_ref()?.extra.clone()))
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

/// A moment in 8 bytes instead of 16: there is one for each of many credentials. Counts from
/// the Unix epoch, times two: nanoseconds plus one from 1824 to 2116, else whole seconds.
#[derive(Clone, Copy)]
struct WallTime(NonZeroI64);

impl WallTime {
    /// `None`: no calendar reaches it.
    fn pack(at: SystemTime) -> Option<Self> {
        let (span, sign) = match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => (since, 1),
            Err(before) => (before.duration(), -1),
        };
        let twice = |count: i64| count.checked_mul(2 * sign);
        let nanos = i64::try_from(span.as_nanos()).ok().and_then(twice);
        let seconds = || i64::try_from(span.as_secs()).ok().and_then(twice);
        let packed = nanos.and_then(|nanos| nanos.checked_add(1)).or_else(seconds)?;
        NonZeroI64::new(packed).map(Self)
    }

    fn unpack(self) -> Option<SystemTime> {
        let (packed, is_nanos) = (self.0.get(), self.0.get() & 1 == 1);
        let count = packed >> 1;
        let span = match is_nanos {
            true => Duration::from_nanos(count.unsigned_abs()),
            false => Duration::from_secs(count.unsigned_abs()),
        };
        match count < 0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(span),
            false => SystemTime::UNIX_EPOCH.checked_add(span),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However far away, and before 1970, too.
    #[test]
    fn an_end_is_told_as_it_is() {
        let epoch = SystemTime::UNIX_EPOCH;
        let nanos = Duration::from_nanos;
        for at in [
            epoch,
            epoch + nanos(1),
            epoch - nanos(1),
            epoch + nanos(1_790_000_000_123_456_789),
            epoch - Duration::from_secs(5_000_000_000),
            epoch + Duration::from_secs(253_402_300_799),
            epoch - Duration::from_secs(62_135_596_800),
        ] {
            let tokens = Tokens::new("token").with_expires_at(at);
            assert_eq!(tokens.expires_at(), Some(at));
            let credential =
                Credential::new(Generation::ZERO.next(), &tokens, None, Duration::ZERO);
            assert_eq!(credential.expires_at(), Some(at));
        }
    }

    #[test]
    fn the_early_moment_is_told_as_it_is() {
        let (time, tokens) = (Time::now(), Tokens::new("token"));
        for window in [Duration::from_nanos(1), Duration::from_secs(100 * 24 * 3600)] {
            let end = Some(time.after(window));
            let credential = Credential::new(Generation::ZERO, &tokens, end, window);
            assert_eq!(credential.early(), Some(time.after(Duration::ZERO)));
        }
    }
}
