//! Which session it is: [`SessionId`], which the browser has, and [`SessionName`], which everyone
//! else has.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};

use crate::{error::ConfigError, seal::random};

/// A SHA-256.
pub(super) type Digested = [u8; 32];

pub(super) const NO_RANDOMNESS: ConfigError =
    ConfigError::new("the operating system has no random bytes");

/// How many random bytes an id has.
const BYTES: usize = 32;

/// And how many letters: in base64 for URLs, without padding.
const LETTERS: usize = 43;

/// A session's id: 32 bytes from the operating system, as text. A browser that shows it is signed in.
/// So the id is in the cookie only, and not in a store, a log or a URL. `Debug` does not show it, and
/// its memory is wiped on drop.
///
/// A sign-in makes a new id, and never takes over one that a browser has brought.
///
/// ```
/// use tower_refresh::session::SessionId;
///
/// let id = SessionId::random()?;
/// assert_eq!(id.expose().parse::<SessionId>().unwrap().name(), id.name());
/// assert!(!format!("{id:?} {}", id.name()).contains(id.expose()));
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct SessionId(SecretString);

/// A session's name: a hash of its [id](SessionId), for stores and for logs. A thief who reads a whole
/// store cannot sign in with the names in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionName(Box<str>);

impl SessionId {
    /// A new one.
    ///
    /// # Errors
    ///
    /// The operating system has no random bytes.
    pub fn random() -> Result<Self, ConfigError> {
        let bytes = random::<BYTES>().map(Zeroizing::new);
        let bytes = bytes.ok_or(NO_RANDOMNESS)?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()).into()))
    }

    /// The text itself, for the cookie.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What this session is called everywhere else.
    #[must_use]
    pub fn name(&self) -> SessionName {
        SessionName::of(self.digest())
    }

    /// The same, shorter.
    pub(super) fn digest(&self) -> Digested {
        Sha256::digest(self.expose()).into()
    }

    /// The same of an id that a browser has brought, without a copy of it. `None`: it is none.
    pub(super) fn digest_of(text: &[u8]) -> Option<Digested> {
        is_id(text).then(|| Sha256::digest(text).into())
    }
}

/// An id as it was made, letter by letter.
///
/// # Errors
///
/// Any other text: it is no id of any session.
impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        if is_id(text.as_bytes()) { Ok(Self(text.into())) } else { Err(NoSessionId) }
    }
}

/// Whether it is written as [`SessionId::random`] writes it. Of the last letter's six bits two say
/// nothing, and are zero: one way of writing an id is enough.
fn is_id(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == LETTERS
        && text.iter().all(is_letter)
        && text.last().is_some_and(|last| b"AEIMQUYcgkosw048".contains(last))
}

/// A text is not the id of a session.
///
/// [`SessionId`]'s `from_str` returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoSessionId;

impl fmt::Display for NoSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is not a session's id")
    }
}

impl std::error::Error for NoSessionId {}

impl SessionName {
    pub(super) fn of(hash: Digested) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(hash).into())
    }

    /// A name that a list holds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name = Self(text.into());
        name.digest().is_some().then_some(name)
    }

    pub(super) fn digest(&self) -> Option<Digested> {
        BASE64_URL_SAFE_NO_PAD.decode(&*self.0).ok()?.try_into().ok()
    }

    /// The name as text: letters, digits, `-` and `_`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SessionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionName").field(&self.0).finish()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_never_the_same_and_neither_are_their_names() {
        let (one, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.name(), other.name());
        assert_eq!(one.name(), one.expose().parse::<SessionId>().unwrap().name());
        assert!(!one.name().as_str().contains(one.expose()));
    }

    /// A name of the past is found by every version to come: it is what the store has.
    #[test]
    fn a_name_is_the_hash_of_the_text() {
        let id: SessionId = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(id.name().as_str(), "DwBzhbb51LfusnSGBa_hqYSgo7-j8BTQnip4TOnlzRo");
    }

    #[test]
    fn only_what_was_made_here_is_an_id() {
        let id = SessionId::random().unwrap();
        let text = id.expose();
        for wrong in [
            "",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &format!(" {text}"),
            &format!("\"{text}\""),
            // The last letter has two bits that say nothing: one way of writing them is enough.
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
            "+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_not_shown() {
        let id = SessionId::random().unwrap();
        assert!(!format!("{id:?}").contains(id.expose()));
    }
}
