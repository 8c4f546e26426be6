//! The parser by examples, against another parser, and against what was rendered.

use http_auth::ChallengeRef;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::*;

/// A challenge as it is meant.
#[derive(Clone, Debug, PartialEq)]
struct Meant {
    scheme: Vec<u8>,
    token68: Option<Vec<u8>>,
    params: Vec<(Vec<u8>, Vec<u8>)>,
}

fn parse(line: &[u8]) -> Vec<Meant> {
    let meant = |challenge: Challenge<'_>| Meant {
        scheme: challenge.scheme.to_vec(),
        token68: challenge.token68.map(<[u8]>::to_vec),
        params: challenge
            .params()
            .map(|(name, value)| (name.to_vec(), value.unescaped().collect()))
            .collect(),
    };
    Challenges::of(line).map(meant).collect()
}

fn of(scheme: &str, params: &[(&str, &str)]) -> Meant {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let params = params.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    Meant { scheme: bytes(scheme), token68: None, params }
}

fn opaque(scheme: &str, token: &str) -> Meant {
    Meant { token68: Some(token.as_bytes().to_vec()), ..of(scheme, &[]) }
}

#[test]
fn the_forms_of_the_grammar() {
    for (line, meant) in [
        ("", vec![]),
        (" , \t,", vec![]),
        ("Basic", vec![of("Basic", &[])]),
        ("Basic ", vec![of("Basic", &[])]),
        ("Basic, Bearer", vec![of("Basic", &[]), of("Bearer", &[])]),
        ("Basic\t,\tBearer", vec![of("Basic", &[]), of("Bearer", &[])]),
        ("Negotiate YII==", vec![opaque("Negotiate", "YII==")]),
        ("Negotiate YII=", vec![opaque("Negotiate", "YII=")]),
        ("Negotiate a-._~+/9", vec![opaque("Negotiate", "a-._~+/9")]),
        ("NTLM abc, Basic r=x", vec![opaque("NTLM", "abc"), of("Basic", &[("r", "x")])]),
        ("NTLM abc= , Basic", vec![opaque("NTLM", "abc="), of("Basic", &[])]),
        ("Basic abc=d", vec![of("Basic", &[("abc", "d")])]),
        ("Basic abc= d", vec![of("Basic", &[("abc", "d")])]),
        ("Basic realm \t=\t \"x\"", vec![of("Basic", &[("realm", "x")])]),
        ("Basic a=\"\"", vec![of("Basic", &[("a", "")])]),
        ("Basic a=\"b, Bearer c=d\"", vec![of("Basic", &[("a", "b, Bearer c=d")])]),
        (r#"Basic a="\"\\\d""#, vec![of("Basic", &[("a", "\"\\d")])]),
        ("Basic a=\"größer\"", vec![of("Basic", &[("a", "größer")])]),
        (", ,Basic   a=b,, c=d , ,", vec![of("Basic", &[("a", "b"), ("c", "d")])]),
        // The list of parameters may begin with an empty element.
        ("Basic , a=b", vec![of("Basic", &[("a", "b")])]),
        (
            "Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
            vec![
                of("Newauth", &[("realm", "apps"), ("type", "1"), ("title", "Login to \"apps\"")]),
                of("Basic", &[("realm", "simple")]),
            ],
        ),
        ("Basic a=b, Negotiate YII==, Bearer", {
            vec![of("Basic", &[("a", "b")]), opaque("Negotiate", "YII=="), of("Bearer", &[])]
        }),
    ] {
        assert_eq!(parse(line.as_bytes()), meant, "{line}");
    }
}

#[test]
fn what_cannot_be_parsed_ends_the_line() {
    let basic = || vec![of("Basic", &[("a", "b")])];
    for (line, meant) in [
        ("\"Basic\"", vec![]),
        ("=", vec![]),
        ("Basic \"a\"", vec![]),
        ("Basic abc def", vec![]),
        ("Basic a=b c=d", vec![]),
        ("Basic a=b\"c\"", vec![]),
        ("Basic a=\"b", vec![]),
        ("Basic a=\"b\\", vec![]),
        ("Basic a=\"b\\\"", vec![]),
        ("Basic a=\"b\nc\"", vec![]),
        ("Basic a=\"b\\\u{7f}\"", vec![]),
        ("Basic a=\"b\"c", vec![]),
        ("Basic a=,", vec![opaque("Basic", "a=")]),
        ("Basic a=b, c=, Bearer", vec![]),
        ("Basic a=b, c=\"d, Bearer", vec![]),
        ("Basic =", vec![]),
        ("Bäsic", vec![]),
        ("Basic a=ä", vec![]),
        // A scheme alone has no parameters.
        ("Basic,a=b", vec![of("Basic", &[])]),
        ("Basic a=b, @", basic()),
        ("Basic a=b, Bearer c=\"", basic()),
        ("Basic a=b, Bearer c=d e, Digest", basic()),
        ("Basic a=b, Negotiate ===, Digest", vec![]),
        // What is opaque has no parameters.
        ("NTLM abc, a=b", vec![opaque("NTLM", "abc")]),
    ] {
        assert_eq!(parse(line.as_bytes()), meant, "{line}");
    }
}

#[test]
fn nothing_is_copied() {
    let line = b"Basic a=b, Bearer error=\"invalid_\\token\", c=\"\xff, \\\" \", Negotiate YII==";
    let allocated = allocation_counter::measure(|| {
        let params = Challenges::of(line).flat_map(|challenge| challenge.params());
        assert!(params.filter(|(_, value)| value.is("invalid_token")).count() == 1);
    });
    assert_eq!(allocated.count_total, 0);
}

/// Half a mebibyte of what makes a parser look ahead, again and again: a parser that
/// went back for each would not come to the end.
#[test]
fn a_long_line_takes_no_longer_than_its_length() {
    let long = |piece: &str| piece.repeat((512 << 10) / piece.len());
    for (line, count) in [
        (long("a,"), 256 << 10),
        (long("a ,"), (512 << 10) / 3),
        (long(","), 0),
        (format!("a {}", long("b=c,")), 1),
        (format!("a {}", long("b=\"\\\"\",")), 1),
        (format!("a {}", long("b")), 1),
        (format!("a {}", long("=")), 0),
        (format!("a b=\"{}", long("\\\"")), 0),
        (long("a b=c,"), (512 << 10) / 6),
    ] {
        assert_eq!(parse(line.as_bytes()).len(), count, "{}", &line[..20]);
    }
}

/// What another parser makes of it; it knows no token68 and ASCII only.
fn reference(line: &str) -> (Vec<Meant>, bool) {
    let meant = |challenge: ChallengeRef<'_>| {
        let params = challenge.params.iter().map(|(name, value)| (*name, value.to_unescaped()));
        let params: Vec<_> = params.collect();
        let params: Vec<_> = params.iter().map(|(name, value)| (*name, &**value)).collect();
        of(challenge.scheme, &params)
    };
    let all: Vec<_> = http_auth::parser::ChallengeParser::new(line).collect();
    let whole = all.iter().all(Result::is_ok);
    (all.into_iter().map_while(Result::ok).map(meant).collect(), whole)
}

