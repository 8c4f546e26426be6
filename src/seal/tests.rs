//! Sealing, without the documents around it.

use std::error::Error;

use proptest::prelude::*;

use super::{BASE64_STANDARD, Engine, Keyring, NONCE};

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

fn reason(error: &dyn Error) -> String {
    error.source().unwrap().to_string()
}

#[test]
fn the_first_key_seals_and_all_open() {
    let sealed = Keyring::new(A).also_opens(B).seal(b"name", b"text").unwrap();
    for keys in [Keyring::new(A), Keyring::new(B).also_opens(A)] {
        assert_eq!(&**keys.open(b"name", &sealed).unwrap(), b"text");
    }
    let error = Keyring::new(B).open(b"name", &sealed).unwrap_err();
    assert!(reason(&error).starts_with("no key opens the record"), "{}", reason(&error));
}

#[test]
fn no_two_seals_are_alike() {
    let keys = Keyring::new(A);
    let (one, two) = (keys.seal(b"name", b"text").unwrap(), keys.seal(b"name", b"text").unwrap());
    let nonce = |sealed: &str| BASE64_STANDARD.decode(sealed).unwrap()[..NONCE].to_vec();
    assert_ne!(nonce(&one), nonce(&two));
}

#[test]
fn unsealed_records_are_refused_unless_allowed() {
    assert!(!Keyring::new(A).also_opens(B).allows_unsealed());
    assert!(Keyring::new(A).allow_unsealed().also_opens(B).allows_unsealed());
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?}", Keyring::new([0xab; 32]).also_opens([0xcd; 32]).allow_unsealed());
    assert_eq!(shown, "Keyring { keys: 2, unsealed: true }");
}

proptest! {
    #[test]
    fn what_is_sealed_opens(key: [u8; 32], name: Vec<u8>, text: Vec<u8>) {
        let keys = Keyring::new(key);
        let sealed = keys.seal(&name, &text).unwrap();
        prop_assert_eq!(&**keys.open(&name, &sealed).unwrap(), &text);
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
        let tampered = BASE64_STANDARD.encode(flipped(&BASE64_STANDARD.decode(&sealed).unwrap()));
        prop_assert!(keys.open(&name, &tampered).is_err());
        prop_assert!(keys.open(&flipped(&name), &sealed).is_err());
        let other: [u8; 32] = flipped(&key).try_into().unwrap();
        prop_assert!(Keyring::new(other).open(&name, &sealed).is_err());
    }

    #[test]
    fn nothing_else_opens_or_panics(sealed in "\\PC*|[A-Za-z0-9+/]{0,200}=?") {
        prop_assert!(Keyring::new(A).open(b"name", &sealed).is_err());
    }
}
