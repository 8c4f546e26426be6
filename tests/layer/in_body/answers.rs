//! What real servers answered to an expired token. `findings/refused_inside_a_200.sh` asks them
//! again.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;
use proptest::{collection::vec, prelude::*, sample::select};
use testing::script_body::{Hint, Script, Step, trailers};
use tower_refresh::layer::{ResponseHead, Verdict, classify};

use super::{all_rules, judge, response, script, through};
use crate::read::read;

#[derive(Debug)]
struct Answer {
    server: &'static str,
    status: u16,
    content_type: &'static str,
    content_encoding: Option<&'static str>,
    body: Bytes,
    verdict: Verdict,
}

impl Answer {
    /// As it came, with a body that comes like this.
    fn response(&self, body: Script) -> Response<Script> {
        let mut response = response(self.status, self.content_type, body);
        if let Some(encoding) = self.content_encoding {
            response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
        }
        response
    }
}

static ANSWERS: LazyLock<Vec<Answer>> =
    LazyLock::new(|| include_str!("answers.txt").trim().split("\n\n").map(parse).collect());

/// Four lines: server, status and content type, body, verdict.
fn parse(text: &'static str) -> Answer {
    let [server, head, body, verdict] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("four lines: {text}")
    };
    let (status, content_type) = head.split_once(' ').unwrap();
    let (content_type, content_encoding) = match content_type.split_once(" (content-encoding: ") {
        Some((content_type, encoding)) => (content_type, encoding.strip_suffix(')')),
        None => (content_type, None),
    };
    Answer {
        server: server.strip_prefix("# ").unwrap(),
        status: status.parse().unwrap(),
        content_type,
        content_encoding,
        body: unescape(body),
        verdict: match verdict {
            "> challenge" => Verdict::Challenge,
            "> refresh only" => Verdict::RefreshOnly,
            "> ignore" => Verdict::Ignore,
            "> accept" => Verdict::Accept,
            other => panic!("{other}"),
        },
    }
}

/// `\n`, `\r`, `\\` and `\x00` stand for bytes.
fn unescape(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
        });
    }
    bytes.into()
}

#[test]
fn every_refusal_of_a_real_server_is_found() {
    for answer in &*ANSWERS {
        let found = judge(all_rules(), answer.response(script(answer.body.clone())));
        assert_eq!(found, answer.verdict, "{}", answer.server);
    }
    assert_eq!(ANSWERS.len(), 77);
}

/// Without the layer only those with a status of their own are found.
#[test]
fn nothing_is_found_without_a_look() {
    for answer in &*ANSWERS {
        let response = answer.response(script(answer.body.clone()));
        let expected = match answer.status {
            401 => Verdict::Challenge,
            500 => Verdict::Ignore,
            _ => Verdict::Accept,
        };
        assert_eq!(classify(&ResponseHead::of(&response)), expected, "{}", answer.server);
    }
}

/// grpc-web-text is the same in base64, and each part of it may be padded by itself.
#[test]
fn the_text_form_of_grpc_web_is_read() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let frames = |answer: &Answer, cut: usize| {
        let (one, two) = answer.body.split_at(cut);
        [one, two].map(|part| STANDARD.encode(part)).concat()
    };
    let answers =
        || ANSWERS.iter().filter(|answer| answer.content_type == "application/grpc-web+proto");
    assert_eq!(answers().count(), 6);
    for answer in answers() {
        for cut in 0..answer.body.len() {
            let text = frames(answer, cut);
            for content_type in ["application/grpc-web-text", "application/grpc-web-text+proto"] {
                let response = response(200, content_type, script(text.clone()));
                assert_eq!(judge(all_rules(), response), answer.verdict, "{}", answer.server);
            }
        }
    }
}

/// What comes after the status may be anything, in the same piece or in another one.
#[test]
fn what_comes_after_the_status_of_grpc_web_text_hides_nothing() {
    let text = Bytes::from("gAAAAA9ncnBjLXN0YXR1czogMTY=!!!!");
    for at in 0..=text.len() {
        let body = Script::new(cuts(&text, &[at]));
        let response = response(200, "application/grpc-web-text", body);
        assert_eq!(judge(all_rules(), response), Verdict::Challenge, "cut at {at}");
    }
}

/// Three bytes are missing of the status. What is no base64 is none of them.
#[test]
fn a_status_that_is_cut_off_is_none() {
    let text = Bytes::from("gAAAABZncnBjLXN0YXR1czogMTYNCmE6Yg0K");
    let whole = Script::new(cuts(&text, &[]));
    let judged = judge(all_rules(), response(200, "application/grpc-web-text", whole));
    assert_eq!(judged, Verdict::Challenge);
    let cut = Bytes::from([&text[..text.len() - 4], b"!!!!"].concat());
    for at in 0..=cut.len() {
        let body = Script::new(cuts(&cut, &[at]));
        let response = response(200, "application/grpc-web-text", body);
        assert_eq!(judge(all_rules(), response), Verdict::Accept, "cut at {at}");
    }
}

fn cuts(bytes: &Bytes, lengths: &[usize]) -> Vec<Step> {
    let mut rest = bytes.clone();
    let mut steps = Vec::new();
    for length in lengths {
        steps.push(Step::Data(rest.split_to((*length).min(rest.len()))));
    }
    steps.push(Step::Data(rest));
    steps
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The same bytes in any frames: the same verdict, and the same frames for the reader.
    #[test]
    fn however_a_body_is_cut_the_verdict_is_the_same_and_so_is_the_body(
        answer in select((0..ANSWERS.len()).collect::<Vec<_>>()),
        lengths in vec(0..40_usize, 0..24),
        fails in any::<bool>(),
        has_trailers in any::<bool>(),
        unknown in any::<bool>(),
        tells_end in any::<bool>(),
    ) {
        let answer = &ANSWERS[answer];
        let mut steps = cuts(&answer.body, &lengths);
        if has_trailers {
            steps.push(trailers(&[("x-checksum", "5")]));
        }
        if fails {
            steps.push(Step::Fail);
        }
        let hint = if unknown { Hint::Unknown } else { Hint::Right };
        let body = Script::new(steps).hint(hint).tells_end(tells_end);
        let mut own = body.clone();
        let mut response = tokio_test::block_on(through(all_rules(), answer.response(body)));
        prop_assert_eq!(classify(&ResponseHead::of(&response)), answer.verdict);
        prop_assert_eq!(response.headers().len(), 1 + usize::from(answer.content_encoding.is_some()));
        let (theirs, ours) = (read(&mut own), read(response.body_mut()));
        for (theirs, ours) in theirs.iter().zip(&ours) {
            prop_assert_eq!(&ours.0, &theirs.0);
            // What it knows more of the frames that it has is right.
            prop_assert!(ours.1.0 >= theirs.1.0);
            prop_assert!(theirs.1.1.is_none_or(|upper| ours.1.1 == Some(upper)));
            prop_assert!(ours.2 || !theirs.2);
        }
        prop_assert_eq!(ours.len(), theirs.len());
        // It says that it has ended only if it has.
        for (at, (_, (lower, upper), end)) in ours.iter().enumerate() {
            let left = theirs[at..].iter().map(|read| match &read.0 {
                testing::script_body::Got::Data(data) => data.len() as u64,
                _ => 0,
            });
            let left: u64 = left.sum();
            prop_assert!(*lower <= left && upper.is_none_or(|upper| upper >= left));
            prop_assert!(!end || at + 1 == ours.len());
        }
    }
}
