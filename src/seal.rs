//! Sealing: text that only the holder of a key can read, and that opens only under the name
//! it was sealed for (feature `seal`; `file`, `postgres` and `redis` bring it).
//!
//! The crate's stores seal their records with a [`Keyring`]. Programs may seal what is
//! theirs with the same one: the value of a cookie, a `state` parameter, a file.
//!
//! ```
//! use tower_refresh::seal::{Keyring, SealErrorKind};
//!
//! # fn main() -> Result<(), tower_refresh::seal::SealError> {
//! # let (old, new) = ([1; 32], [2; 32]);
//! let keys = Keyring::new(old);
//! let sealed = keys.seal("login alice", b"https://app.example.com/inbox")?;
//! assert_eq!(&*keys.open("login alice", &sealed)?, b"https://app.example.com/inbox");
//!
//! // Under another name it does not open.
//! let error = keys.open("login bob", &sealed).unwrap_err();
//! assert_eq!(error.kind(), SealErrorKind::NoKeyOpens);
//!
//! // The key is replaced: the new one seals, the old one still opens.
//! let keys = Keyring::new(new).also_opens(old);
//! assert_eq!(&*keys.open("login alice", &sealed)?, b"https://app.example.com/inbox");
//! let resealed = keys.seal("login alice", b"https://app.example.com/inbox")?;
//! assert!(Keyring::new(old).open("login alice", &resealed).is_err());
//! # Ok(()) }
//! ```

use std::{error::Error, fmt, ops::Deref, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use secrecy::zeroize::Zeroizing;

const NONCE_LEN: usize = 24;

/// Keys that seal and open: XChaCha20-Poly1305 (the construction of RFC 8439 with a nonce of
/// 24 bytes), under a nonce drawn at random for each seal.
///
/// The first key seals, every key opens. Cloning is cheap: clones share the keys, which are
/// wiped from memory with the last clone.
///
/// # What a seal binds
///
/// [`seal`](Self::seal) binds the text to a name, and [`open`](Self::open) asks for the same
/// one. A store's record is bound to its name and its generation: copied to another name, it
/// does not open. What a program seals and what a store seals are bound to different
/// purposes as well: neither opens as the other, whatever the names.
///
/// A seal does not hide the length of the text, and does not tell an old text from a new one
/// of the same name. If an old one must not come back, put a number or a time into the name
/// or the text, and check it.
///
/// # How often
///
/// One key is good for any number of seals that a program can make: after 2<sup>64</sup> of
/// them the chance that two have shared a nonce is below 2<sup>-64</sup>. One text may have
/// up to 256 GiB.
///
/// # Changing the key
///
/// To change it without losing a session: give all processes the new key as one that also opens; then
/// make it the first, with the old one behind it; then drop the old one, once everything that it has
/// sealed has been sealed anew or has run out.
///
/// ```
/// use tower_refresh::seal::Keyring;
///
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = Keyring::new(new).also_opens(old);
/// assert_eq!(format!("{keys:?}"), "Keyring { keys: 2, unsealed: false }");
/// ```
#[derive(Clone)]
pub struct Keyring {
    /// The first one seals. There always is one.
    keys: Arc<Vec<Zeroizing<[u8; 32]>>>,
    unsealed: bool,
}

/// What a sealed text is for. A text that was sealed for one purpose opens for no other, since
/// no purpose's [label](Self::label) begins with another's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A store's record. The label is part of the format of records.
    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    Record,
    /// A browser session's cookie. The label is part of its format.
    #[cfg(feature = "session")]
    Session,
    /// Whatever the user of the crate seals.
    Users,
}

/// A text that was opened. Its memory is wiped on drop, and `Debug` does not show it.
///
/// [`Keyring::open`] returns it; the [module](self) has an example.
pub struct Plaintext(Zeroizing<Vec<u8>>);

/// Why something could not be sealed or opened. Neither the text nor a key is in it.
///
/// The [module](self) has an example.
pub struct SealError(SealErrorKind);

/// The kinds of [`SealError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SealErrorKind {
    /// What was to be opened is no sealed text: not base64, or too short.
    Malformed,
    /// No key opens it: it was sealed with another key, under another name or for another
    /// purpose, or it was tampered with. Which of these it is cannot be told.
    NoKeyOpens,
    /// The operating system gave no random bytes for the nonce.
    NoRandomness,
    /// The text is longer than 256 GiB.
    TooLong,
}

