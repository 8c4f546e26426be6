//! Which file is meant: names, links, folders, modes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    task::Poll,
};

use testing::{Auth, tokens};
use tokio_test::task;
use tower_refresh::{
    RefreshState,
    store::{FileStore, FileStores, Keyring, Leased, Record, Stores, TokenStore},
};

use super::{Dir, assert_says, generation, has_io_error, lease, record, skipped, soon};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn all_files_are_their_owners_only() {
    let dir = Dir::signed_in().await;
    drop(lease(&dir.store()).await);
    assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
    for name in dir.names() {
        assert_eq!(mode(&dir.folder().join(&name)), 0o600, "{name}");
    }
}

/// All levels, for the owner only. What is there stays as it is.
#[tokio::test]
async fn folders_that_are_missing_are_made() {
    let dir = Dir::new();
    chmod(dir.folder(), 0o755);
    let (deep, deeper) = (dir.folder().join("a/b"), dir.folder().join("c/d/e/tokens.json"));
    for _ in 0..2 {
        FileStores::open(&deep).unwrap();
        FileStore::open(&deeper).unwrap();
    }
    assert_eq!(mode(dir.folder()), 0o755);
    for made in ["a", "a/b", "c", "c/d", "c/d/e"] {
        assert_eq!(mode(&dir.folder().join(made)), 0o700, "{made}");
    }
    assert!(!deeper.exists());
    FileStore::open(&deeper).unwrap().save(generation(0), record(1)).await.unwrap();
    assert_eq!(FileStore::open(&deeper).unwrap().load().await.unwrap(), record(1));
}

/// As by many commands at once, the first time that the program runs.
#[test]
fn folders_that_several_make_at_once_are_no_error() {
    let dir = Dir::new();
    let file = dir.folder().join("a/b/c/d/tokens.json");
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| FileStore::open(&file))).collect();
        for opener in openers {
            opener.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = Dir::new();
    fs::write(dir.temp.path().join("file"), "").unwrap();
    let error = FileStores::open(dir.temp.path().join("file")).unwrap_err();
    assert_says(&error, &["could not keep files in", "it is not a folder"]);
    let error = FileStore::open(dir.temp.path().join("file/tokens.json")).unwrap_err();
    assert_says(&error, &["could not keep files in", "it is not a folder"]);
    let error = FileStores::open(dir.temp.path().join("file/a/b")).unwrap_err();
    assert_says(&error, &["file/a", "Not a directory"]);
    assert!(has_io_error(&error));
    // Nothing can be created there, whoever asks.
    let error = FileStore::open("/proc/no/tokens.json").unwrap_err();
    assert_says(&error, &["could not create the folder", "/proc"]);
    assert!(has_io_error(&error));
}

#[tokio::test]
async fn names_are_encoded() {
    let dir = Dir::new();
    let long = "x".repeat(240);
    for name in ["bob", "Bob", "a_b-0", "../b", "\u{e4}", "a.lease", &long] {
        let store = FileStores::open(dir.folder()).unwrap().try_store(name).unwrap();
        store.save(generation(0), record(1)).await.unwrap();
        drop(lease(&store).await);
    }
    let mut names = dir.names();
    names.retain(|name| !name.ends_with(".lock") && !name.ends_with(".lease"));
    let long = format!("{long}.json");
    let expected = [
        "%2e%2e%2fb.json",
        "%42ob.json",
        "%c3%a4.json",
        "a%2elease.json",
        "a_b-0.json",
        "bob.json",
        &long,
    ];
    assert_eq!(names, expected);
    let refused = |name: &str| FileStores::open(dir.folder()).unwrap().try_store(name).unwrap_err();
    assert_says(&refused(""), &["must not be empty"]);
    assert_says(&refused(&"x".repeat(241)), &["too long", "241"]);
    assert_says(&refused(&"X".repeat(81)), &["too long", "243"]);
    // As one of a family it is refused, too, when it is used.
    let stores = FileStores::open(dir.folder()).unwrap();
    let before = dir.names();
    for (name, word) in [(String::new(), "must not be empty"), ("X".repeat(81), "too long")] {
        let store = stores.store(&name);
        assert_says(&store.load().await.unwrap_err(), &[word]);
        assert_says(&store.save(generation(0), record(1)).await.unwrap_err(), &[word]);
        assert_says(&store.delete().await.unwrap_err(), &[word]);
        assert_says(&store.lease(generation(0)).await.unwrap_err(), &[word]);
    }
    assert_eq!(dir.names(), before);
}

