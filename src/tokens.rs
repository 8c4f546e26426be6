//! What a credential is made of: [`Tokens`], and the numbered changes of it
//! ([`Generation`]).
//!
//! The refresh token is in `Tokens` only, and `Tokens` live in the store. What requests see,
//! a [`Credential`](crate::Credential), has none: nothing but the store's record can go stale.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::{
    extra::Extra,
    time::{Due, Time},
};

/// The number of a credential's current tokens. It grows with every change
/// (refresh, sign-in, sign-out) and never goes back.
///
/// [`Generation::ZERO`] is the credential that never had a token.
///
/// ```
/// use tower_refresh::Generation;
///
/// let first = Generation::ZERO.next();
/// assert_eq!(first, Generation::new(1));
/// assert!(first.next() > first);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Before the first token.
    pub const ZERO: Self = Self(0);

    /// A generation from its number, as a store keeps it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The generation after this one, for a change that is made at `wall`: one more, and after
    /// [`ZERO`](Self::ZERO) the milliseconds since the Unix epoch, 1 at least.
    ///
    /// A store that has lost a credential (a file that was removed, a Redis that was emptied)
    /// begins its number anew. Begun with the clock, the new number is greater than the one
    /// that a process may remember, and the process finds what was written.
    #[must_use]
    pub fn next_at(self, wall: SystemTime) -> Self {
        if self != Self::ZERO {
            return self.next();
        }
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What this crate itself keeps with tokens is in extras whose names begin like this. No answer of a
/// server has them.
const RESERVED: &str = "tower_refresh.";

/// Where tokens that were put into an empty store are from: the store may have lost what other
/// processes have.
pub(crate) const RESERVED_ORIGIN: &str = "tower_refresh.origin";

/// What tokens were minted for.
pub(crate) const RESERVED_MINTED_FOR: &str = "tower_refresh.minted_for";

/// Whose they are.
#[cfg(feature = "session")]
pub(crate) const RESERVED_IDENTITY: &str = "tower_refresh.identity";

/// When their session ends at the latest, in seconds since the Unix epoch.
#[cfg(feature = "session")]
pub(crate) const RESERVED_DEADLINE: &str = "tower_refresh.deadline";

/// Instead of tokens: how their session has ended.
#[cfg(feature = "session")]
pub(crate) const RESERVED_ENDED: &str = "tower_refresh.ended";

/// Instead of tokens: the browser has them.
#[cfg(feature = "session")]
pub(crate) const RESERVED_IN_BROWSER: &str = "tower_refresh.in_browser";

/// Beside [`RESERVED_ENDED`]: the tokens, which only the browser has, are still to be revoked.
#[cfg(feature = "session")]
pub(crate) const RESERVED_UNREVOKED: &str = "tower_refresh.unrevoked";

/// Instead of tokens: the sessions of a user.
#[cfg(feature = "session")]
pub(crate) const RESERVED_SESSIONS: &str = "tower_refresh.sessions";

/// When an access token runs out, as the server said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// Relative to the moment the answer came (`expires_in`, RFC 6749 section 5.1).
    In(Duration),
    /// By the wall clock.
    At(SystemTime),
}

/// An [`Expiry`] in 16 bytes instead of 24: there is one for each of many credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PackedExpiry {
    secs: u64,
    nanos: u32,
    from: CountsFrom,
}

/// What a [`PackedExpiry`] counts from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CountsFrom {
    Answer,
    Epoch,
    /// Backwards.
    BeforeEpoch,
}

impl Expiry {
    fn pack(self) -> PackedExpiry {
        let (span, from) = match self {
            Self::In(life) => (life, CountsFrom::Answer),
            Self::At(at) => match at.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => (since, CountsFrom::Epoch),
                Err(before) => (before.duration(), CountsFrom::BeforeEpoch),
            },
        };
        PackedExpiry { secs: span.as_secs(), nanos: span.subsec_nanos(), from }
    }
}

impl PackedExpiry {
    /// `None`: no clock of ours reaches it.
    fn unpack(self) -> Option<Expiry> {
        let span = Duration::new(self.secs, self.nanos);
        match self.from {
            CountsFrom::Answer => Some(Expiry::In(span)),
            CountsFrom::Epoch => SystemTime::UNIX_EPOCH.checked_add(span).map(Expiry::At),
            CountsFrom::BeforeEpoch => SystemTime::UNIX_EPOCH.checked_sub(span).map(Expiry::At),
        }
    }
}

