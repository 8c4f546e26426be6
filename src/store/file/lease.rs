//! The lease of a file: a lock, and in the locked file a line about the redeem that its
//! holder has begun.
//!
//! | line | what it tells the next holder |
//! |---|---|
//! | none | nothing is open |
//! | `redeeming 5` | its holder ended without a word while it spent the refresh token of generation 5 |
//! | `unanswered 5`, `ended 5`, `silent 5` | the same, with the [`OpenCause`] that an earlier holder knew of |
//! | anything else | a redeem of whatever is there now may have been begun |

use std::sync::Arc;

use super::{blocking, lock::Lock, place::Place, write};
use crate::{
    error::{SaveError, StoreError},
    refresher::BoxFuture,
    store::{Lease, Leased, OpenCause, OpenRedeem, Record},
    tokens::Generation,
};

const REDEEMING: &str = "redeeming";

#[derive(Debug)]
struct FileLease {
    place: Arc<Place>,
    /// Whoever works with the file has a share: a write that goes on when the lease is
    /// dropped is still under the lock.
    lock: Arc<Lock>,
    open_redeem: Option<OpenRedeem>,
}

/// Takes the lease without waiting; or finds a record that is newer. `None`: neither.
pub(super) fn attempt(place: Arc<Place>, seen: Generation) -> Result<Option<Leased>, StoreError> {
    let Some(lock) = place.try_lease()? else {
        // A record that cannot be read is told of by whoever gets the lease.
        return Ok(place.newer(seen).unwrap_or_default().map(Leased::Newer));
    };
    let text = lock.read()?;
    let open_redeem = match (text.is_empty(), parse(&text)) {
        (true, _) => None,
        (_, Some(open_redeem)) => Some(open_redeem),
        // The crash came while it was being written.
        (_, None) => Some(OpenRedeem::new(place.generation()?, OpenCause::HolderEnded)),
    };
    let lease = FileLease { place, lock: Arc::new(lock), open_redeem };
    Ok(Some(Leased::Lease(Box::new(lease))))
}

impl Lease for FileLease {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        let (place, lock) = (Arc::clone(&self.place), Arc::clone(&self.lock));
        Box::pin(blocking(move || {
            if !place.is_leased(&lock) {
                return Err(StoreError::new(SaveError::LeaseLost));
            }
            lock.write(&line(REDEEMING, generation))?;
            lock.sync()?;
            // The file's name, too, if it is a new one.
            place.sync_folder_of(lock.path())
        }))
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        let lock = Arc::clone(&self.lock);
        Box::pin(write(&self.place, move |place| {
            if !place.is_leased(&lock) {
                return Err(SaveError::LeaseLost);
            }
            place.swap(expected, &record)?;
            // If it stays, it tells of a generation that is over.
            let _ = lock.write("");
            Ok(())
        }))
    }

    fn release(self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        let text = left.map(|left| line(left.cause.as_str(), left.generation)).unwrap_or_default();
        Box::pin(async move {
            // What fails here leaves the intent as it was. That is the safe side.
            let _ = blocking(move || self.lock.write(&text)).await;
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