/// Most lines of these are right; some have something broken in them.
fn pieces() -> impl Strategy<Value = String> {
    let elements = select(
        &[
            "",
            " ",
            "\t",
            "Basic",
            "Basic ",
            "Basic a=b",
            "Basic\ta=b",
            "Bearer c = \"d, e\"",
            "d=e",
            "f\t=\tg ",
            "h=\"\\\"\"",
            "error=\"\"",
            " i=j",
        ][..],
    );
    let broken = select(&["a", "=", " ", "\t", "\"", "\\", "==", "@", "b=", "=c", "a b"][..]);
    let piece = prop_oneof![
        12 => elements.prop_map(|element| format!("{element},")),
        1 => broken.prop_map(str::to_owned),
    ];
    (vec(piece, 0..8), any::<bool>()).prop_map(|(pieces, comma)| {
        let line = pieces.concat();
        // The reference wants no space first.
        let line = line.trim_start_matches([' ', '\t']);
        if comma { line.to_owned() } else { line.trim_end_matches(',').to_owned() }
    })
}

/// Optional space of a list.
fn space() -> impl Strategy<Value = &'static str> {
    select(&["", "", " ", "\t", " \t "][..])
}

fn text(alphabet: &'static [u8], least: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(select(alphabet), least..6)
}

const TOKEN: &[u8] = b"aZ09!#$%&'*+-.^_`|~";
const TOKEN68: &[u8] = b"aZ09-._~+/";
const ANY_TEXT: &[u8] = b"a= \t,\"\\@\x80\xe9\xff";
const ASCII_TEXT: &[u8] = b"a= \t,\"\\@";

