//! Error codes where RFC 6749 has none, and none at all.

use tower_refresh::{
    FailureKind, RefreshFailure,
    oauth2::{ClientBuilder, ErrorKind, RefusalKind},
};

use super::endpoint::{Endpoint, Reply, cause, json, state_of};

async fn failure(reply: Reply, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> RefreshFailure {
    let endpoint = Endpoint::start([reply]).await;
    let client = set(endpoint.client()).build().unwrap();
    state_of(&client).refresh().await.unwrap_err()
}

/// The user is told it, and can name it as final. Each is as a server has it.
#[tokio::test]
async fn a_code_is_found_wherever_servers_put_it() {
    for (status, body, code, description) in [
        (400, r#"{"error":{"code":"dead","message":"so it is"}}"#, "dead", "so it is"),
        (400, r#"{"error":{"code":4001,"message":"so it is"}}"#, "4001", "so it is"),
        (400, r#"{"error":{"type":"dead","message":"so it is"}}"#, "dead", "so it is"),
        (400, r#"{"error":{"code":400,"status":"DEAD","message":"so it is"}}"#, "DEAD", "so it is"),
        (400, r#"{"error":{"error":"dead","description":"so it is"}}"#, "dead", "so it is"),
        (401, r#"{"detail":"so it is","code":"token_not_valid"}"#, "token_not_valid", "so it is"),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"so it is"}"#, "M_UNKNOWN_TOKEN", "so it is"),
        (400, r#"{"errorCode":"E0000011","message":"so it is"}"#, "E0000011", "so it is"),
        (400, r#"{"error_code":"dead","message":"so it is"}"#, "dead", "so it is"),
        (400, r#"{"errors":[{"code":"dead","message":"so it is"}]}"#, "dead", "so it is"),
        (
            200,
            r#"{"errors":[{"extensions":{"code":"dead"},"message":"so it is"}]}"#,
            "dead",
            "so it is",
        ),
        (200, r#"{"code":40010,"message":"so it is","data":null}"#, "40010", "so it is"),
        (400, r#"{"error":"dead","error_description":"so it is","code":7}"#, "dead", "so it is"),
    ] {
        let told = failure(json(status, body), |client| client).await;
        assert_eq!(told.kind(), FailureKind::Transient, "{body}");
        assert_eq!((told.code(), cause(&told).error()), (Some(code), Some(code)), "{body}");
        assert_eq!(cause(&told).description(), Some(description), "{body}");
        let ended = failure(json(status, body), |client| client.also_rejected(code)).await;
        assert_eq!(ended.kind(), FailureKind::Rejected, "{body}");
    }
}

/// A code that is known is told, whatever stands beside it.
#[tokio::test]
async fn a_standard_code_counts_wherever_it_is() {
    for (body, kind) in [
        (r#"{"error":{"code":400,"type":"invalid_grant"}}"#, FailureKind::Rejected),
        (r#"{"error":"Bad Request","code":"invalid_grant"}"#, FailureKind::Rejected),
        (r#"{"errors":["invalid_grant"]}"#, FailureKind::Rejected),
        (r#"{"error":{"code":"invalid_client"}}"#, FailureKind::ClientRefused),
    ] {
        assert_eq!(failure(json(400, body), |client| client).await.kind(), kind, "{body}");
        let busy = failure(json(503, body), |client| client).await;
        assert_eq!(busy.kind(), FailureKind::Transient, "{body}");
    }
}

/// What says that there is no error is none, and the user's code is told among several.
#[tokio::test]
async fn what_is_no_code_is_not_told() {
    for body in [r#"{"code":0}"#, r#"{"code":""}"#, r#"{"error":null}"#, r#"{"errors":[]}"#] {
        let told = failure(json(200, body), |client| client).await;
        assert!(cause(&told).error().is_none(), "{body}");
    }
    let body = r#"{"error":"Unauthorized","code":"token_revoked"}"#;
    let told = failure(json(401, body), |client| client.also_rejected("token_revoked")).await;
    assert_eq!(told.code(), Some("token_revoked"));
    assert_eq!(cause(&told).description(), Some("Unauthorized"));
}

/// As of a server that answers every error with an empty 400.
#[tokio::test]
async fn a_rule_of_the_users_says_what_has_no_code() {
    let bare = |status| Reply::Answer(status, "", String::new());
    let rule = |client: ClientBuilder| {
        client.classify_refusal(|refusal| {
            let is_bare = refusal.status() == 400 && refusal.body().is_empty();
            is_bare.then_some(RefusalKind::Rejected)
        })
    };
    assert_eq!(failure(bare(400), |client| client).await.kind(), FailureKind::Transient);
    assert_eq!(failure(bare(400), rule).await.kind(), FailureKind::Rejected);
    assert_eq!(failure(bare(404), rule).await.kind(), FailureKind::Transient);
    // Where it has no answer, the code decides.
    let standard = json(400, r#"{"error":"invalid_client"}"#);
    assert_eq!(failure(standard, rule).await.kind(), FailureKind::ClientRefused);
}

#[tokio::test]
async fn a_rule_sees_the_status_the_code_and_the_body_and_goes_before_all_codes() {
    for (status, body, kind, expected) in [
        (400, r#"{"error":"invalid_grant"}"#, RefusalKind::Transient, FailureKind::Transient),
        (503, r#"{"error":"x"}"#, RefusalKind::Rejected, FailureKind::Rejected),
        (200, r#"{"error":{"code":7}}"#, RefusalKind::ClientRefused, FailureKind::ClientRefused),
        (200, "<html>", RefusalKind::Rejected, FailureKind::Rejected),
    ] {
        let rule = move |client: ClientBuilder| {
            client.classify_refusal(move |refusal| {
                assert_eq!((refusal.status().as_u16(), refusal.body()), (status, body.as_bytes()));
                let code = match body {
                    r#"{"error":{"code":7}}"# => Some("7"),
                    "<html>" => None,
                    _ => Some(if status == 503 { "x" } else { "invalid_grant" }),
                };
                assert_eq!(refusal.code(), code);
                assert!(!format!("{refusal:?}").contains("error"));
                Some(kind)
            })
        };
        let told = failure(json(status, body), rule).await;
        assert_eq!(told.kind(), expected, "{status} {body}");
        if kind == RefusalKind::Transient {
            assert_eq!(cause(&told).kind(), ErrorKind::Refused);
        }
    }
}
