use super::*;

/// Whatever lies in a store under a credential's name, in the clear or sealed.
pub(crate) fn records(document: &[u8]) {
    let open = Format::new("alice", None);
    let sealed = Format::new("alice", Some(Keyring::new([1; 32])));
    // As long as no key was at work, a record is read that the document shows, and written the same.
    if let Some(record) = read(&open, document) {
        let again = open.write(&record, None);
        if let Ok(again) = again {
            assert!(read(&open, &again).is_some_and(|again| again.is_same_in_all(&record)));
        }
        shows(&record, document);
        seals(&sealed, &record);
    }
    if let Ok(written) = open.parse(document) {
        let (generation, holds) = (written.generation(), written.holds_tokens());
        let moved = written.ending_at(7).unwrap();
        let moved = open.parse(&moved).unwrap();
        assert_eq!((moved.generation(), moved.holds_tokens()), (generation, holds));
        assert_eq!(moved.ends_at_ms(), Some(7));
        assert_eq!(open.read(generation, Some(document)).is_ok(), read(&open, document).is_some());
        assert!(open.read(generation.next(), Some(document)).is_err());
    }
    // Without the key nothing can be made that opens.
    assert!(read(&sealed, document).is_none_or(|record| record.tokens.is_none()));
    // And a process that has it may have sealed anything.
    sealed_anything(&sealed, document);
}

fn read(format: &Format, document: &[u8]) -> Option<Record> {
    format.open(format.parse(document).ok()?).ok()
}

/// What is read stands in the document, where nothing in it is written in another way.
fn shows(record: &Record, document: &[u8]) {
    let Ok(text) = std::str::from_utf8(document) else { return };
    if let Some(tokens) = record.tokens.as_ref().filter(|_| !text.contains('\\')) {
        assert!(text.contains(tokens.access_token()));
        assert!(text.contains(tokens.refresh_token().unwrap_or_default()));
        assert!(tokens.extras().all(|(name, value)| text.contains(name) && text.contains(value)));
    }
}

/// Sealed, it opens as the same under its name and its generation, and under no other.
fn seals(format: &Format, record: &Record) {
    if record.tokens.is_none() {
        return;
    }
    let Ok(document) = format.write(record, None) else { return };
    assert!(read(format, &document).is_some_and(|opened| opened.is_same_in_all(record)));
    assert!(read(&Format::new("bob", format.keys.clone()), &document).is_none());
    let mut moved = format.parse(&document).unwrap();
    moved.0.generation ^= 1;
    assert!(format.open(moved).is_err());
    let mut changed = format.parse(&document).unwrap();
    let text = changed.0.sealed.as_mut().unwrap().to_mut();
    let at = record.generation.get() as usize % text.len();
    let other = if text[at..].starts_with('A') { "B" } else { "A" };
    text.replace_range(at..=at, other);
    assert!(format.open(changed).is_err());
}

fn sealed_anything(format: &Format, text: &[u8]) {
    let keys = format.keys.as_ref().unwrap();
    let sealed = keys.encrypt(Purpose::Record, &format.bound_to(5), text).unwrap();
    let sealed = Some(BASE64_STANDARD.encode(sealed).into());
    let document = Document { version: 1, generation: 5, ends_at_ms: None, tokens: None, sealed };
    if let Some(record) = read(format, &json(&document).unwrap()) {
        shows(&record, text);
        seals(format, &record);
    }
}
