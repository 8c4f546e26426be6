//! Folders: made if they are missing, and on the disk when a function says so. All of it
//! blocks.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use super::{
    failed::{Failed, failed},
    path::{folder_of, followed},
};

/// Creates a folder and all above it that are missing (mode 0700); for a link to nothing, what
/// it leads to. An absolute path.
pub(super) fn make(folder: &Path) -> Result<(), Failed> {
    // Looked at first: where nothing can be written, some systems say that of a folder which
    // is there.
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(failed("keep files in", folder, "it is not a folder")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at", folder, error)),
    }
    let folder = followed(folder)?;
    if let Some(parent) = folder.parent() {
        make(parent)?;
    }
    match create(&folder) {
        Ok(()) => sync_folder_of(&folder),
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(failed("create the folder", &folder, error)),
    }
}

/// Returns when the name of this file is on the disk.
pub(super) fn sync_folder_of(file: &Path) -> Result<(), Failed> {
    let folder = folder_of(file);
    match sync(folder) {
        Err(error) if !is_unsupported(&error) => Err(failed("sync the folder", folder, error)),
        _ => Ok(()),
    }
}

fn create(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Not on other systems: there a folder cannot be opened like a file.
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether the system says with this that folders are not synced there: shares, FUSE, and
/// folders that may not be read. Trying again later would not help, and the file itself is on
/// the disk.
#[cfg(unix)]
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported =
        [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::ACCESS, Errno::BADF];
    Errno::from_io_error(error).is_some_and(|error| unsupported.contains(&error))
}

#[cfg(not(unix))]
fn is_unsupported(_: &io::Error) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_folder_that_is_not_synced_there_is_told_from_one_that_failed() {
        for (errno, unsupported) in [
            (Errno::INVAL, true),
            (Errno::OPNOTSUPP, true),
            (Errno::NOTSUP, true),
            (Errno::NOSYS, true),
            (Errno::ACCESS, true),
            (Errno::BADF, true),
            (Errno::IO, false),
            (Errno::NOSPC, false),
            (Errno::DQUOT, false),
            (Errno::NOENT, false),
            (Errno::ROFS, false),
            (Errno::STALE, false),
            (Errno::MFILE, false),
            (Errno::INTR, false),
        ] {
            assert_eq!(is_unsupported(&errno.into()), unsupported, "{errno}");
        }
        assert!(!is_unsupported(&io::Error::other("not the system's")));
    }

    /// Linux does not sync `/proc`. A folder that is gone is an error.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_is_asked() {
        assert!(sync(Path::new("/proc")).is_err());
        assert!(sync_folder_of(Path::new("/proc/tokens.json")).is_ok());
        assert!(sync_folder_of(&std::env::temp_dir().join("not-there/tokens.json")).is_err());
    }
}
