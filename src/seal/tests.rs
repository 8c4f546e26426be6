//! Sealing, without the documents around it.

use proptest::prelude::*;

use super::{BASE64_URL_SAFE_NO_PAD, Engine, Keyring, NONCE_LEN, SealErrorKind};

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

fn decoded(sealed: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(sealed).unwrap()
}

fn refused(keys: &Keyring, name: &str, sealed: &str) -> SealErrorKind {
    keys.open(name, sealed).unwrap_err().kind()
}

#[test]
fn the_first_key_seals_and_all_open() {
    let sealed = Keyring::new(A).also_opens(B).seal("name", "text").unwrap();
    for keys in [Keyring::new(A), Keyring::new(B).also_opens(A)] {
        assert_eq!(&*keys.open("name", &sealed).unwrap(), b"text");
    }
    assert_eq!(refused(&Keyring::new(B), "name", &sealed), SealErrorKind::NoKeyOpens);
}

/// A key that is given to one clone is not the other's.
#[test]
fn clones_do_not_learn_of_each_others_keys() {
    let one = Keyring::new(A);
    let two = one.clone().also_opens(B);
    let sealed = Keyring::new(B).seal("name", "text").unwrap();
    assert!(two.open("name", &sealed).is_ok());
    assert_eq!(refused(&one, "name", &sealed), SealErrorKind::NoKeyOpens);
}

#[test]
fn no_two_seals_are_alike() {
    let keys = Keyring::new(A);
    let (one, two) = (keys.seal("name", "text").unwrap(), keys.seal("name", "text").unwrap());
    let nonce = |sealed: &str| decoded(sealed)[..NONCE_LEN].to_vec();
    assert_ne!(nonce(&one), nonce(&two));
}

/// What a program has sealed would otherwise be a record in a store that it can write to, and
/// a record would open for a program that asks under the right name.
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
#[test]
fn a_purpose_is_part_of_the_seal() {
    use super::Purpose;
    let keys = Keyring::new(A);
    let record = keys.encrypt(Purpose::Record, b"1 5 alice", b"text").unwrap();
    assert_eq!(&*keys.decrypt(Purpose::Record, b"1 5 alice", &record).unwrap(), b"text");
    let mine = decoded(&keys.seal("1 5 alice", "text").unwrap());
    // Each label in turn as the beginning of the name, too.
    for begin in ["", Purpose::Record.label(), Purpose::Users.label()] {
        let name = format!("{begin}1 5 alice");
        let record = BASE64_URL_SAFE_NO_PAD.encode(&record);
        assert_eq!(refused(&keys, &name, &record), SealErrorKind::NoKeyOpens, "{name}");
        let opened = keys.decrypt(Purpose::Record, name.as_bytes(), &mine);
        assert_eq!(opened.unwrap_err().kind(), SealErrorKind::NoKeyOpens, "{name}");
    }
    let labels = (Purpose::Record.label(), Purpose::Users.label());
    assert!(!labels.0.starts_with(labels.1) && !labels.1.starts_with(labels.0));
}

/// The alphabet of cookies, URLs and headers.
#[test]
fn a_sealed_text_needs_no_quotes() {
    for length in 0..10 {
        let sealed = Keyring::new(A).seal("name", vec![0xff; length]).unwrap();
        assert_eq!(sealed.len(), ((NONCE_LEN + 16 + length) * 4).div_ceil(3));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(sealed.bytes().all(plain), "{sealed}");
    }
}

#[test]
fn what_is_no_sealed_text_is_told_apart() {
    let keys = Keyring::new(A);
    let short = BASE64_URL_SAFE_NO_PAD.encode([7; NONCE_LEN - 1]);
    let padded = keys.seal("name", "").unwrap() + "==";
    for malformed in ["", "?", "a b", &short, &padded] {
        assert_eq!(refused(&keys, "name", malformed), SealErrorKind::Malformed, "{malformed}");
    }
    let other = BASE64_URL_SAFE_NO_PAD.encode([7; NONCE_LEN]);
    assert_eq!(refused(&keys, "name", &other), SealErrorKind::NoKeyOpens);
}

#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
#[test]
fn unsealed_records_are_refused_unless_allowed() {
    assert!(!Keyring::new(A).also_opens(B).allows_unsealed());
    assert!(Keyring::new(A).allow_unsealed().also_opens(B).allows_unsealed());
}

#[test]
fn neither_keys_nor_texts_are_shown() {
    let keys = Keyring::new([0xab; 32]).also_opens([0xcd; 32]).allow_unsealed();
    assert_eq!(format!("{keys:?}"), "Keyring { keys: 2, unsealed: true }");
    let sealed = keys.seal("name", "text").unwrap();
    assert_eq!(format!("{:?}", keys.open("name", &sealed).unwrap()), "Plaintext([redacted])");
    let error = keys.open("nome", &sealed).unwrap_err();
    assert_eq!(format!("{error:?}"), "SealError(NoKeyOpens)");
}

proptest! {
    #[test]
    fn what_is_sealed_opens(key: [u8; 32], name: Vec<u8>, text: Vec<u8>) {
        let keys = Keyring::new(key);
        let sealed = keys.seal(&name, &text).unwrap();
        prop_assert_eq!(&*keys.open(&name, &sealed).unwrap(), &*text);
    }

    /// One bit is enough: of the nonce, the text, the tag, the name or the key.
    #[test]
    fn what_was_changed_does_not(
        key: [u8; 32],
        name in prop::collection::vec(any::<u8>(), 1..20),
        text: Vec<u8>,
        at: prop::sample::Index,
        bit in 0..8,
    ) {
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes
        };
        let keys = Keyring::new(key);
        let sealed = keys.seal(&name, &text).unwrap();
        let tampered = BASE64_URL_SAFE_NO_PAD.encode(flipped(&decoded(&sealed)));
        prop_assert!(keys.open(&name, &tampered).is_err());
        prop_assert!(keys.open(flipped(&name), &sealed).is_err());
        let other: [u8; 32] = flipped(&key).try_into().unwrap();
        prop_assert!(Keyring::new(other).open(&name, &sealed).is_err());
    }

    #[test]
    fn nothing_else_opens_or_panics(sealed in "\\PC*|[A-Za-z0-9_-]{0,200}=?") {
        prop_assert!(Keyring::new(A).open("name", &sealed).is_err());
    }
}
