//! Blocking work, called from async code: where it runs, and how a lock is waited for.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::yield_now, time::sleep};

use super::record::RecordFile;
use crate::store::StoreError;

/// How often the lock for writing is tried before that is an error: for about ten seconds. A
/// process keeps it for longer only if it is stopped.
const MAX_ATTEMPTS: usize = 500;

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(25);

/// Runs what blocks on a thread for blocking work, or in place if there is no runtime.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
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

/// Does something under the lock for writing. The lock is taken and given back within one
/// piece of blocking work, so a caller that drops the future, or does not poll it, keeps no
/// other writer waiting.
pub(super) async fn write<T, E>(
    record: &Arc<RecordFile>,
    work: impl Fn(&RecordFile) -> Result<T, E> + Send + Sync + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let work = Arc::new(work);
    let mut pause = Pause::default();
    for _ in 0..MAX_ATTEMPTS {
        let (record, work) = (Arc::clone(record), Arc::clone(&work));
        let done = blocking(move || match record.try_lock()? {
            Some(_lock) => work(&record).map(Some),
            None => Ok(None),
        });
        if let Some(done) = done.await? {
            return Ok(done);
        }
        pause.wait().await;
    }
    Err(record.stays_locked().into())
}

/// The pauses between attempts: 1 ms, doubling up to [`MAX_PAUSE`], each shortened by up to a
/// half at random, so that those who wait do not all try at the same moment.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) async fn wait(&mut self) {
        let wait = self.0.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(MAX_PAUSE);
        if Handle::try_current().is_ok() {
            sleep(wait).await;
        } else {
            std::thread::sleep(wait);
            // Let other tasks of this thread run: one of them may have the lock.
            yield_now().await;
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(1))
    }
}