#[tokio::test]
async fn a_wider_mode_is_an_error_that_tells_how_to_mend_it() {
    let dir = Dir::signed_in().await;
    let (store, path) = (dir.store(), dir.file.to_str().unwrap());
    for wide in [0o644, 0o640, 0o602, 0o601] {
        chmod(&dir.file, wide);
        let words = [&*format!("mode {wide:04o}"), &*format!("chmod 600 {path}")];
        assert_says(&FileStore::open(&dir.file).unwrap_err(), &words);
        assert_says(&store.load().await.unwrap_err(), &words);
        assert_says(&store.save(generation(1), record(2)).await.unwrap_err(), &words);
        assert_says(&store.delete().await.unwrap_err(), &words);
        assert_eq!(mode(&dir.file), wide, "it was not replaced");
    }
    for good in [0o600, 0o700, 0o400] {
        chmod(&dir.file, good);
        assert_eq!(store.load().await.unwrap(), record(1));
        dir.store();
    }
}

/// As Kubernetes has it with `fsGroup`, or `defaultMode: 0440`.
#[tokio::test]
async fn rights_of_the_group_can_be_allowed_by_name() {
    let dir = Dir::signed_in().await;
    let path = dir.file.to_str().unwrap();
    let stores = FileStores::open_for_group(dir.folder()).unwrap().try_store("tokens").unwrap();
    for good in [0o660, 0o640, 0o440, 0o600, 0o2660] {
        chmod(&dir.file, good);
        for store in [&FileStore::open_for_group(&dir.file).unwrap(), &stores] {
            assert_eq!(store.load().await.unwrap(), record(1));
        }
    }
    for wide in [0o664, 0o644, 0o604, 0o602, 0o661] {
        chmod(&dir.file, wide);
        let words = [&*format!("mode {wide:04o}"), &*format!("chmod 660 {path}")];
        assert_says(&FileStore::open_for_group(&dir.file).unwrap_err(), &words);
        assert_says(&stores.load().await.unwrap_err(), &words);
        assert_says(&stores.save(generation(1), record(2)).await.unwrap_err(), &words);
        assert_eq!(mode(&dir.file), wide, "it was not replaced");
    }
}

/// Files have the rights that the group has on the folder, whatever the umask is.
#[tokio::test]
async fn what_is_written_for_the_group_has_the_folders_rights() {
    for (folder, file) in [(0o2770, 0o660), (0o2750, 0o640), (0o700, 0o600), (0o777, 0o660)] {
        let dir = Dir::new();
        chmod(dir.folder(), folder);
        let store = FileStore::open_for_group(&dir.file).unwrap().sealed(Keyring::new([1; 32]));
        store.save(generation(0), record(1)).await.unwrap();
        lease(&store).await.release(None).await;
        assert_eq!(dir.names(), ["tokens.json", "tokens.json.lease", "tokens.json.lock"]);
        for name in dir.names() {
            assert_eq!(mode(&dir.folder().join(&name)), file, "{name} in {folder:o}");
        }
        // Damage is its owner's business.
        fs::write(&dir.file, "damaged").unwrap();
        store.save(generation(0), record(2)).await.unwrap();
        assert_eq!(mode(&dir.beside(".damaged")), 0o600);
        assert_eq!(mode(&dir.file), file);
        // By default they stay their owner's only, whatever the folder allows.
        chmod(&dir.file, 0o600);
        dir.store().delete().await.unwrap();
        assert_eq!(mode(&dir.file), 0o600);
    }
}

