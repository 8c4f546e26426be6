//! Which file is meant, and what the files beside it are called.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::failed::{Failed, failed};

/// How many links are followed one after the other: as many as Linux does.
const MAX_LINKS: usize = 40;

/// The path made absolute with the working directory of this moment.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|error| failed("find", path, error))
}

/// The file that a path means: where it leads if it is a symbolic link, whether or not there
/// is a file by now, and itself otherwise.
pub(super) fn followed(path: &Path) -> Result<PathBuf, Failed> {
    let mut file = path.to_path_buf();
    for _ in 0..=MAX_LINKS {
        // Any other error comes again when the file is used, and is told then.
        let Ok(target) = fs::read_link(&file) else {
            return Ok(file);
        };
        file = folder_of(&file).join(target);
    }
    Err(failed("follow the symbolic link", path, "it leads from link to link without end"))
}

/// The folder that a file is in.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
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
