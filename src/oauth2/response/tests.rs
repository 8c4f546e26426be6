//! Slips are forgiven, and whatever becomes of an answer's other fields, the pair is read.

use std::time::{Duration, SystemTime};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;

fn tokens_in(body: &str) -> Option<Tokens> {
    let (head, ()) = Response::new(()).into_parts();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let response = read(&head, body, false, 1 << 20).response;
    let good = response.status() == StatusCode::OK;
    let response = serde_json::from_slice(response.body()).ok().filter(|_| good)?;
    Some(tokens(&response, None))
}

fn life(expires_in: &str) -> Option<Duration> {
    let now = SystemTime::now();
    let body = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
    let left = tokens_in(&body).unwrap().expires_at()?.duration_since(now).unwrap();
    Some(Duration::from_secs(left.as_secs()))
}

#[test]
fn slips_are_forgiven() {
    assert_eq!(life("3600"), Some(Duration::from_secs(3600)));
    assert_eq!(life("3600.7"), Some(Duration::from_secs(3600)));
    assert_eq!(life("\"3600\""), Some(Duration::from_secs(3600)));
    for odd in ["null", "-1", "\"soon\"", "[]", "1e300", "\"NaN\""] {
        assert_eq!(life(odd), None, "{odd}");
    }
    let tokens = tokens_in(
        r#"{"access_token":"a","refresh_token":"","token_type":"BEARER","scope":["x","y"]}"#,
    );
    let tokens = tokens.unwrap();
    assert_eq!(tokens.refresh_token(), None);
    let blank = tokens_in(
        r#"{"access_token":"a","refresh_token":" 
"}"#,
    )
    .unwrap();
    assert_eq!(blank.refresh_token(), None);
    assert_eq!(tokens.extra("scope"), Some("x y"));
    assert_eq!(tokens.extra("token_type"), Some("bearer"));
}

#[test]
fn other_fields_are_kept() {
    let tokens = tokens_in(
        r#"{"access_token":"a","token_type":"DPoP","id_token":"i","n":1,"o":{"p":[true]},"z":null,"b":12345678901234567890123}"#,
    );
    let tokens = tokens.unwrap();
    let extras: Vec<_> = tokens.extras().collect();
    assert_eq!(
        extras,
        [
            ("b", "12345678901234567890123"),
            ("id_token", "i"),
            ("n", "1"),
            ("o", r#"{"p":[true]}"#),
            ("token_type", "dpop")
        ]
    );
}

#[test]
fn what_is_no_token_response_is_none() {
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":true}"#,
        r#"{"error":"bad_refresh_token"}"#,
        r#"{"error":"bad_refresh_token","access_token":null}"#,
        r#"{"access_token":"a""#,
    ] {
        assert!(tokens_in(body).is_none(), "{body}");
    }
}

/// What an answer has beside its tokens, as JSON texts.
const OTHERS: [&str; 7] = [
    r#""a text, \"quoted\" and {braced}""#,
    "1234.5",
    r#"{"name":"x","list":[1,{"deep":true}]}"#,
    "[1,2,[3]]",
    "null",
    r#""""#,
    r#""é\u00e9""#,
];

/// One way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    Replaced(usize, char),
    Inserted(usize, char),
    Removed(usize),
    CutTo(usize),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let structural = prop::sample::select(r#"{}[]",:\ '&=<"#.chars().collect::<Vec<_>>());
        let text = prop_oneof![structural, any::<char>()].boxed();
        let at = 0..64_usize;
        prop_oneof![
            (at.clone(), text.clone()).prop_map(|(at, c)| Self::Replaced(at, c)),
            (at.clone(), text).prop_map(|(at, c)| Self::Inserted(at, c)),
            at.clone().prop_map(Self::Removed),
            at.prop_map(Self::CutTo),
        ]
    }

    fn apply(&self, text: &mut Vec<char>) {
        let at = |at: usize, length: usize| at % length.max(1);
        let length = text.len();
        match *self {
            Self::Inserted(to, c) => text.insert(at(to, length + 1), c),
            Self::Replaced(to, c) if length > 0 => text[at(to, length)] = c,
            Self::Removed(to) if length > 0 => drop(text.remove(at(to, length))),
            Self::CutTo(to) => text.truncate(to),
            _ => {}
        }
    }
}