/// The folder's group is not that of the file: its rights are none of the file's group.
#[tokio::test]
async fn another_group_than_the_folders_is_given_nothing() {
    let dir = Dir::new();
    let own = fs::metadata(dir.folder()).unwrap().gid();
    if let Err(error) = chown(dir.folder(), None, Some(own + 1)) {
        skipped("another group", &format!("none can be given here: {error}"));
        return;
    }
    for (folder, file) in [(0o770, 0o600), (0o2770, 0o660)] {
        chmod(dir.folder(), folder);
        let store = FileStore::open_for_group(&dir.file).unwrap();
        store.delete().await.unwrap();
        assert_eq!(mode(&dir.file), file, "{folder:o}");
    }
}

#[tokio::test]
async fn what_a_link_points_to_is_written() {
    let dir = Dir::signed_in().await;
    let link = dir.temp.path().join("link.json");
    symlink(&dir.file, &link).unwrap();
    let linked = FileStore::open(&link).unwrap();
    linked.save(generation(1), record(2)).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(dir.store().load().await.unwrap(), record(2));
    // It is one lease, too.
    let held = lease(&linked).await;
    let mut other = task::spawn(async { dir.store().lease(generation(1)).await });
    // A waiter that finds the lease taken looks for a newer record.
    dir.store().save(generation(2), record(3)).await.unwrap();
    let Leased::Newer(newer) = soon(&mut other).await.unwrap() else {
        panic!("two have the lease");
    };
    assert_eq!(newer, record(3));
    drop(held);

    // A link that leads elsewhere by now leads to another lease.
    let other = dir.folder().join("other.json");
    FileStore::open(&other).unwrap().save(generation(0), record(1)).await.unwrap();
    let mut held = lease(&linked).await;
    fs::remove_file(&link).unwrap();
    symlink(&other, &link).unwrap();
    assert!(held.intend(generation(1)).await.is_err());
    assert_eq!(linked.load().await.unwrap(), record(1));
}

