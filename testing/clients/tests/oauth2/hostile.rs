//! Servers that mean harm, or were made in a hurry.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::service_fn;
use tower_refresh::{
    FailureKind, RefreshState, Refresher, Tokens,
    oauth2::{Client, ClientBuilder, ErrorKind},
};

use super::endpoint::{Endpoint, Reply, cause, json, rotated, state_of, tokens};

/// A client of a server that says this.
fn said(status: u16, body: impl Into<Bytes>) -> Client {
    let body = body.into();
    let builder = Client::builder("https://auth.example.com/token", "id").unwrap();
    builder.over(service_fn(move |_: Request<Full<Bytes>>| {
        let response = Response::builder().status(status).body(Full::new(body.clone()));
        async move { Ok::<_, Infallible>(response.unwrap()) }
    }))
}

/// A response is read in spite of what is odd about it: thrown away, it would take the rotated
/// refresh token with it.
#[tokio::test]
async fn odd_responses_are_not_lost() {
    let with = |more: &[u8]| {
        let start = br#"{"access_token":"access-2","refresh_token":"refresh-2","expires_in":3600"#;
        [start, more].concat()
    };
    let deep = format!(r#","x":{}{}}}"#, "[".repeat(300), "]".repeat(300));
    let cases: [(&str, Vec<u8>); 8] = [
        ("a byte order mark", [b"\xef\xbb\xbf", &*with(b"}")].concat()),
        ("Latin-1", with(b",\"name\":\"J\xfcrgen\"}")),
        ("half a surrogate pair", with(br#","name":"x\ud83d"}"#)),
        ("deep", with(deep.as_bytes())),
        ("a number out of range", with(br#","x":1e999}"#)),
        ("a NUL at the end", with(b"}\0")),
        ("a comment at the end", with(b"}\n<!-- 7 ms -->")),
        ("a key twice", with(br#","scope":"a","scope":"b","x":1,"x":2}"#)),
    ];
    for (name, body) in cases {
        let spent = Arc::new(std::sync::Mutex::new(Vec::new()));
        let grant = said(200, body).refresh_token_grant();
        let state = RefreshState::builder({
            let spent = Arc::clone(&spent);
            move |current: Tokens| {
                spent.lock().unwrap().extend(current.refresh_token().map(str::to_owned));
                let grant = grant.clone();
                async move { grant.refresh(current.into()).await }
            }
        })
        .tokens(tokens(1))
        .build();
        let renewed = state.refresh().await;
        let renewed = renewed.unwrap_or_else(|failure| panic!("{name}: {}", cause(&failure)));
        assert_eq!(renewed.access_token(), Some("access-2"), "{name}");
        assert!(renewed.expires_at().is_some(), "{name}");
        state.refresh().await.unwrap();
        assert_eq!(*spent.lock().unwrap(), ["refresh-1", "refresh-2"], "{name}");
    }
}

/// A number where the refresh token stands is the new refresh token: the old one is dead.
#[tokio::test]
async fn a_number_is_a_refresh_token() {
    let body = r#"{"access_token":"access-2","refresh_token":12345678901234567890123}"#;
    let grant = said(200, body).refresh_token_grant();
    let minted = grant.refresh(tokens(1).into()).await.unwrap();
    assert_eq!(minted.refresh_token(), Some("12345678901234567890123"));
}

/// As the server wrote it: an account number must not be rounded.
#[tokio::test]
async fn a_long_number_keeps_its_digits() {
    let client = said(
        200,
        r#"{"access_token":"access-2","account":12345678901234567890123,"o":{"b":1,"a":2}}"#,
    );
    let renewed = state_of(&client).refresh().await.unwrap();
    assert_eq!(renewed.extra("account"), Some("12345678901234567890123"));
    assert_eq!(renewed.extra("o"), Some(r#"{"b":1,"a":2}"#));
}

/// A rejection counts however clumsily the server puts it.
#[tokio::test]
async fn odd_rejections_are_rejections() {
    for body in [
        &b"{\"error\":\"invalid_grant\",\"error_description\":{\"code\":7}}"[..],
        b"{\"error\":\"invalid_grant\",\"error_description\":7}",
        b"{\"error\":\"invalid_grant\",\"error_uri\":[]}",
        b"{\"error\":\"invalid_grant\",\"error\":\"invalid_grant\"}",
        b"{\"error\":\"invalid_grant\",\"error_description\":\"ung\xfcltig\"}",
        b"\xef\xbb\xbf{\"error\":\"invalid_grant\"}",
        b"{\"error\":\"invalid_grant\"}\0",
    ] {
        let failure = state_of(&said(400, body)).refresh().await.unwrap_err();
        let shown = String::from_utf8_lossy(body);
        assert_eq!(failure.kind(), FailureKind::Rejected, "{shown}");
        assert_eq!(cause(&failure).error(), Some("invalid_grant"), "{shown}");
    }
}

const BROKEN: &str =
    "HTTP/1.1 503 Said\r\nretry-after: 120\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n";

/// The head counts although the body does not come.
#[tokio::test]
async fn a_retry_after_counts_although_the_body_is_too_long_or_breaks_off() {
    let long = "x".repeat((1 << 20) + 1);
    let cases = [
        (Reply::Answer(503, "retry-after: 120\r\n", long), ErrorKind::TooLarge),
        // Chunks, of which the first has no length.
        (Reply::Raw(BROKEN.into()), ErrorKind::Connection),
    ];
    for (reply, kind) in cases {
        let endpoint = Endpoint::start([reply]).await;
        let client = endpoint.client().build().unwrap();
        let failure = state_of(&client).refresh().await.unwrap_err();
        assert_eq!(cause(&failure).kind(), kind);
        assert_eq!(cause(&failure).status().unwrap(), 503);
        assert_eq!(cause(&failure).retry_after(), Some(Duration::from_secs(120)));
    }
}

/// Some servers quote what they were sent, and the header is the secret in another form.
#[tokio::test]
async fn no_form_of_a_secret_is_echoed() {
    let authenticated: [fn(ClientBuilder) -> ClientBuilder; 2] = [
        |client| client.client_secret_basic("client SECRET&2"),
        |client| client.client_secret_post("client SECRET&2"),
    ];
    for authenticate in authenticated {
        // "my+client:client+SECRET%262"
        let basic = "bXkrY2xpZW50OmNsaWVudCtTRUNSRVQlMjYy";
        let words = format!(
            r#"{{"error":"invalid_client","error_description":"bad header: Basic {basic}, bad form: client+SECRET%262, refresh%2fSECRET, assertion-SECRET for the API"}}"#
        );
        let endpoint = Endpoint::start([json(401, &words)]).await;
        let client = endpoint.client().audience("the API");
        let client = client.param("client_assertion", "assertion-SECRET").unwrap();
        let client = authenticate(client).build().unwrap();
        let state = RefreshState::builder(client.refresh_token_grant())
            .tokens(tokens(1).with_refresh_token("refresh/SECRET"))
            .build();
        let failure = state.refresh().await.unwrap_err();
        let seen = endpoint.seen().remove(0);
        let text = cause(&failure).to_string();
        if let Some(sent) = seen.header("authorization") {
            assert_eq!(sent, format!("Basic {basic}"), "{text}");
            assert!(!text.contains(basic), "{text}");
        }
        assert!(!text.contains("SECRET"), "{text}");
        assert!(text.ends_with("[redacted] for the API"), "{text}");
    }
}

#[tokio::test]
async fn an_unencoded_header_is_not_echoed() {
    // "my client:client SECRET&2"
    let basic = "bXkgY2xpZW50OmNsaWVudCBTRUNSRVQmMg==";
    let words =
        format!(r#"{{"error":"invalid_client","error_description":"{basic}, client SECRET&2"}}"#);
    let endpoint = Endpoint::start([json(401, &words)]).await;
    let client = endpoint.client().client_secret_basic_unencoded("client SECRET&2").unwrap();
    let failure = state_of(&client.build().unwrap()).refresh().await.unwrap_err();
    assert_eq!(endpoint.seen()[0].header("authorization"), Some(&*format!("Basic {basic}")));
    assert_eq!(cause(&failure).description(), Some("[redacted], [redacted]"));
}

/// Replaced first, the shorter one would leave the rest of the longer one.
#[tokio::test]
async fn a_secret_that_begins_with_another_is_not_echoed() {
    let words = r#"{"error":"invalid_grant","error_description":"no family-SECRET, no family"}"#;
    let endpoint = Endpoint::start([json(400, words)]).await;
    let client = endpoint.client().client_secret_post("family").build().unwrap();
    let state = RefreshState::builder(client.refresh_token_grant())
        .tokens(tokens(1).with_refresh_token("family-SECRET"))
        .build();
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(cause(&failure).description(), Some("no [redacted], no [redacted]"));
}

/// Without the header any coding would be acceptable (RFC 9110, section 12.5.3).
#[tokio::test]
async fn no_response_is_to_be_compressed() {
    let endpoint = Endpoint::start([rotated(2)]).await;
    let client = endpoint.client().build().unwrap();
    state_of(&client).refresh().await.unwrap();
    assert_eq!(endpoint.seen()[0].header("accept-encoding"), Some("identity"));
}
