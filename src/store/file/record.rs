//! One credential's file: what is written in it, and which files beside it are its locks.
//! All of it blocks.

use std::path::{Path, PathBuf};

use super::{
    disk::{self, failed},
    lock::Lock,
};
use crate::{
    store::{
        Deleted, Keyring, Record,
        format::{Format, Written},
    },
    store::{SaveError, StoreError},
    tokens::Generation,
};

/// How long an encoded name may be: with `.json` and the endings of the files beside it, it
/// stays below the 255 bytes that file systems allow.
const MAX_NAME: usize = 240;

/// Where one credential is kept.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    format: Format,
}

/// The file of the credential of this name in a folder. The error says why there can be none.
pub(super) fn file_name(name: &str) -> Result<String, String> {
    let encoded = disk::encode(name.as_bytes());
    match encoded.len() {
        0 => Err("the name of a credential must not be empty".to_owned()),
        1..=MAX_NAME => Ok(encoded + ".json"),
        length => Err(format!(
            "the name of a credential is too long for a file: it takes {length} bytes, of {MAX_NAME} at most, where all but a-z, 0-9, _ and - takes three; use a hash of it"
        )),
    }
}

impl RecordFile {
    /// The file at this path. No I/O, but for the working directory if the path is relative.
    pub(super) fn new(path: &Path, keys: Option<Keyring>) -> Result<Self, StoreError> {
        let path = disk::absolute(path)?;
        let Some(name) = path.file_name() else {
            return Err(failed("keep tokens in", &path, "it names no file").into());
        };
        // The name as it was given. If it were the one that a link leads to, anyone who can
        // set a link could swap two sealed records.
        let format = Format::new(disk::encode(name.as_encoded_bytes()), keys);
        Ok(Self { path, format })
    }

    pub(super) fn sealed(&self, keys: Keyring) -> Self {
        Self { path: self.path.clone(), format: self.format.clone().sealed(keys) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file can be used, as far as can be seen without reading it.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        Ok(disk::look(&disk::followed(&self.path)?)?)
    }

    pub(super) fn load(&self) -> Result<Record, StoreError> {
        let file = disk::followed(&self.path)?;
        match disk::read(&file)? {
            None => Ok(Record::default()),
            Some(text) => self.open(&file, self.parse(&file, &text)?),
        }
    }

    /// The record, if its generation is later than this one.
    pub(super) fn newer(&self, known: Generation) -> Result<Option<Record>, StoreError> {
        let file = disk::followed(&self.path)?;
        let Some(text) = disk::read(&file)? else {
            return Ok(None);
        };
        let written = self.parse(&file, &text)?;
        if written.generation() <= known {
            return Ok(None);
        }
        self.open(&file, written).map(Some)
    }

    pub(super) fn generation(&self) -> Result<Generation, StoreError> {
        self.generation_in(&disk::followed(&self.path)?)
    }

    /// Compare-and-swap. The caller holds the [lock for writing](Self::try_lock).
    pub(super) fn swap(&self, expected: Generation, record: &Record) -> Result<(), SaveError> {
        let file = disk::followed(&self.path).map_err(StoreError::from)?;
        if self.generation_in(&file)? != expected {
            return Err(SaveError::Conflict);
        }
        Ok(self.replace(&file, record)?)
    }

    /// Leaves the generation only. The caller holds the [lock for writing](Self::try_lock).
    pub(super) fn delete(&self) -> Result<Deleted, StoreError> {
        let file = disk::followed(&self.path)?;
        let text = disk::read(&file)?;
        let written = match &text {
            None => None,
            Some(text) => Some(self.format.parse(text).map_err(|error| {
                let doing = "tell which generation to end; to sign out, remove";
                failed(doing, &file, error.into_source())
            })?),
        };
        let generation = written.as_ref().map_or(Generation::ZERO, Written::generation).next();
        // Tokens that no key of ours opens are deleted all the same: the caller cannot revoke
        // them, but a user who has lost the key can still sign out.
        let tokens = written.and_then(|written| self.format.open(written).ok()?.tokens);
        self.replace(&file, &Record::new(generation, None))?;
        Ok(Deleted::new(generation, tokens))
    }

    /// The lease's lock, if it is free.
    pub(super) fn try_lease(&self) -> Result<Option<Lock>, StoreError> {
        Ok(Lock::attempt(self.lease_path()?)?)
    }

    /// Whether this lock is still the lease of the file that the path means now.
    pub(super) fn is_leased(&self, lock: &Lock) -> bool {
        self.lease_path().is_ok_and(|path| path == lock.path()) && lock.is_current()
    }

    /// The lock for the short moment of a write, if it is free.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        Ok(Lock::attempt(disk::beside(&disk::followed(&self.path)?, ".lock"))?)
    }

    /// The error of a caller that could not get the lock for writing in time.
    pub(super) fn stays_locked(&self) -> StoreError {
        failed("write", &self.path, "another process keeps it locked; is it stopped?").into()
    }

    fn lease_path(&self) -> Result<PathBuf, StoreError> {
        Ok(disk::beside(&disk::followed(&self.path)?, ".lease"))
    }

    fn generation_in(&self, file: &Path) -> Result<Generation, StoreError> {
        match disk::read(file)? {
            None => Ok(Generation::ZERO),
            Some(text) => Ok(self.parse(file, &text)?.generation()),
        }
    }

    fn parse<'a>(&self, file: &Path, text: &'a [u8]) -> Result<Written<'a>, StoreError> {
        let parsed = self.format.parse(text);
        Ok(parsed.map_err(|error| failed("read", file, error.into_source()))?)
    }

    fn open(&self, file: &Path, written: Written<'_>) -> Result<Record, StoreError> {
        let opened = self.format.open(written);
        Ok(opened.map_err(|error| failed("read", file, error.into_source()))?)
    }

    fn replace(&self, file: &Path, record: &Record) -> Result<(), StoreError> {
        Ok(disk::replace(file, &self.format.write(record)?)?)
    }
}
