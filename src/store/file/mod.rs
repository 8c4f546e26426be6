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
//! | `mount.rs` | files that are mounted by themselves |
//! | `folder.rs` | folders, made and on the disk |
//! | `path.rs` | which file is meant |
//! | `failed.rs` | what could not be done with which path |

mod blocking;
mod disk;
mod failed;
mod folder;
mod lease;
mod lock;
mod mount;
mod path;
mod record;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use self::{
    blocking::{Pause, blocking, write},
    disk::Access,
    record::RecordFile,
};
use super::{Deleted, KeptUntil, Keyring, Leased, Record, Stores, TokenStore, family::Refused};
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
/// The file is one line of JSON, for the owner only (mode 0600). The store replaces it and never
/// overwrites it, so a crash at any moment leaves the old record or the new one, whole and on the
/// disk. An empty file counts as one that was never written: signed out. If the path is a symbolic
/// link, all of this happens where the link points to, even if there is no file yet.
///
/// | beside it | what it is |
/// |---|---|
/// | `<file>.lease` | the [lease](super::Lease): an exclusive lock of the operating system, which a process that is killed gives back at once, and a line that names the generation whose token is being spent |
/// | `<file>.lock` | the lock for the short moment of a write, so that a sign-in waits for no redeem |
/// | `<file>.tmp` | the next record, while it is being written |
/// | `<file>.damaged` | the text that a sign-in has found in the file and could not read |
///
/// The first two stay once there is a record; do not delete them while a program runs. A user
/// who may write to the folder may replace the record: the folder should be its owner's only.
///
/// | what is found | what happens |
/// |---|---|
/// | a file that users other than the owner have rights on | an error that says so; see [`open_for_group`](Self::open_for_group) |
/// | a damaged file | an error until the next sign-in, which keeps the damaged text in a file beside it (mode 0600) |
/// | a file that a later version of this crate has written, or that no key opens | an error; the file is left as it is |
/// | a folder that can be read and not written, as on a read-only mount | the token is used, and what other processes write is found; a refresh fails before anything is spent |
/// | a file that is a mount point (`docker run -v ./t.json:/app/t.json`) | an error, by `open` and before anything is spent: it could not be replaced, and its locks are not those of the other side of the mount. Mount the folder |
///
/// The file system must have locks (`flock`), as local ones do. On systems without the modes of Unix
/// no mode is set or checked. The store notices a single mounted file on Linux, by `/proc`.
///
/// Files are read and written on threads for blocking work, or in place if there is no
/// tokio runtime. Every future may be dropped at any time: a write that was begun is
/// finished, and a lock that was taken for a dropped future is given back.
///
/// # Errors
///
/// The [source](std::error::Error::source) of an error says what could not be done with which path,
/// and what to do about it, if that is known. Its own source is the [`std::io::Error`], if it was one.
/// No token is in them.
pub struct FileStore(Arc<RecordFile>);

/// Keeps the credentials of many names in a folder, each in a file as [`FileStore`] has it.
/// Cheap to clone.
///
/// A name may be any text that is not empty. Its file is the name, in which everything but
/// `a` to `z`, digits, `_` and `-` is percent-encoded, and `.json`. The encoded name may have
/// 240 bytes; use a hash where it can be longer. The [store](Stores::store) of an empty or a
/// longer name fails at every operation, with an error that says so; [`try_store`] fails at once.
///
/// A name that was never saved leaves no file behind, after a look as after a lease. A name that was
/// saved keeps its file; after a sign-out it has the generation in it.
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
    access: Access,
}

impl FileStore {
    /// The credential in this file, which need not be there yet. A relative path is taken
    /// from the working directory of this moment.
    ///
    /// Creates the folder, and those above it, if they are missing (mode 0700). Otherwise it
    /// only looks at the path; on this thread, and without a runtime.
    ///
    /// # Errors
    ///
    /// The folder cannot be created; the path is no file, or a mount point of its own; users
    /// other than the owner have rights on it. The error says which, and how to mend it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), Access::Owner)
    }

    /// The same for a file that its group may read or write, as Kubernetes makes it with
    /// `fsGroup` (mode 0660) or `defaultMode: 0440`. That everyone has rights on it is still an
    /// error.
    ///
    /// Files that are created have the rights that the group has on the folder: 0660 in a folder
    /// with mode 2770, 0640 with 2750, 0600 with 0700. If a new file has another group than the
    /// folder, they are its owner's only. A user of the group who can read the file and not
    /// write uses the token that is there, and refreshes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_for_group(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), Access::Group)
    }

    fn open_with(path: &Path, access: Access) -> Result<Self, StoreError> {
        let record = RecordFile::new(path, None, access)?;
        record.prepare()?;
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
    /// Creates the folder, and those above it, if they are missing (mode 0700); on this
    /// thread, and without a runtime.
    ///
    /// # Errors
    ///
    /// The folder cannot be created; the path is no folder.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(folder.as_ref(), Access::Owner)
    }

    /// The same for files that their group may read or write, each as
    /// [`FileStore::open_for_group`] has it.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_for_group(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(folder.as_ref(), Access::Group)
    }

    fn open_with(folder: &Path, access: Access) -> Result<Self, StoreError> {
        let path = path::absolute(folder)?;
        folder::make(&path)?;
        Ok(Self(Arc::new(Folder { path, keys: None, access })))
    }

    /// Seals the tokens with these keys. A record is bound to its name: copied to another
    /// name's file, it does not open.
    #[must_use]
    pub fn sealed(self, keys: Keyring) -> Self {
        let Folder { path, access, .. } = &*self.0;
        Self(Arc::new(Folder { path: path.clone(), keys: Some(keys), access: *access }))
    }

    /// The store of the credential of this name. No I/O: what is wrong with its file is told
    /// by the store's operations.
    ///
    /// # Errors
    ///
    /// The name is empty, or longer than 240 bytes when it is encoded.
    pub fn try_store(&self, name: impl AsRef<str>) -> Result<FileStore, StoreError> {
        let Folder { path, keys, access } = &*self.0;
        let file = record::file_name(name.as_ref()).map_err(StoreError::new)?;
        Ok(FileStore(Arc::new(RecordFile::new(&path.join(file), keys.clone(), *access)?)))
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

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let record = Arc::clone(&self.0);
        Box::pin(blocking(move || record.changed(known)))
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(write(&self.0, move |file| file.swap(expected, &record, false)))
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(write(&self.0, |file| file.delete(SystemTime::now())))
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        Box::pin(write(&self.0, move |file| file.keep_until(end)))
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            let record = Arc::clone(&self.0);
            blocking(move || record.refuse_mounted()).await?;
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
