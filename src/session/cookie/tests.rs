use super::*;

fn headers(fields: &[&[u8]]) -> HeaderMap {
    let value = |field: &&[u8]| HeaderValue::from_bytes(field).unwrap();
    fields.iter().map(|field| (COOKIE, value(field))).collect()
}

fn found(cookie: &SessionCookie, fields: &[&[u8]]) -> Vec<String> {
    cookie.ids(&headers(fields)).map(|id| id.expose().to_owned()).collect()
}

fn ids() -> (String, String) {
    let id = || SessionId::random().unwrap().expose().to_owned();
    (id(), id())
}

#[test]
fn it_is_set_and_cleared_with_the_same_attributes() {
    let id = SessionId::random().unwrap();
    for (cookie, name, attributes) in [
        (
            SessionCookie::host("sid").unwrap(),
            "__Host-Http-sid",
            "; HttpOnly; Secure; SameSite=Lax; Path=/; Priority=High",
        ),
        (
            SessionCookie::host("sid").unwrap().strict(),
            "__Host-Http-sid",
            "; HttpOnly; Secure; SameSite=Strict; Path=/; Priority=High",
        ),
        (
            SessionCookie::insecure_for_development("sid").unwrap(),
            "sid",
            "; HttpOnly; SameSite=Lax; Path=/; Priority=High",
        ),
    ] {
        assert_eq!(cookie.name(), name);
        let set = cookie.set(&id);
        assert_eq!(set, format!("{name}={}{attributes}", id.expose()));
        assert!(set.is_sensitive());
        assert_eq!(cookie.clear(), format!("{name}={attributes}; Max-Age=0"));
    }
}

#[test]
fn a_name_that_needs_quotes_is_refused() {
    for name in ["", "a b", "a=b", "a;b", "ä", "a\n", "__Host-sid", &"a".repeat(65)] {
        assert!(SessionCookie::host(name).is_err(), "{name}");
        assert!(SessionCookie::insecure_for_development(name).is_err(), "{name}");
    }
}

/// HTTP/2 sends each cookie as a field of its own; a twin with another path comes first; another
/// program's cookie is no text.
#[test]
fn it_is_found_among_all_others() {
    let (cookie, (one, other)) = (SessionCookie::host("sid").unwrap(), ids());
    let ours = format!("__Host-Http-sid={one}");
    let twin = format!("__Host-Http-sid={other}");
    let both = [one.clone(), other.clone()];
    assert_eq!(found(&cookie, &[ours.as_bytes()]), both[..1]);
    assert_eq!(found(&cookie, &[b"a=1", ours.as_bytes(), b"b=2"]), both[..1]);
    assert_eq!(found(&cookie, &[ours.as_bytes(), twin.as_bytes()]), both);
    let line = format!("a=1; {ours};b=2;  {twin} ; c");
    assert_eq!(found(&cookie, &[line.as_bytes()]), both);
    let odd = [b"name=M\xfcller; ", ours.as_bytes(), b"; q=\"a; b\""].concat();
    assert_eq!(found(&cookie, &[&odd]), both[..1]);
}

#[test]
fn what_is_no_id_of_its_name_is_not_found() {
    let (cookie, (id, _)) = (SessionCookie::host("sid").unwrap(), ids());
    let no = |pair: String| assert!(found(&cookie, &[pair.as_bytes()]).is_empty(), "{pair}");
    no(format!("sid={id}"));
    no(format!("__host-http-sid={id}"));
    no(format!("x__Host-Http-sid={id}"));
    no(format!("__Host-Http-sid2={id}"));
    no(format!("a=__Host-Http-sid={id}"));
    no(format!("__Host-Http-sid=\"{id}\""));
    no("__Host-Http-sid=deleted".to_owned());
    no("__Host-Http-sid".to_owned());
}

/// Each costs a look at the store.
#[test]
fn no_more_than_four_are_looked_at() {
    let cookie = SessionCookie::host("sid").unwrap();
    let line = (0..100).map(|_| format!("__Host-Http-sid={}", ids().0));
    let line = line.collect::<Vec<_>>().join("; ");
    assert_eq!(found(&cookie, &[line.as_bytes()]).len(), 4);
    // Copies of one take no place.
    let (dead, lives) = ids();
    let copies = format!("__Host-Http-sid={dead}; ").repeat(5);
    let line = format!("{copies}__Host-Http-sid={lives}");
    assert_eq!(found(&cookie, &[line.as_bytes()]), [dead, lives]);
}

#[test]
fn it_goes_no_further_and_others_stay_as_they_are() {
    let (cookie, (one, other)) = (SessionCookie::host("sid").unwrap(), ids());
    let line = format!("a=1;b=\"x y\"; __Host-Http-sid={one}; c=M\u{fc}ller");
    let twin = format!("__Host-Http-sid={other}");
    let mut headers = headers(&[line.as_bytes(), b"d=4;e=5", twin.as_bytes()]);
    cookie.strip(&mut headers);
    let left: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(left, ["a=1; b=\"x y\"; c=M\u{fc}ller".as_bytes(), b"d=4;e=5"]);
    assert_eq!(cookie.ids(&headers).count(), 0);
}

/// What is found is stripped: the two read the same.
#[test]
fn nothing_that_is_found_is_left() {
    let cookie = SessionCookie::host("sid").unwrap();
    let pieces = ["__Host-Http-sid", "=", ";", " ", "\t", "a", "\"", ","];
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (id, _) = ids();
        let piece = |random: &mut fastrand::Rng| match random.usize(..9) {
            8 => id.clone(),
            number => pieces[number].to_owned(),
        };
        let line: String = (0..12).map(|_| piece(&mut random)).collect();
        let mut headers = headers(&[line.as_bytes()]);
        cookie.strip(&mut headers);
        assert_eq!(cookie.ids(&headers).count(), 0, "{line}");
    }
}

#[test]
fn a_server_behind_does_not_set_it() {
    let cookie = SessionCookie::host("sid").unwrap();
    let mut headers = HeaderMap::new();
    for field in [
        "a=1; Path=/",
        "__Host-Http-sid=theirs; Path=/",
        " = __Host-Http-sid=theirs; Path=/",
        "b=__Host-Http-sid=x",
    ] {
        headers.append(SET_COOKIE, HeaderValue::from_static(field));
    }
    cookie.strip_response(&mut headers);
    let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(left, ["a=1; Path=/", "b=__Host-Http-sid=x"]);
}
