//! What a write leaves, whatever goes wrong.

use std::{fs, task::Poll};

use fs4::FileExt;
use testing::tokens;
use tokio_test::task;
use tower_refresh::store::{Record, SaveError, TokenStore};

use super::{Dir, assert_says, chain, generation, has_io_error, lease, record, soon};

#[tokio::test]
async fn the_document_is_one_line_of_json() {
    let dir = Dir::signed_in().await;
    assert_eq!(
        dir.text(),
        r#"{"version":1,"generation":1,"tokens":{"access_token":"access-1","refresh_token":"refresh-1"}}"#
    );
    dir.store().delete().await.unwrap();
    assert_eq!(dir.text(), r#"{"version":1,"generation":2}"#);
}

/// A record that cannot be read is an error, and stays for the user to look at.
#[tokio::test]
async fn what_is_damaged_is_not_overwritten() {
    let whole = r#"{"version":1,"generation":5,"tokens":{"access_token":"SECRET-A","refresh_token":"SECRET-R"}}"#;
    let damaged = [
        ("", "truncated"),
        (&whole[..whole.len() - 1], "truncated"),
        (&whole[..60], "truncated"),
        ("SECRET", "damaged"),
        (r#"{"version":1,"generation":"SECRET"}"#, "damaged"),
        (r#"{"version":1,"generation":5,"tokens":"SECRET"}"#, "damaged"),
        (r#"{"version":1,"generation":5,"tokens":{"access_token":5,"SECRET":0}}"#, "damaged"),
        (r#"{"version":1,"generation":5,"sealed":{"SECRET":1}}"#, "damaged"),
        (r#"{"version":2,"generation":5,"SECRET":"SECRET"}"#, "format 2"),
    ];
    for (text, word) in damaged {
        let dir = Dir::signed_in().await;
        let store = dir.store();
        fs::write(&dir.file, text).unwrap();
        let path = dir.file.to_str().unwrap();
        let load = store.load().await.unwrap_err();
        let save = store.save(generation(5), record(6)).await.unwrap_err();
        let again = store.save(generation(0), record(6)).await.unwrap_err();
        let held = lease(&store).await.save(generation(5), record(6)).await.unwrap_err();
        for error in [&load as &dyn std::error::Error, &save, &again, &held] {
            assert_says(error, &["could not read", path, word]);
        }
        assert!(matches!(save, SaveError::Failed(_)), "{save:?}");
        let delete = store.delete().await.unwrap_err();
        assert_says(&delete, &["remove", path, word]);
        for error in [&load as &dyn std::error::Error, &save, &delete] {
            assert!(!chain(error).contains("SECRET"), "{}", chain(error));
        }
        assert_eq!(dir.text(), text);
    }
}

/// A crash between the temporary file and the rename, and one while it was being written.
#[tokio::test]
async fn what_a_crash_leaves_behind_goes_with_the_next_write() {
    let dir = Dir::signed_in().await;
    for (number, left) in [(1, r#"{"version":1,"generation":9}"#), (2, r#"{"vers"#)] {
        fs::write(dir.beside(".tmp"), left).unwrap();
        assert_eq!(dir.store().load().await.unwrap(), record(number));
        dir.store().save(generation(number), record(number + 1)).await.unwrap();
        assert_eq!(dir.store().load().await.unwrap(), record(number + 1));
        assert_eq!(dir.names(), ["tokens.json", "tokens.json.lock"]);
    }
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_old_record_and_nothing_else() {
    let dir = Dir::signed_in().await;
    let store = dir.store();
    fs::create_dir(dir.beside(".tmp")).unwrap();
    let error = store.save(generation(1), record(2)).await.unwrap_err();
    assert!(matches!(error, SaveError::Failed(_)), "{error:?}");
    assert_says(&error, &["could not remove", dir.beside(".tmp").to_str().unwrap()]);
    assert!(has_io_error(&error));
    let mut held = lease(&store).await;
    assert!(held.save(generation(1), record(2)).await.is_err());
    assert!(store.delete().await.is_err());
    assert_eq!(store.load().await.unwrap(), record(1));

    fs::remove_dir(dir.beside(".tmp")).unwrap();
    held.save(generation(1), record(2)).await.unwrap();
    assert_eq!(store.load().await.unwrap(), record(2));
    assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
}

/// An empty credential would be a sign-out.
#[tokio::test]
async fn a_folder_that_has_vanished_is_an_error() {
    let dir = Dir::signed_in().await;
    let (store, mut held) = (dir.store(), lease(&dir.store()).await);
    dir.hide();
    let folder = dir.folder().to_str().unwrap();
    assert_says(&store.load().await.unwrap_err(), &["could not find the folder", folder]);
    for error in [
        Box::<dyn std::error::Error>::from(store.save(generation(1), record(2)).await.unwrap_err()),
        store.delete().await.unwrap_err().into(),
        soon(store.lease(generation(1))).await.unwrap_err().into(),
    ] {
        assert_says(&*error, &[folder]);
        assert!(has_io_error(&*error));
    }
    assert!(held.intend(generation(1)).await.is_err());
    assert!(held.save(generation(1), record(2)).await.is_err());
    assert!(!dir.folder().exists(), "it is not made anew");
    dir.show();
    held.intend(generation(1)).await.unwrap();
    held.save(generation(1), record(2)).await.unwrap();
    assert_eq!(store.load().await.unwrap(), record(2));
}

/// The threads for blocking work do it, and here the only one is busy.
#[test]
fn nothing_blocks_the_runtime() {
    let dir = Dir::new();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let store = dir.store();
        store.save(generation(0), record(1)).await.unwrap();
        let mut held = lease(&store).await;
        let (busy, is_over) = std::sync::mpsc::channel::<()>();
        let occupant = tokio::task::spawn_blocking(move || is_over.recv());
        let mut load = task::spawn(store.load());
        let mut save = task::spawn(store.save(generation(1), record(2)));
        let mut delete = task::spawn(store.delete());
        let mut waiting = task::spawn(store.lease(generation(0)));
        let mut intend = task::spawn(held.intend(generation(2)));
        assert!(load.poll().is_pending());
        assert!(save.poll().is_pending());
        assert!(delete.poll().is_pending());
        assert!(waiting.poll().is_pending());
        assert!(intend.poll().is_pending());
        drop(busy);
        assert!(occupant.await.unwrap().is_err());
        soon(load).await.unwrap();
        soon(save).await.unwrap();
        soon(delete).await.unwrap();
        soon(waiting).await.unwrap();
        soon(intend).await.unwrap();
    });
}

/// A process that is stopped in the middle of a write is not waited for without end.
#[tokio::test(start_paused = true)]
async fn a_write_lock_that_stays_is_an_error() {
    let dir = Dir::signed_in().await;
    let other = fs::File::open(dir.beside(".lock")).unwrap();
    FileExt::lock(&other).unwrap();
    let store = dir.store();
    let error = store.save(generation(1), record(2)).await.unwrap_err();
    assert!(matches!(error, SaveError::Failed(_)), "{error:?}");
    assert_says(&error, &["could not write", dir.file.to_str().unwrap(), "locked"]);
    assert!(store.delete().await.is_err());
    // Reading needs no lock.
    assert_eq!(store.load().await.unwrap(), record(1));
    FileExt::unlock(&other).unwrap();
    store.save(generation(1), record(2)).await.unwrap();
}

/// A write that was begun is finished under its lock.
#[test]
fn a_write_whose_future_is_dropped_has_happened_or_not() {
    let dir = Dir::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut held = 0;
    for _ in 0..100 {
        let runtime = runtime();
        let store = dir.store();
        runtime.block_on(async {
            let next = Record::new(generation(held + 1), tokens(held + 1));
            let mut save = task::spawn(store.save(generation(held), next));
            let _ = save.poll();
        });
        // Waits for what was begun.
        drop(runtime);
        let Poll::Ready(loaded) = task::spawn(store.load()).poll() else { panic!("it waits") };
        let loaded = loaded.unwrap();
        assert!(loaded.generation == generation(held) || loaded == record(held + 1));
        held = loaded.generation.get();
    }
    assert!(held > 0, "none was begun");
    let lock = fs::File::open(dir.beside(".lock")).unwrap();
    FileExt::try_lock(&lock).unwrap();
}
