//! Files and folders that are mounted, for real, by a child in a mount namespace of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use testing::{Auth, kind, tokens};
use tower_refresh::{
    FailureKind, RefreshState,
    store::{FileStore, FileStores, Leased, Record, TokenStore},
};

use super::{
    Dir,
    actor::{Actor, FILE, PART, listen, say},
    assert_says, generation, lease, record, skipped, soon,
};

const CHILD: &str = "file::mounts::child";

/// What to say of a file that is a mount point.
const MOUNT_POINT: [&str; 3] = ["tokens.json", "mount point", "mount the folder"];

/// What to say where nothing can be written.
const READ_ONLY: [&str; 3] = ["writable", "no refresh token is spent", "Read-only file system"];

/// A process that may mount, and whose mounts nobody else sees. `None`: that is not allowed
/// here, which the test's output then shows.
fn mounter(part: &str, dir: &Dir) -> Option<Actor> {
    let trial = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1""#;
    let mut told = Vec::new();
    for how in ["-Urm", "-m"] {
        let mut unshare = Command::new("unshare");
        unshare.args([how, "--"]);
        let tried = Command::new("unshare")
            .args([how, "--", "sh", "-c", trial, "sh"])
            .arg(dir.folder())
            .output();
        match tried {
            Ok(done) if done.status.success() => {
                return Some(Actor::through(unshare, part, CHILD, &dir.file));
            }
            Ok(done) => told.extend(done.stderr),
            Err(error) => told.extend(error.to_string().into_bytes()),
        }
    }
    let why = String::from_utf8_lossy(&told).replace('\n', " ");
    skipped(part, &format!("mounting is not allowed here: {why}"));
    None
}

fn mount(args: &[&str], path: &Path) {
    let status = Command::new("mount").args(args).arg(path).status().unwrap();
    assert!(status.success(), "mount {args:?} {path:?}");
}

fn bind(from: &Path, to: &Path) {
    mount(&["--bind", from.to_str().unwrap()], to);
}

fn read_only(folder: &Path) {
    bind(folder, folder);
    mount(&["-o", "remount,bind,ro"], folder);
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    format!("{}{ending}", file.display()).into()
}

fn state(auth: &Auth, store: FileStore) -> Arc<RefreshState> {
    RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(Duration::from_millis(1), Duration::from_millis(20))
        .build()
}

/// What a child does. In the parent, nothing.
#[test]
fn child() {
    let Ok(part) = env::var(PART) else {
        return;
    };
    let file = PathBuf::from(env::var_os(FILE).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match &*part {
            "mounted" => mounted(&file).await,
            "mounted late" => mounted_late(&file).await,
            "read-only" => reads_only(&file).await,
            "read-only and empty" => nothing_to_read(&file).await,
            "locks only" => locks_only(&file).await,
            other => panic!("there is no part {other}"),
        }
    });
    say("done");
}

/// As `docker run -v ./tokens.json:/app/tokens.json` has it.
#[tokio::test]
async fn a_file_that_is_a_mount_point_is_refused_when_it_is_opened() {
    let dir = Dir::signed_in().await;
    let Some(mut child) = mounter("mounted", &dir) else { return };
    child.says("done");
    assert!(child.end().success());
    assert_eq!(dir.names(), ["link.json", "other.json", "tokens.json", "tokens.json.lock"]);
}

async fn mounted(file: &Path) {
    let folder = file.parent().unwrap();
    let (link, other) = (folder.join("link.json"), folder.join("other.json"));
    std::os::unix::fs::symlink(file, &link).unwrap();
    std::fs::copy(file, &other).unwrap();
    FileStore::open(file).unwrap();
    bind(&other, file);
    for path in [file, &link] {
        let error = FileStore::open(path).unwrap_err();
        assert_says(&error, &MOUNT_POINT);
        assert_says(&error, &[file.to_str().unwrap()]);
    }
    FileStore::open(&other).unwrap();

    // One of a family is not looked at before it is used.
    let store = FileStores::open(folder).unwrap().try_store("tokens").unwrap();
    let auth = Auth::new();
    let state = state(&auth, store);
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &MOUNT_POINT);
    assert_eq!(auth.count(), 0);
}

#[tokio::test]
async fn a_file_that_has_become_a_mount_point_is_refused_before_its_token_is_spent() {
    let dir = Dir::signed_in().await;
    let Some(mut child) = mounter("mounted late", &dir) else { return };
    child.says("done");
    assert!(child.end().success());
    assert_eq!(dir.store().load().await.unwrap(), record(1));
}

async fn mounted_late(file: &Path) {
    let store = || FileStores::open(file.parent().unwrap()).unwrap().try_store("tokens").unwrap();
    let auth = Auth::new();
    let state = state(&auth, store());
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
    let mut held = lease(&store()).await;
    bind(file, file);
    assert_says(&held.intend(generation(1)).await.unwrap_err(), &MOUNT_POINT);
    assert_eq!(std::fs::read_to_string(beside(file, ".lease")).unwrap(), "");
    // If it had been spent all the same: the error is the system's, and the advice ours.
    let save = held.save(generation(1), record(2)).await.unwrap_err();
    assert_says(&save, &["could not replace", "mount the folder", "busy"]);
    held.release(None).await;

    assert_says(&soon(store().lease(generation(0))).await.unwrap_err(), &MOUNT_POINT);
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &MOUNT_POINT);
    assert_eq!(auth.count(), 0);
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
}

