//! Sealing: records that nobody reads or swaps who has not got the key.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use secrecy::zeroize::Zeroizing;

use crate::error::StoreError;

const NONCE: usize = 24;

/// The keys that records are sealed with: XChaCha20-Poly1305, under a nonce drawn at
/// random for each write.
///
/// The first key seals, every key opens. To change the key without losing a session,
/// first give all processes the new key as one that also opens; then make it the first,
/// with the old one behind it; and drop the old one once every record has been written
/// since (or has run out).
///
/// A sealed record is bound to its name and its generation: copied to another name, it
/// does not open. An old copy of the same name does; that is for the store to prevent.
///
/// ```
/// use tower_refresh::store::Keyring;
///
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = Keyring::new(new).also_opens(old);
/// assert_eq!(format!("{keys:?}"), "Keyring { keys: 2, unsealed: false }");
/// ```
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Zeroizing<[u8; 32]>>,
    unsealed: bool,
}

impl Keyring {
    /// Seals and opens with this key: 32 bytes from a random source, such as
    /// `openssl rand 32`, and not a password.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { keys: vec![Zeroizing::new(key)], unsealed: false }
    }

    /// Opens with this key, too.
    #[must_use]
    pub fn also_opens(mut self, key: [u8; 32]) -> Self {
        self.keys.push(Zeroizing::new(key));
        self
    }

    /// Reads records, too, that were written without a key: while a store is being moved
    /// to sealed records. Whoever can write to the store can then put in a record of
    /// theirs, as without a key. Default: they are refused.
    #[must_use]
    pub fn allow_unsealed(mut self) -> Self {
        self.unsealed = true;
        self
    }

    pub(crate) fn allows_unsealed(&self) -> bool {
        self.unsealed
    }

    /// Base64 of nonce and ciphertext. It opens only with the same `bound_to`.
    pub(crate) fn seal(&self, bound_to: &[u8], text: &[u8]) -> Result<String, StoreError> {
        let failed = |_| StoreError::new("the record could not be sealed");
        let nonce =
            XNonce::try_generate().map_err(|_| StoreError::new("there is no random source"))?;
        // `new` has put one there.
        let cipher = self.ciphers().next().ok_or_else(|| StoreError::new("there is no key"))?;
        let sealed =
            cipher.encrypt(&nonce, Payload { msg: text, aad: bound_to }).map_err(failed)?;
        Ok(BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// What was sealed, if one of the keys opens it.
    pub(crate) fn open(
        &self,
        bound_to: &[u8],
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let damaged = || StoreError::new("the sealed record is damaged");
        let sealed = BASE64_STANDARD.decode(sealed).map_err(|_| damaged())?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let payload = || Payload { msg: sealed, aad: bound_to };
        self.ciphers()
            .find_map(|cipher| cipher.decrypt(&XNonce::from(*nonce), payload()).ok())
            .map(Zeroizing::new)
            .ok_or_else(|| {
                StoreError::new("no key opens the record: it was sealed with another one, moved here from another name, or tampered with")
            })
    }

    fn ciphers(&self) -> impl Iterator<Item = XChaCha20Poly1305> {
        self.keys.iter().map(|key| XChaCha20Poly1305::new((&**key).into()))
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

#[cfg(test)]
mod tests;
