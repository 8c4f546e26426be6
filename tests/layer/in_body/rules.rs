//! What a rule says of what no server has answered yet.

use http::StatusCode;
use testing::script_body::{Script, Step};
use tower_refresh::{
    in_body::{GraphQl, InBodyLayer, JsonPointer},
    layer::{Classify, Refusals, ResponseHead, Verdict},
};

use super::{all_rules, judge, response, script, through, verdict};

use Verdict::{Accept, Challenge, Ignore, RefreshOnly};

const JSON: &str = "application/json";

#[test]
fn graphql_is_refused_only_if_nothing_was_carried_out() {
    const REFUSED: &str =
        r#"{"message":"no","path":["a"],"extensions":{"code":"UNAUTHENTICATED"}}"#;
    const BELOW: &str =
        r#"{"message":"no","path":["a",0,"b"],"extensions":{"code":"UNAUTHENTICATED"}}"#;
    const WHOLE: &str = r#"{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}"#;
    const OTHER: &str = r#"{"message":"broken","path":["b"],"extensions":{"code":"INTERNAL"}}"#;
    for (errors, data, expected) in [
        (WHOLE, "", Challenge),
        (WHOLE, r#","data":null"#, Challenge),
        (REFUSED, r#","data":{"a":null}"#, Challenge),
        // It may be null because it is.
        (REFUSED, r#","data":{"a":null,"b":null}"#, RefreshOnly),
        (REFUSED, r#","data":{"b":null}"#, RefreshOnly),
        (REFUSED, r#","data":{"a":null,"b":1}"#, RefreshOnly),
        (BELOW, r#","data":{"a":[null]}"#, RefreshOnly),
        // The mutation `a` was carried out before its result's `b` was refused.
        (BELOW, r#","data":null"#, RefreshOnly),
        (&format!("{REFUSED},{OTHER}"), r#","data":null"#, RefreshOnly),
        (OTHER, r#","data":null"#, Accept),
        ("", r#","data":null"#, Accept),
        // No refusal, though the words are there.
        (r#"{"message":"UNAUTHENTICATED"}"#, "", Accept),
        (r#"{"extensions":{"code":["UNAUTHENTICATED"]}}"#, "", Accept),
        (r#"{"extensions":{"code":"unauthenticated"}}"#, "", Accept),
    ] {
        let body = format!(r#"{{"errors":[{errors}]{data}}}"#);
        assert_eq!(verdict(200, JSON, body.clone()), expected, "{body}");
    }
    for body in [
        r#"{"data":{"text":"\"errors\":[{\"extensions\":{\"code\":\"UNAUTHENTICATED\"}}]"}}"#,
        r#"{"data":{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}]}}"#,
        r#"{"errors":{"code":"UNAUTHENTICATED"}}"#,
        r#"{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}"#,
        r#"{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}],}"#,
    ] {
        assert_eq!(verdict(200, JSON, body), Accept, "{body}");
    }
}

/// Such a document is not waited for, so it says nothing if all of it is there at once, either.
#[test]
fn a_document_that_begins_with_a_name_no_rule_knows_is_no_refusal_however_it_is_cut() {
    for body in [
        r#"{"success":false,"errors":[{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}]}"#,
        r#"[{"id":1,"errors":[{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}]}]"#,
        r#"{"id":1,"error":{"message":"no","code":-32001,"data":{"code":"UNAUTHORIZED"}}}"#,
        r#"[1,{"errors":[{"message":"no","extensions":{"code":"UNAUTHENTICATED"}}]}]"#,
    ] {
        for cut in 0..body.len() {
            let steps = [&body[..cut], &body[cut..]].map(|part| Step::Data(part.into()));
            let response = response(200, JSON, Script::new(steps.to_vec()));
            assert_eq!(judge(all_rules(), response), Accept, "{body} cut at {cut}");
        }
    }
}

#[test]
fn words_that_the_user_names_count_as_well() {
    let rule = GraphQl::new().also_code("invalid-jwt").also_message("Signature has expired");
    let layer = InBodyLayer::new().rule(rule.also_content_type("text/plain"));
    for (content_type, error, expected) in [
        (JSON, r#"{"extensions":{"path":"$","code":"invalid-jwt"}}"#, Challenge),
        (JSON, r#"{"message":"Signature has expired"}"#, Challenge),
        (JSON, r#"{"message":"Signature has expired."}"#, Accept),
        (JSON, r#"{"extensions":{"code":"UNAUTHENTICATED"}}"#, Challenge),
        ("Text/Plain;charset=utf-8", r#"{"message":"Signature has expired"}"#, Challenge),
        ("text/html", r#"{"message":"Signature has expired"}"#, Accept),
    ] {
        let body = script(format!(r#"{{"errors":[{error}]}}"#));
        assert_eq!(judge(layer.clone(), response(200, content_type, body)), expected, "{error}");
    }
}

#[test]
fn a_value_at_a_pointer_is_a_challenge() {
    for (pointer, body, expected) in [
        ("/error", r#"{"ok":false,"error":"expired"}"#, Challenge),
        ("/error", r#"{"ok":false,"error":"other"}"#, Accept),
        ("/error", r#"{"ok":true,"text":"expired"}"#, Accept),
        ("/error/code", r#"{"error":{"code":"expired"}}"#, Challenge),
        ("/errors/0/code", r#"{"errors":[{"code":"expired"}]}"#, Challenge),
        ("/a~1b/c~0d", r#"{"a/b":{"c~d":"expired"}}"#, Challenge),
        ("/errcode", r#"{"errcode":42001}"#, Challenge),
        ("/errcode", r#"{"errcode":"42001"}"#, Challenge),
        ("/errcode", r#"{"errcode":42002}"#, Accept),
        ("/0", r#"["expired"]"#, Challenge),
        ("/error", r#"{"path":"C:\\","error":"expired"}"#, Challenge),
        ("/error", r#"{"text":"\"}{[","error":"expired"}"#, Challenge),
        ("", r#""expired""#, Accept),
        ("/error", r#"{"error":"expired""#, Accept),
        ("/error", "", Accept),
    ] {
        let rule = JsonPointer::new(pointer, ["expired", "42001"]).unwrap();
        let layer = InBodyLayer::new().rule(rule.also_content_type("text/plain"));
        for content_type in [JSON, "application/problem+JSON", "text/plain"] {
            let response = response(200, content_type, script(body));
            assert_eq!(judge(layer.clone(), response), expected, "{pointer} {body}");
        }
    }
}

#[test]
fn a_pointer_that_is_none_is_refused_in_words() {
    for pointer in ["error", "/a~", "/a~2", " /a"] {
        let error = JsonPointer::new(pointer, ["expired"]).unwrap_err();
        assert!(error.to_string().contains("begins with a slash"), "{error}");
    }
}

#[test]
fn only_a_status_that_leaves_a_doubt_is_looked_at() {
    let refused = r#"{"error":"token_expired"}"#;
    for (status, expected) in [
        (200, Challenge),
        (201, Challenge),
        (400, Challenge),
        (403, Challenge),
        (500, Challenge),
        (503, Challenge),
        // A part of a body, none, and one that is of no interest.
        (206, Accept),
        (204, Accept),
        (302, Accept),
    ] {
        assert_eq!(verdict(status, JSON, refused), expected, "{status}");
    }
    let mut asks_for_more = response(401, JSON, script(refused));
    let value = "Bearer error=\"insufficient_scope\"".parse().unwrap();
    asks_for_more.headers_mut().insert("www-authenticate", value);
    *asks_for_more.status_mut() = StatusCode::FORBIDDEN;
    assert_eq!(judge(all_rules(), asks_for_more), Ignore);
}

#[test]
fn what_cannot_be_read_passes() {
    let refused = r#"{"error":"token_expired"}"#;
    for (encoding, expected) in [
        ("gzip", Accept),
        ("br", Accept),
        ("identity", Challenge),
        ("Identity", Challenge),
        ("none", Challenge),
        ("", Accept),
    ] {
        let mut response = response(200, JSON, script(refused));
        response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
        assert_eq!(judge(all_rules(), response), expected, "{encoding}");
    }
    // A message that is compressed.
    let message = b"\x03\x00\x00\x00\x02{}";
    assert_eq!(verdict(200, "application/connect+json", &message[..]), Accept);
    let message = b"\x81\x00\x00\x00\x0fgrpc-status: 16";
    assert_eq!(verdict(200, "application/grpc-web+proto", &message[..]), Accept);
    // A message that is announced to be longer than what is looked at, and one that is cut off.
    let message = b"\x80\xff\xff\xff\xffgrpc-status: 16";
    assert_eq!(verdict(200, "application/grpc-web+proto", &message[..]), Accept);
    let message = b"\x80\x00\x00\x00\x10grpc-status: 16";
    assert_eq!(verdict(200, "application/grpc-web+proto", &message[..]), Accept);
}

/// Trailers of gRPC-Web are a head: names in capitals, spaces or none, a challenge of their own.
#[test]
fn trailers_of_grpc_web_are_read_as_a_head() {
    for (trailers, expected) in [
        ("grpc-status:16", Challenge),
        ("Grpc-Status: 16\r\n", Challenge),
        ("grpc-message: a:b\r\ngrpc-status: 16\r\n", Challenge),
        ("grpc-status: 16\r\nwww-authenticate: Bearer error=\"insufficient_scope\"\r\n", Ignore),
        ("grpc-status: 13\r\n", Ignore),
        ("grpc-status: 0\r\n", Accept),
        ("grpc-status: 5\r\n", Accept),
        ("grpc-message: 16\r\n", Accept),
        ("", Accept),
    ] {
        let length = u32::try_from(trailers.len()).unwrap().to_be_bytes();
        let body = [&[0x80], &length[..], trailers.as_bytes()].concat();
        assert_eq!(verdict(200, "application/grpc-web", body), expected, "{trailers}");
    }
}

#[test]
fn an_event_stream_is_judged_by_its_first_event() {
    const REFUSED: &str = r#"{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}]}"#;
    const ERROR: &str = r#"{"message":"no","data":{"code":"UNAUTHORIZED"}}"#;
    for (events, expected) in [
        (format!("event: next\ndata: {REFUSED}\n\n"), Challenge),
        (format!("event:next\r\ndata:{REFUSED}\r\n\r\n"), Challenge),
        (format!("event: next\rdata: {REFUSED}\r\r"), Challenge),
        (format!(": hello\n\nid: 1\n\nretry: 5\n\ndata: {REFUSED}\n\n"), Challenge),
        (
            format!("event: next\ndata: {{\"data\":{{}}}}\n\nevent: next\ndata: {REFUSED}\n\n"),
            Accept,
        ),
        (format!("data: {REFUSED}\n"), Accept),
        (format!("event: serialized-error\ndata: {ERROR}\n\n"), Challenge),
        (format!("event: serialized-error\r\ndata: {ERROR}\r\n\r\n"), Challenge),
        (format!("event: ping\ndata: \n\nevent: serialized-error\ndata: {ERROR}\n\n"), Challenge),
        // Data in several lines.
        (
            format!("event: serialized-error\ndata: {}\ndata: {}\n\n", &ERROR[..16], &ERROR[16..]),
            Challenge,
        ),
        // What a subscription itself may send.
        (format!("data: {ERROR}\n\n"), Accept),
        (format!("event: other\ndata: {ERROR}\n\n"), Accept),
    ] {
        assert_eq!(verdict(200, "text/event-stream", events.clone()), expected, "{events}");
    }
}

/// A streamed batch that was cut off may have been carried out.
#[test]
fn a_streamed_batch_that_is_not_whole_is_refreshed_for_and_not_replayed() {
    const HEAD: &str = r#"{"0":[[0],[null,0,0]],"1":[[0],[null,0,1]]}"#;
    const REFUSED: &str = r#"[0,0,[[{"error":{"data":{"code":"UNAUTHORIZED"}}}]]]"#;
    const AGAIN: &str = r#"[1,0,[[{"error":{"data":{"code":"UNAUTHORIZED"}}}]]]"#;
    const DONE: &str = r#"[1,0,[[{"result":0}],["result",0,2]]]"#;
    const THROWN: &str = r#"[1,1,[["oh"]]]"#;
    const OTHER: &str = r#"[7,0,[[{"error":{"data":{"code":"UNAUTHORIZED"}}}]]]"#;
    for (lines, expected) in [
        (vec![HEAD, REFUSED], RefreshOnly),
        (vec![HEAD, REFUSED, AGAIN], Challenge),
        (vec![HEAD, AGAIN, REFUSED], Challenge),
        (vec![HEAD, REFUSED, DONE], RefreshOnly),
        (vec![HEAD, DONE, REFUSED], RefreshOnly),
        (vec![HEAD, REFUSED, THROWN], RefreshOnly),
        (vec![HEAD, DONE], Accept),
        // Of a value that is streamed, and no call.
        (vec![HEAD, OTHER, DONE], Accept),
        (vec![HEAD], Accept),
        (vec![REFUSED], Accept),
        (vec!["{}", REFUSED], Accept),
    ] {
        let body = lines.join("\n") + "\n";
        assert_eq!(verdict(200, JSON, body.clone()), expected, "{body}");
    }
}

/// The status says that the calls have fared differently, whatever a hook has made of the answers.
#[test]
fn a_batch_that_says_207_was_carried_out_in_part() {
    let refused = r#"[{"error":{"data":{"code":"UNAUTHORIZED"}}},{"error":{"data":{"code":"UNAUTHORIZED"}}}]"#;
    assert_eq!(verdict(207, JSON, refused), RefreshOnly);
    assert_eq!(verdict(200, JSON, refused), Challenge);
}

/// Of a verdict that is there already, nothing is taken back; a status rule comes after it.
#[test]
fn what_was_found_below_counts_first() {
    let mut known = response(200, JSON, script(r#"{"error":"token_expired"}"#));
    known.extensions_mut().insert(Ignore);
    assert_eq!(judge(all_rules(), known), Ignore);

    let in_part = r#"[{"error":{"data":{"code":"UNAUTHORIZED"}}},{"result":{}}]"#;
    let response = through(all_rules(), response(207, JSON, script(in_part)));
    let response = tokio_test::block_on(response);
    let rules = Refusals::new().also([StatusCode::MULTI_STATUS]);
    assert_eq!(rules.classify(&ResponseHead::of(&response)), RefreshOnly);
}