fn pair_in(body: &str) -> (Option<String>, Option<String>) {
    let (head, ()) = Response::new(()).into_parts();
    let response = read(&head, Bytes::copy_from_slice(body.as_bytes()), false, 1 << 20).response;
    let Ok(response) = serde_json::from_slice(response.body()) else { return (None, None) };
    let tokens = tokens(&response, None);
    (Some(tokens.access_token().into()), tokens.refresh_token().map(str::to_owned))
}

fn is_balanced(text: &[char]) -> bool {
    let count = |brace| text.iter().filter(|c| **c == brace).count();
    count('{') == count('}')
}

/// A text that is left too early ends the object too early, or leaves it, at a brace that was in the
/// text.
#[test]
fn a_brace_behind_a_quote_too_many_does_not_end_the_answer() {
    for body in [
        r#"{"other":"a {brace"}","access_token":"access-2","refresh_token":"refresh-2"}"#,
        r#"{"other":"a {br",ace}","access_token":"access-2","refresh_token":"refresh-2"}"#,
    ] {
        let pair = (Some("access-2".to_owned()), Some("refresh-2".to_owned()));
        assert_eq!(pair_in(body), pair, "{body}");
    }
}

/// A brace in a text that is whole says nothing of what comes after it.
#[test]
fn a_brace_in_a_whole_text_makes_no_other_objects_token_ours() {
    let theirs = r#""user":{"access_token":"theirs","refresh_token":"theirs"}"#;
    let begin = r#""scope":"a}b","note":"say "hi""#;
    let body = format!(r#"{{{begin}",{theirs}}}"#);
    assert_eq!(pair_in(&body), (None, None), "{body}");
    let ours = r#""access_token":"access-2","refresh_token":"refresh-2""#;
    let body = format!(r#"{{{begin}",{ours},{theirs}}}"#);
    let pair = (Some("access-2".to_owned()), Some("refresh-2".to_owned()));
    assert_eq!(pair_in(&body), pair, "{body}");
}

/// Each other field stands before, between or behind the tokens, and is damaged. No damage leaves a
/// brace without the other: it would put the tokens behind it inside another object, where they
/// are not the answer's own.
#[test]
fn random_damage_to_other_fields_never_loses_the_pair() {
    let other = (prop::sample::select(&OTHERS[..]), vec(Damage::any(), 0..4), 0..3_usize);
    let mut runner = TestRunner::new(Config { cases: 3000, ..Config::default() });
    let result = runner.run(&vec(other, 0..5), |others| {
        let mut fields = [Vec::new(), Vec::new(), Vec::new()];
        for (number, (other, damages, place)) in others.into_iter().enumerate() {
            let mut text: Vec<char> = other.chars().collect();
            for damage in damages {
                let mut damaged = text.clone();
                damage.apply(&mut damaged);
                if is_balanced(&damaged) {
                    text = damaged;
                }
            }
            let text: String = text.into_iter().collect();
            fields[place].push(format!(r#""other-{number}":{text}"#));
        }
        let [mut before, between, behind] = fields;
        before.push(r#""access_token":"access-2""#.to_owned());
        before.extend(between);
        before.push(r#""refresh_token":"refresh-2""#.to_owned());
        before.extend(behind);
        let body = format!("{{{}}}", before.join(","));
        // Inside another field of well-formed JSON they are not the answer's own.
        let well_formed = serde_json::from_str::<serde_json::Value>(&body);
        prop_assume!(
            well_formed.is_err()
                || well_formed.is_ok_and(|it| {
                    it.get("access_token").is_some() && it.get("refresh_token").is_some()
                })
        );
        let pair = (Some("access-2".to_owned()), Some("refresh-2".to_owned()));
        prop_assert_eq!(pair_in(&body), pair, "{}", body);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
