//! `FileStore`: real files, real locks, real processes.
//!
//! | module | what |
//! |---|---|
//! | `paths` | which file is meant: names, links, folders, modes |
//! | `writing` | what a write leaves, whatever goes wrong |
//! | `lease` | the lock and the line in it |
//! | `sealed` | records under keys |
//! | `states` | [`RefreshState`](tower_refresh::RefreshState) over files that fail |
//! | `processes` | several processes: races, kills, full disks |
//! | `mounts` | files and folders that are mounted |
//! | `actor` | other processes |
//! | `suite` | what every store has to pass |

mod actor;
mod lease;
mod mounts;
mod paths;
mod processes;
mod sealed;
mod states;
mod suite;
mod writing;

use std::{
    error::Error,
    fs,
    future::Future,
    io::{Write, stderr},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use testing::{secs, tokens};
use tokio::time::timeout;
use tower_refresh::{
    Generation,
    store::{FileStore, Lease, Leased, Record, TokenStore},
};

/// A folder of a test's own, and the path of a record in it.
struct Dir {
    temp: TempDir,
    file: PathBuf,
}

impl Dir {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("tokens.json");
        Self { temp, file }
    }

    /// One that holds `record(1)`.
    async fn signed_in() -> Self {
        let dir = Self::new();
        dir.store().save(Generation::ZERO, record(1)).await.unwrap();
        dir
    }

    /// A handle like another process's.
    fn store(&self) -> FileStore {
        FileStore::open(&self.file).unwrap()
    }

    fn folder(&self) -> &Path {
        self.file.parent().unwrap()
    }

    /// The file beside the record.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.file.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    /// Moves the folder away.
    fn hide(&self) {
        fs::rename(self.folder(), self.temp.path().join("elsewhere")).unwrap();
    }

    /// Moves it back.
    fn show(&self) {
        fs::rename(self.temp.path().join("elsewhere"), self.folder()).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    /// The names of what is in the folder.
    fn names(&self) -> Vec<String> {
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(self.folder()).unwrap().map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

fn generation(number: u64) -> Generation {
    Generation::new(number)
}

/// The tokens of that number as the record of that generation.
fn record(number: u64) -> Record {
    Record::new(generation(number), tokens(number))
}

async fn lease(store: &FileStore) -> Box<dyn Lease> {
    match soon(store.lease(generation(u64::MAX))).await.unwrap() {
        Leased::Lease(lease) => lease,
        leased => panic!("{leased:?} is newer than everything"),
    }
}

/// Shows that something was not tried here, also if the test passes: what `eprintln` writes is
/// shown for those that fail only.
fn skipped(what: &str, why: &str) {
    let _ = stderr().write_all(format!("SKIPPED file: {what}: {why}\n").as_bytes());
}

/// What has to come. It fails if it does not, rather than hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(secs(60), work).await.expect("it does not come")
}

/// All that an error says, with its sources, in both languages.
fn chain(error: &dyn Error) -> String {
    let mut said = format!("{error}");
    let mut debug = format!("{error:?}");
    let mut next = error.source();
    while let Some(error) = next {
        said += &format!(": {error}");
        debug += &format!(": {error:?}");
        next = error.source();
    }
    format!("{said}\n{debug}")
}

/// Says all of these things.
#[track_caller]
fn assert_says(error: &dyn Error, words: &[&str]) {
    let said = chain(error);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

/// Whether it goes back to an error of the system.
fn has_io_error(error: &(dyn Error + 'static)) -> bool {
    error.is::<std::io::Error>() || error.source().is_some_and(has_io_error)
}
