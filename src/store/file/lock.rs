//! A file that is locked.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use fs4::{FileExt, TryLockError};

use super::place::{Doing, owners_only};
use crate::error::StoreError;

/// An exclusive lock of the operating system, given back when the last owner drops it, or
/// with the process.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock without waiting. `None`: somebody else has it, or has just replaced
    /// the file; try again.
    pub(super) fn attempt(path: PathBuf) -> Result<Option<Self>, StoreError> {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            let reason = "a lock must not be a symbolic link";
            return Err(Doing("lock", &path).failed(reason));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file =
            owners_only(&mut options).open(&path).map_err(|e| Doing("open", &path).failed(e))?;
        // Not as a method: newer standard libraries have one of the same name.
        match FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Doing("lock", &path).failed(error)),
        }
        let lock = Self { file, path };
        // Between opening and locking, it may have been replaced.
        Ok(lock.is_current().then_some(lock))
    }

    /// Whether the path still names the file that is locked. Others lock another one if
    /// not: its folder was removed and made anew.
    #[cfg(unix)]
    pub(super) fn is_current(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// Elsewhere a file that is open is not replaced so easily.
    #[cfg(not(unix))]
    pub(super) fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The beginning of what is in the file.
    pub(super) fn read(&self) -> Result<Vec<u8>, StoreError> {
        let mut text = Vec::new();
        let mut file = &self.file;
        let read = file.rewind().and_then(|()| file.take(64).read_to_end(&mut text));
        read.map_err(|e| Doing("read", &self.path).failed(e))?;
        Ok(text)
    }

    /// Replaces what is in the file, in place. A line that is written whole ends what
    /// stood there, also where the file was longer.
    pub(super) fn write(&self, line: &str) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.rewind()?;
            file.write_all(line.as_bytes())?;
            // A few bytes: this is no truncation.
            file.set_len(line.len() as u64)
        };
        write().map_err(|e| Doing("write", &self.path).failed(e))
    }

    /// Returns when what was written is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|e| Doing("sync", &self.path).failed(e))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do, but not while a child that was just forked has a copy.
        let _ = FileExt::unlock(&self.file);
    }
}
