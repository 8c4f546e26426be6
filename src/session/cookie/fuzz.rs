use super::*;

/// Whatever a browser brings as cookies, one field a line.
pub(crate) fn cookies(lines: &[u8]) {
    let host = || SessionCookie::host("id").expect("a name");
    for cookie in [host(), host().strict(), host().sealed()] {
        let headers = fields(lines);
        let ids: Vec<_> = cookie.ids(&headers).collect();
        for id in &ids {
            let id = id.expose().as_bytes();
            assert!(lines.windows(id.len()).any(|part| part == id), "an id that was not brought");
        }
        let (mut taken, mut pieces, mut stripped) =
            (headers.clone(), headers.clone(), headers.clone());
        let (names, beside) = cookie.take(&mut taken);
        for digest in &names {
            assert!(ids.iter().any(|id| id.digest() == *digest) || ids.len() == MAX_TWINS);
        }
        let _ = cookie.take_pieces(&mut pieces);
        cookie.strip(&mut stripped);
        assert!(taken == stripped && pieces == stripped, "one way leaves more than another");
        let ours = |headers: &HeaderMap| {
            let fields = headers.get_all(COOKIE).into_iter();
            fields.flat_map(|field| cookie.values(field.as_bytes())).count()
        };
        assert_eq!(ours(&stripped), 0);
        // The others stay as they are, in their order.
        let others = |headers: &HeaderMap| {
            let fields = headers.get_all(COOKIE).into_iter();
            let pairs = fields.flat_map(|field| pairs(field.as_bytes()));
            let others = pairs.filter(|pair| !pair.is_empty() && cookie.value_of(pair).is_none());
            others.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(others(&stripped), others(&headers));
        for id in ids.iter().chain(&beside) {
            comes_back(&cookie, id);
        }
    }
    sets_none_of_ours(lines);
}

fn fields(lines: &[u8]) -> HeaderMap {
    let lines = lines.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (COOKIE, value)).collect()
}

/// What a response sets is what the next request brings.
fn comes_back(cookie: &SessionCookie, id: &SessionId) {
    let set = cookie.set(id);
    let pair = set.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let mut headers = fields(pair);
    assert_eq!(cookie.take(&mut headers).0.as_slice(), [id.digest()]);
    assert!(headers.is_empty());
}

/// A server behind this one sets whatever it likes but the session.
fn sets_none_of_ours(lines: &[u8]) {
    let cookie = SessionCookie::host("id").expect("a name");
    let mut headers: HeaderMap =
        fields(lines).into_iter().map(|(_, value)| (SET_COOKIE, value)).collect();
    cookie.strip_response(&mut headers);
    for field in headers.get_all(SET_COOKIE) {
        // As a browser would send it back (RFC 6265, section 5.2).
        let pair = pairs(field.as_bytes()).next().unwrap_or_default();
        let mut sent_back = fields(pair.strip_prefix(b"=").unwrap_or(pair));
        let (names, beside) = cookie.take(&mut sent_back);
        assert!(names.is_empty() && beside.is_none());
    }
}
