//! What a family keeps, and what it leaves behind.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    thread,
};

use tokio_test::{assert_pending, assert_ready, task};

use super::{Arc, Family, Generation, OpenRedeem, Record, SaveError, Slot};
use crate::{
    store::{Lease, Leased, OpenCause, TokenStore},
    tokens::Tokens,
};

const ZERO: Generation = Generation::ZERO;

fn record(number: u64) -> Record {
    Record::new(Generation::new(number), Tokens::new(format!("access-{number}")))
}

/// What does not wait.
fn now<T>(work: impl Future<Output = T>) -> T {
    assert_ready!(task::spawn(work).poll())
}

fn lease(slot: &Slot) -> Box<dyn Lease> {
    match now(slot.lease(ZERO)).unwrap() {
        Leased::Lease(lease) => lease,
        Leased::Newer(record) => panic!("{record:?} rather than the lease"),
    }
}

fn has_lock(slot: &Slot) -> bool {
    slot.state().lock.is_some()
}

/// Whether all of its tables are given back.
fn is_bare(family: &Family) -> bool {
    family.shards.iter().all(|shard| {
        let names = shard.lock().unwrap();
        names.kept.capacity() + names.known.capacity() == 0
    })
}

#[test]
fn a_made_up_name_goes_with_its_handle() {
    let family = Arc::new(Family::default());
    let slot = family.slot("made up");
    assert_eq!(slot.record(), Record::default());
    assert!(Arc::ptr_eq(&slot, &family.slot("made up")));
    assert_eq!(family.len(), 1);
    drop(slot);
    assert_eq!(family.len(), 0);
    assert!(is_bare(&family));
}

#[test]
fn a_name_is_kept_while_it_holds_tokens() {
    let family = Arc::new(Family::default());
    family.slot("alice").swap(ZERO, record(1), false).unwrap();
    assert_eq!(family.slot("alice").record(), record(1));
    family.slot("alice").swap(Generation::new(1), record(2), false).unwrap();
    assert_eq!((family.slot("alice").record(), family.len()), (record(2), 1));

    let slot = family.slot("alice");
    assert_eq!(slot.clear().tokens, record(2).tokens);
    // The session's late save.
    let late = family.slot("alice").swap(Generation::new(2), record(3), false);
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    assert_eq!(family.slot("alice").clear().generation, Generation::new(4));
    slot.swap(Generation::new(4), record(5), false).unwrap();
    drop(slot);
    assert_eq!(family.slot("alice").record(), record(5));
    // A record without tokens is a sign-out, too.
    let out = Record::new(Generation::new(6), None);
    family.slot("alice").swap(Generation::new(5), out, false).unwrap();
    assert_eq!(family.slot("alice").record(), Record::default());
    assert_eq!(family.len(), 0);
    assert!(is_bare(&family));
}

#[test]
fn a_handle_outlives_its_family() {
    let family = Arc::new(Family::default());
    let (signed_in, empty) = (family.slot("alice"), family.slot("bob"));
    signed_in.swap(ZERO, record(1), false).unwrap();
    drop(family);
    assert_eq!(signed_in.record(), record(1));
    signed_in.clear();
    empty.swap(ZERO, record(1), false).unwrap();
    assert_eq!(empty.record(), record(1));
    drop(lease(&empty));
}

#[test]
fn the_lock_is_there_while_it_is_wanted() {
    let family = Arc::new(Family::default());
    let slot = family.slot("alice");
    assert!(!has_lock(&slot));
    let held = lease(&slot);
    let mut first = task::spawn(slot.lease(ZERO));
    let mut second = task::spawn(slot.lease(ZERO));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    now(held.release(None));
    assert!(first.is_woken() && !second.is_woken());
    let held = assert_ready!(first.poll()).unwrap();
    drop(second);
    assert!(has_lock(&slot));
    drop(held);
    assert!(!has_lock(&slot));

    // A waiter may be the last, too.
    let held = lease(&slot);
    let mut waiter = task::spawn(slot.lease(ZERO));
    assert_pending!(waiter.poll());
    drop(held);
    assert!(has_lock(&slot));
    drop(waiter);
    assert!(!has_lock(&slot));
}

