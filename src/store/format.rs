//! How a record is written down: one JSON document, the same at every place.
//!
//! ```json
//! {"version":1,"generation":5,"tokens":{"access_token":"...","refresh_token":"...","expires_at_ms":1790000000000,"extra":{}}}
//! {"version":1,"generation":5,"sealed":"base64 of nonce and ciphertext"}
//! {"version":1,"generation":6}
//! ```
//!
//! The last one is a sign-out. `expires_at_ms` counts milliseconds since the Unix epoch, and so does
//! `ends_at_ms`, the end of the record itself where it has one, in a file.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::{
    seal::{Keyring, Purpose, SealError, SealErrorKind},
    store::StoreError,
    tokens::{Generation, Tokens},
};

const VERSION: u32 = 1;

/// The last generation that is written or read. Far from the end of the numbers, so that there
/// always is a next one; no credential comes near it.
const MAX_GENERATION: u64 = i64::MAX as u64;

/// Writes and reads the records of one name.
#[derive(Clone, Debug)]
pub(super) struct Format {
    name: String,
    keys: Option<Keyring>,
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at_ms: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    tokens: Option<Fields<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    sealed: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// A record that was read and may still be sealed.
pub(super) struct Written<'a>(Document<'a>);

impl Written<'_> {
    pub(super) fn generation(&self) -> Generation {
        Generation::new(self.0.generation)
    }

    #[cfg(feature = "file")]
    pub(super) fn holds_tokens(&self) -> bool {
        self.0.tokens.is_some() || self.0.sealed.is_some()
    }

    /// The record's own end, in milliseconds since the Unix epoch.
    #[cfg(feature = "file")]
    pub(super) fn ends_at_ms(&self) -> Option<u64> {
        self.0.ends_at_ms
    }

    /// The same document with another end. What is sealed stays as it is.
    #[cfg(feature = "file")]
    pub(super) fn ending_at(mut self, ends_at_ms: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.0.ends_at_ms = Some(ends_at_ms);
        json(&self.0)
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn millis_of(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The latest end that a server takes, in milliseconds since the Unix epoch: in nine thousand years.
#[cfg(any(feature = "postgres", feature = "redis"))]
const MAX_END: u64 = 1 << 48;

/// An end as a server takes it, in milliseconds since the Unix epoch.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) fn end_millis_of(end: SystemTime) -> u64 {
    millis_of(end).min(MAX_END)
}

/// Why a document is no record.
#[derive(Debug)]
pub(super) enum Unreadable {
    Damaged(String),
    /// It has a format that this program does not know.
    Later(String),
}

impl Unreadable {
    pub(super) fn reason(self) -> String {
        let (Self::Damaged(reason) | Self::Later(reason)) = self;
        reason
    }
}

impl From<Unreadable> for StoreError {
    fn from(error: Unreadable) -> Self {
        Self::new(error.reason())
    }
}

impl Format {
    pub(super) fn new(name: impl Into<String>, keys: Option<Keyring>) -> Self {
        Self { name: name.into(), keys }
    }

    /// The same name, sealed with these keys.
    #[cfg(feature = "file")]
    pub(super) fn sealed(self, keys: Keyring) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The document of a record.
    pub(super) fn write(
        &self,
        record: &Record,
        ends_at_ms: Option<u64>,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let generation = record.generation.get();
        if generation > MAX_GENERATION {
            return Err(StoreError::new("the generation is too great to be written"));
        }
        let (tokens, sealed) = match (&record.tokens, &self.keys) {
            (None, _) => (None, None),
            (Some(tokens), None) => (Some(Fields::of(tokens)), None),
            (Some(tokens), Some(keys)) => {
                let (name, text) = (self.bound_to(generation), json(&Fields::of(tokens))?);
                let sealed =
                    keys.encrypt(Purpose::Record, &name, &text).map_err(StoreError::new)?;
                (None, Some(BASE64_STANDARD.encode(sealed).into()))
            }
        };
        json(&Document { version: VERSION, generation, ends_at_ms, tokens, sealed })
    }

    /// Reads all of a document but what is sealed.
    pub(super) fn parse<'a>(&self, text: &'a [u8]) -> Result<Written<'a>, Unreadable> {
        /// Read first, because a document of another version may look quite different.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            let reason =
                format!("the record has format {version}, and this program knows {VERSION}");
            return Err(Unreadable::Later(reason));
        }
        let document: Document<'a> = serde_json::from_slice(text).map_err(damaged)?;
        if document.generation > MAX_GENERATION {
            let reason = "the record is damaged: its generation is too great";
            return Err(Unreadable::Damaged(reason.to_owned()));
        }
        if document.tokens.is_some() && document.sealed.is_some() {
            let reason = "the record is damaged: it is both sealed and not";
            return Err(Unreadable::Damaged(reason.to_owned()));
        }
        Ok(Written(document))
    }

    /// Opens what is sealed, if anything is.
    pub(super) fn open(&self, written: Written<'_>) -> Result<Record, StoreError> {
        let generation = written.generation();
        let Document { tokens, sealed, .. } = written.0;
        let tokens = match (tokens, sealed, &self.keys) {
            (None, None, _) => None,
            (Some(fields), _, None) => Some(fields.into_tokens()?),
            (Some(fields), _, Some(keys)) if keys.allows_unsealed() => Some(fields.into_tokens()?),
            (Some(_), _, Some(_)) => {
                return Err(StoreError::new(
                    "the record is not sealed, and records that are not are not allowed",
                ));
            }
            (None, Some(_), None) => {
                return Err(StoreError::new("the record is sealed, and no key was given"));
            }
            (None, Some(sealed), Some(keys)) => {
                let sealed = BASE64_STANDARD.decode(&*sealed).map_err(|_| damaged_seal())?;
                let name = self.bound_to(generation.get());
                let text = keys.decrypt(Purpose::Record, &name, &sealed).map_err(not_opened)?;
                let fields: Fields<'_> = serde_json::from_slice(&text).map_err(damaged)?;
                Some(fields.into_tokens()?)
            }
        };
        Ok(Record::new(generation, tokens))
    }

    /// What a sealed record is bound to: its name and its generation.
    fn bound_to(&self, generation: u64) -> Vec<u8> {
        format!("{VERSION} {generation} {}", self.name).into_bytes()
    }
}

