//! Tokens in files, shared by processes.

mod lease;
mod lock;
mod place;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::yield_now, time::sleep};

use self::place::Place;
use super::{Deleted, Keyring, Leased, Record, TokenStore};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
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
/// and on the disk. A file that can be read by others is refused, and so is one that is
/// damaged or of a later version of this crate; neither is overwritten.
///
/// | beside it | what it is |
/// |---|---|
/// | `<file>.lease` | the [lease](super::Lease): an exclusive lock of the operating system, which a process that is killed gives back at once, and a line that tells whose token is being spent |
/// | `<file>.lock` | the lock for the short moment of a write, so that a sign-in waits for no redeem |
/// | `<file>.tmp` | the next record, while it is being written |
///
/// The first two are never deleted; do not delete them while a program runs. Who may write
/// to the folder may replace the record: the folder should be its owner's only. If the path
/// is a symbolic link, all of this happens where the link points to.
///
/// The file system must have locks (`flock`), which local ones do. Where modes are not those
/// of Unix, none is set or checked.
///
/// Files are read and written on threads for blocking work, or in place if there is no
/// tokio runtime. Every future may be dropped at any time: a write that was begun is
/// finished, and a lock that was taken for nobody is given back.
///
/// # Errors
///
/// Their [source](std::error::Error::source) says what could not be done with which path,
/// and that one's source is the [`std::io::Error`], if it was one. No token is in them.
pub struct FileStore(Arc<Place>);

impl FileStore {
    /// The credential in this file, or the one that is going to be. A relative path is
    /// taken from the working directory of this moment.
    ///
    /// Looks at the path, on this thread, and needs no runtime. Reads and creates nothing.
    ///
    /// # Errors
    ///
    /// The folder is not there; the path is a link to nothing, or no file; others than the
    /// owner have rights on it. The error says which, and how to mend the last.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let place = Place::new(path.as_ref(), None)?;
        place.look()?;
        Ok(Self(Arc::new(place)))
    }

    /// One of many in a folder: the credential of this name, which may be any text. Its
    /// file is the name, in which everything but `a` to `z`, digits, `_` and `-` is
    /// percent-encoded, and `.json`.
    ///
    /// Creates the folder (mode 0700) if it is missing, on this thread.
    ///
    /// # Errors
    ///
    /// The name is empty, or longer than 240 bytes when it is encoded. The folder cannot be
    /// created, as where its parent is missing. Otherwise as for [`open`](Self::open).
    pub fn in_folder(folder: impl AsRef<Path>, name: &str) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let file = place::file_name(name)?;
        place::make_folder(folder)?;
        Self::open(folder.join(file))
    }

    /// Seals the tokens with these keys. A record is bound to the name of its file (as it
    /// was given here, not as a link has it): renamed, it does not open.
    #[must_use]
    pub fn sealed(self, keys: Keyring) -> Self {
        Self(Arc::new(self.0.sealed(keys)))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStore").field(&self.0.path()).finish()
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        let place = Arc::clone(&self.0);
        Box::pin(blocking(move || place.load()))
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(write(&self.0, move |place| place.swap(expected, &record)))
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(write(&self.0, Place::delete))
    }

    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            let mut pause = Pause::default();
            loop {
                let place = Arc::clone(&self.0);
                if let Some(leased) = blocking(move || lease::attempt(place, seen)).await? {
                    return Ok(leased);
                }
                pause.wait().await;
            }
        })
    }
}

/// How often the lock for writing is tried before that is an error: ten seconds, about.
/// Nobody keeps it for so long who is not stopped.
const TRIES: usize = 500;

/// Does something under the lock for writing. The lock is taken and given back on one
/// thread: whoever drops the future, or does not poll it, holds nobody up.
async fn write<T, E>(
    place: &Arc<Place>,
    work: impl Fn(&Place) -> Result<T, E> + Send + Sync + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let work = Arc::new(work);
    let mut pause = Pause::default();
    for _ in 0..TRIES {
        let (place, work) = (Arc::clone(place), Arc::clone(&work));
        let done = blocking(move || match place.try_lock()? {
            Some(_lock) => work(&place).map(Some),
            None => Ok(None),
        });
        if let Some(done) = done.await? {
            return Ok(done);
        }
        pause.wait().await;
    }
    Err(place.stays_locked().into())
}

/// Runs what blocks where it may; in place, if there is no runtime.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let Ok(runtime) = Handle::try_current() else {
        return work();
    };
    runtime.spawn_blocking(work).await.unwrap_or_else(|end| {
        let reason = if end.is_panic() { "the file store panicked" } else { "the runtime is gone" };
        Err(StoreError::new(reason).into())
    })
}

/// The pauses between tries: 1 ms, doubling to 25 ms, each shortened by up to a half at
/// random, so that those who wait do not come in step.
struct Pause(Duration);

impl Pause {
    const LONGEST: Duration = Duration::from_millis(25);

    async fn wait(&mut self) {
        let wait = self.0.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(Self::LONGEST);
        if Handle::try_current().is_ok() {
            sleep(wait).await;
        } else {
            std::thread::sleep(wait);
            // The one who has the lock may be another task of this thread.
            yield_now().await;
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(1))
    }
}
