//! Tokens in files, shared by processes (feature `file`).
//!
//! Each file imports only from those below it:
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | [`FileStore`], [`FileStores`] |
//! | `lease.rs` | the lease: a lock, and a line about the redeem that its holder has begun |
//! | `blocking.rs` | where blocking work runs, and how a lock is waited for |
//! | `record.rs` | one credential's file and the locks beside it |
//! | `lock.rs` | a file that is locked |
//! | `disk.rs` | files that are their owner's only, replaced whole, and on the disk |

mod blocking;
mod disk;
mod lease;
mod lock;
mod record;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    blocking::{Pause, blocking, write},
    record::RecordFile,
};
use super::{Deleted, Keyring, Leased, Record, Stores, TokenStore, family::Refused};
use crate::{
    refresher::BoxFuture,
    store::{SaveError, StoreError},
    tokens::Generation,
};

/// Keeps one credential in a file, which any number of processes of one machine may share.
///
/// ```no_run
/// use tower_refresh::{BoxError, RefreshState, Refresher, store::FileStore};
///
/// # fn state(refresher: impl Refresher) -> Result<(), BoxError> {
/// let store = FileStore::open("/var/lib/my-program/tokens.json")?;
/// let state = RefreshState::builder(refresher).store(store).build();
/// # Ok(()) }
/// ```
///
/// The file is one line of JSON, for the owner only (mode 0600). It is replaced and never
/// written over, so that a crash at any moment leaves the old record or the new one, whole
/// and on the disk. A file that other users can read is refused, and so is one that is
/// damaged or of a later version of this crate; neither is overwritten.
///
/// | beside it | what it is |
/// |---|---|
/// | `<file>.lease` | the [lease](super::Lease): an exclusive lock of the operating system, which a process that is killed gives back at once, and a line that says whose token is being spent |
/// | `<file>.lock` | the lock for the short moment of a write, so that a sign-in waits for no redeem |
/// | `<file>.tmp` | the next record, while it is being written |
///
/// The first two are never deleted; do not delete them while a program runs. A user who may
/// write to the folder may replace the record: the folder should be its owner's only. If the
/// path is a symbolic link, all of this happens where the link points to.
///
/// The file system must have locks (`flock`), which local ones do. Where modes are not those
/// of Unix, none is set or checked.
///
/// Files are read and written on threads for blocking work, or in place if there is no
/// tokio runtime. Every future may be dropped at any time: a write that was begun is
/// finished, and a lock that was taken for a dropped future is given back.
///
/// # Errors
///
/// Their [source](std::error::Error::source) says what could not be done with which path,
/// and that one's source is the [`std::io::Error`], if it was one. No token is in them.
pub struct FileStore(Arc<RecordFile>);

/// Keeps the credentials of many names in a folder, each in a file as [`FileStore`] has it.
/// Cheap to clone.
///
/// A name may be any text that is not empty. Its file is the name, in which everything but
/// `a` to `z`, digits, `_` and `-` is percent-encoded, and `.json`. The encoded name may have
/// 240 bytes; use a hash where it can be longer. The [store](Stores::store) of an empty or a
/// longer name fails at every operation, with an error that says so; [`try_store`] says it at
/// once.
///
/// Nothing is created for a name before it is saved, or its lease is taken. What was created
/// stays: a signed-out name is a file with a generation in it.
///
/// ```
/// use tower_refresh::{Generation, Tokens, store::{FileStores, Record, TokenStore}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("tower-refresh-doc-{}", std::process::id()));
/// let stores = FileStores::open(&folder)?;
/// let record = Record::new(Generation::new(1), Tokens::new("access"));
/// stores.try_store("alice")?.save(Generation::ZERO, record).await?;
/// assert!(folder.join("alice.json").exists());
/// assert_eq!(stores.try_store("bob")?.load().await?, Record::default());
/// assert!(!folder.join("bob.json").exists());
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
///
/// [`try_store`]: Self::try_store
#[derive(Clone)]
pub struct FileStores(Arc<Folder>);

struct Folder {
    path: PathBuf,
    keys: Option<Keyring>,
}

impl FileStore {
    /// The credential in this file, which need not be there yet. A relative path is taken
    /// from the working directory of this moment.
    ///
    /// Looks at the path, on this thread, and needs no runtime. Reads and creates nothing.
    ///
    /// # Errors
    ///
    /// The folder is not there; the path is a link to nothing, or no file; users other than
    /// the owner have rights on it. The error says which, and how to mend the last.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let record = RecordFile::new(path.as_ref(), None)?;
        record.look()?;
        Ok(Self(Arc::new(record)))
    }

    /// Seals the tokens with these keys. A record is bound to the name of its file (as it
    /// was given here, not as a link has it): renamed, it does not open.
    #[must_use]
    pub fn sealed(self, keys: Keyring) -> Self {
        Self(Arc::new(self.0.sealed(keys)))
    }
}

impl FileStores {
    /// The credentials in this folder. A relative path is taken from the working directory of
    /// this moment.
    ///
    /// Creates the folder (mode 0700) if it is missing, but not its parents; on this thread,
    /// and without a runtime.
    ///
    /// # Errors
    ///
    /// The folder cannot be created, as where its parent is missing; the path is no folder.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = disk::absolute(folder.as_ref())?;
        disk::make_folder(&path)?;
        Ok(Self(Arc::new(Folder { path, keys: None })))
    }

    /// Seals the tokens with these keys. A record is bound to its name: copied to another
    /// name's file, it does not open.
    #[must_use]
    pub fn sealed(self, keys: Keyring) -> Self {
        Self(Arc::new(Folder { path: self.0.path.clone(), keys: Some(keys) }))
    }

    /// The store of the credential of this name. No I/O: what is wrong with its file is told
    /// by the store's operations.
    ///
    /// # Errors
    ///
    /// The name is empty, or longer than 240 bytes when it is encoded.
    pub fn try_store(&self, name: impl AsRef<str>) -> Result<FileStore, StoreError> {
        let Folder { path, keys } = &*self.0;
        let file = record::file_name(name.as_ref()).map_err(StoreError::new)?;
        Ok(FileStore(Arc::new(RecordFile::new(&path.join(file), keys.clone())?)))
    }
}

impl Stores for FileStores {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        match self.try_store(name) {
            Ok(store) => Arc::new(store),
            Err(error) => Arc::new(Refused::new(error)),
        }
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        let record = Arc::clone(&self.0);
        Box::pin(blocking(move || record.load()))
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(write(&self.0, move |file| file.swap(expected, &record)))
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(write(&self.0, RecordFile::delete))
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            let mut pause = Pause::default();
            loop {
                let record = Arc::clone(&self.0);
                if let Some(leased) = blocking(move || lease::attempt(record, known)).await? {
                    return Ok(leased);
                }
                pause.wait().await;
            }
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStore").field(&self.0.path()).finish()
    }
}

impl fmt::Debug for FileStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStores")
            .field("folder", &self.0.path)
            .field("keys", &self.0.keys)
            .finish()
    }
}