impl Keyring {
    /// Seals and opens with this key: 32 bytes from a random source, such as
    /// `openssl rand 32`, and not a password.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { keys: Arc::new(vec![Zeroizing::new(key)]), unsealed: false }
    }

    /// Opens with this key, too.
    #[must_use]
    pub fn also_opens(mut self, key: [u8; 32]) -> Self {
        Arc::make_mut(&mut self.keys).push(Zeroizing::new(key));
        self
    }

    /// Lets a store read records that were written without a key, while you move it to sealed records.
    /// A program that can write to the store can then put in a record of its own, as without a key.
    /// Default: such records are refused. [`open`](Self::open) never takes anything that is not sealed.
    #[must_use]
    pub fn allow_unsealed(mut self) -> Self {
        self.unsealed = true;
        self
    }

    /// Seals a text under a name: it opens under this name only. The name is neither secret
    /// nor part of the result.
    ///
    /// A name of several parts must tell where each of them ends: `"{user} {session}"` is
    /// the same for `("a b", "c")` and `("a", "b c")`.
    ///
    /// The result is base64url without padding (RFC 4648, section 5) of nonce, ciphertext and
    /// tag: 54 characters for an empty text, and four more for each three bytes. It may stand
    /// in a cookie, a URL or a header as it is.
    ///
    /// # Errors
    ///
    /// [`SealErrorKind::NoRandomness`], [`SealErrorKind::TooLong`].
    pub fn seal(
        &self,
        name: impl AsRef<[u8]>,
        text: impl AsRef<[u8]>,
    ) -> Result<String, SealError> {
        let sealed = self.encrypt(Purpose::Users, name.as_ref(), text.as_ref())?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what [`seal`](Self::seal) made of a text under this name, with whichever of the
    /// keys it was.
    ///
    /// # Errors
    ///
    /// [`SealErrorKind::Malformed`], [`SealErrorKind::NoKeyOpens`].
    pub fn open(
        &self,
        name: impl AsRef<[u8]>,
        sealed: impl AsRef<[u8]>,
    ) -> Result<Plaintext, SealError> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed);
        let sealed = sealed.map_err(|_| SealError(SealErrorKind::Malformed))?;
        self.decrypt(Purpose::Users, name.as_ref(), &sealed)
    }

    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    pub(crate) fn allows_unsealed(&self) -> bool {
        self.unsealed
    }

    /// Nonce, ciphertext and tag.
    pub(crate) fn encrypt(
        &self,
        purpose: Purpose,
        name: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let nonce = XNonce::from(random().ok_or(SealError(SealErrorKind::NoRandomness))?);
        let aad = &purpose.bind(name);
        let sealed = cipher(&self.keys[0]).encrypt(&nonce, Payload { msg: text, aad });
        // Its length is the one thing that the cipher may refuse.
        let sealed = sealed.map_err(|_| SealError(SealErrorKind::TooLong))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    pub(crate) fn decrypt(
        &self,
        purpose: Purpose,
        name: &[u8],
        sealed: &[u8],
    ) -> Result<Plaintext, SealError> {
        let (nonce, msg) =
            sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError(SealErrorKind::Malformed))?;
        let (nonce, aad) = (XNonce::from(*nonce), &*purpose.bind(name));
        self.keys
            .iter()
            .find_map(|key| cipher(key).decrypt(&nonce, Payload { msg, aad }).ok())
            .map(|text| Plaintext(Zeroizing::new(text)))
            .ok_or(SealError(SealErrorKind::NoKeyOpens))
    }
}

/// Random bytes from the operating system: a program cannot seed its generator, and processes
/// that were forked, or restored from one snapshot, are not given the same. `None`: it has none.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    <[u8; N]>::try_generate().ok()
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
            Self::Record => "tower-refresh record ",
            #[cfg(feature = "session")]
            Self::Session => "tower-refresh session 1 ",
            Self::Users => "tower-refresh sealed 1 ",
        }
    }

    /// What the cipher authenticates besides the text.
    fn bind(self, name: &[u8]) -> Vec<u8> {
        [self.label().as_bytes(), name].concat()
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl SealError {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> SealErrorKind {
        self.0
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("keys", &self.keys.len())
            .field("unsealed", &self.unsealed)
            .finish()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext([redacted])")
    }
}

impl fmt::Debug for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealError").field(&self.0).finish()
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SealErrorKind::Malformed => "this is no sealed text",
            SealErrorKind::NoKeyOpens => {
                "no key opens this: it was sealed with another key or under another name, or tampered with"
            }
            SealErrorKind::NoRandomness => "there is no random source to seal with",
            SealErrorKind::TooLong => "the text is too long to be sealed",
        })
    }
}

impl Error for SealError {}

#[cfg(test)]
mod tests;