/// For a server, which keeps the generation beside the document, and no document for a sign-out.
#[cfg(any(feature = "postgres", feature = "redis"))]
impl Format {
    pub(super) fn read(
        &self,
        generation: Generation,
        document: Option<&[u8]>,
    ) -> Result<Record, StoreError> {
        let Some(document) = document else {
            return Ok(Record::new(generation, None));
        };
        let written = self.parse(document)?;
        if written.generation() != generation {
            return Err(StoreError::new("the record is damaged: it has two generations"));
        }
        self.open(written)
    }

    /// The tokens of a record that was deleted. What cannot be read cannot be revoked either.
    pub(super) fn deleted_tokens(&self, document: Option<&[u8]>) -> Option<Tokens> {
        let written = self.parse(document?).ok()?;
        self.open(written).ok()?.tokens
    }
}

impl<'a> Fields<'a> {
    fn of(tokens: &'a Tokens) -> Self {
        Self {
            access_token: tokens.access_token().into(),
            refresh_token: tokens.refresh_token().map(Cow::from),
            expires_at_ms: tokens.expires_at().map(millis_of),
            extra: tokens.extras().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    fn into_tokens(self) -> Result<Tokens, StoreError> {
        let mut tokens = Tokens::new(self.access_token);
        if let Some(refresh_token) = self.refresh_token {
            tokens = tokens.with_refresh_token(refresh_token);
        }
        if let Some(millis) = self.expires_at_ms {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
            // Later than this system's clock can say: as good as no expiry.
            if let Some(at) = at {
                tokens = tokens.with_expires_at(at);
            }
        }
        Ok(self
            .extra
            .into_iter()
            .fold(tokens, |tokens, (name, value)| tokens.with_extra(name, value)))
    }
}

/// Serializes into memory that is wiped, and allocates all of it at once: a buffer that grows
/// gives the old one back unwiped.
fn json(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_err(StoreError::new)?;
    let mut text = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *text, value).map_err(StoreError::new)?;
    Ok(text)
}

/// Says where the document is damaged, and leaves out the parser's own words: they could quote
/// a piece of a token.
fn damaged(error: serde_json::Error) -> Unreadable {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_eof() { "truncated" } else { "damaged" };
    Unreadable::Damaged(format!("the record is {what} at line {line}, column {column}"))
}

fn damaged_seal() -> StoreError {
    StoreError::new("the sealed record is damaged")
}

fn not_opened(error: SealError) -> StoreError {
    match error.kind() {
        SealErrorKind::NoKeyOpens => StoreError::new(
            "no key opens the record: it was sealed with another one, moved here from another name, or tampered with",
        ),
        _ => damaged_seal(),
    }
}

#[cfg(all(fuzzing, feature = "file", feature = "postgres"))]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
