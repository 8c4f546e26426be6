//! The lock and the line in it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fs4::FileExt;
use testing::{Auth, kind};
use tokio::task::JoinSet;
use tokio_test::task;
use tower_refresh::{
    FailureKind, RefreshState,
    store::{Leased, OpenCause, OpenRedeem, Record, SaveError, TokenStore},
};

use super::{Dir, assert_says, generation, lease, record, soon};

/// Whether the lease is held. Of a record that was never written, nothing is left after it.
fn is_taken(dir: &Dir) -> bool {
    match File::open(dir.beside(".lease")) {
        Ok(file) => FileExt::try_lock(&file).is_err(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(!dir.file.exists());
            false
        }
    }
}

fn line(dir: &Dir) -> String {
    fs::read_to_string(dir.beside(".lease")).unwrap()
}

#[tokio::test]
async fn the_line_says_what_is_under_way() {
    let dir = Dir::signed_in().await;
    let mut held = lease(&dir.store()).await;
    assert!(is_taken(&dir));
    assert_eq!(line(&dir), "");
    held.intend(generation(5)).await.unwrap();
    assert_eq!(line(&dir), "redeeming 5\n");
    held.release(Some(OpenRedeem::new(generation(5), OpenCause::AnswerLost))).await;
    assert!(!is_taken(&dir));
    assert_eq!(line(&dir), "unanswered 5\n");

    let mut held = lease(&dir.store()).await;
    held.intend(generation(5)).await.unwrap();
    assert_eq!(line(&dir), "redeeming 5\n");
    held.save(generation(1), record(2)).await.unwrap();
    assert_eq!(line(&dir), "");
    held.intend(generation(2)).await.unwrap();
    held.release(None).await;
    assert_eq!(line(&dir), "");
}

#[tokio::test]
async fn every_line_is_understood() {
    let dir = Dir::signed_in().await;
    lease(&dir.store()).await.release(None).await;
    let told = |number, cause| Some(OpenRedeem::new(generation(number), cause));
    for (text, found) in [
        ("", None),
        ("redeeming 7\n", told(7, OpenCause::HolderEnded)),
        ("ended 7\n", told(7, OpenCause::HolderEnded)),
        ("silent 7\n", told(7, OpenCause::HolderSilent)),
        ("unanswered 18446744073709551615\n", told(u64::MAX, OpenCause::AnswerLost)),
        // The end of a longer line that stood there.
        ("redeeming 7\n 7\n", told(7, OpenCause::HolderEnded)),
        // Whatever the crash has left: it was about the record that is there.
        ("redeeming 7", told(1, OpenCause::HolderEnded)),
        ("redeem", told(1, OpenCause::HolderEnded)),
        ("redeeming \n", told(1, OpenCause::HolderEnded)),
        ("redeeming -7\n", told(1, OpenCause::HolderEnded)),
        ("sleeping 7\n", told(1, OpenCause::HolderEnded)),
        ("\0\0\0\0", told(1, OpenCause::HolderEnded)),
        (&"x".repeat(1000), told(1, OpenCause::HolderEnded)),
    ] {
        fs::write(dir.beside(".lease"), text).unwrap();
        assert_eq!(lease(&dir.store()).await.open_redeem(), found, "{text:?}");
        assert_eq!(line(&dir), text, "nothing is changed by looking");
    }
    fs::write(dir.beside(".lease"), b"redeeming \xff\n").unwrap();
    let found = lease(&dir.store()).await.open_redeem();
    assert_eq!(found, told(1, OpenCause::HolderEnded));
    assert_eq!(fs::metadata(dir.beside(".lease")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The folder was removed and made anew: other processes lock another file.
#[tokio::test]
async fn a_lock_that_the_path_does_not_name_is_lost() {
    let dir = Dir::signed_in().await;
    let mut lost = lease(&dir.store()).await;
    lost.intend(generation(1)).await.unwrap();
    assert!(lost.is_held());
    dir.hide();
    fs::create_dir(dir.folder()).unwrap();
    assert_says(&lost.intend(generation(1)).await.unwrap_err(), &["the lease was lost"]);

    dir.store().save(generation(0), record(1)).await.unwrap();
    let held = lease(&dir.store()).await;
    assert_eq!(held.open_redeem(), None);
    let late = lost.save(generation(1), record(2)).await;
    assert!(matches!(late, Err(SaveError::LeaseLost)), "{late:?}");
    lost.release(Some(OpenRedeem::new(generation(1), OpenCause::AnswerLost))).await;
    assert_eq!(line(&dir), "");
    assert!(is_taken(&dir));
    assert!(held.is_held());
    assert_eq!(dir.store().load().await.unwrap(), record(1));
}

/// A lease that is not the path's any more when it is locked is none.
#[tokio::test]
async fn a_lock_that_is_replaced_while_others_wait_is_left() {
    let dir = Dir::signed_in().await;
    let mut old = lease(&dir.store()).await;
    let (store, seen) = (dir.store(), generation(1));
    let waiting = tokio::spawn(async move { store.lease(seen).await });
    fs::remove_file(dir.beside(".lease")).unwrap();
    let Leased::Lease(new) = soon(waiting).await.unwrap().unwrap() else {
        panic!("nothing is newer");
    };
    assert!(old.intend(generation(1)).await.is_err());
    drop(old);
    assert!(new.is_held());
    assert!(is_taken(&dir), "the new one is another lock");
}

#[tokio::test]
async fn whoever_waits_is_given_what_is_newer() {
    let dir = Dir::signed_in().await;
    let mut held = lease(&dir.store()).await;
    let store = dir.store();
    // What it knows already is no news.
    let mut waiting = task::spawn(store.lease(generation(1)));
    assert!(waiting.poll().is_pending());
    held.save(generation(1), record(2)).await.unwrap();
    let Leased::Newer(found) = soon(&mut waiting).await.unwrap() else { panic!("it is held") };
    assert_eq!(found, record(2));
    dir.store().delete().await.unwrap();
    let Leased::Newer(found) = soon(store.lease(generation(2))).await.unwrap() else {
        panic!("it is held")
    };
    assert_eq!(found, Record::new(generation(3), None));

    // What cannot be read is no reason to stop waiting.
    fs::write(&dir.file, "damaged").unwrap();
    let mut waiting = task::spawn(store.lease(generation(3)));
    assert!(waiting.poll().is_pending());
    held.release(None).await;
    assert!(matches!(soon(&mut waiting).await.unwrap(), Leased::Lease(_)));
}

/// Dropped at whatever point it is: the lock is free.
#[test]
fn a_dropped_future_leaves_no_lock() {
    let dir = Dir::new();
    for round in 0..200 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = dir.store();
        runtime.block_on(async {
            let mut waiting = task::spawn(store.lease(generation(0)));
            let _ = waiting.poll();
            for _ in 0..round {
                std::hint::spin_loop();
            }
        });
        // Waits for what was begun.
        drop(runtime);
    }
    assert!(!is_taken(&dir));
}

/// The lock is kept until the write that was begun under it is over.
#[test]
fn a_dropped_lease_is_free_when_its_last_write_is_over() {
    let dir = Dir::new();
    let mut begun = 0;
    for _ in 0..100 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut held = lease(&dir.store()).await;
            let mut intend = task::spawn(held.intend(generation(1)));
            let _ = intend.poll();
            drop(intend);
            drop(held);
            let found = lease(&dir.store()).await;
            let line = line(&dir);
            begun += usize::from(!line.is_empty());
            // What stands there was there when the lock was taken.
            assert_eq!(found.open_redeem().is_some(), !line.is_empty());
            found.release(None).await;
        });
    }
    assert!(begun > 0, "none was begun");
    assert!(!is_taken(&dir));
}

