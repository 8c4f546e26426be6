//! The file itself: where it is, how it is read and replaced. All of it blocks.

use std::{
    error::Error,
    fmt::{self, Write as _},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write as _},
    path::{Path, PathBuf},
};

use secrecy::zeroize::Zeroizing;

use super::lock::Lock;
use crate::{
    error::{BoxError, SaveError, StoreError},
    store::{
        Deleted, Keyring, Record,
        format::{Format, Written},
    },
    tokens::Generation,
};

/// The longest encoded name: with the endings of its neighbours it is a file name yet.
const LONGEST_NAME: usize = 240;

#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    format: Format,
}

impl Place {
    pub(super) fn new(path: &Path, keys: Option<Keyring>) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|e| Doing("find", path).failed(e))?;
        let Some(name) = path.file_name() else {
            return Err(Doing("keep tokens in", &path).failed("it names no file"));
        };
        // As it was given: were it the name that a link leads to, a link could swap records.
        let format = Format::new(encode(name.as_encoded_bytes()), keys);
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
        let file = self.file()?;
        match fs::metadata(&file) {
            Ok(found) => check(&file, &found),
            Err(error) => absent(&file, error),
        }
    }

    pub(super) fn load(&self) -> Result<Record, StoreError> {
        let file = self.file()?;
        match read(&file)? {
            None => Ok(Record::default()),
            Some(text) => self.open(&file, self.parse(&file, &text)?),
        }
    }

    /// The record, if its generation is later.
    pub(super) fn newer(&self, seen: Generation) -> Result<Option<Record>, StoreError> {
        let file = self.file()?;
        let Some(text) = read(&file)? else {
            return Ok(None);
        };
        let written = self.parse(&file, &text)?;
        if written.generation() <= seen {
            return Ok(None);
        }
        self.open(&file, written).map(Some)
    }

    pub(super) fn generation(&self) -> Result<Generation, StoreError> {
        self.generation_in(&self.file()?)
    }

    /// Compare-and-swap, under the lock for writing.
    pub(super) fn swap(&self, expected: Generation, record: &Record) -> Result<(), SaveError> {
        let file = self.file()?;
        if self.generation_in(&file)? != expected {
            return Err(SaveError::Conflict);
        }
        Ok(self.replace(&file, record)?)
    }

    /// Leaves the number only, under the lock for writing.
    pub(super) fn delete(&self) -> Result<Deleted, StoreError> {
        let file = self.file()?;
        let text = read(&file)?;
        let held = match &text {
            None => None,
            Some(text) => Some(self.format.parse(text).map_err(|error| {
                let doing = "tell which generation to end; to sign out, remove";
                Doing(doing, &file).failed(error.into_source())
            })?),
        };
        let generation = held.as_ref().map_or(Generation::ZERO, Written::generation).next();
        // Without the right key there is nobody to revoke them, but they can go.
        let tokens = held.and_then(|written| self.format.open(written).ok()?.tokens);
        self.replace(&file, &Record::new(generation, None))?;
        Ok(Deleted::new(generation, tokens))
    }

    pub(super) fn try_lease(&self) -> Result<Option<Lock>, StoreError> {
        Lock::attempt(beside(&self.file()?, ".lease"))
    }

    /// Whether this lock is the lease still: of the file that the path names now.
    pub(super) fn is_leased(&self, lock: &Lock) -> bool {
        self.file().is_ok_and(|file| beside(&file, ".lease") == lock.path()) && lock.is_current()
    }

    /// The lock for writing.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        Lock::attempt(beside(&self.file()?, ".lock"))
    }

    pub(super) fn stays_locked(&self) -> StoreError {
        Doing("write", &self.path).failed("another process keeps it locked; is it stopped?")
    }

    pub(super) fn sync_folder_of(&self, file: &Path) -> Result<(), StoreError> {
        sync_folder(file.parent().unwrap_or(file))
    }

    /// The file that is meant: the one that a link leads to.
    fn file(&self) -> Result<PathBuf, StoreError> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(&self.path)
                .map_err(|e| Doing("follow the symbolic link", &self.path).failed(e)),
            // What is wrong otherwise is told by whatever is done with it.
            _ => Ok(self.path.clone()),
        }
    }

    fn generation_in(&self, file: &Path) -> Result<Generation, StoreError> {
        match read(file)? {
            None => Ok(Generation::ZERO),
            Some(text) => Ok(self.parse(file, &text)?.generation()),
        }
    }

    fn parse<'a>(&self, file: &Path, text: &'a [u8]) -> Result<Written<'a>, StoreError> {
        self.format.parse(text).map_err(|e| Doing("read", file).failed(e.into_source()))
    }

    fn open(&self, file: &Path, written: Written<'_>) -> Result<Record, StoreError> {
        self.format.open(written).map_err(|e| Doing("read", file).failed(e.into_source()))
    }

    /// Puts the record in the file's place. Until the rename the old one is there, whole;
    /// when this returns, the new one is on the disk.
    fn replace(&self, file: &Path, record: &Record) -> Result<(), StoreError> {
        let text = self.format.write(record)?;
        // One name, under the lock: what a crash leaves behind goes with the next write.
        let temp = beside(file, ".tmp");
        remove(&temp)?;
        let written = write(&temp, &text)
            .and_then(|()| fs::rename(&temp, file).map_err(|e| Doing("replace", file).failed(e)));
        if written.is_err() {
            let _ = remove(&temp);
        }
        written?;
        self.sync_folder_of(file)
    }
}

