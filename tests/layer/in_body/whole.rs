//! With [`RefreshLayer`] above.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use testing::{Auth, builder, post, token_of};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_refresh::{
    RefreshLayer,
    body::{NotReplayable, ReplayBody},
    in_body::{GraphQl, InBodyLayer, Peeked, Trpc, Watched},
    layer::Verdict,
};

use super::response;

type Sent = Request<Watched<ReplayBody<Full<Bytes>>>>;

/// Sends a request to a server that answers so to the first token, and `good` to the next. Returns
/// the response and how many requests there were.
async fn ask(
    auth: &Auth,
    status: u16,
    refused: &'static str,
    good: &'static str,
) -> (Response<Peeked<Full<Bytes>>>, usize) {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(auth).build()))
        .layer(InBodyLayer::new().rule(GraphQl::new()).rule(Trpc::new()))
        .service(service_fn(move |request: Sent| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move {
                let first = token_of(&request) == Some("access-1");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, "hello", "each attempt has the whole body");
                let (status, body) = if first { (status, refused) } else { (200, good) };
                Ok::<_, Infallible>(response(status, "application/json", Full::from(body)))
            }
        }));
    let response = client.oneshot(post("hello")).await.unwrap();
    let requests = requests.load(Ordering::SeqCst);
    (response, requests)
}

const REFUSED: &str = r#"{"errors":[{"message":"no","path":["me"],"extensions":{"code":"UNAUTHENTICATED"}}],"data":{"me":null}}"#;
const IN_PART: &str = r#"{"errors":[{"message":"no","path":["me"],"extensions":{"code":"UNAUTHENTICATED"}}],"data":{"me":null,"paid":true}}"#;
const BATCH: &str = r#"[{"result":{"data":1}},{"error":{"data":{"code":"UNAUTHORIZED"}}}]"#;
const GOOD: &str = r#"{"data":{"me":"Alice"}}"#;

async fn body(response: Response<Peeked<Full<Bytes>>>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_a_200_or_a_500_is_refreshed_for_and_replayed() {
    for status in [200, 500] {
        let auth = Auth::new();
        let (response, requests) = ask(&auth, status, REFUSED, GOOD).await;
        assert_eq!((requests, auth.count()), (2, 1), "{status}");
        assert!(response.extensions().get::<Verdict>().is_none());
        assert_eq!(body(response).await, GOOD);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_carried_out_in_part_is_refreshed_for_and_not_replayed() {
    for (status, refused) in [(200, IN_PART), (207, BATCH), (200, BATCH)] {
        let auth = Auth::new();
        let (response, requests) = ask(&auth, status, refused, GOOD).await;
        assert_eq!(requests, 1, "{status} {refused}");
        let not_replayed = response.extensions().get::<NotReplayable>();
        assert_eq!(not_replayed, Some(&NotReplayable::CarriedOut));
        assert_eq!(response.status(), status);
        assert_eq!(body(response).await, refused, "the caller gets it whole");
        // The refresh is for the requests that come.
        while auth.count() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// One replay: the second refusal is the caller's, with its body.
#[tokio::test(start_paused = true)]
async fn a_replay_that_is_refused_is_the_callers() {
    let auth = Auth::new();
    let (response, requests) = ask(&auth, 200, REFUSED, REFUSED).await;
    assert_eq!((requests, auth.count()), (2, 1));
    assert_eq!(response.extensions().get(), Some(&Verdict::Challenge));
    assert_eq!(body(response).await, REFUSED);
}
