//! What a write leaves, whatever goes wrong.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    task::Poll,
    time::SystemTime,
};

use fs4::FileExt;
use testing::{Auth, kind, tokens};
use tokio::task::JoinSet;
use tokio_test::task;
use tower_refresh::{
    FailureKind, RefreshState,
    store::{Record, SaveError, TokenStore},
};

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

/// The kinds of damage, and a word that each is told by.
fn damaged() -> [(&'static str, &'static str); 8] {
    let whole = r#"{"version":1,"generation":5,"tokens":{"access_token":"SECRET-A","refresh_token":"SECRET-R"}}"#;
    [
        (&whole[..whole.len() - 1], "truncated"),
        (&whole[..60], "truncated"),
        ("SECRET", "damaged"),
        (r#"{"version":1,"generation":"SECRET"}"#, "damaged"),
        (r#"{"version":1,"generation":5,"tokens":"SECRET"}"#, "damaged"),
        (r#"{"version":1,"generation":5,"tokens":{"access_token":5,"SECRET":0}}"#, "damaged"),
        (r#"{"version":1,"generation":5,"sealed":{"SECRET":1}}"#, "damaged"),
        (r#"{"version":1,"generation":9999999999999999999,"SECRET":1}"#, "damaged"),
    ]
}

/// A record that cannot be read is an error that says how to go on, and stays for the user to
/// look at.
#[tokio::test]
async fn what_is_damaged_is_not_overwritten() {
    let later = r#"{"version":2,"generation":5,"SECRET":"SECRET"}"#;
    for (text, word) in damaged().into_iter().chain([(later, "format 2")]) {
        let dir = Dir::signed_in().await;
        let store = dir.store();
        fs::write(&dir.file, text).unwrap();
        let path = dir.file.to_str().unwrap();
        let load = store.load().await.unwrap_err();
        let save = store.save(generation(5), record(6)).await.unwrap_err();
        let held = lease(&store).await.save(generation(5), record(6)).await.unwrap_err();
        for error in [&load as &dyn std::error::Error, &save, &held] {
            assert_says(error, &["could not read", path, word, "sign in again"]);
        }
        if text == later {
            let again = store.save(generation(0), record(6)).await.unwrap_err();
            assert_says(&again, &["could not read", path, word, "update this program"]);
        }
        assert!(matches!(save, SaveError::Failed(_)), "{save:?}");
        let delete = store.delete().await.unwrap_err();
        assert_says(&delete, &["remove", path, word]);
        for error in [&load as &dyn std::error::Error, &save, &delete] {
            assert!(!chain(error).contains("SECRET"), "{}", chain(error));
        }
        assert_eq!(dir.text(), text);
        assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
    }
}

/// The text is kept beside it, for the owner only; the one of an earlier time, too.
#[tokio::test]
async fn a_sign_in_over_what_is_damaged_works_and_keeps_it_aside() {
    let auth = Auth::new();
    for (text, _) in damaged() {
        let dir = Dir::signed_in().await;
        let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
        assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
        fs::write(&dir.file, text).unwrap();
        let signed_in = soon(state.set(tokens(9))).await.unwrap();
        assert!(signed_in > generation(1), "another process that has read the record finds it");
        assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-9"));
        assert_eq!(dir.store().load().await.unwrap(), Record::new(signed_in, tokens(9)));

        fs::write(&dir.file, "again").unwrap();
        soon(state.set(tokens(10))).await.unwrap();
        assert_eq!(dir.store().load().await.unwrap().tokens, Some(tokens(10)));
        for (ending, kept) in [(".damaged", text), (".damaged-2", "again")] {
            let path = dir.beside(ending);
            assert_eq!(fs::read_to_string(&path).unwrap(), kept);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
    }
    assert_eq!(auth.count(), 0);
}

/// The damaged text is in one place at least, whatever fails, and never in ever more of them.
#[tokio::test]
async fn a_sign_in_over_what_is_damaged_that_fails_changes_nothing() {
    let dir = Dir::signed_in().await;
    fs::write(&dir.file, "damaged").unwrap();
    let save = || async { dir.store().save(generation(0), record(9)).await };
    fs::create_dir(dir.beside(".tmp")).unwrap();
    assert_says(&save().await.unwrap_err(), &["could not remove", "tokens.json.tmp"]);
    fs::remove_dir(dir.beside(".tmp")).unwrap();
    assert_eq!((dir.text().as_str(), dir.names().len()), ("damaged", 2));

    for number in 1..=9 {
        fs::write(&dir.file, format!("damaged {number}")).unwrap();
        save().await.unwrap();
    }
    fs::write(&dir.file, "damaged 10").unwrap();
    let error = save().await.unwrap_err();
    assert_says(&error, &["could not keep the damaged text of", "tokens.json", "remove those"]);
    assert_eq!(dir.text(), "damaged 10");
    assert_eq!(fs::read_to_string(dir.beside(".damaged")).unwrap(), "damaged 1");
    assert_eq!(fs::read_to_string(dir.beside(".damaged-9")).unwrap(), "damaged 9");

    // Someone else's link is not written through.
    fs::remove_file(dir.beside(".damaged-3")).unwrap();
    symlink(dir.temp.path().join("elsewhere"), dir.beside(".damaged-3")).unwrap();
    assert!(save().await.is_err());
    assert!(!dir.temp.path().join("elsewhere").exists());
}

/// Of two that sign in at once over the damage one is first, and the other does not lose it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_that_race_over_what_is_damaged_all_work() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    fs::write(&dir.file, "damaged").unwrap();
    let mut sign_ins = JoinSet::new();
    for number in 10..18 {
        let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
        sign_ins.spawn(async move { soon(state.set(tokens(number))).await });
    }
    while let Some(signed_in) = soon(sign_ins.join_next()).await {
        signed_in.unwrap().unwrap();
    }
    assert!(dir.store().load().await.unwrap().tokens.is_some());
    assert_eq!(fs::read_to_string(dir.beside(".damaged")).unwrap(), "damaged");
    assert!(!dir.beside(".damaged-2").exists());
}

/// As `touch` leaves it, or an editor: nothing was ever saved there.
#[tokio::test]
async fn an_empty_file_is_nobody_signed_in() {
    for (text, mode) in [("", 0o600), ("", 0o644), ("\n", 0o600), (" \r\n\t", 0o600)] {
        let dir = Dir::new();
        fs::write(&dir.file, text).unwrap();
        fs::set_permissions(&dir.file, fs::Permissions::from_mode(mode)).unwrap();
        let store = dir.store();
        assert_eq!(store.load().await.unwrap(), Record::default());
        let mut held = lease(&store).await;
        let late = held.save(generation(5), record(6)).await;
        assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
        fs::write(dir.beside(".lease"), "torn").unwrap();
        drop(held);
        assert_eq!(lease(&store).await.open_redeem().unwrap().generation, generation(0));

        let auth = Auth::new();
        let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
        assert_eq!(kind(soon(state.token()).await), FailureKind::SignedOut);
        assert_eq!(fs::read_to_string(&dir.file).unwrap(), text);
        soon(state.set(tokens(9))).await.unwrap();
        assert_eq!(store.load().await.unwrap().tokens, Some(tokens(9)));
        assert_eq!(fs::metadata(&dir.file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!dir.beside(".damaged").exists());
    }
}

/// What another process may remember of a file that is gone is a smaller number.
#[tokio::test]
async fn a_sign_out_of_what_was_never_written_is_later_than_what_was_lost() {
    let dir = Dir::new();
    for lost in [false, true] {
        if lost {
            fs::write(&dir.file, "").unwrap();
        }
        let (before, now) = (generation(1_700_000_000_000), SystemTime::now());
        let deleted = dir.store().delete().await.unwrap();
        assert_eq!(deleted.tokens, None);
        assert!(deleted.generation > before, "{deleted:?}");
        assert!(deleted.generation >= generation(0).next_at(now), "{deleted:?}");
        assert_eq!(dir.store().delete().await.unwrap().generation, deleted.generation.next());
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