#[test]
fn an_open_redeem_keeps_the_lock() {
    let slot = Slot::alone(record(1));
    let mut held = lease(&slot);
    now(held.intend(Generation::new(1))).unwrap();
    drop(held);
    assert!(has_lock(&slot));
    let found = OpenRedeem::new(Generation::new(1), OpenCause::HolderEnded);
    let held = lease(&slot);
    assert_eq!(held.open_redeem(), Some(found));
    now(held.release(Some(found)));
    assert!(has_lock(&slot));
    let mut held = lease(&slot);
    now(held.save(Generation::new(1), record(2))).unwrap();
    drop(held);
    assert!(!has_lock(&slot));
}

/// Its holder could otherwise be joined by a second one, as the name would have a new slot.
#[test]
fn a_lease_keeps_its_slot() {
    let family = Arc::new(Family::default());
    let held = lease(&family.slot("alice"));
    let slot = family.slot("alice");
    let mut waiter = task::spawn(slot.lease(ZERO));
    assert_pending!(waiter.poll());
    drop(held);
    drop(assert_ready!(waiter.poll()).unwrap());
    drop(waiter);
    drop(slot);
    assert!(is_bare(&family));
}

/// A web application keeps a million sessions, most of them idle.
#[test]
fn an_idle_name_is_small() {
    const NAMES: usize = 10_000;
    const TEXTS: usize = "session-0000".len() + "access-0000".len() + "refresh-0000".len();
    let family = Arc::new(Family::default());
    let allocated = allocation_counter::measure(|| {
        for number in 0..NAMES {
            let tokens = Tokens::new(format!("access-{number:04}"))
                .with_refresh_token(format!("refresh-{number:04}"));
            let slot = family.slot(&format!("session-{number:04}"));
            slot.swap(ZERO, Record::new(Generation::new(1), tokens), false).unwrap();
        }
    });
    let each = usize::try_from(allocated.bytes_current).unwrap() / NAMES;
    let own = each - TEXTS - size_of::<Tokens>();
    assert!(own <= 100, "{own} bytes a name, besides its tokens and its text");
}

/// Each write is counted by the generation if a handle is left. Whether or not one is, nothing
/// is left of a name that is signed out in the end.
#[test]
fn threads_do_not_lose_a_write_or_leave_a_name() {
    for is_held in [true, false] {
        let family = Arc::new(Family::default());
        let handle = is_held.then(|| family.slot("alice"));
        let writes = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..2_000 {
                        let slot = family.slot("alice");
                        let known = slot.record().generation;
                        let done = match turn % 3 {
                            0 => slot.clear().generation > known,
                            1 => slot.swap(known, record(known.get() + 1), false).is_ok(),
                            _ => slot.lease_now(known),
                        };
                        writes.fetch_add(done.into(), Ordering::Relaxed);
                        let same = Arc::ptr_eq(&slot, &family.slot("alice"));
                        assert!(same, "a name has two slots");
                    }
                });
            }
        });
        if let Some(slot) = handle {
            assert_eq!(slot.record().generation.get(), writes.into_inner());
            assert!(!has_lock(&slot));
        }
        family.slot("alice").clear();
        assert_eq!(family.len(), 0);
        assert!(is_bare(&family));
    }
}

impl Slot {
    /// Saves under the lease, if it is free.
    fn lease_now(&self, known: Generation) -> bool {
        match task::spawn(self.lease(known)).poll() {
            Poll::Ready(Ok(Leased::Lease(mut held))) => {
                now(held.save(known, record(known.get() + 1))).is_ok()
            }
            _ => false,
        }
    }
}