fn challenge(alphabet: &'static [u8], opaque: bool) -> impl Strategy<Value = Meant> {
    let params = vec((text(TOKEN, 1), text(alphabet, 0)), 0..4);
    let token68 = (text(TOKEN68, 1), 0..3_usize)
        .prop_map(|(token, padding)| [token, vec![b'='; padding]].concat());
    let body = prop_oneof![
        2 => params.prop_map(|params| (None, params)),
        1 => token68.prop_map(|token| (Some(token), vec![])),
    ];
    (text(TOKEN, 1), body).prop_map(move |(scheme, (token68, params))| Meant {
        scheme,
        token68: token68.filter(|_| opaque),
        params,
    })
}

/// How a list is written: a choice for every place that has one.
#[derive(Clone, Debug)]
struct Style {
    spaces: Vec<&'static str>,
    chances: Vec<Index>,
    strict: bool,
    used: std::cell::Cell<usize>,
}

fn style(strict: bool) -> impl Strategy<Value = Style> {
    (vec(space(), 16), vec(any::<Index>(), 16)).prop_map(move |(spaces, chances)| Style {
        spaces,
        chances,
        strict,
        used: Default::default(),
    })
}

impl Style {
    fn next(&self) -> usize {
        self.used.set(self.used.get() + 1);
        self.used.get() % 16
    }

    fn chance(&self) -> bool {
        self.chances[self.next()].index(2) == 0
    }

    fn space(&self) -> &str {
        self.spaces[self.next()]
    }

    fn comma(&self, line: &mut Vec<u8>) {
        for empty in 0..3 {
            if empty == 0 || self.chance() {
                line.extend_from_slice(self.space().as_bytes());
                line.push(b',');
            }
        }
        line.extend_from_slice(self.space().as_bytes());
    }

    fn value(&self, value: &[u8], line: &mut Vec<u8>) {
        let is_token = !value.is_empty() && value.iter().all(|byte| TOKEN.contains(byte));
        if is_token && self.chance() {
            return line.extend_from_slice(value);
        }
        line.push(b'"');
        for &byte in value {
            if matches!(byte, b'"' | b'\\') || byte.is_ascii() && self.chance() {
                line.push(b'\\');
            }
            line.push(byte);
        }
        line.push(b'"');
    }

    fn render(&self, challenges: &[Meant]) -> Vec<u8> {
        let mut line = Vec::new();
        for (at, challenge) in challenges.iter().enumerate() {
            if at > 0 {
                self.comma(&mut line);
            }
            line.extend_from_slice(&challenge.scheme);
            let empty = challenge.params.is_empty() && challenge.token68.is_none();
            if !empty {
                line.push(b' ');
            }
            if !empty && !self.strict && self.chance() {
                line.extend_from_slice(b"  ");
            }
            line.extend(challenge.token68.iter().flatten());
            for (at, (name, value)) in challenge.params.iter().enumerate() {
                if at > 0 {
                    self.comma(&mut line);
                }
                line.extend_from_slice(name);
                line.extend_from_slice(self.space().as_bytes());
                line.push(b'=');
                line.extend_from_slice(self.space().as_bytes());
                self.value(value, &mut line);
            }
        }
        line
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_parsed(bytes in vec(prop_oneof![any::<u8>(), select(&b"aB= \t,\"\\"[..])], 0..64)) {
        parse(&bytes);
    }

    #[test]
    fn any_pieces_are_parsed_as_the_reference_does(line in pieces()) {
        let (meant, whole) = reference(&line);
        let ours = parse(line.as_bytes());
        if whole {
            prop_assert_eq!(ours, meant);
        } else {
            // It may have stopped where there is a token68, and not before us.
            prop_assert_eq!(ours.get(..meant.len()), Some(&meant[..]));
        }
    }

    /// None of these is refused, or nothing would be compared.
    #[test]
    fn rendered_lists_are_parsed_as_the_reference_does(
        challenges in vec(challenge(ASCII_TEXT, false), 1..4),
        style in style(true),
    ) {
        let line = String::from_utf8(style.render(&challenges)).unwrap();
        let (meant, whole) = reference(&line);
        prop_assert!(whole, "{line}");
        prop_assert_eq!(&parse(line.as_bytes()), &meant, "{}", line);
    }

    #[test]
    fn rendered_lists_come_back(
        challenges in vec(challenge(ANY_TEXT, true), 0..4),
        style in style(false),
    ) {
        let line = style.render(&challenges);
        prop_assert_eq!(parse(&line), challenges, "{}", String::from_utf8_lossy(&line));
    }
}
