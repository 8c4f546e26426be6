//! The default classifier.

use super::*;

fn judge(status: u16, authenticate: &[&str]) -> Verdict {
    let mut response = Response::builder().status(status);
    for value in authenticate {
        response = response.header(WWW_AUTHENTICATE, value.as_bytes());
    }
    classify(&ResponseHead::of(&response.body(()).unwrap()))
}

#[test]
fn a_401_is_a_challenge() {
    for authenticate in [
        &[][..],
        &["Bearer"],
        &["Bearer realm=\"x\", error=\"invalid_token\""],
        &["Basic realm=\"x\"", "Bearer error=invalid_token"],
        &[
            "Bearer error=\"invalid_token\", error_description=\"not error=\\\"insufficient_scope\\\"\"",
        ],
        &["DPoP error=\"insufficient_scope\", Bearer error=\"invalid_token\""],
        &["\"\"not a challenge"],
        &["Bearer error=\"Insufficient_Scope\""],
        &["Bearer error=use_dpop_nonce", "Bearer error=expired"],
        // Half a challenge is none, and neither is what follows it.
        &["Bearer error=insufficient_scope, realm=\"x"],
        &["Bearer realm=, error=insufficient_scope"],
        &["Negotiate YII==, Bearer error=\"invalid_token\""],
    ] {
        assert_eq!(judge(401, authenticate), Verdict::Challenge, "{authenticate:?}");
    }
}

#[test]
fn step_up_and_scope_are_ignored() {
    for authenticate in [
        &["Bearer error=\"insufficient_scope\", scope=\"admin\""][..],
        &["Bearer realm=\"x\", Error=\"insufficient_user_authentication\", acr_values=\"gold\""],
        &["Basic realm=\"x\", Bearer error=insufficient_scope"],
        &["Basic realm=\"x\"", "Bearer error=\"insufficient_scope\""],
        &["Bearer error=\"insufficient_scope\", error_description=\"zu wenig für dich\""],
        &["Negotiate YII==, Bearer error=\"insufficient_\\scope\""],
        &["DPoP error=\"use_dpop_nonce\", algs=\"ES256\""],
        &["Bearer realm=\"x\", DPoP error=\"use_dpop_nonce\""],
        &["BEARER error=\"insufficient_scope\", DPoP error=\"invalid_token\""],
        &["bearer Error=insufficient_scope, DPoP error=use_dpop_nonce"],
        &["Bearer error=insufficient_scope, @", "@"],
    ] {
        assert_eq!(judge(401, authenticate), Verdict::Ignore, "{authenticate:?}");
    }
}

#[test]
fn other_statuses() {
    for status in [200, 204, 304, 400, 403, 404, 429] {
        assert_eq!(judge(status, &[]), Verdict::Accept, "{status}");
    }
    for status in [500, 503] {
        assert_eq!(judge(status, &[]), Verdict::Ignore, "{status}");
    }
}

fn judge_rpc(status: u16, kind: &'static str, code: &'static str, more: &str) -> Verdict {
    let mut response =
        Response::builder().status(status).header("content-type", kind).header("grpc-status", code);
    if !more.is_empty() {
        response = response.header(WWW_AUTHENTICATE, more);
    }
    classify(&ResponseHead::of(&response.body(()).unwrap()))
}

#[test]
fn a_grpc_status_in_the_head_counts() {
    for code in [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
        "17", "", "x", "-1",
    ] {
        let expected = match code {
            "16" => Verdict::Challenge,
            "2" | "4" | "13" | "14" | "15" | "" | "x" | "-1" => Verdict::Ignore,
            _ => Verdict::Accept,
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;a=b"] {
            assert_eq!(judge_rpc(200, kind, code, ""), expected, "{code} {kind}");
        }
    }
}

#[test]
fn an_rpc_that_needs_more_than_a_refresh_is_ignored() {
    let judge = |more| judge_rpc(200, "application/grpc", "16", more);
    assert_eq!(judge("Bearer error=\"insufficient_scope\""), Verdict::Ignore);
    assert_eq!(judge("DPoP error=\"use_dpop_nonce\""), Verdict::Ignore);
    assert_eq!(judge("Bearer error=\"invalid_token\""), Verdict::Challenge);
    assert_eq!(judge("Bearer"), Verdict::Challenge);
}

#[test]
fn only_grpc_has_a_grpc_status() {
    assert_eq!(judge_rpc(200, "application/json", "16", ""), Verdict::Accept);
    assert_eq!(judge_rpc(200, "text/application/grpc", "16", ""), Verdict::Accept);
    assert_eq!(judge_rpc(404, "application/grpc", "16", ""), Verdict::Accept);
    assert_eq!(judge_rpc(503, "application/grpc", "16", ""), Verdict::Ignore);
    assert_eq!(judge_rpc(401, "application/grpc", "0", ""), Verdict::Challenge);
}

#[test]
fn a_classifier_sees_all_of_the_head_and_its_debug_shows_no_header() {
    let by_all = |head: &ResponseHead<'_>| {
        let all = head.status() == 418
            && head.version() == Version::HTTP_2
            && head.headers().contains_key("set-cookie")
            && head.extensions().get::<&str>() == Some(&"from the cache");
        if all { Verdict::Challenge } else { Verdict::Accept }
    };
    let response = Response::builder()
        .status(418)
        .version(Version::HTTP_2)
        .header("set-cookie", "session=hush")
        .extension("from the cache")
        .body(())
        .unwrap();
    let head = ResponseHead::of(&response);
    assert_eq!(by_all.classify(&head), Verdict::Challenge);
    let shown = format!("{head:?}");
    assert!(shown.contains("418") && !shown.contains("hush"), "{shown}");
}
