//! The servers of these tests, of the examples and of the torture are as strict as they say.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::{
    Loopback,
    loopback::{Book, HangUp, Protocol, Verdict, empty},
    secs,
};
use tokio::time::advance;

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn a_refresh_token_is_for_single_use() {
    let mut book = Book::new();
    let first = book.sign_in();
    let Verdict::Renewed(second) = book.redeem(&first.refresh) else { panic!("it is good") };
    assert!(!book.accepts(&first.access) && book.accepts(&second.access));
    assert_eq!(book.redeem(&first.refresh), Verdict::Reused(1));
    // Everything of the session is over, and the next one is not affected.
    assert!(!book.accepts(&second.access));
    assert_eq!(book.redeem(&second.refresh), Verdict::Over);
    assert_eq!(book.redeem("refresh-of-another"), Verdict::Unknown);
    assert_eq!((book.refreshes, book.token_reuse, book.graces), (1, 1, 0));
    let next = book.sign_in();
    assert!(book.accepts(&next.access));
    assert_eq!(book.redeem(&first.refresh), Verdict::Over);
    assert!(book.accepts(&next.access));
}

#[tokio::test(start_paused = true)]
async fn within_the_grace_period_the_previous_token_gets_the_same_pair() {
    let mut book = Book::new().grace(secs(2));
    let first = book.sign_in();
    let Verdict::Renewed(second) = book.redeem(&first.refresh) else { panic!("it is good") };
    advance(millis(1900)).await;
    assert_eq!(book.redeem(&first.refresh), Verdict::Again(second.clone()));
    advance(millis(200)).await;
    assert_eq!(book.redeem(&first.refresh), Verdict::Reused(1));

    // Only the previous one.
    let first = book.sign_in();
    let Verdict::Renewed(second) = book.redeem(&first.refresh) else { panic!("it is good") };
    assert!(matches!(book.redeem(&second.refresh), Verdict::Renewed(_)));
    assert_eq!(book.redeem(&first.refresh), Verdict::Reused(1));
    assert_eq!((book.graces, book.token_reuse), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn access_tokens_have_their_life() {
    let mut book = Book::new().life(millis(50));
    let pair = book.sign_in();
    advance(millis(50)).await;
    assert!(book.accepts(&pair.access));
    advance(millis(1)).await;
    assert!(!book.accepts(&pair.access));
    assert!(book.is_current(&pair.access));
    assert_eq!((book.ok, book.unauthorized), (1, 1));
}

#[tokio::test]
async fn what_is_revoked_is_over() {
    let mut book = Book::new();
    let pair = book.sign_in();
    book.revoke("access-of-another");
    assert!(book.accepts(&pair.access));
    book.revoke(&pair.refresh);
    assert!(!book.accepts(&pair.access));
    assert_eq!(book.redeem(&pair.refresh), Verdict::Over);
    assert_eq!(book.revoked, 1);
}

#[tokio::test]
async fn the_endpoints_go_by_the_book() {
    let servers = Loopback::start(Duration::ZERO).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let tokens = servers.sign_in();
    let bearer = format!("Bearer {}", tokens.access_token());
    let send = async |uri: String, body: String| {
        let request = Request::post(uri).header(AUTHORIZATION, &bearer).body(Full::from(body));
        let response = client.request(request.unwrap()).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let accepted = (StatusCode::OK, Bytes::from("hello"));
    assert_eq!(send(servers.api(), "hello".into()).await, accepted);
    assert_eq!(send(servers.stream(), "hello".into()).await, accepted);

    let spent = tokens.refresh_token().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={spent}");
    assert_eq!(send(servers.token_endpoint(), form.clone()).await.0, StatusCode::OK);
    assert_eq!(send(servers.api(), "hello".into()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(send(servers.stream(), "hello".into()).await.0, StatusCode::UNAUTHORIZED);
    let (status, said) = send(servers.token_endpoint(), form).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(said.starts_with(br#"{"error":"invalid_grant""#), "{said:?}");
    let book = servers.book();
    assert_eq!((book.refreshes, book.token_reuse, book.is_alive()), (1, 1, false));
}

#[tokio::test]
async fn an_answer_that_hangs_up_is_not_sent() {
    let server = Loopback::serve(Protocol::Http1, async |_, _| {
        let mut response = empty(StatusCode::OK);
        response.extensions_mut().insert(HangUp);
        response
    })
    .await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    assert!(client.get(server.api().parse().unwrap()).await.is_err());
    server.closed().wait_for(|closed| *closed > 0).await.unwrap();
}