/// A name may be made up: neither a lease that was released, nor one that was dropped, nor a
/// write that failed leaves a file.
#[tokio::test]
async fn what_was_never_written_leaves_nothing_behind() {
    let dir = Dir::new();
    let store = dir.store();
    let nothing = [""; 0];
    assert_eq!(store.load().await.unwrap(), Record::default());
    lease(&store).await.release(None).await;
    drop(lease(&store).await);
    let held = lease(&store).await;
    assert_eq!(dir.names(), ["tokens.json.lease"]);
    let mut waiting = task::spawn(store.lease(generation(0)));
    assert!(waiting.poll().is_pending());
    held.release(None).await;
    let Leased::Lease(next) = soon(&mut waiting).await.unwrap() else { panic!("it is free") };
    assert!(next.is_held());
    assert!(is_taken(&dir), "it is a lease like any other");
    drop(next);
    let late = store.save(generation(5), record(6)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    assert_eq!(dir.names(), nothing);

    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
    assert_eq!(kind(soon(state.token()).await), FailureKind::SignedOut);
    soon(state.drain()).await;
    assert_eq!(dir.names(), nothing);
    assert_eq!(auth.count(), 0);
}

/// What the next holder has to know is kept, and so are the locks of what was saved.
#[tokio::test]
async fn what_was_noted_or_saved_keeps_its_locks() {
    let dir = Dir::new();
    let mut held = lease(&dir.store()).await;
    held.intend(generation(3)).await.unwrap();
    drop(held);
    assert_eq!(line(&dir), "redeeming 3\n");
    let mut held = lease(&dir.store()).await;
    assert_eq!(held.open_redeem(), Some(OpenRedeem::new(generation(3), OpenCause::HolderEnded)));
    held.save(generation(0), record(1)).await.unwrap();
    held.release(None).await;
    assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
    dir.store().delete().await.unwrap();
    lease(&dir.store()).await.release(None).await;
    assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
}

/// A holder whose file was replaced meanwhile leaves the other holder's where it is.
#[tokio::test]
async fn a_lost_lease_of_what_was_never_written_takes_no_other_away() {
    let dir = Dir::new();
    let old = lease(&dir.store()).await;
    fs::remove_file(dir.beside(".lease")).unwrap();
    let new = lease(&dir.store()).await;
    old.release(None).await;
    assert!(new.is_held());
    assert!(is_taken(&dir));
    drop(new);
    assert_eq!(dir.names(), [""; 0]);
}

/// Those that look, and those that take the lease one after the other, have it alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_file_goes_each_time_is_one_lease() {
    let dir = Dir::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let mut takers = JoinSet::new();
    for _ in 0..8 {
        let (store, inside) = (dir.store(), Arc::clone(&inside));
        takers.spawn(async move {
            for round in 0..12 {
                let held = lease(&store).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders at once");
                assert!(store.load().await.unwrap().tokens.is_none());
                assert!(held.is_held());
                inside.fetch_sub(1, Ordering::SeqCst);
                match round % 2 {
                    0 => held.release(None).await,
                    _ => drop(held),
                }
            }
        });
    }
    while let Some(taker) = soon(takers.join_next()).await {
        taker.unwrap();
    }
    assert_eq!(dir.names(), [""; 0]);
}
