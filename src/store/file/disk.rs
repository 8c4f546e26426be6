//! Files that only their owner can read, that are replaced whole, and that are on the disk
//! when a function says so. Knows nothing of tokens. All of it blocks.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::Path,
};

use secrecy::zeroize::Zeroizing;

use super::{
    failed::{Failed, failed},
    folder::sync_folder_of,
    mount,
    path::{beside, folder_of},
};

/// Who may have rights on the files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Access {
    Owner,
    /// The owner and the file's group, which is given the rights that it has on the folder.
    Group,
}

/// What to do where nothing can be written.
const READ_ONLY: &str = "to refresh or sign in, make its folder and the files in it writable for this user; until then no refresh token is spent here, and what other processes write is used";

/// How often the text of a damaged file is kept.
const MAX_KEPT: usize = 9;

/// Reads a file. `None`: there is none in a folder that is there.
///
/// A missing folder is an error: its files may have been moved elsewhere with it. So is what
/// is no file, and a file on which other users have rights than may.
pub(super) fn read(path: &Path, access: Access) -> Result<Option<Zeroizing<Vec<u8>>>, Failed> {
    // Look before opening: opening a named pipe would wait for its writer.
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => return absent(path, error).map(|()| None),
    };
    check(path, &found, access)?;
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
    check(path, &found, access)?;
    Ok(Some(text))
}

/// Whether [`read`] would take the file, or its absence, as far as can be seen without
/// reading.
pub(super) fn look(path: &Path, access: Access) -> Result<(), Failed> {
    match fs::metadata(path) {
        Ok(found) => check(path, &found, access),
        Err(error) => absent(path, error),
    }
}

/// Replaces a file, or creates it. A crash at any moment leaves the old text or the new one,
/// whole. When this returns, the new one is on the disk.
///
/// Two callers at once would write to the same temporary file: a lock has to keep them apart.
pub(super) fn replace(path: &Path, text: &[u8], access: Access) -> Result<(), Failed> {
    // Always the same name, so that the next write removes what a crash left behind.
    let temp = beside(path, ".tmp");
    remove(&temp)?;
    let replaced = create(&temp, text, access).and_then(|()| {
        fs::rename(&temp, path).map_err(|error| {
            let mounted = error.kind() == ErrorKind::ResourceBusy;
            failed("replace", path, error).advise(mounted.then_some(mount::ADVICE))
        })
    });
    if replaced.is_err() {
        let _ = remove(&temp);
    }
    replaced?;
    sync_folder_of(path)
}

/// Whether [`replace`] could be done: a file can be created where it would create one, and there
/// is room for a text that is a little longer than the one that is there. Under the same lock.
pub(super) fn could_replace(path: &Path, access: Access) -> Result<(), Failed> {
    let temp = beside(path, ".tmp");
    remove(&temp)?;
    let held = fs::metadata(path).map_or(0, |found| found.len());
    let longer = usize::try_from(held + held / 4).unwrap_or(usize::MAX).saturating_add(1024);
    let mut text = Vec::new();
    let room = text.try_reserve_exact(longer).map_err(|_| ErrorKind::OutOfMemory.into());
    room.map_err(|error: io::Error| failed("write", &temp, error))?;
    text.resize(longer, 0);
    // Zeros would take no room where the file system compresses.
    fastrand::fill(&mut text);
    let created = create(&temp, &text, access);
    // As after a failed `replace`: what was written of it takes no room.
    let removed = remove(&temp);
    created.and(removed)
}

/// Writes the text of a damaged file into a file beside it (mode 0600), whose name is
/// `<file>.damaged`, or with a number if that is taken. When `then` fails, it is removed again.
pub(super) fn keep_aside<T, E: From<Failed>>(
    path: &Path,
    text: &[u8],
    then: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let mut names = (1..=MAX_KEPT).map(|number| match number {
        1 => beside(path, ".damaged"),
        number => beside(path, &format!(".damaged-{number}")),
    });
    let free = names.find(|name| fs::symlink_metadata(name).is_err());
    let Some(aside) = free else {
        let reason = "too many damaged ones were kept beside it: remove those";
        return Err(failed("keep the damaged text of", path, reason).into());
    };
    create(&aside, text, Access::Owner)?;
    let done = then();
    if done.is_err() {
        let _ = remove(&aside);
    }
    done
}

/// Opens a file to be locked, and creates it if it is missing.
pub(super) fn open_lock(path: &Path, access: Access) -> Result<File, Failed> {
    // Following a link, this would create or overwrite a file somewhere else.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(failed("lock", path, "a lock must not be a symbolic link"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file =
        owners_only(&mut options).open(path).map_err(|error| unwritable("open", path, error))?;
    share(&file, path, access);
    Ok(file)
}

/// Creates a file, which must not be there. When this returns, its text is on the disk.
fn create(path: &Path, text: &[u8], access: Access) -> Result<(), Failed> {
    let create = || {
        let mut options = OpenOptions::new();
        let mut file = owners_only(options.write(true).create_new(true)).open(path)?;
        share(&file, path, access);
        file.write_all(text)?;
        file.sync_all()
    };
    create().map_err(|error| unwritable("write", path, error))
}

fn remove(path: &Path) -> Result<(), Failed> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unwritable("remove", path, error)),
        _ => Ok(()),
    }
}

/// With advice, if the reason is that nothing can be written there.
fn unwritable(doing: &'static str, path: &Path, error: io::Error) -> Failed {
    let kind = error.kind();
    let read_only = matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied);
    failed(doing, path, error).advise(read_only.then_some(READ_ONLY))
}

/// Whether there is no such file, in a folder that is there.
fn absent(path: &Path, error: io::Error) -> Result<(), Failed> {
    if error.kind() != ErrorKind::NotFound {
        return Err(failed("look at", path, error));
    }
    let folder = folder_of(path);
    match fs::metadata(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("find the folder", folder, error)),
    }
}

/// Whether it is a file, and only those who may have rights on it. An empty one may have any
/// mode: there is nothing in it to read, and it is replaced before there is.
fn check(path: &Path, found: &Metadata, access: Access) -> Result<(), Failed> {
    if !found.is_file() {
        return Err(failed("keep tokens in", path, "it is not a file"));
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
        let (forbidden, right) = match access {
            Access::Owner => (0o077, "600"),
            Access::Group => (0o007, "660"),
        };
        if mode & forbidden != 0 && found.len() > 0 {
            let whose = match access {
                Access::Owner => "users other than its owner",
                Access::Group => "users that are not of its group",
            };
            let reason = format!(
                "{whose} have rights on it (mode {mode:04o}): chmod {right} {}",
                path.display()
            );
            return Err(failed("keep tokens in", path, reason));
        }
    }
    #[cfg(not(unix))]
    let _ = access;
    Ok(())
}

/// Gives rights on a created file to its owner only.
fn owners_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Gives the group the rights on the file that it has on the folder, if that is the same group.
/// If the file is another user's, they are what that user has given.
#[cfg(unix)]
fn share(file: &File, path: &Path, access: Access) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if access == Access::Owner {
        return;
    }
    if let (Ok(found), Ok(folder)) = (file.metadata(), fs::metadata(folder_of(path))) {
        let mode = 0o600 | (folder.mode() & 0o060);
        if found.gid() == folder.gid() && found.mode() & 0o777 != mode {
            let _ = file.set_permissions(fs::Permissions::from_mode(mode));
        }
    }
}

#[cfg(not(unix))]
fn share(_: &File, _: &Path, _: Access) {}
