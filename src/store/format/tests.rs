//! Documents: round trips, what other programs may have written, and no secret in an error.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::{
    BASE64_STANDARD, Engine, Format, Generation, Keyring, Purpose, Record, StoreError, Tokens,
};

const KEY: [u8; 32] = [1; 32];

fn plain() -> Format {
    Format::new("name", None)
}

fn sealed() -> Format {
    Format::new("name", Some(Keyring::new(KEY)))
}

fn read(format: &Format, text: &[u8]) -> Result<Record, StoreError> {
    format.open(format.parse(text)?)
}

/// All that an error says, with its sources, in both languages.
fn said(error: &StoreError) -> String {
    let (mut said, mut next) = (format!("{error} {error:?}"), error.source());
    while let Some(error) = next {
        said += &format!(" {error} {error:?}");
        next = error.source();
    }
    said
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn document(text: &str) -> Result<Record, StoreError> {
    read(&plain(), text.as_bytes())
}

#[test]
fn documents_are_as_they_are_described() {
    let tokens = Tokens::new("a")
        .with_refresh_token("r")
        .with_expires_at(at(1_790_000_000_000))
        .with_extra("scope", "x y");
    let record = Record::new(Generation::new(5), tokens);
    let text = plain().write(&record, None).unwrap();
    assert_eq!(
        std::str::from_utf8(&text).unwrap(),
        r#"{"version":1,"generation":5,"tokens":{"access_token":"a","refresh_token":"r","expires_at_ms":1790000000000,"extra":{"scope":"x y"}}}"#
    );
    assert_eq!(text.capacity(), text.len(), "it grew, and what it grew out of was not wiped");
    let out = plain().write(&Record::new(Generation::new(6), None), None).unwrap();
    assert_eq!(&**out, br#"{"version":1,"generation":6}"#);
    assert_eq!(sealed().write(&Record::new(Generation::new(6), None), None).unwrap(), out);
    assert_eq!(document(r#"{"version":1,"generation":6}"#).unwrap().tokens, None);
}

/// As a person or another version may write it.
#[test]
fn spaces_order_and_unknown_fields_do_not_matter() {
    let read = document(
        r#" { "tokens": { "new": [1], "refresh_token": null, "access_token": "\u00e9\n" },
              "generation": 5, "hint": {"x": "y"}, "version": 1 } "#,
    );
    assert_eq!(read.unwrap(), Record::new(Generation::new(5), Tokens::new("\u{e9}\n")));
}

#[test]
fn a_record_is_sealed_or_not() {
    let both = r#"{"version":1,"generation":5,"tokens":{"access_token":"a"},"sealed":"x"}"#;
    assert!(said(&document(both).unwrap_err()).contains("both sealed and not"));
}

#[test]
fn a_later_version_is_told_apart_from_damage() {
    let later = |version| format!(r#"{{"version":{version},"generation":"five"}}"#);
    let error = document(&later("2")).unwrap_err();
    assert!(said(&error).contains("the record has format 2, and this program knows 1"));
    assert!(said(&document(&later("0")).unwrap_err()).contains("format 0"));
    assert!(said(&document(&later("1")).unwrap_err()).contains("damaged at line 1"));
    assert!(said(&document(r#"{"generation":5}"#).unwrap_err()).contains("damaged"));
    let last = |generation| document(&format!(r#"{{"version":1,"generation":{generation}}}"#));
    assert!(last(i64::MAX as u64).is_ok());
    assert!(said(&last(i64::MAX as u64 + 1).unwrap_err()).contains("damaged"));
}

#[test]
fn moments_are_kept_to_the_millisecond() {
    let expires = |time| {
        let record = Record::new(Generation::ZERO, Tokens::new("a").with_expires_at(time));
        read(&plain(), &plain().write(&record, None).unwrap()).unwrap().tokens.unwrap().expires_at()
    };
    assert_eq!(expires(at(17)), Some(at(17)));
    assert_eq!(expires(at(17) + Duration::from_nanos(999_999)), Some(at(17)));
    assert_eq!(expires(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), Some(at(0)));
    let text = format!(
        r#"{{"version":1,"generation":5,"tokens":{{"access_token":"a","expires_at_ms":{}}}}}"#,
        u64::MAX
    );
    // Whether or not this system's clock goes so far.
    assert_eq!(document(&text).unwrap().tokens.unwrap().access_token(), "a");
}

/// One that was written before programs could seal with the same keys: files and Redis are
/// full of them.
#[test]
fn a_sealed_record_of_old_opens() {
    let old = concat!(
        r#"{"version":1,"generation":5,"sealed":"coxnOs83cp0ZD6NAZffbdMTmC8bJPUy2gA55OM5uJtea"#,
        "hwc4b/SazBZd1u79W4oBlTgZSoRlXwAHO8ARDqyl8lppwWcw3g0In1/hiVZEhirXx+dmUHrpxQTMG4cHyO0Q",
        r#"TTcA0+DprWZmkv/Cy2boXEPodnWGSOEugEWhEqHzgkU5CKvX"}"#,
    );
    let format = Format::new("alice.json", Some(Keyring::new(KEY)));
    let tokens = Tokens::new("an access token")
        .with_refresh_token("a refresh token")
        .with_extra("scope", "x y");
    assert_eq!(read(&format, old.as_bytes()).unwrap(), Record::new(Generation::new(5), tokens));
}

/// Who takes a record, and who does not.
#[test]
fn names_and_keys() {
    let record = Record::new(Generation::new(5), Tokens::new("a"));
    let written = sealed().write(&record, None).unwrap();
    let reason = |format: Format| said(&read(&format, &written).unwrap_err());
    assert_eq!(read(&sealed(), &written).unwrap(), record);
    assert!(reason(plain()).contains("no key was given"));
    let other = Format::new("nome", Some(Keyring::new(KEY)));
    assert!(reason(other).contains("no key opens the record"));
    let later = String::from_utf8(written.to_vec()).unwrap().replace(":5,", ":6,");
    assert!(read(&sealed(), later.as_bytes()).is_err());

    let unsealed = plain().write(&record, None).unwrap();
    let strict = said(&read(&sealed(), &unsealed).unwrap_err());
    assert!(strict.contains("the record is not sealed"), "{strict}");
    let moving = Format::new("name", Some(Keyring::new(KEY).allow_unsealed()));
    assert_eq!(read(&moving, &unsealed).unwrap(), record);
    // The number is known to all.
    assert_eq!(plain().parse(&written).unwrap().generation(), Generation::new(5));
}

/// What is sealed may be damaged inside, too: by a program with the same key.
#[test]
fn what_was_sealed_is_checked() {
    let format = sealed();
    let keys = Keyring::new(KEY);
    for inside in ["", "SECRET", r#"{"access_token":7}"#, r#"{"SECRET":"SECRET"}"#] {
        let sealed = keys.encrypt(Purpose::Record, &format.bound_to(5), inside.as_bytes());
        let sealed = BASE64_STANDARD.encode(sealed.unwrap());
        let text = format!(r#"{{"version":1,"generation":5,"sealed":"{sealed}"}}"#);
        let error = read(&format, text.as_bytes()).unwrap_err();
        assert!(said(&error).contains("the record is"), "{}", said(&error));
        assert!(!said(&error).contains("SECRET"), "{}", said(&error));
    }
}

fn any_tokens() -> impl Strategy<Value = Tokens> {
    // Every character, and those that JSON escapes more often.
    let text = || {
        prop_oneof![
            any::<String>(),
            "[\"\\\\\u{0}-\u{1f}\u{7f}\u{2028}\u{d7ff}\u{1f511}a]{0,20}".prop_map(String::from),
            prop::collection::vec(any::<char>(), 0..10).prop_map(String::from_iter),
        ]
    };
    let extras = prop::collection::btree_map(text(), text(), 0..4);
    let millis = prop::option::of(0..4_000_000_000_000_u64);
    (text(), prop::option::of(text()), millis, extras).prop_map(
        |(access, refresh, millis, extras)| {
            let tokens = Tokens::new(access);
            let tokens = refresh.into_iter().fold(tokens, Tokens::with_refresh_token);
            let tokens = millis.map(at).into_iter().fold(tokens, Tokens::with_expires_at);
            extras.into_iter().fold(tokens, |tokens, (name, value)| tokens.with_extra(name, value))
        },
    )
}

/// A document with the secret where it does not belong.
fn misplaced() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        r#""SECRET""#,
        r#"["SECRET"]"#,
        r#"{"SECRET":"SECRET"}"#,
        "SECRET",
        r#""SECRET"#,
        r#""SECRET\q""#,
        r#"{"access_token":"SECRET"}"#,
        "7",
        "null",
    ]);
    let fields =
        ["version", "generation", "tokens", "sealed", "SECRET", "access_token", "expires_at_ms"];
    let fields = prop::collection::vec((prop::sample::select(fields.to_vec()), value), 0..5);
    (any::<bool>(), fields, 0..200_usize).prop_map(|(versioned, fields, cut)| {
        let begin = versioned.then(|| r#""version":1"#.to_owned());
        let fields = fields.iter().map(|(name, value)| format!(r#""{name}":{value}"#));
        let fields: Vec<_> = begin.into_iter().chain(fields).collect();
        let text = format!("{{{}}}", fields.join(","));
        text[..cut.min(text.len())].to_owned()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        generation in ..=i64::MAX as u64,
        tokens in prop::option::of(any_tokens()),
        name: String,
    ) {
        let record = Record::new(Generation::new(generation), tokens);
        for keys in [None, Some(Keyring::new(KEY))] {
            let format = Format::new(&*name, keys);
            let text = format.write(&record, None).unwrap();
            prop_assert_eq!(read(&format, &text).unwrap(), record.clone());
            prop_assert!(!text.contains(&b'\n'));
            // And nothing that is cut short.
            for end in 0..text.len() {
                prop_assert!(read(&format, &text[..end]).is_err());
            }
        }
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>) {
        let _ = read(&plain(), &bytes);
        let _ = read(&sealed(), &bytes);
    }

    #[test]
    fn nothing_that_is_nearly_a_document_panics(
        tokens in any_tokens(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let record = Record::new(Generation::new(5), tokens);
        for format in [plain(), sealed()] {
            let mut text = format.write(&record, None).unwrap().to_vec();
            for (at, byte) in &changes {
                let at = at.index(text.len());
                text[at] = *byte;
            }
            let _ = read(&format, &text);
        }
    }

    #[test]
    fn no_error_tells_a_secret(text in misplaced()) {
        for format in [plain(), sealed()] {
            if let Err(error) = read(&format, text.as_bytes()) {
                prop_assert!(!said(&error).contains("SECRET"), "{}", said(&error));
            }
        }
    }
}
