//! A file that is locked, and the line that stands in it.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use fs4::{FileExt, TryLockError};

use super::{
    disk::{self, Access},
    failed::{Failed, failed},
    folder::sync_folder_of,
    path::beside,
};

/// No line is longer than this many bytes, and no more is read.
const MAX_LINE: u64 = 64;

/// An exclusive lock of the operating system. It is given back when it is dropped, and by the
/// system when the process ends.
///
/// Its file stays, unless there is no record and nothing was noted: names that are looked up
/// may be made up.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// The file that it is a lock for.
    record: PathBuf,
}

impl Lock {
    /// Takes the lock without waiting. `None`: another process or task has it, or has just
    /// replaced the file. The caller tries again.
    pub(super) fn attempt(
        record: PathBuf,
        ending: &str,
        access: Access,
    ) -> Result<Option<Self>, Failed> {
        let path = beside(&record, ending);
        let file = disk::open_lock(&path, access)?;
        // Not as a method: newer standard libraries have one of the same name.
        match FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, error)),
        }
        let lock = Self { file, path, record };
        // The file may have been replaced between opening and locking.
        Ok(lock.is_current().then_some(lock))
    }

    /// Whether the path still names the file that is locked. If not (the folder was removed
    /// and made anew), other processes lock another file.
    #[cfg(unix)]
    pub(super) fn is_current(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// Only whether it is there: other systems do not let an open file be replaced so easily.
    #[cfg(not(unix))]
    pub(super) fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// The file that it is a lock for.
    pub(super) fn record(&self) -> &Path {
        &self.record
    }

    /// Whether its file is of no use to a process that comes later. Asked while it is locked, as
    /// it has to be to be removed: a process that has opened it meanwhile finds it
    /// [replaced](Self::is_current).
    #[cfg(unix)]
    fn is_left_over(&self) -> bool {
        let record = fs::symlink_metadata(&self.record);
        matches!(record, Err(error) if error.kind() == io::ErrorKind::NotFound)
            && self.file.metadata().is_ok_and(|found| found.len() == 0)
            && self.is_current()
    }

    /// Other systems do not let an open file be removed so easily.
    #[cfg(not(unix))]
    fn is_left_over(&self) -> bool {
        false
    }

    /// The line in the file.
    pub(super) fn read(&self) -> Result<Vec<u8>, Failed> {
        let mut text = Vec::new();
        let mut file = &self.file;
        let read = file.rewind().and_then(|()| file.take(MAX_LINE).read_to_end(&mut text));
        read.map_err(|error| failed("read", &self.path, error))?;
        Ok(text)
    }

    /// Replaces the line in place, because replacing the file would lose the lock. After a
    /// crash in the middle, a reader takes the new line if its end was written, and otherwise
    /// finds a line that it cannot read.
    pub(super) fn write(&self, line: &str) -> Result<(), Failed> {
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.rewind()?;
            file.write_all(line.as_bytes())?;
            // A line's length fits: this cannot cut it short.
            file.set_len(line.len() as u64)
        };
        write().map_err(|error| failed("write", &self.path, error))
    }

    /// Returns when the line and the file's name are on the disk.
    pub(super) fn sync(&self) -> Result<(), Failed> {
        self.file.sync_all().map_err(|error| failed("sync", &self.path, error))?;
        sync_folder_of(&self.path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_left_over() {
            let _ = fs::remove_file(&self.path);
        }
        // Closing the file is not enough if the process has just forked: the child's copy
        // would keep the lock until it executes its program.
        let _ = FileExt::unlock(&self.file);
    }
}
