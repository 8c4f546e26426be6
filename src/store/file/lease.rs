//! The lease of a file: a lock, and in the locked file a line about the redeem that its
//! holder has begun.
//!
//! | line | what it tells the next holder |
//! |---|---|
//! | none | nothing is open |
//! | `redeeming 5` | the holder ended while it spent the refresh token of generation 5 |
//! | `unanswered 5`, `failed 5`, `ended 5`, `silent 5` | a holder left the redeem of generation 5 open, with this [`OpenCause`] |
//! | anything else | a holder crashed while it wrote the line: a redeem of the record's generation may have been begun |

use std::sync::Arc;

use super::{
    blocking::{blocking, write},
    lock::Lock,
    record::RecordFile,
};
use crate::{
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record, SaveError, StoreError},
    tokens::Generation,
};

const REDEEMING: &str = "redeeming";

#[derive(Debug)]
struct FileLease {
    record: Arc<RecordFile>,
    /// Shared with the blocking work: when the lease is dropped during a write, the write goes
    /// on, and the lock is given back after it.
    lock: Arc<Lock>,
    open_redeem: Option<OpenRedeem>,
}

/// Takes the lease without waiting, or finds a record that is later than `known`. `None`:
/// neither.
pub(super) fn attempt(
    record: Arc<RecordFile>,
    known: Generation,
) -> Result<Option<Leased>, StoreError> {
    let lock = match record.try_lease() {
        Ok(Some(lock)) => lock,
        // If the record cannot be read, the next holder of the lease tells why.
        Ok(None) => return Ok(record.newer(known).unwrap_or_default().map(Leased::Newer)),
        // Where nothing can be written, as in a folder that is mounted read-only, what other
        // processes write is found all the same.
        Err(error) => match record.newer(known) {
            Ok(Some(newer)) => return Ok(Some(Leased::Newer(newer))),
            _ => return Err(error),
        },
    };
    let line = lock.read()?;
    let open_redeem = match (line.is_empty(), parse(&line)) {
        (true, _) => None,
        (_, Some(open_redeem)) => Some(open_redeem),
        (_, None) => Some(OpenRedeem::new(record.generation()?, OpenCause::HolderEnded)),
    };
    let lease = FileLease { record, lock: Arc::new(lock), open_redeem };
    Ok(Some(Leased::Lease(Box::new(lease))))
}

impl Lease for FileLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        let lock = Arc::clone(&self.lock);
        Box::pin(write(&self.record, move |file| {
            if !file.is_leased(&lock) {
                return Err(StoreError::new(SaveError::LeaseLost));
            }
            // What cannot be saved must not be minted.
            file.could_replace()?;
            lock.write(&line(REDEEMING, generation))?;
            Ok(lock.sync()?)
        }))
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        let lock = Arc::clone(&self.lock);
        Box::pin(write(&self.record, move |file| {
            if !file.is_leased(&lock) {
                return Err(SaveError::LeaseLost);
            }
            file.swap(expected, &record, true)?;
            // If this fails, the line stays. It is about a generation that is over, and the
            // next holder makes nothing of it.
            let _ = lock.write("");
            Ok(())
        }))
    }

    fn release(self: Box<Self>, open_redeem: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        let text = open_redeem.map(|open| line(open.cause.as_str(), open.generation));
        Box::pin(async move {
            // If this fails, the intent stays noted, and the next holder is told of a redeem
            // that may be over: the safe side.
            let _ =
                blocking(move || Ok::<_, StoreError>(self.lock.write(&text.unwrap_or_default())?))
                    .await;
        })
    }
}

fn line(word: &str, generation: Generation) -> String {
    format!("{word} {generation}\n")
}

fn parse(text: &[u8]) -> Option<OpenRedeem> {
    let (line, _) = std::str::from_utf8(text).ok()?.split_once('\n')?;
    let (word, generation) = line.split_once(' ')?;
    let cause = match word {
        REDEEMING => OpenCause::HolderEnded,
        _ => OpenCause::from_word(word)?,
    };
    Some(OpenRedeem::new(Generation::new(generation.parse().ok()?), cause))
}
