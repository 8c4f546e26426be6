//! Good answers in a form that no server should send. Thrown away, they would take the rotated
//! refresh token with them.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use testing::Logs;
use tower_refresh::{FailureKind, Refresher, Tokens, oauth2::ErrorKind};

use super::endpoint::{Endpoint, Reply, cause, json, state_of, tokens};

const PAIR: &str = r#"{"access_token":"access-2","refresh_token":"refresh-2","expires_in":3600}"#;

/// A whole response: these header lines, and this body.
fn raw(status: u16, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n{headers}\r\n");
    Reply::Raw([head.as_bytes(), body].concat())
}

async fn minted(reply: Reply) -> Result<Tokens, ErrorKind> {
    let endpoint = Endpoint::start([reply]).await;
    let client = endpoint.client().build().unwrap();
    let minted = client.refresh_token_grant().refresh(tokens(1).into()).await;
    minted.map_err(|error| {
        let cause = std::error::Error::source(&error).unwrap();
        cause.downcast_ref::<tower_refresh::oauth2::Error>().unwrap().kind()
    })
}

#[track_caller]
fn assert_pair(minted: Result<Tokens, ErrorKind>, name: &str) -> Tokens {
    let minted = minted.unwrap_or_else(|kind| panic!("{name}: {kind}"));
    assert_eq!(minted.access_token(), "access-2", "{name}");
    assert_eq!(minted.refresh_token(), Some("refresh-2"), "{name}");
    minted
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &str) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_answer_is_read_with_its_header_and_without() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 6].to_vec();
    for (name, headers, body) in [
        ("gzip", "content-encoding: gzip\r\n", gzip(PAIR)),
        ("gzip without header", "", gzip(PAIR)),
        ("x-gzip", "content-encoding: x-gzip\r\n", gzip(PAIR)),
        ("gzip without its checksum", "content-encoding: gzip\r\n", cut(gzip(PAIR))),
        ("deflate", "content-encoding: deflate\r\n", zlib(PAIR)),
        ("deflate without header", "", zlib(PAIR)),
        ("deflate without frame", "content-encoding: deflate\r\n", deflate(PAIR)),
        ("plain, named gzip", "content-encoding: gzip\r\n", PAIR.into()),
        ("plain, named deflate", "content-encoding: deflate\r\n", PAIR.into()),
    ] {
        assert_pair(minted(raw(200, headers, &body)).await, name);
    }
}

/// A gzip file may have several members (RFC 1952, section 2.2). The end of the first is not that of
/// the answer: a form would be taken for a whole one, with a part of a token in it.
#[tokio::test]
async fn an_answer_in_several_gzip_members_is_read_to_its_end() {
    for text in [PAIR, "refresh_token=refresh-2&access_token=access-2"] {
        for at in [1, text.len() / 2, text.len() - 3] {
            let (start, end) = text.split_at(at);
            let members = [gzip(start), gzip(end)].concat();
            assert_pair(minted(raw(200, "", &members)).await, text);
        }
    }
    let (start, end) = "refresh_token=refresh-2&access_token=access-2".split_at(40);
    let members = [gzip(start), gzip(end)[..12].to_vec()].concat();
    assert!(minted(raw(200, "", &members)).await.is_err(), "the second member is cut");
}

