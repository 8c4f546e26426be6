//! Records under keys.

use std::fs;

use tower_refresh::store::{FileStore, FileStores, Keyring, SaveError, TokenStore};

use super::{Dir, assert_says, generation, lease, record};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn sealed(dir: &Dir, keys: Keyring) -> FileStore {
    dir.store().sealed(keys)
}

#[tokio::test]
async fn nothing_of_the_tokens_can_be_read() {
    let dir = Dir::new();
    let store = sealed(&dir, Keyring::new(OLD));
    store.save(generation(0), record(1)).await.unwrap();
    assert!(!dir.text().contains("access") && !dir.text().contains("refresh-1"), "{}", dir.text());
    assert!(dir.text().starts_with(r#"{"version":1,"generation":1,"sealed":""#));
    assert_eq!(store.load().await.unwrap(), record(1));
    assert_says(&dir.store().load().await.unwrap_err(), &["no key was given", "tokens.json"]);
    assert_eq!(format!("{store:?}"), format!("FileStore({:?})", dir.file));
}

#[tokio::test]
async fn keys_rotate_without_losing_a_session() {
    let dir = Dir::new();
    let (old, new) = (|| Keyring::new(OLD), || Keyring::new(NEW));
    sealed(&dir, old()).save(generation(0), record(1)).await.unwrap();
    // All learn the new key first, and go on with the old one.
    let learning = sealed(&dir, old().also_opens(NEW));
    learning.save(generation(1), record(2)).await.unwrap();
    assert_eq!(sealed(&dir, old()).load().await.unwrap(), record(2));
    // Then it seals.
    let rotated = sealed(&dir, new().also_opens(OLD));
    assert_eq!(rotated.load().await.unwrap(), record(2));
    rotated.save(generation(2), record(3)).await.unwrap();
    assert_eq!(learning.load().await.unwrap(), record(3));
    assert_eq!(sealed(&dir, new()).load().await.unwrap(), record(3));
    let error = sealed(&dir, old()).load().await.unwrap_err();
    assert_says(&error, &["could not read", "tokens.json", "no key opens the record"]);
}

/// Alice's record in Bob's place would make him Alice.
#[tokio::test]
async fn records_cannot_be_swapped() {
    let dir = Dir::new();
    let of = |name| {
        FileStores::open(dir.folder()).unwrap().try_store(name).unwrap().sealed(Keyring::new(OLD))
    };
    let (alice, bob) = (of("alice"), of("bob"));
    alice.save(generation(0), record(1)).await.unwrap();
    bob.save(generation(0), record(1)).await.unwrap();
    let file = |name| dir.folder().join(name);
    fs::copy(file("alice.json"), file("bob.json")).unwrap();
    assert_says(&bob.load().await.unwrap_err(), &["moved here from another name"]);
    // Nor by a link.
    fs::remove_file(file("bob.json")).unwrap();
    std::os::unix::fs::symlink(file("alice.json"), file("bob.json")).unwrap();
    assert_says(&bob.load().await.unwrap_err(), &["moved here from another name"]);
    // The folder may be moved, and the file be named directly.
    dir.hide();
    let moved = dir.temp.path().join("elsewhere/alice.json");
    let moved = FileStore::open(moved).unwrap().sealed(Keyring::new(OLD));
    assert_eq!(moved.load().await.unwrap(), record(1));
}

#[tokio::test]
async fn a_sealed_record_is_bound_to_its_generation() {
    let dir = Dir::new();
    let store = sealed(&dir, Keyring::new(OLD));
    store.save(generation(0), record(1)).await.unwrap();
    let later = dir.text().replace(r#""generation":1"#, r#""generation":7"#);
    fs::write(&dir.file, later).unwrap();
    assert_says(&store.load().await.unwrap_err(), &["no key opens the record"]);
}

/// Every byte of it, changed.
#[tokio::test]
async fn what_was_tampered_with_does_not_open() {
    let dir = Dir::new();
    let store = sealed(&dir, Keyring::new(OLD));
    store.save(generation(0), record(1)).await.unwrap();
    let whole = dir.text();
    let begin = whole.find(r#""sealed":""#).unwrap() + 10;
    let end = whole.rfind('"').unwrap();
    for at in begin..end {
        let mut text = whole.clone().into_bytes();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        fs::write(&dir.file, text).unwrap();
        assert_says(&store.load().await.unwrap_err(), &["could not read"]);
    }
    fs::write(&dir.file, format!("{}\"}}", &whole[..begin + 20])).unwrap();
    assert_says(&store.load().await.unwrap_err(), &["the sealed record is damaged"]);
}

#[tokio::test]
async fn what_is_not_sealed_is_refused_unless_it_is_allowed() {
    let dir = Dir::signed_in().await;
    let strict = sealed(&dir, Keyring::new(OLD));
    assert_says(&strict.load().await.unwrap_err(), &["the record is not sealed", "tokens.json"]);
    let moving = sealed(&dir, Keyring::new(OLD).allow_unsealed());
    assert_eq!(moving.load().await.unwrap(), record(1));
    moving.save(generation(1), record(2)).await.unwrap();
    assert_eq!(strict.load().await.unwrap(), record(2));
    // A sign-out has nothing to seal.
    moving.delete().await.unwrap();
    assert_eq!(strict.load().await.unwrap().tokens, None);
}

/// A user whose key is lost can still sign out, and in again.
#[tokio::test]
async fn a_record_that_does_not_open_can_be_deleted() {
    for other in [Some(Keyring::new(NEW)), None] {
        let dir = Dir::new();
        sealed(&dir, Keyring::new(OLD)).save(generation(0), record(1)).await.unwrap();
        let store = match other {
            Some(keys) => sealed(&dir, keys),
            None => dir.store(),
        };
        let deleted = store.delete().await.unwrap();
        assert_eq!((deleted.generation, deleted.tokens), (generation(2), None));
        store.save(generation(2), record(3)).await.unwrap();
        assert_eq!(store.load().await.unwrap(), record(3));
    }
}

/// The numbers of generations are known without a key.
#[tokio::test]
async fn races_need_no_key() {
    let dir = Dir::new();
    sealed(&dir, Keyring::new(OLD)).save(generation(0), record(1)).await.unwrap();
    let other = sealed(&dir, Keyring::new(NEW));
    let late = other.save(generation(0), record(1)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    fs::write(dir.beside(".lease"), "torn").unwrap();
    assert_eq!(lease(&other).await.open_redeem().unwrap().generation, generation(1));
}
