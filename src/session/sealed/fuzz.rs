use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::COOKIE};

use super::{contents::Contents, cookies::Sealed};
use crate::{seal::Keyring, session::cookie::SessionCookie};

/// Whatever a browser brings as cookies, one field a line; and whatever a sealed one may say.
pub(crate) fn cookies(input: &[u8]) {
    let (sealed, cookie) = sealed();
    let lines = input.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers = values.map(|value| (COOKIE, value)).collect();
    // Without the key no browser can make one.
    assert!(sealed.take(&cookie, &mut headers).is_empty());
    says_the_same_again(input);
}

fn sealed() -> (Sealed, SessionCookie) {
    let cookie = SessionCookie::host("id").expect("a name").sealed();
    let keys = Keyring::new([1; 32]);
    let max_bytes = super::MAX_BYTES;
    (Sealed { keys, max_bytes, transit: Duration::ZERO, keeps_id_token: true }, cookie)
}

/// What is read, written down, is read the same; and so it is from the cookies that it was sealed into.
fn says_the_same_again(text: &[u8]) {
    let Some(read) = Contents::parse(text) else { return };
    let written = read.to_bytes();
    let again = Contents::parse(&written).expect("what was written here");
    assert!(is_same(&again, &read));

    let (sealed, cookie) = sealed();
    let Ok(set) = sealed.write_slot(&cookie, 0, &read) else { return };
    let pairs = set.iter().filter(|field| !field.as_bytes().ends_with(b"Max-Age=0"));
    let mut pairs: Vec<_> = pairs
        .map(|field| {
            field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().to_vec()
        })
        .collect();
    let shown = sealed.take(&cookie, &mut headers(&pairs));
    assert_eq!(shown.len(), 1);
    let shown = &shown[0];
    assert_eq!((shown.generation(), shown.begun), (read.generation, read.begun));
    assert_eq!(shown.tokens().as_ref(), Some(&read.tokens));

    // With one letter changed it is nothing.
    let last = pairs.last_mut().expect("one at least");
    let at = last.len() - 1 - read.begun as usize % 16;
    last[at] = if last[at] == b'A' { b'B' } else { b'A' };
    assert!(sealed.take(&cookie, &mut headers(&pairs)).is_empty());
}

fn is_same(one: &Contents, other: &Contents) -> bool {
    let numbers = |it: &Contents| (it.id, it.generation, it.begun, it.minted, it.written);
    numbers(one) == numbers(other) && one.tokens == other.tokens
}

fn headers(pairs: &[Vec<u8>]) -> HeaderMap {
    let values = pairs.iter().map(|pair| HeaderValue::from_bytes(pair).expect("letters"));
    values.map(|value| (COOKIE, value)).collect()
}
