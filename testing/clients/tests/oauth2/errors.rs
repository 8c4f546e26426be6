//! Every way in which a token endpoint can fail, and what the user is told.

use std::{
    error::Error as _,
    future::{pending, ready},
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use testing::Logs;
use tokio::{net::TcpListener, time::Instant};
use tower::service_fn;
use tower_refresh::{
    BoxError, FailureKind, RefreshFailure, RefreshState,
    oauth2::{Client, ErrorKind},
    store::{MemoryStore, OpenCause},
};

use super::endpoint::{Endpoint, Reply, cause, json, rotated, state_of, tokens};

const HTML: &str = "<html><body>Bad Gateway</body></html>";

/// What a refresh that meets this reply fails with.
async fn failure(reply: Reply) -> RefreshFailure {
    let endpoint = Endpoint::start([reply]).await;
    let client = endpoint.client().timeout(Duration::from_millis(300)).build().unwrap();
    let state = state_of(&client);
    let failure = state.refresh().await.unwrap_err();
    assert!(endpoint.seen().len() <= 1, "asked again");
    // The old token is still there.
    assert_eq!(state.current().access_token(), Some("access-1"));
    failure
}

#[tokio::test]
async fn what_is_rejected_and_what_is_about_the_client() {
    use ErrorKind::{ClientRefused, Rejected};
    for (code, kind) in [
        ("invalid_grant", Rejected),
        ("invalid_client", ClientRefused),
        ("unauthorized_client", ClientRefused),
        ("unsupported_grant_type", ClientRefused),
        ("invalid_scope", ClientRefused),
    ] {
        for status in [400, 401, 403] {
            let body = format!(r#"{{"error":"{code}","error_description":"so it is"}}"#);
            let failure = failure(json(status, &body)).await;
            let expected = match kind {
                Rejected => FailureKind::Rejected,
                _ => FailureKind::ClientRefused,
            };
            assert_eq!(failure.kind(), expected, "{code} {status}");
            let cause = cause(&failure);
            assert_eq!(cause.kind(), kind);
            assert_eq!(cause.status().unwrap().as_u16(), status);
            assert_eq!(cause.error(), Some(code));
            assert_eq!(cause.description(), Some("so it is"));
        }
    }
}

#[tokio::test]
async fn what_is_transient() {
    let html = |status| Reply::Answer(status, "content-type: text/html\r\n", HTML.to_owned());
    let bare = |status, body: &str| Reply::Answer(status, "", body.to_owned());
    let grant = r#"{"error":"invalid_grant"}"#;
    let cases = [
        (json(400, r#"{"error":"temporarily_unavailable"}"#), ErrorKind::Refused),
        (json(400, r#"{"error":"server_error"}"#), ErrorKind::Refused),
        (json(400, r#"{"error":"invalid_request"}"#), ErrorKind::Refused),
        (json(429, grant), ErrorKind::Refused),
        (json(500, grant), ErrorKind::Refused),
        (json(503, r#"{"error":"temporarily_unavailable"}"#), ErrorKind::Refused),
        (json(400, r#"{"error":{"code":400}}"#), ErrorKind::Refused),
        (json(400, "{"), ErrorKind::Refused),
        (html(400), ErrorKind::Refused),
        (html(404), ErrorKind::Refused),
        (html(502), ErrorKind::Refused),
        (bare(503, ""), ErrorKind::Refused),
        (bare(401, ""), ErrorKind::Refused),
        (Reply::Answer(307, "location: /elsewhere\r\n", String::new()), ErrorKind::Refused),
        (html(200), ErrorKind::Malformed),
        (bare(200, ""), ErrorKind::Malformed),
        (json(200, "{"), ErrorKind::Malformed),
        (json(200, "[]"), ErrorKind::Malformed),
        (json(200, "\u{feff}{}"), ErrorKind::Malformed),
        (json(200, r#"{"token_type":"Bearer"}"#), ErrorKind::Malformed),
        (json(200, r#"{"access_token":true,"token_type":"Bearer"}"#), ErrorKind::Malformed),
        (Reply::HalfABody, ErrorKind::TimedOut),
        (Reply::Silence, ErrorKind::TimedOut),
        (Reply::ResetBefore, ErrorKind::Connection),
        (Reply::ResetAfter, ErrorKind::Connection),
    ];
    for (number, (reply, kind)) in cases.into_iter().enumerate() {
        let failure = failure(reply).await;
        assert_eq!(failure.kind(), FailureKind::Transient, "case {number}");
        assert_eq!(cause(&failure).kind(), kind, "case {number}");
        assert!(failure.retry_at().is_some());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(&uri, "id").unwrap().build().unwrap();
    let state = state_of(&client);
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Transient);
    assert_eq!(cause(&failure).kind(), ErrorKind::Connection);
    assert!(cause(&failure).source().is_some());
}

/// 30 s by default.
#[tokio::test(start_paused = true)]
async fn a_request_takes_no_longer_than_its_timeout() {
    let never =
        service_fn(|_: Request<Full<Bytes>>| pending::<Result<Response<String>, BoxError>>());
    for (limit, seconds) in [(None, 30), (Some(7), 7)] {
        let mut client = Client::builder("https://auth.example.com/token", "id").unwrap();
        if let Some(limit) = limit {
            client = client.timeout(Duration::from_secs(limit));
        }
        let grant = client.over(never).refresh_token_grant();
        let state = RefreshState::builder(grant)
            .tokens(tokens(1))
            .deadline(Duration::from_secs(3600))
            .build();
        let begun = Instant::now();
        let failure = state.refresh().await.unwrap_err();
        assert_eq!(cause(&failure).kind(), ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

/// A successful response of exactly this many bytes.
fn padded(bytes: usize) -> Reply {
    let (start, end) = (r#"{"access_token":"access-2","#, r#""token_type":"Bearer"}"#);
    let padding = " ".repeat(bytes - start.len() - end.len());
    json(200, &format!("{start}{padding}{end}"))
}

#[tokio::test]
async fn a_response_has_a_mib_at_most_or_what_the_user_says() {
    let failure = failure(padded((1 << 20) + 1)).await;
    assert_eq!(failure.kind(), FailureKind::Transient);
    assert_eq!(cause(&failure).kind(), ErrorKind::TooLarge);
    assert_eq!(cause(&failure).status().unwrap(), 200);

    for (set, bytes, fits) in
        [(None, 1 << 20, true), (Some(2 << 20), 2 << 20, true), (Some(500), 501, false)]
    {
        let endpoint = Endpoint::start([padded(bytes)]).await;
        let mut client = endpoint.client();
        if let Some(max) = set {
            client = client.max_response(max);
        }
        let state = state_of(&client.build().unwrap());
        match state.refresh().await {
            Ok(renewed) => assert!(fits && renewed.access_token() == Some("access-2")),
            Err(failure) => assert!(!fits && cause(&failure).kind() == ErrorKind::TooLarge),
        }
    }
}

/// A state that tries again at once.
async fn impatient(
    replies: impl IntoIterator<Item = Reply>,
) -> (Endpoint, std::sync::Arc<RefreshState>) {
    let endpoint = Endpoint::start(replies).await;
    let client = endpoint.client().build().unwrap();
    let state = RefreshState::builder(client.refresh_token_grant())
        .tokens(tokens(1))
        .cool_down(Duration::ZERO, Duration::ZERO)
        .build();
    (endpoint, state)
}

#[tokio::test]
async fn a_reset_before_the_server_knew_is_made_good_by_the_next_try() {
    let (endpoint, state) = impatient([Reply::ResetBefore, rotated(2)]).await;
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(endpoint.seen().len(), 1);
}

/// The server has rotated, and the client cannot know. It sends the same token again: a server
/// with a grace period gives the same pair, a strict one refuses.
#[tokio::test]
async fn a_reset_after_the_server_committed() {
    let (endpoint, state) = impatient([Reply::ResetAfter, rotated(2)]).await;
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    let brought: Vec<_> = endpoint.seen();
    assert_eq!(brought[0].field("refresh_token"), Some("refresh-1"));
    assert_eq!(brought[1].field("refresh_token"), Some("refresh-1"));

    // It is asked once more, a second later: the first request may still be served.
    let strict = || json(400, r#"{"error":"invalid_grant","error_description":"used before"}"#);
    let (_endpoint, state) = impatient([Reply::ResetAfter, strict(), strict()]).await;
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    assert_eq!(cause(&failure).description(), Some("used before"));
}

/// If the first try may have spent the token, the rejection of the second one says so.
#[tokio::test]
async fn a_rejection_says_whether_an_earlier_try_may_have_spent_the_token() {
    let (lost, failed) = (Some(OpenCause::AnswerLost), Some(OpenCause::ServerFailed));
    let rejection = || json(400, r#"{"error":"invalid_grant"}"#);
    let cases = [
        (Reply::ResetBefore, lost),
        (Reply::ResetAfter, lost),
        (json(200, "{"), lost),
        (json(500, r#"{"error":"server_error"}"#), failed),
        // It may be a proxy's, which has lost the server's response.
        (json(503, HTML), failed),
        // Some proxies send it when the server took too long.
        (json(408, HTML), failed),
        (json(429, HTML), None),
        (json(400, r#"{"error":"temporarily_unavailable"}"#), None),
    ];
    // Together, because each that is in doubt takes a second.
    let cases = cases.map(|(reply, expected)| async move {
        let (_endpoint, state) = impatient([reply, rejection(), rejection()]).await;
        assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);
        let failure = state.refresh().await.unwrap_err();
        assert_eq!((failure.kind(), failure.open_redeem()), (FailureKind::Rejected, expected));
    });
    join_all(cases).await;
}

/// The word that logs have: the server's own, else the status, else what went wrong.
#[tokio::test]
async fn a_failure_has_a_word_for_its_cause() {
    for (reply, code) in [
        (
            json(400, r#"{"error":"invalid_grant","error_description":"used before"}"#),
            "invalid_grant",
        ),
        (json(401, r#"{"error":"invalid_client"}"#), "invalid_client"),
        (json(200, r#"{"error":"invalid_grant"}"#), "invalid_grant"),
        (json(503, HTML), "503"),
        (json(429, HTML), "429"),
        (json(400, r#"{"error":""}"#), "400"),
        (json(200, "{"), "malformed"),
        (padded((1 << 20) + 1), "too_large"),
        (Reply::ResetBefore, "connection"),
    ] {
        let failure = failure(reply).await;
        assert_eq!(failure.code(), Some(code), "{failure}");
        assert!(failure.to_string().contains(&format!("({code})")), "{failure}");
    }
}

/// What the next lease holder's failure is, whose refresh token the server rejects.
async fn next_is_rejected(store: Arc<MemoryStore>) -> RefreshFailure {
    let rejection = || json(400, r#"{"error":"invalid_grant"}"#);
    let endpoint = Endpoint::start([rejection(), rejection()]).await;
    let client = endpoint.client().build().unwrap();
    let state = RefreshState::builder(client.refresh_token_grant()).store(store).build();
    state.token().await.unwrap();
    state.refresh().await.unwrap_err()
}

/// A connection that is up ends in these errors too, when the network goes away under it.
#[tokio::test]
async fn a_network_that_is_gone_may_have_lost_the_answer() {
    for kind in [io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable] {
        let store = Arc::new(MemoryStore::with_tokens(tokens(1)));
        let gone = service_fn(move |_: Request<Full<Bytes>>| {
            ready(Err::<Response<String>, _>(io::Error::from(kind)))
        });
        let client = Client::builder("https://auth.example.com/token", "id").unwrap().over(gone);
        let state = RefreshState::builder(client.refresh_token_grant()).store(Arc::clone(&store));
        let state = state.build();
        state.token().await.unwrap();
        assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);

        let failure = next_is_rejected(store).await;
        assert_eq!(failure.open_redeem(), Some(OpenCause::AnswerLost), "{kind}");
    }
}

/// Where no connection came about, the refresh token was not spent.
#[tokio::test]
async fn a_refused_connection_spends_nothing() {
    let store = Arc::new(MemoryStore::with_tokens(tokens(1)));
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let uri = format!("http://127.0.0.1:{port}/token");
    let client = Client::builder(&uri, "app").unwrap().build().unwrap();
    let state = RefreshState::builder(client.refresh_token_grant()).store(Arc::clone(&store));
    let state = state.build();
    state.token().await.unwrap();
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Transient);

    let failure = next_is_rejected(store).await;
    assert_eq!((failure.kind(), failure.open_redeem()), (FailureKind::Rejected, None));
}

#[tokio::test]
async fn retry_after_in_seconds_and_as_a_date() {
    let now = SystemTime::now();
    let date = |offset: u64| httpdate::fmt_http_date(now + Duration::from_secs(offset));
    let far = httpdate::fmt_http_date(now - Duration::from_secs(100_000));
    // A date counts by the server's own clock, if the response has a `Date`.
    let by_its_clock = format!(
        "date: {far}\r\nretry-after: {}\r\n",
        httpdate::fmt_http_date(now - Duration::from_secs(100_000 - 90))
    );
    let cases = [
        ("retry-after: 120\r\n".to_owned(), 120..=120),
        ("retry-after:  7 \r\n".to_owned(), 7..=7),
        (format!("retry-after: {}\r\n", date(300)), 290..=300),
        (by_its_clock, 90..=90),
        (format!("retry-after: {far}\r\n"), 0..=0),
        ("retry-after: 7.5\r\n".to_owned(), 7..=7),
        ("retry-after: 99999999999999999999\r\n".to_owned(), u64::MAX..=u64::MAX),
        ("retry-after: soon, 7, 9\r\nretry-after: 11\r\n".to_owned(), 7..=7),
    ];
    for (headers, wait) in cases {
        let headers: &'static str = headers.leak();
        for status in [429, 503] {
            let before = Instant::now();
            let failure = failure(Reply::Answer(status, headers, String::new())).await;
            assert_eq!(failure.kind(), FailureKind::Transient);
            let told = cause(&failure).retry_after().unwrap().as_secs();
            assert!(wait.contains(&told), "{headers:?} {told}");
            let hour = 3600;
            let least = Duration::from_secs(*wait.start().min(&hour));
            assert!(failure.retry_at().unwrap() >= before + least);
        }
    }
    for odd in ["retry-after: soon\r\n", "retry-after: -1\r\n", "retry-after: 1.5s\r\n"] {
        let failure = failure(Reply::Answer(503, odd, String::new())).await;
        assert_eq!(cause(&failure).retry_after(), None, "{odd}");
    }
}

#[tokio::test]
async fn a_code_of_the_users_is_final_even_with_a_200() {
    let words = r#"{"error":"bad_refresh_token","error_description":"incorrect or expired"}"#;
    let endpoint = Endpoint::start([json(200, words), json(200, words)]).await;
    for (also, kind) in [(false, FailureKind::Transient), (true, FailureKind::Rejected)] {
        let mut client = endpoint.client();
        if also {
            client = client.also_rejected("bad_refresh_token");
        }
        let client = client.build().unwrap();
        let state = state_of(&client);
        let failure = state.refresh().await.unwrap_err();
        assert_eq!(failure.kind(), kind);
        assert_eq!(cause(&failure).error(), Some("bad_refresh_token"));
        assert_eq!(cause(&failure).status().unwrap(), 200);
    }
}

/// Everything that can be printed of an error and its causes.
fn printed(failure: &RefreshFailure) -> String {
    let mut text = format!("{failure} {failure:?}");
    let mut source = failure.source();
    while let Some(error) = source {
        text += &format!("\n{error} {error:?} {error:#?}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn the_user_is_told_all_but_secrets() {
    let secrets = ["refresh/SECRET+1", "client SECRET&2"];
    let said =
        "token refresh/SECRET+1 (refresh%2FSECRET%2B1) of client SECRET&2 (client+SECRET%262)";
    for status in [400, 503] {
        let words = format!(r#"{{"error":"invalid_grant","error_description":"{said}"}}"#);
        let endpoint = Endpoint::start([json(status, &words)]).await;
        let client = Client::builder(&endpoint.uri("/token?key=SECRET-3"), "id")
            .unwrap()
            .client_secret_basic(secrets[1])
            .build()
            .unwrap();
        let state = RefreshState::builder(client.refresh_token_grant())
            .tokens(tokens(1).with_refresh_token(secrets[0]))
            .build();
        let failure = state.refresh().await.unwrap_err();
        let text = printed(&failure);
        assert!(!text.contains("SECRET"), "{text}");
        let kind = if status == 400 { "rejected" } else { "refused" };
        let expected = format!(
            "{}: {kind} ({}): invalid_grant: token [redacted] ([redacted]) of [redacted] ([redacted])",
            endpoint.uri("/token"),
            http::StatusCode::from_u16(status).unwrap(),
        );
        assert_eq!(cause(&failure).to_string(), expected);
        for text in [format!("{client:?}"), format!("{:?}", client.refresh_token_grant())] {
            assert!(text.contains("/token") && !text.contains("SECRET"), "{text}");
        }
    }
}

/// A response that is no token response may have new tokens in it.
#[tokio::test]
async fn a_response_that_cannot_be_read_is_not_shown() {
    for body in [
        r#"{"access_token":"SECRET","refresh_token":"SECRET"#,
        r#"{"access_token":{"SECRET":1},"refresh_token":"SECRET"}"#,
        r#"SECRET"#,
    ] {
        let text = printed(&failure(json(200, body)).await);
        assert!(!text.contains("SECRET"), "{text}");
    }
}

/// A refresh that works, one that is refused with its own token echoed, and a revocation
/// that is refused likewise: all of it is logged, and no secret.
#[tokio::test]
async fn no_secret_is_logged() {
    let (logs, _guard) = Logs::capture();
    let echo = r#"{"error":"invalid_grant","error_description":"SECRET-2 of client SECRET-0"}"#;
    let rotated = r#"{"access_token":"SECRET-a","refresh_token":"SECRET-2","id_token":"SECRET-i"}"#;
    let endpoint = Endpoint::start([json(200, rotated), json(400, echo), json(400, echo)]).await;
    let client = endpoint.client().client_secret_basic("SECRET-0").build().unwrap();
    let revoker = client.revoker(&endpoint.uri("/revoke?key=SECRET-k")).unwrap();
    let state = RefreshState::builder(client.refresh_token_grant())
        .tokens(tokens(1).with_refresh_token("SECRET-1"))
        .on_sign_out(revoker.hook())
        .build();
    state.refresh().await.unwrap();
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Rejected);
    state.clear().await.unwrap();
    logs.assert_told(&["tokens were not revoked", "/revoke: rejected", "[redacted]"]);
    logs.assert_clean();
}
