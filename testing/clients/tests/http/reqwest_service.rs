//! [`ReqwestLayer`]: reqwest as a tower service, with its own types.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::channel::Channel;
use reqwest::{Body, Client, Method, Request, Url};
use testing::{
    Loopback,
    loopback::{BOTH, Protocol},
};
use tokio::{net::TcpListener, task::JoinSet};
use tower::{Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_refresh::{
    FailureKind, RefreshError, RefreshFailure, RefreshLayer, RefreshState, ReqwestLayer,
    ReqwestRefresh, Tokens,
    layer::{ErrorOnRefusalLayer, Refused},
};

use crate::reqwest::bare;

fn over(protocol: Protocol, state: Arc<RefreshState>) -> ReqwestRefresh<Client> {
    ServiceBuilder::new().layer(ReqwestLayer::new(RefreshLayer::new(state))).service(bare(protocol))
}

fn post(server: &Loopback, body: impl Into<Body>) -> Request {
    let url = format!("http://{}/orders?draft=1", server.socket());
    let mut request = Request::new(Method::POST, Url::parse(&url).unwrap());
    *request.body_mut() = Some(body.into());
    request
}

#[tokio::test]
async fn bytes_and_streams_are_recovered_by_one_refresh() {
    for protocol in BOTH {
        for streams in [false, true] {
            let server = Loopback::serve(protocol, Loopback::strict).await;
            let client = over(protocol, server.state());
            let mut callers = JoinSet::new();
            for number in 0..50 {
                let body = match streams {
                    false => Body::from(format!("order {number}")),
                    true => {
                        let (mut feed, body) = Channel::<Bytes, Infallible>::new(1);
                        tokio::spawn(async move {
                            for part in ["order ".to_owned(), number.to_string()] {
                                feed.send_data(part.into()).await.unwrap();
                            }
                        });
                        Body::wrap(body)
                    }
                };
                callers.spawn(client.clone().oneshot(post(&server, body)));
            }
            while let Some(response) = callers.join_next().await {
                let response = response.unwrap().unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.url().query(), Some("draft=1"), "it is reqwest's own");
                assert_eq!(response.text().await.unwrap(), "thank you");
            }
            assert_eq!(server.refreshes(), 1, "{protocol:?} {streams}");
            let mut bodies = server.bodies();
            let mut expected: Vec<_> =
                (0..50).map(|number| Bytes::from(format!("order {number}"))).collect();
            bodies.sort();
            expected.sort();
            assert_eq!(bodies, expected, "{protocol:?} {streams}");
        }
    }
}

#[tokio::test]
async fn the_reason_is_in_the_responses_extensions() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let response = over(Protocol::Http1, state).oneshot(post(&server, "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let failure = response.extensions().get::<RefreshFailure>().map(RefreshFailure::kind);
    assert_eq!(failure, Some(FailureKind::Rejected));
    assert_eq!(response.text().await.unwrap(), "the token has expired");
}

/// reqwest's own, with its words.
#[tokio::test]
async fn errors_are_reqwests() {
    let state = RefreshState::builder(async |_: Tokens| panic!("nothing is refreshed here"))
        .tokens(Tokens::new("token"))
        .build();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let client = over(Protocol::Http1, state);
    let request = |url: &str| Request::new(Method::GET, Url::parse(url).unwrap());
    let error: reqwest::Error = client.clone().oneshot(request(&url)).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    let error = client.clone().oneshot(request("data:text/plain,hello")).await.unwrap_err();
    assert!(error.is_builder(), "{error:?}");

    // A request's own timeout is for each attempt.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut slow = request(&format!("http://{}/", silent.local_addr().unwrap()));
    *slow.timeout_mut() = Some(Duration::from_millis(20));
    let error = client.oneshot(slow).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

/// The service that was made ready is the one that is called, and no permit is held meanwhile.
#[tokio::test]
async fn the_service_below_is_made_ready_for_each_attempt() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let mut client = ServiceBuilder::new()
        .layer(ReqwestLayer::new(RefreshLayer::new(server.state())))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(bare(Protocol::Http1));
    for _ in 0..3 {
        let response = client.ready().await.unwrap().call(post(&server, "hello")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(server.refreshes(), 1);
}

/// The layer that stands above others stands above this one, too.
#[tokio::test]
async fn a_refusal_is_an_error_with_the_reason_where_that_is_wanted() {
    let server = Loopback::serve(Protocol::Http1, Loopback::strict).await;
    let rejects = async |_: Tokens| Err(RefreshError::rejected("invalid_grant"));
    let state = RefreshState::builder(rejects).tokens(Tokens::new("expired")).build();
    let client = ServiceBuilder::new()
        .layer(ErrorOnRefusalLayer::new())
        .layer(ReqwestLayer::new(RefreshLayer::new(state)))
        .service(bare(Protocol::Http1));
    let error = client.oneshot(post(&server, "hello")).await.unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.failure().map(RefreshFailure::kind), Some(FailureKind::Rejected));
}