/// The limit holds for what is decompressed, too: a short body may be a long one.
#[tokio::test]
async fn what_is_decompressed_has_its_limit() {
    let start = &PAIR[..PAIR.len() - 1];
    let bomb = format!(r#"{{"x":"{}",{}}}"#, "x".repeat(3 << 20), &start[1..]);
    let compressed = gzip(&bomb);
    assert!(compressed.len() < 1 << 14);
    assert_eq!(minted(raw(200, "", &compressed)).await.unwrap_err(), ErrorKind::Malformed);
    let compressed = gzip(&format!(r#"{start},"x":"{}"}}"#, "x".repeat(3 << 20)));
    assert_pair(minted(raw(200, "", &compressed)).await, "both tokens come first");
}

#[tokio::test]
async fn no_limit_at_all_loses_no_compressed_answer() {
    let endpoint = Endpoint::start([raw(200, "", &gzip(PAIR))]).await;
    let client = endpoint.client().max_response(usize::MAX).build().unwrap();
    let minted = client.refresh_token_grant().refresh(tokens(1).into()).await;
    assert_eq!(minted.unwrap().refresh_token(), Some("refresh-2"));
}

#[tokio::test]
async fn a_form_is_read() {
    let form = "access_token=access-2&refresh_token=refresh-2&expires_in=3600&scope=a%20b&n=1";
    for headers in ["content-type: application/x-www-form-urlencoded\r\n", ""] {
        let minted = assert_pair(minted(raw(200, headers, form.as_bytes())).await, headers);
        assert!(minted.expires_at().is_some());
        assert_eq!((minted.extra("scope"), minted.extra("n")), (Some("a b"), Some("1")));
    }
    let endpoint = Endpoint::start([raw(400, "", b"error=invalid_grant&error_description=no")]);
    let client = endpoint.await.client().build().unwrap();
    let failure = state_of(&client).refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    assert_eq!(cause(&failure).description(), Some("no"));
}

/// JSON but for slips in other fields: those that can be read are kept.
#[tokio::test]
async fn slips_in_other_fields_do_not_matter() {
    let start = &PAIR[..PAIR.len() - 1];
    for (name, rest) in [
        ("NaN", r#","score":NaN,"id_token":"id"}"#),
        ("Infinity", r#","score":-Infinity,"id_token":"id"}"#),
        ("undefined", r#","score":undefined,"id_token":"id"}"#),
        ("None", r#","score":[None,{"a":True}],"id_token":"id"}"#),
        ("a line end in a text", ",\"name\":\"one\ntwo\t\u{1}\",\"id_token\":\"id\"}"),
        ("an escape that there is not", r#","name":"C:\Users\x","id_token":"id"}"#),
        ("a trailing comma", r#","id_token":"id",}"#),
        ("a trailing comma in a list", r#","list":[1,2,],"id_token":"id"}"#),
        ("two commas", r#",,"id_token":"id"}"#),
        ("a leading zero", r#","n":007,"id_token":"id"}"#),
    ] {
        let reply = raw(200, "", format!("{start}{rest}").as_bytes());
        let minted = assert_pair(minted(reply).await, name);
        assert!(minted.expires_at().is_some(), "{name}");
        assert_eq!(minted.extra("id_token"), Some("id"), "{name}");
    }
    let reply = json(200, &format!("{start},\"name\":\"one\ntwo\",\"x\":NaN}}"));
    let minted = minted(reply).await.unwrap();
    assert_eq!((minted.extra("name"), minted.extra("x")), (Some("one\ntwo"), Some("NaN")));
}

/// Where the fields' bounds are damaged, both tokens are still there once.
#[tokio::test]
async fn damage_to_other_fields_does_not_matter() {
    let rest = &PAIR[1..PAIR.len() - 1];
    for body in [
        format!(r#"{{"name":"un"quoted",{rest}}}"#),
        format!(r#"{{"name":"no end,{rest}}}"#),
        format!(r#"{{"list":[1,2,{rest}}}"#),
        format!(r#"{{"name":"a\",{rest}}}"#),
        format!(r#"{{{rest},"name":"no end}}"#),
        format!(r#"{{{rest},"#),
        format!("<br />Deprecated: strlen() in token.php on line 7\n{{{rest}}}"),
        format!(")]}}',\n{{{rest}}}"),
    ] {
        let minted = assert_pair(minted(raw(200, "", body.as_bytes())).await, &body);
        assert!(minted.expires_at().is_some(), "{body}");
    }
}

/// Both tokens came, and then the connection broke, or there was no end in time.
#[tokio::test]
async fn a_body_that_breaks_off_after_both_tokens_is_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    for body in [PAIR, &PAIR[..PAIR.len() - 10]] {
        assert_pair(minted(Reply::Raw(format!("{head}{body}").into())).await, body);
    }
    for body in [
        r#"{"access_token":"access-2""#,
        r#"{"access_token":"access-2","refresh_token":"refr"#,
        r#"access_token=access-2&refresh_token=refr"#,
    ] {
        let reply = Reply::Raw(format!("{head}{body}").into());
        assert_eq!(minted(reply).await.unwrap_err(), ErrorKind::Connection, "{body}");
    }
}

/// What a broker passes on of another server's tokens.
const UPSTREAM: &str = r#""upstream":{"access_token":"other-a","refresh_token":"other-r"}"#;

/// A server that does not rotate its refresh token has no other in its answer: saved, the one of
/// another server would take the place of one that is still good.
#[tokio::test]
async fn a_token_inside_another_field_is_never_the_answers_own() {
    let good = format!(r#"{{"access_token":"access-2",{UPSTREAM},"note":"say \"hi\""}}"#);
    assert_eq!(minted(raw(200, "", good.as_bytes())).await.unwrap().refresh_token(), None);
    for slip in [
        format!(r#"{{"access_token":"access-2",{UPSTREAM},"note":"say "hi" to all"}}"#),
        format!(r#"{{"access_token":"access-2","note":"say "hi" to all",{UPSTREAM}}}"#),
    ] {
        // That it is given up would be well: the old one is kept then.
        let minted = minted(raw(200, "", slip.as_bytes())).await.ok();
        let refresh_token = minted.as_ref().and_then(Tokens::refresh_token);
        assert_eq!(refresh_token, None, "{slip}");
    }
    let slip = format!(r#"{{"token":"access-2","note":"say "hi" to all",{UPSTREAM}}}"#);
    let minted = minted(raw(200, "", slip.as_bytes())).await;
    assert!(minted.is_err(), "{minted:?}");
}

/// Whether it comes before the damage or behind it.
#[tokio::test]
async fn a_token_inside_another_field_does_not_hide_the_answers_own() {
    let rest = &PAIR[1..PAIR.len() - 1];
    for slip in [
        format!(r#"{{{UPSTREAM},"note":"say "hi" to all",{rest}}}"#),
        format!(r#"{{"note":"say "hi" to all",{UPSTREAM},{rest}}}"#),
    ] {
        assert_pair(minted(raw(200, "", slip.as_bytes())).await, &slip);
    }
}

/// Some servers send it with every answer.
#[tokio::test]
async fn an_error_that_is_empty_does_not_keep_the_pair_from_being_read() {
    let pair = r#""access_token":"access-2","note":"say "hi" to all","refresh_token":"refresh-2""#;
    for error in [r#""error":null"#, r#""error":"""#, r#""error" : "" "#] {
        for slip in [format!("{{{error},{pair}}}"), format!("{{{pair},{error}}}")] {
            assert_pair(minted(raw(200, "", slip.as_bytes())).await, &slip);
        }
    }
    for error in [r#""error":"no""#, r#""error":{"code":null}"#, r#""error":0x"#] {
        for slip in [format!("{{{error},{pair}}}"), format!("{{{pair},{error}}}")] {
            assert!(minted(raw(200, "", slip.as_bytes())).await.is_err(), "{slip}");
        }
    }
}

/// An error or a page may quote tokens, and a text may have several.
#[tokio::test]
async fn what_would_be_a_guess_is_not_read() {
    for body in [
        r#"{"data":{"access_token":"old","refresh_token":"old"}}"#,
        r#"[{"access_token":"old","refresh_token":"old"}]"#,
        r#"{"error":"invalid_grant","sent":{"access_token":"old","refresh_token":"old"},}"#,
        r#"<html><script>{"access_token":"old","refresh_token":"old"}</script></html>"#,
        r#"{"a":[,{"access_token":"one","refresh_token":"old"},{"access_token":"two"}"#,
        r#"[{"access_token":"old","refresh_token":"old"},"#,
        r#"{"name":"un"quoted","data":{"access_token":"old","refresh_token":"old"}}"#,
        r#"{"access_token":"o\ld","refresh_token":"refresh-2"}"#,
        r#"{"access_token":"old"and,"refresh_token":"refresh-2"}"#,
    ] {
        assert!(minted(raw(200, "", body.as_bytes())).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn what_was_odd_is_told_without_secrets() {
    let (logs, _guard) = Logs::capture();
    let pair = PAIR.replace("access-2", "SECRET-a").replace("refresh-2", "SECRET-r");
    let near = format!("{},}}", &pair[..pair.len() - 1]);
    for (body, said) in [
        (gzip(&pair), "compressed"),
        (near.into_bytes(), "almost JSON"),
        (format!(r#"{{"name":"un"quoted",{}"#, &pair[1..]).into_bytes(), "searched it for"),
        (b"access_token=SECRET&refresh_token=SECRET".to_vec(), "form-encoded"),
    ] {
        minted(raw(200, "", &body)).await.unwrap();
        logs.assert_told(&["WARN", "an odd response was read", said]);
    }
    logs.assert_clean();
}