/// An access token and what came with it (RFC 6749, section 5.1).
///
/// `Debug` shows no secret, and the memory of every secret is wiped on drop.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::Tokens;
///
/// let tokens = Tokens::new("the-access-token")
///     .with_refresh_token("the-refresh-token")
///     .with_expires_in(Duration::from_secs(3600));
///
/// assert_eq!(tokens.access_token(), "the-access-token");
/// assert!(!format!("{tokens:?}").contains("the-"));
/// ```
#[derive(Clone)]
pub struct Tokens {
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expiry: Option<PackedExpiry>,
    /// All other fields that the server sent; most tokens have none.
    extra: Option<Arc<Extra>>,
}

impl Tokens {
    /// Tokens with an access token only: no refresh token, no known expiry.
    ///
    /// White space at the token's ends, such as a file's last line end, is taken off. An empty access
    /// token counts as run out: a credential that is signed in with it and a refresh token redeems
    /// that before the first request is sent.
    ///
    /// A token that no header can carry is not refused here, because the refresh token beside it must
    /// not get lost. It is stored like any other. Requests are sent without it, and their responses
    /// say so ([`FailureKind::Unsendable`](crate::FailureKind::Unsendable)).
    #[must_use]
    pub fn new(access_token: impl Into<String>) -> Self {
        Self { access_token: token(access_token), refresh_token: None, expiry: None, extra: None }
    }

    /// Sets the refresh token, without white space at its ends. If a refresh's answer has none, or an empty
    /// one, the credential keeps the one that was spent (RFC 6749, section 6).
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: impl Into<String>) -> Self {
        self.refresh_token = Some(token(refresh_token));
        self
    }

    /// Sets the access token's life. For a refresh it counts from the moment when the refresh began;
    /// for tokens that the program brings, from `build` or from the call of `set`.
    #[must_use]
    pub fn with_expires_in(mut self, life: Duration) -> Self {
        self.expiry = Some(Expiry::In(life).pack());
        self
    }

    /// Sets the access token's end by the wall clock, such as a JWT's `exp`.
    #[must_use]
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(at).pack());
        self
    }

    /// Keeps another field that the server sent (`scope`, `id_token`), as text.
    /// It is treated as a secret.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(self.extra.get_or_insert_default()).insert(&name.into(), secret(value));
        self
    }

    /// The access token.
    #[must_use]
    pub fn access_token(&self) -> &str {
        self.access_token.expose_secret()
    }

    /// The refresh token.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_ref().map(|t| t.expose_secret())
    }

    /// The wall-clock moment at which the access token runs out. `None` if it is
    /// not known. For tokens read from a store it is always absolute.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        match self.expiry()? {
            Expiry::At(at) => Some(at),
            Expiry::In(life) => SystemTime::now().checked_add(life),
        }
    }

    /// Another field that the server sent.
    #[must_use]
    pub fn extra(&self, name: &str) -> Option<&str> {
        Some(self.extra.as_ref()?.get(name)?.expose_secret())
    }

    /// All other fields that the server sent, by name.
    pub fn extras(&self) -> impl Iterator<Item = (&str, &str)> {
        let extras = self.extra.iter().flat_map(|extra| extra.iter());
        extras.map(|(name, value)| (name, value.expose_secret()))
    }

    fn expiry(&self) -> Option<Expiry> {
        self.expiry?.unpack()
    }

    pub(crate) fn without_expiry(self) -> Self {
        Self { expiry: None, ..self }
    }

    pub(crate) fn without_extra(mut self, name: &str) -> Self {
        if self.extra(name).is_some() {
            Arc::make_mut(self.extra.get_or_insert_default()).remove(name);
        }
        self.extra = self.extra.filter(|extra| !extra.is_empty());
        self
    }

    pub(crate) fn with_extras(self, extra: Option<Arc<Extra>>) -> Self {
        Self { extra, ..self }
    }

    pub(crate) fn shared_extra(&self) -> Option<Arc<Extra>> {
        self.extra.clone()
    }

    /// What a server has sent, and nothing that only this crate may say.
    pub(crate) fn without_reserved(mut self) -> Self {
        let is_reserved = |name: &str| name.starts_with(RESERVED);
        if self.extras().any(|(name, _)| is_reserved(name)) {
            Arc::make_mut(self.extra.get_or_insert_default()).retain(|name| !is_reserved(name));
        }
        self
    }

    /// Fills what a refresh's answer may leave out from the tokens it replaces.
    pub(crate) fn or_keep(mut self, spent: &Self) -> Self {
        // An empty one is none, as in a field that the server leaves empty.
        if self.refresh_token().is_none_or(str::is_empty) {
            self.refresh_token.clone_from(&spent.refresh_token);
        }
        match (&mut self.extra, &spent.extra) {
            (_, None) => {}
            (none @ None, Some(kept)) => *none = Some(Arc::clone(kept)),
            (Some(new), Some(kept)) => {
                let new = Arc::make_mut(new);
                for (name, value) in kept.iter() {
                    if new.get(name).is_none() {
                        new.insert(name, value.clone());
                    }
                }
            }
        }
        self
    }

    pub(crate) fn without_refresh_token(self) -> Self {
        Self { refresh_token: None, ..self }
    }

    /// The same tokens with their end by the wall clock, as a store keeps them.
    pub(crate) fn absolute(mut self, time: Time) -> Self {
        if let Some(Expiry::In(life)) = self.expiry() {
            self.expiry = time.wall.checked_add(life).map(|at| Expiry::At(at).pack());
        }
        self
    }

    /// The end of the access token, for one that was read at this moment. An empty one has come
    /// to its end.
    pub(crate) fn end(&self, time: Time) -> Option<Due> {
        match self.access_token().is_empty() {
            true => Some(time.after(Duration::ZERO)),
            false => self.stated_end(time),
        }
    }

    /// The same as the server has said it, for a token that was asked for at this moment.
    pub(crate) fn stated_end(&self, time: Time) -> Option<Due> {
        let (left, wall) = match self.expiry()? {
            Expiry::In(life) => (life, time.wall.checked_add(life)?),
            // If the clock went past it already, it ran out just now.
            Expiry::At(at) => (at.duration_since(time.wall).unwrap_or_default(), at),
        };
        Some(Due { now: time.now.checked_add(left)?, wall })
    }

    /// Whether the access token runs out, and has by this moment, at which it was read.
    pub(crate) fn has_run_out(&self, time: Time) -> bool {
        self.end(time).is_some_and(|end| end.has_come(time))
    }
}

impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        self.access_token() == other.access_token()
            && self.refresh_token() == other.refresh_token()
            && self.expiry == other.expiry
            && self.extras().eq(other.extras())
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("access_token", &"[redacted]")
            .field("refresh_token", &self.refresh_token.as_ref().map(|_| "[redacted]"))
            .field("expiry", &self.expiry())
            .field("extra", &self.extra.as_deref())
            .finish()
    }
}

/// Without spare room, which would be given back unwiped.
fn secret(text: impl Into<String>) -> SecretString {
    let mut text = Zeroizing::new(text.into());
    match text.len() == text.capacity() {
        true => SecretString::from(std::mem::take(&mut *text)),
        false => SecretString::from(text.as_str()),
    }
}

/// A token, without white space at its ends: neither has any (RFC 6750, section 2.1), but the
/// files and variables that they are read from do.
fn token(text: impl Into<String>) -> SecretString {
    let mut text = Zeroizing::new(text.into());
    match text.trim() {
        // There is nothing to leave out, and no spare room.
        whole if whole.len() == text.capacity() => SecretString::from(std::mem::take(&mut *text)),
        trimmed => SecretString::from(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_begins_anew_is_greater_than_those_before() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let first = Generation::ZERO.next_at(wall);
        assert_eq!(first, Generation::new(1_800_000_000_123));
        // After that the clock has no say, wherever it was set.
        for wall in [wall, SystemTime::UNIX_EPOCH] {
            assert_eq!(first.next_at(wall), Generation::new(1_800_000_000_124));
            assert_eq!(Generation::new(1).next_at(wall), Generation::new(2));
        }
    }

    #[test]
    fn a_clock_before_the_epoch_begins_with_one() {
        for wall in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - Duration::from_secs(1)] {
            assert_eq!(Generation::ZERO.next_at(wall), Generation::new(1));
        }
    }
}
