//! Files that only their owner can read, that are replaced whole, and that are on the disk
//! when a function says so. Knows nothing of tokens. All of it blocks.

use std::{
    error::Error,
    fmt::{self, Write as _},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write as _},
    path::{Path, PathBuf},
};

use secrecy::zeroize::Zeroizing;

use crate::{error::BoxError, store::StoreError};

/// Reads a file. `None`: there is none in a folder that is there.
///
/// A missing folder is an error: its files may have been moved elsewhere with it. So is what
/// is no file, and a file on which the group or everyone has rights.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failed> {
    // Look before opening: opening a named pipe would wait for its writer.
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => return absent(path, error).map(|()| None),
    };
    check(path, &found)?;
    let read = || {
        let file = File::open(path)?;
        let found = file.metadata()?;
        // With room to spare: if the buffer grew, the old one would be given back unwiped.
        let room = usize::try_from(found.len()).unwrap_or(usize::MAX).saturating_add(64);
        let mut text = Zeroizing::new(Vec::new());
        text.try_reserve_exact(room).map_err(|_| ErrorKind::OutOfMemory)?;
        file.take(found.len()).read_to_end(&mut text)?;
        Ok((found, text))
    };
    let (found, text) = read().map_err(|error: io::Error| failed("read", path, error))?;
    // Again: the file that was opened may be another one than the file that was looked at.
    check(path, &found)?;
    Ok(Some(text))
}

/// Whether [`read`] would take the file, or its absence, as far as can be seen without
/// reading.
pub(super) fn look(path: &Path) -> Result<(), Failed> {
    match fs::metadata(path) {
        Ok(found) => check(path, &found),
        Err(error) => absent(path, error),
    }
}

/// Replaces a file, or creates it. A crash at any moment leaves the old text or the new one,
/// whole. When this returns, the new one is on the disk.
///
/// Two callers at once would write to the same temporary file: a lock has to keep them apart.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), Failed> {
    // Always the same name, so that the next write removes what a crash left behind.
    let temp = beside(path, ".tmp");
    remove(&temp)?;
    let replaced = create(&temp, text)
        .and_then(|()| fs::rename(&temp, path).map_err(|error| failed("replace", path, error)));
    if replaced.is_err() {
        let _ = remove(&temp);
    }
    replaced?;
    sync_folder_of(path)
}

/// Creates a folder (mode 0700) if it is missing, but not its parents. An absolute path.
pub(super) fn make_folder(folder: &Path) -> Result<(), Failed> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(false);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Ok(()) => sync_folder_of(folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match fs::metadata(folder).map_err(|error| failed("look at", folder, error))? {
                found if found.is_dir() => Ok(()),
                _ => Err(failed("keep files in", folder, "it is not a folder")),
            }
        }
        Err(error) => Err(failed("create the folder", folder, error)),
    }
}

/// The file that a path means: where it leads if it is a symbolic link, itself otherwise.
pub(super) fn followed(path: &Path) -> Result<PathBuf, Failed> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            fs::canonicalize(path).map_err(|error| failed("follow the symbolic link", path, error))
        }
        // Any other error comes again when the file is used, and is told then.
        _ => Ok(path.to_path_buf()),
    }
}

/// The path made absolute with the working directory of this moment.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|error| failed("find", path, error))
}

/// The path with this ending appended.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.to_path_buf().into_os_string();
    path.push(ending);
    path.into()
}

/// Bytes as a file's name: all but `a` to `z`, digits, `_` and `-` are percent-encoded.
/// Capitals are encoded because some file systems do not tell them from small letters.
pub(super) fn encode(name: &[u8]) -> String {
    name.iter().fold(String::with_capacity(name.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => _ = write!(encoded, "%{byte:02x}"),
        }
        encoded
    })
}

/// Opens a file to be locked, and creates it if it is missing.
pub(super) fn open_lock(path: &Path) -> Result<File, Failed> {
    // Following a link, this would create or overwrite a file somewhere else.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(failed("lock", path, "a lock must not be a symbolic link"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    owners_only(&mut options).open(path).map_err(|error| failed("open", path, error))
}

/// Returns when the name of this file is on the disk.
pub(super) fn sync_folder_of(file: &Path) -> Result<(), Failed> {
    sync_folder(file.parent().unwrap_or(file))
}

/// Creates a file, which must not be there. When this returns, its text is on the disk.
fn create(path: &Path, text: &[u8]) -> Result<(), Failed> {
    let create = || {
        let mut options = OpenOptions::new();
        let mut file = owners_only(options.write(true).create_new(true)).open(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    create().map_err(|error| failed("write", path, error))
}

fn remove(path: &Path) -> Result<(), Failed> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Whether there is no such file, in a folder that is there.
fn absent(path: &Path, error: io::Error) -> Result<(), Failed> {
    if error.kind() != ErrorKind::NotFound {
        return Err(failed("look at", path, error));
    }
    let folder = path.parent().unwrap_or(path);
    match fs::metadata(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("find the folder", folder, error)),
    }
}

/// Whether it is a file, and its owner's only.
fn check(path: &Path, found: &Metadata) -> Result<(), Failed> {
    if !found.is_file() {
        return Err(failed("keep tokens in", path, "it is not a file"));
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
        if mode & 0o077 != 0 {
            let fix = format!("chmod 600 {}", path.display());
            let reason =
                format!("users other than its owner have rights on it (mode {mode:04o}): {fix}");
            return Err(failed("keep tokens in", path, reason));
        }
    }
    Ok(())
}

/// Gives rights on a created file to its owner only.
fn owners_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Returns when the names in the folder are on the disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), Failed> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot sync a folder. Trying again later would not help.
        Err(error) if error.kind() != ErrorKind::InvalidInput => {
            Err(failed("sync the folder", folder, error))
        }
        _ => Ok(()),
    }
}

/// Not on other systems: there a folder cannot be opened like a file.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), Failed> {
    Ok(())
}

/// What could not be done with which path. The source says why.
#[derive(Debug)]
pub(super) struct Failed {
    doing: &'static str,
    path: PathBuf,
    why: BoxError,
}

/// As in `failed("read", path, error)`: "could not read /the/path".
pub(super) fn failed(doing: &'static str, path: &Path, why: impl Into<BoxError>) -> Failed {
    Failed { doing, path: path.to_path_buf(), why: why.into() }
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

impl From<Failed> for StoreError {
    fn from(error: Failed) -> Self {
        Self::new(error)
    }
}
