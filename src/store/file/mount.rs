//! Files that are mounted by themselves, as by `docker run -v ./tokens.json:/app/tokens.json`.
//!
//! Such a file cannot be replaced (EBUSY), so what was minted could never be saved. The files
//! beside it are not those beside it on the other side of the mount: each side would have a
//! lease of its own, and both would spend the same refresh token. And when the other side
//! replaces the file, this one goes on reading the old one.

use std::path::Path;

use super::failed::{Failed, failed};

/// What to do about a file that is mounted.
pub(super) const ADVICE: &str = "mount the folder that it is in, not the file: `-v ./folder:/folder` where it was `-v ./folder/file:/folder/file`";

/// Refuses a file that is mounted by itself. Where the system does not say what is mounted,
/// none is.
pub(super) fn refuse_mounted(file: &Path) -> Result<(), Failed> {
    match is_mounted(file) {
        true => Err(failed("keep tokens in", file, "it is a mount point").advise(ADVICE)),
        false => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn is_mounted(file: &Path) -> bool {
    use std::fs;
    // The table has paths without links. A file that is not there is not mounted.
    let (table, file) = (fs::read("/proc/self/mountinfo"), fs::canonicalize(file));
    matches!((table, file), (Ok(table), Ok(file)) if lists(&table, &file))
}

/// Other systems are not asked. There the first write fails, with the same advice.
#[cfg(not(target_os = "linux"))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Whether this is a mount point in a table as `/proc/self/mountinfo` has it (proc(5)): its
/// fifth field, in which spaces and the like are `\` and three octal digits.
#[cfg(target_os = "linux")]
fn lists(table: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.any(|point| unescaped(point) == path.as_os_str().as_bytes())
}

#[cfg(target_os = "linux")]
fn unescaped(mut field: &[u8]) -> Vec<u8> {
    let octal = |digit: &u8| (b'0'..=b'7').contains(digit).then(|| u32::from(digit - b'0'));
    let escaped =
        |digits: &[u8]| digits.iter().try_fold(0, |value, digit| Some(value * 8 + octal(digit)?));
    let mut plain = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        let code = rest.get(..3).filter(|_| *first == b'\\').and_then(escaped);
        let code = code.and_then(|code| u8::try_from(code).ok());
        plain.push(code.unwrap_or(*first));
        field = if code.is_some() { &rest[3..] } else { rest };
    }
    plain
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
31 22 254:0 /home/alice/t.json /app/t.json rw,relatime - ext4 /dev/root rw
32 22 254:0 /x /app/a\\040b\\134c\\011d\\012e rw shared:7 master:1 - ext4 /dev/root rw
33 22 254:0 /x /app/\\999\\9 rw - ext4 /dev/root rw
34 22 254:0 /x /app/\xff.json rw - ext4 /dev/root rw
broken line
";

    #[test]
    fn mount_points_are_told_from_what_is_mounted_and_from_what_is_beside() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let bytes = |path: &'static [u8]| Path::new(OsStr::from_bytes(path));
        for path in ["/", "/proc", "/app/t.json", "/app/a b\\c\td\ne", "/app/\\999\\9"] {
            assert!(lists(TABLE, Path::new(path)), "{path:?}");
        }
        assert!(lists(TABLE, bytes(b"/app/\xff.json")));
        for path in [
            "/app",
            "/app/t.json.lease",
            "/app/t.jso",
            "/app/a\\040b\\134c\\011d\\012e",
            "/home/alice/t.json",
            "/x",
            "254:0",
            "ext4",
            "",
        ] {
            assert!(!lists(TABLE, Path::new(path)), "{path:?}");
        }
        assert!(!lists(b"", Path::new("/")));
    }

    /// Where that table is, `/proc` is mounted.
    #[test]
    fn the_systems_own_table_is_read() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(is_mounted(Path::new("/proc/self/..")));
        assert!(!is_mounted(Path::new("/proc/self/mountinfo")));
        assert!(!is_mounted(&std::env::temp_dir().join("not-there")));
        assert!(refuse_mounted(Path::new("/proc")).is_err());
    }
}