/// A name as a file's name. Capitals are encoded, too: not all file systems tell them apart.
pub(super) fn file_name(name: &str) -> Result<String, StoreError> {
    let encoded = encode(name.as_bytes());
    if encoded.is_empty() {
        return Err(StoreError::new("the name of a credential must not be empty"));
    }
    if encoded.len() > LONGEST_NAME {
        let reason = format!(
            "the name of a credential is too long for a file: {} bytes when it is encoded, of {LONGEST_NAME}",
            encoded.len()
        );
        return Err(StoreError::new(reason));
    }
    Ok(encoded + ".json")
}

fn encode(name: &[u8]) -> String {
    name.iter().fold(String::with_capacity(name.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => _ = write!(encoded, "%{byte:02x}"),
        }
        encoded
    })
}

/// Creates the folder if it is missing, but not its parents.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(false);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let folder = std::path::absolute(folder).map_err(|e| Doing("find", folder).failed(e))?;
    match builder.create(&folder) {
        Ok(()) => sync_folder(folder.parent().unwrap_or(&folder)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Doing("create the folder", &folder).failed(error)),
    }
}

/// Makes what is created readable for its owner only.
pub(super) fn owners_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// What is in the file. `None`: there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    // Before it is opened: to open a pipe is to wait for its writer.
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => return absent(path, error).map(|()| None),
    };
    check(path, &found)?;
    let read = || {
        let file = File::open(path)?;
        let found = file.metadata()?;
        // A little more than enough: what it grew out of would not be wiped.
        let room = usize::try_from(found.len()).unwrap_or(usize::MAX).saturating_add(64);
        let mut text = Zeroizing::new(Vec::new());
        text.try_reserve_exact(room).map_err(|_| ErrorKind::OutOfMemory)?;
        file.take(found.len()).read_to_end(&mut text)?;
        Ok((found, text))
    };
    let (found, text) = read().map_err(|e: io::Error| Doing("read", path).failed(e))?;
    check(path, &found)?;
    Ok(Some(text))
}

/// No file in a folder that is there is a credential that was never signed in. No folder is
/// an error: what was in it is somewhere, perhaps.
fn absent(path: &Path, error: io::Error) -> Result<(), StoreError> {
    if error.kind() != ErrorKind::NotFound {
        return Err(Doing("look at", path).failed(error));
    }
    let folder = path.parent().unwrap_or(path);
    match fs::metadata(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(Doing("find the folder", folder).failed(error)),
    }
}

/// It must be a file, and its owner's only.
fn check(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    if !found.is_file() {
        return Err(Doing("keep tokens in", path).failed("it is not a file"));
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.display();
            let reason = format!(
                "{path} is open to others than its owner (mode {mode:04o}): chmod 600 {path}"
            );
            return Err(StoreError::new(reason));
        }
    }
    Ok(())
}

/// Writes a new file. When this returns, it is on the disk.
fn write(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = owners_only(options.write(true).create_new(true)).open(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(|e| Doing("write", path).failed(e))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Doing("remove", path).failed(error))
        }
        _ => Ok(()),
    }
}

/// Returns when the names in the folder are on the disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot do that, and this one would do no better later.
        Err(error) if error.kind() != ErrorKind::InvalidInput => {
            Err(Doing("sync the folder", folder).failed(error))
        }
        _ => Ok(()),
    }
}

/// Elsewhere a folder cannot be opened like a file.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.to_path_buf().into_os_string();
    path.push(ending);
    path.into()
}

/// What was being done, and with which path.
pub(super) struct Doing<'a>(pub(super) &'static str, pub(super) &'a Path);

impl Doing<'_> {
    pub(super) fn failed(self, why: impl Into<BoxError>) -> StoreError {
        StoreError::new(Failed { doing: self.0, path: self.1.to_path_buf(), why: why.into() })
    }
}

#[derive(Debug)]
struct Failed {
    doing: &'static str,
    path: PathBuf,
    why: BoxError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {}", self.doing, self.path.display())
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.why)
    }
}
