//! One credential's file: what is written in it, and which files beside it are its locks.
//! All of it blocks.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use secrecy::zeroize::Zeroizing;

use super::{
    disk::{self, Access},
    failed::{Failed, failed},
    folder,
    lock::Lock,
    mount::refuse_mounted,
    path,
};
use crate::{
    store::{
        Deleted, KeptUntil, Keyring, Record,
        format::{Format, Unreadable, Written, millis_of},
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
    access: Access,
}

/// How to go on where a file is damaged.
const DAMAGED: &str =
    "sign in again, which keeps the damaged text in a file beside it, or restore the file";

/// How to go on where a later version has written the file.
const LATER: &str = "update this program; or move the file away and sign in again";

/// How to go on where the tokens do not open.
const SEALED: &str = "use the keys that it was written with; or sign out, and sign in again";

/// The file of the credential of this name in a folder. The error says why there can be none.
pub(super) fn file_name(name: &str) -> Result<String, String> {
    let encoded = path::encode(name.as_bytes());
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
    pub(super) fn new(
        path: &Path,
        keys: Option<Keyring>,
        access: Access,
    ) -> Result<Self, StoreError> {
        let path = path::absolute(path)?;
        let Some(name) = path.file_name() else {
            return Err(failed("keep tokens in", &path, "it names no file").into());
        };
        // The name as it was given. If it were the one that a link leads to, anyone who can
        // set a link could swap two sealed records.
        let format = Format::new(path::encode(name.as_encoded_bytes()), keys);
        Ok(Self { path, format, access })
    }

    pub(super) fn sealed(&self, keys: Keyring) -> Self {
        Self {
            path: self.path.clone(),
            format: self.format.clone().sealed(keys),
            access: self.access,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder if it is missing, and says whether the file can be used, as far as can
    /// be seen without reading it.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        let file = path::followed(&self.path)?;
        folder::make(path::folder_of(&file))?;
        refuse_mounted(&file)?;
        Ok(disk::look(&file, self.access)?)
    }

    pub(super) fn load(&self) -> Result<Record, StoreError> {
        let file = path::followed(&self.path)?;
        let Some(text) = self.text(&file)? else {
            return Ok(Record::default());
        };
        let written = self.parse(&file, &text)?;
        if has_ended(&written) { Ok(Record::default()) } else { self.open(&file, written) }
    }

    /// The record, if its generation is later than this one.
    pub(super) fn newer(&self, known: Generation) -> Result<Option<Record>, StoreError> {
        let file = path::followed(&self.path)?;
        let Some(text) = self.text(&file)? else {
            return Ok(None);
        };
        let written = self.parse(&file, &text)?;
        if written.generation() <= known || has_ended(&written) {
            return Ok(None);
        }
        self.open(&file, written).map(Some)
    }

    /// The record, unless it is of this generation, which is told without opening it.
    pub(super) fn changed(&self, known: Generation) -> Result<Option<Record>, StoreError> {
        let file = path::followed(&self.path)?;
        let Some(text) = self.text(&file)? else {
            return Ok((known != Generation::ZERO).then(Record::default));
        };
        let written = self.parse(&file, &text)?;
        if held(&written) == known {
            return Ok(None);
        }
        if has_ended(&written) {
            return Ok(Some(Record::default()));
        }
        self.open(&file, written).map(Some)
    }

    pub(super) fn generation(&self) -> Result<Generation, StoreError> {
        let file = path::followed(&self.path)?;
        match self.text(&file)? {
            None => Ok(Generation::ZERO),
            Some(text) => Ok(held(&self.parse(&file, &text)?)),
        }
    }

    /// Compare-and-swap. The caller holds the [lock for writing](Self::try_lock).
    ///
    /// What is damaged has no generation, and counts as never written. Its text is kept. The record
    /// keeps its end or has none any more.
    pub(super) fn swap(
        &self,
        expected: Generation,
        record: &Record,
        keeps_end: bool,
    ) -> Result<(), SaveError> {
        let file = path::followed(&self.path).map_err(StoreError::from)?;
        let text = self.text(&file).map_err(StoreError::from)?;
        let mut end = None;
        let held = match &text {
            None => Generation::ZERO,
            Some(text) => match self.format.parse(text) {
                Ok(written) => {
                    let keeps = keeps_end && record.tokens.is_some() && !has_ended(&written);
                    end = written.ends_at_ms().filter(|_| keeps);
                    held(&written)
                }
                Err(Unreadable::Damaged(_)) if expected == Generation::ZERO => {
                    let replace = || self.replace(&file, record, None);
                    return Ok(disk::keep_aside(&file, text, replace)?);
                }
                Err(error) => return Err(unreadable(&file, error).into()),
            },
        };
        if held != expected {
            return Err(SaveError::Conflict);
        }
        Ok(self.replace(&file, record, end)?)
    }

    /// Leaves the generation only. The caller holds the [lock for writing](Self::try_lock).
    pub(super) fn delete(&self, now: SystemTime) -> Result<Deleted, StoreError> {
        let file = path::followed(&self.path)?;
        let text = self.text(&file)?;
        let written = match &text {
            None => None,
            Some(text) => Some(self.format.parse(text).map_err(|error| {
                failed("tell which generation to end; to sign out, remove", &file, error.reason())
            })?),
        };
        let held = written.as_ref().map_or(Generation::ZERO, held);
        let generation = held.next_at(now);
        // Tokens that no key of ours opens are deleted all the same: the caller cannot revoke
        // them, but a user who has lost the key can still sign out.
        let written = written.filter(|written| !has_ended(written));
        let tokens = written.and_then(|written| self.format.open(written).ok()?.tokens);
        self.replace(&file, &Record::new(generation, None), None)?;
        Ok(Deleted::new(generation, tokens))
    }

    /// Gives the record an end, if it holds tokens and has no later one. The caller holds the [lock
    /// for writing](Self::try_lock).
    pub(super) fn keep_until(&self, end: SystemTime) -> Result<KeptUntil, StoreError> {
        let file = path::followed(&self.path)?;
        let Some(text) = self.text(&file)? else {
            return Ok(KeptUntil::NoTokens);
        };
        let written = self.parse(&file, &text)?;
        if has_ended(&written) || !written.holds_tokens() {
            return Ok(KeptUntil::NoTokens);
        }
        let end = millis_of(end);
        if written.ends_at_ms().is_none_or(|known| known < end) {
            disk::replace(&file, &written.ending_at(end)?, self.access)?;
        }
        Ok(KeptUntil::Kept)
    }

    /// The lease's lock, if it is free.
    pub(super) fn try_lease(&self) -> Result<Option<Lock>, StoreError> {
        Ok(Lock::attempt(path::followed(&self.path)?, ".lease", self.access)?)
    }

    /// Whether this lock is still the lease of the file that the path means now.
    pub(super) fn is_leased(&self, lock: &Lock) -> bool {
        path::followed(&self.path).is_ok_and(|file| file == lock.record()) && lock.is_current()
    }

    /// The lock for the short moment of a write, if it is free.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        Ok(Lock::attempt(path::followed(&self.path)?, ".lock", self.access)?)
    }

    /// Refuses a file that is mounted by itself.
    pub(super) fn refuse_mounted(&self) -> Result<(), StoreError> {
        Ok(refuse_mounted(&path::followed(&self.path)?)?)
    }

    /// Whether a record could be saved, as far as can be seen without doing it. The caller
    /// holds the [lock for writing](Self::try_lock).
    pub(super) fn could_replace(&self) -> Result<(), StoreError> {
        let file = path::followed(&self.path)?;
        refuse_mounted(&file)?;
        Ok(disk::could_replace(&file, self.access)?)
    }

    /// The error of a caller that could not get the lock for writing in time.
    pub(super) fn stays_locked(&self) -> StoreError {
        failed("write", &self.path, "another process keeps it locked; is it stopped?").into()
    }

    /// The text of the record. `None`: there was none yet, which is what an empty file says,
    /// too.
    fn text(&self, file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failed> {
        let text = disk::read(file, self.access)?;
        Ok(text.filter(|text| !text.trim_ascii().is_empty()))
    }

    fn parse<'a>(&self, file: &Path, text: &'a [u8]) -> Result<Written<'a>, StoreError> {
        self.format.parse(text).map_err(|error| unreadable(file, error))
    }

    fn open(&self, file: &Path, written: Written<'_>) -> Result<Record, StoreError> {
        let opened = self.format.open(written);
        Ok(opened.map_err(|error| failed("read", file, error.into_source()).advise(SEALED))?)
    }

    fn replace(&self, file: &Path, record: &Record, end: Option<u64>) -> Result<(), StoreError> {
        Ok(disk::replace(file, &self.format.write(record, end)?, self.access)?)
    }
}

fn has_ended(written: &Written<'_>) -> bool {
    written.ends_at_ms().is_some_and(|end| end <= millis_of(SystemTime::now()))
}

/// The generation that counts: of a record whose end has come, none.
fn held(written: &Written<'_>) -> Generation {
    if has_ended(written) { Generation::ZERO } else { written.generation() }
}

fn unreadable(file: &Path, error: Unreadable) -> StoreError {
    let advice = match error {
        Unreadable::Damaged(_) => DAMAGED,
        Unreadable::Later(_) => LATER,
    };
    failed("read", file, error.reason()).advise(advice).into()
}
