//! What is copied comes back whole, and nothing of it stays behind.

use super::*;

#[test]
fn comes_back_whole() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);
    let mut secret = HeaderValue::from_static("hush");
    secret.set_sensitive(true);
    let request = Request::builder()
        .method("PROPFIND")
        .uri("https://user@example.com:8443/a/b?c=d")
        .version(Version::HTTP_2)
        .header("accept", "text/html")
        .header("x-many", "one")
        .header("x-many", "two")
        .header("cookie", secret)
        .header("x-many", "three")
        .header("x-empty", "")
        .header("x-opaque", HeaderValue::from_bytes(b"\xff\xfe").unwrap())
        .extension(Mark(7))
        .body(())
        .unwrap();
    let (before, ()) = request.into_parts();
    let after = Head::save(&before, None).unwrap().restore(None);

    assert_eq!(before.method, after.method);
    assert_eq!(before.uri, after.uri);
    assert_eq!(before.version, after.version);
    assert_eq!(after.extensions.get::<Mark>(), Some(&Mark(7)));
    let list = |parts: &Parts| {
        let one = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.clone(), value.clone(), value.is_sensitive())
        };
        parts.headers.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(list(&before), list(&after));
}

/// Whether it was alone there, and is not copied, or not; and none comes there that was not.
#[test]
fn a_requests_own_credential_comes_back_with_its_extensions() {
    let state = RefreshState::builder(async |_| panic!("nothing is refreshed here")).build();
    for with_another in [false, true] {
        for with_state in [false, true] {
            let mut request = Request::new(());
            if with_state {
                request.extensions_mut().insert(Arc::clone(&state));
            }
            if with_another {
                request.extensions_mut().insert(7_u8);
            }
            let (before, ()) = request.into_parts();
            let after = Head::save(&before, Some(&state)).unwrap().restore(Some(&state));
            let found = after.extensions.get::<Arc<RefreshState>>();
            assert_eq!(found.is_some_and(|found| Arc::ptr_eq(found, &state)), with_state);
            assert_eq!(after.extensions.get::<u8>().is_some(), with_another);
            assert_eq!(after.extensions.len(), before.extensions.len());
        }
    }
}

#[test]
fn nothing_of_one_request_comes_back_with_the_next() {
    let with = |name: &'static str| {
        let request = Request::builder().header(name, "value").body(()).unwrap();
        request.into_parts().0
    };
    drop(Head::save(&with("x-first"), None));
    let first = Head::save(&with("x-second"), None).unwrap();
    // Two at once, and one after the other, all on one thread.
    let second = Head::save(&with("x-third"), None).unwrap();
    assert_eq!(first.restore(None).headers, with("x-second").headers);
    assert_eq!(second.restore(None).headers, with("x-third").headers);
}

fn contains(head: &Head, text: &str) -> bool {
    let bytes = &head.headers.bytes;
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Marked or not: nothing but zeros is left for the thread's next request.
#[test]
fn what_a_caller_has_sent_is_wiped_when_the_request_is_done() {
    let request = Request::builder()
        .header("cookie", "session=hush")
        .header("proxy-authorization", "Basic hush")
        .header("x-api-key", "hush")
        .header("accept", "text/html");
    let parts = request.body(()).unwrap().into_parts().0;
    let restored = |head: Head| assert_eq!(head.restore(None).headers, parts.headers);
    for end in [&restored as &dyn Fn(Head), &drop] {
        let head = Head::save(&parts, None).unwrap();
        assert!(contains(&head, "session=hush"));
        assert_eq!(spare(), None);
        end(head);
        let (length, zero) = spare().unwrap();
        assert!(length > 0 && zero);
    }
}

#[test]
fn a_block_that_is_too_short_is_wiped_before_it_is_given_up() {
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("hush"));
    headers.insert("x-long", HeaderValue::from_static("a value that does not fit"));
    let mut block = Block { bytes: vec![0; 40], used: 0 };
    assert!(block.write(&headers).is_none());
    assert!(block.bytes.windows(4).any(|bytes| bytes == b"hush"));
    block.wipe();
    assert!(block.bytes.iter().all(|byte| *byte == 0));

    // And a head that is longer than the one before comes back whole.
    let short = Request::builder().header("a", "b").body(()).unwrap().into_parts().0;
    let mut long = short.clone();
    long.headers.extend(headers);
    drop(Head::save(&short, None));
    let first = spare().unwrap().0;
    let head = Head::save(&long, None).unwrap();
    assert_eq!(head.restore(None).headers, long.headers);
    assert!(spare().unwrap().0 > first);
}

#[test]
fn a_long_block_is_not_kept() {
    let long = Request::builder().header("x-long", "x".repeat(MAX_SPARE));
    drop(Head::save(&long.body(()).unwrap().into_parts().0, None));
    assert_eq!(spare(), None);
}

/// It is the first attempt's token, and the replay carries another.
#[test]
fn the_token_is_not_copied() {
    let request = Request::builder().header("accept", "a").header("authorization", "Bearer t");
    let head = Head::save(&request.body(()).unwrap().into_parts().0, None).unwrap();
    assert!(!contains(&head, "Bearer"));
    let headers = head.restore(None).headers;
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
}

#[test]
fn odd_uris_come_back() {
    for (method, uri) in
        [("OPTIONS", "*"), ("CONNECT", "example.com:443"), ("GET", "/"), ("GET", "/?q")]
    {
        let (before, ()) =
            Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        assert_eq!(Head::save(&before, None).unwrap().restore(None).uri, before.uri);
    }
}

#[test]
fn a_name_too_long_to_note_is_not_saved_wrong() {
    let longest = "x".repeat(u16::MAX as usize);
    let Ok(name) = HeaderName::try_from(longest) else { return };
    let (parts, ()) = Request::builder().header(name, "v").body(()).unwrap().into_parts();
    assert!(
        Head::save(&parts, None).is_none_or(|head| head.restore(None).headers == parts.headers)
    );
}