/// The parent has the same folder, and may write there.
#[tokio::test]
async fn a_folder_that_can_only_be_read_gives_its_token_and_what_comes_after_it() {
    for with_locks in [false, true] {
        let dir = Dir::signed_in().await;
        match with_locks {
            true => lease(&dir.store()).await.release(None).await,
            false => std::fs::remove_file(dir.beside(".lock")).unwrap(),
        }
        let before = dir.names();
        let Some(mut child) = mounter("read-only", &dir) else { return };
        child.says("used");
        assert_eq!(dir.names(), before);
        dir.store().save(generation(1), record(2)).await.unwrap();
        child.tell();
        child.says("found");
        dir.store().delete().await.unwrap();
        child.tell();
        child.says("done");
        assert!(child.end().success());
        assert_eq!(dir.store().load().await.unwrap(), Record::new(generation(3), None));
    }
}

async fn reads_only(file: &Path) {
    read_only(file.parent().unwrap());
    let auth = Auth::new();
    let state = state(&auth, FileStore::open(file).unwrap());
    let first = soon(state.token()).await.unwrap();
    assert_eq!(first.access_token(), Some("access-1"));
    // A redeem is refused, and disturbs nothing.
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &READ_ONLY);
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
    assert_says(&soon(state.set(tokens(9))).await.unwrap_err(), &READ_ONLY);
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));

    say("used");
    listen();
    // The cool-down of the refused redeem ends by itself.
    let found = soon(async {
        loop {
            match state.challenged(first.generation()).await {
                Ok(found) => break found,
                Err(failure) => assert_eq!(failure.kind(), FailureKind::Store),
            }
            tokio::task::yield_now().await;
        }
    });
    let found = found.await;
    assert_eq!((found.access_token(), found.generation()), (Some("access-2"), generation(2)));
    assert!(matches!(
        soon(FileStore::open(file).unwrap().lease(generation(0))).await.unwrap(),
        Leased::Newer(newer) if newer == record(2)
    ));
    say("found");
    listen();
    let gone = soon(state.challenged(found.generation())).await;
    assert_eq!(kind(gone), FailureKind::SignedOut);
    assert_eq!(auth.count(), 0);
}

/// There is no file, or a token that has run out: only a refresh or a sign-in could help.
#[tokio::test]
async fn a_folder_that_can_only_be_read_says_so_when_its_token_is_of_no_use() {
    let dir = Dir::signed_in().await;
    let past = SystemTime::now() - Duration::from_secs(60);
    let over = Record::new(generation(2), tokens(2).with_expires_at(past));
    dir.store().save(generation(1), over).await.unwrap();
    let before = dir.names();
    let Some(mut child) = mounter("read-only and empty", &dir) else { return };
    child.says("done");
    assert!(child.end().success());
    assert_eq!(dir.names(), before);
}

async fn nothing_to_read(file: &Path) {
    read_only(file.parent().unwrap());
    for path in [file, &file.with_file_name("other.json")] {
        let auth = Auth::new();
        let store = || FileStore::open(path).unwrap();
        let failure = soon(state(&auth, store()).token()).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Store);
        assert_says(&failure, &READ_ONLY);
        assert_says(&store().delete().await.unwrap_err(), &READ_ONLY);
        assert_says(&store().save(generation(0), record(1)).await.unwrap_err(), &READ_ONLY);
        assert_eq!(auth.count(), 0);
    }
    let missing = file.with_file_name("missing").join("tokens.json");
    let error = FileStore::open(missing).unwrap_err();
    assert_says(&error, &["could not create the folder", "missing", "Read-only file system"]);
}

/// The locks alone can be written, as where another user owns the folder.
#[tokio::test]
async fn a_record_that_could_not_be_replaced_is_not_redeemed() {
    let dir = Dir::signed_in().await;
    lease(&dir.store()).await.release(None).await;
    let Some(mut child) = mounter("locks only", &dir) else { return };
    child.says("done");
    assert!(child.end().success());
    assert_eq!(std::fs::read_to_string(dir.beside(".lease")).unwrap(), "");
    assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
}

async fn locks_only(file: &Path) {
    let folder = file.parent().unwrap();
    bind(folder, folder);
    for lock in [beside(file, ".lease"), beside(file, ".lock")] {
        bind(&lock, &lock);
    }
    mount(&["-o", "remount,bind,ro"], folder);
    let auth = Auth::new();
    let state = state(&auth, FileStore::open(file).unwrap());
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &["tokens.json.tmp"]);
    assert_says(&failure, &READ_ONLY);
    assert_eq!(auth.count(), 0);
    soon(state.drain()).await;
}