/// Of a file, of a folder, through other links and by relative ones: what it leads to is made,
/// and the links stay.
#[tokio::test]
async fn a_link_to_nothing_makes_its_target() {
    for (links, opened, target) in [
        (&[("link.json", "there.json")][..], "link.json", "there.json"),
        (&[("link.json", "no/such/there.json")], "link.json", "no/such/there.json"),
        (&[("link.json", "../beside/there.json")], "link.json", "../beside/there.json"),
        (&[("1", "2"), ("2", "deep/3"), ("deep/3", "../4")], "1", "4"),
        (&[("config", "no/such")], "config/there.json", "no/such/there.json"),
        (&[("config", "no"), ("no", "such")], "config/sub/there.json", "such/sub/there.json"),
    ] {
        let dir = Dir::new();
        fs::create_dir(dir.folder().join("deep")).unwrap();
        for (link, to) in links {
            symlink(to, dir.folder().join(link)).unwrap();
        }
        let path = dir.folder().join(opened);
        let store = FileStore::open(&path).unwrap();
        assert_eq!(store.load().await.unwrap(), Record::default());
        // The lease is the same before there is a file and after.
        let mut held = lease(&store).await;
        held.intend(generation(0)).await.unwrap();
        held.save(generation(0), record(1)).await.unwrap();
        held.intend(generation(1)).await.unwrap();
        held.save(generation(1), record(2)).await.unwrap();
        held.release(None).await;
        for (link, _) in links {
            assert!(fs::symlink_metadata(dir.folder().join(link)).unwrap().is_symlink());
        }
        let target = dir.folder().join(target);
        assert!(fs::symlink_metadata(&target).unwrap().is_file(), "{target:?}");
        assert_eq!(FileStore::open(&target).unwrap().load().await.unwrap(), record(2));

        // The target alone is removed: that is a file that was never written.
        fs::remove_file(&target).unwrap();
        assert_eq!(store.load().await.unwrap(), Record::default());
        store.save(generation(0), record(3)).await.unwrap();
        assert_eq!(FileStore::open(&target).unwrap().load().await.unwrap(), record(3));
    }
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_an_error() {
    let dir = Dir::new();
    let link = |from: &str, to: &str| symlink(to, dir.folder().join(from)).unwrap();
    link("1", "2");
    link("2", "1");
    link("inside", "inside/itself");
    for path in ["1", "1/tokens.json", "inside", "inside/tokens.json"] {
        let error = FileStore::open(dir.folder().join(path)).unwrap_err();
        assert_says(&error, &["could not", dir.folder().to_str().unwrap()]);
    }
    let words = ["could not follow the symbolic link", "without end"];
    assert_says(&FileStore::open(dir.folder().join("1")).unwrap_err(), &words);
    // A link whose folder goes away later is no file that was never written.
    link("later", "folder/tokens.json");
    let store = FileStore::open(dir.folder().join("later")).unwrap();
    fs::remove_dir(dir.folder().join("folder")).unwrap();
    let words = ["could not find the folder", "No such file"];
    assert_says(&store.load().await.unwrap_err(), &words);
    assert!(store.save(generation(0), record(1)).await.is_err());
    assert!(!dir.folder().join("folder").exists());
}

/// The lease's line would be written to a file that is not this store's.
#[tokio::test]
async fn a_lock_that_is_a_link_is_an_error() {
    let dir = Dir::signed_in().await;
    let victim = dir.temp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.beside(".lease")).unwrap();
    let error = soon(dir.store().lease(generation(1))).await.unwrap_err();
    assert_says(&error, &["must not be a symbolic link", "tokens.json.lease"]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[tokio::test]
async fn what_is_no_file_is_an_error() {
    let dir = Dir::new();
    for path in [Path::new("/"), dir.folder(), Path::new("/dev/null")] {
        let error = FileStore::open(path).unwrap_err();
        assert_says(&error, &["could not keep tokens in", path.to_str().unwrap()]);
    }
    assert!(FileStore::open("").is_err());
    let store = dir.store();
    fs::create_dir(&dir.file).unwrap();
    assert_says(&store.load().await.unwrap_err(), &["it is not a file"]);
    assert!(store.save(generation(0), record(1)).await.is_err());
    assert!(dir.file.is_dir());
}

/// A relative path is that of the moment, wherever the program goes later.
#[test]
fn a_relative_path_is_made_absolute() {
    let store = FileStore::open("Cargo.toml-of-nobody").unwrap();
    let path = std::env::current_dir().unwrap().join("Cargo.toml-of-nobody");
    assert_eq!(format!("{store:?}"), format!("FileStore({path:?})"));
}

/// Each future is ready at once where there is no runtime.
#[test]
fn it_works_without_a_runtime() {
    fn now<T>(future: impl Future<Output = T>) -> T {
        match task::spawn(future).poll() {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("it waits"),
        }
    }
    let dir = Dir::new();
    let store = dir.store();
    assert_eq!(now(store.load()).unwrap(), Record::default());
    now(store.save(generation(0), record(1))).unwrap();
    let Leased::Lease(mut held) = now(store.lease(generation(0))).unwrap() else {
        panic!("nobody has the lease");
    };
    now(held.intend(generation(1))).unwrap();

    // A waiter does not block its thread: other tasks go on.
    let mut waiting = task::spawn(store.lease(generation(1)));
    assert!(waiting.poll().is_pending());
    assert!(waiting.is_woken());
    now(held.save(generation(1), record(2))).unwrap();
    assert!(matches!(waiting.poll(), Poll::Ready(Ok(Leased::Newer(_)))));
    now(held.release(None));

    assert_eq!(now(store.delete()).unwrap().tokens, Some(tokens(2)));
    let state = RefreshState::builder(Auth::new().refresher()).store(dir.store()).build();
    now(state.set(tokens(9))).unwrap();
    assert_eq!(now(dir.store().load()).unwrap().tokens, Some(tokens(9)));
    now(state.clear()).unwrap();
    assert_eq!(now(dir.store().load()).unwrap().tokens, None);
}

/// The file is replaced, the locks are not.
#[tokio::test]
async fn locks_stay() {
    let dir = Dir::signed_in().await;
    let inode = |ending| fs::metadata(dir.beside(ending)).unwrap().ino();
    lease(&dir.store()).await.release(None).await;
    let before = (inode(".lease"), inode(".lock"));
    dir.store().save(generation(1), record(2)).await.unwrap();
    dir.store().delete().await.unwrap();
    lease(&dir.store()).await.release(None).await;
    assert_eq!((inode(".lease"), inode(".lock")), before);
}
