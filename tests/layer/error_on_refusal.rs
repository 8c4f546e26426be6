//! An error instead of the server's refusal.

use std::io;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use testing::{Auth, Play, answer, builder, get, mock, next, post};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshLayer,
    body::NotReplayable,
    layer::{ErrorOnRefusalLayer, Refused, ResponseHead, Verdict},
};

use crate::{gate::expired, layer, serve};

/// What a caller gets when the server answers with these statuses.
async fn send(
    layer: RefreshLayer,
    request: Request<Full<Bytes>>,
    statuses: &[u16],
) -> Result<StatusCode, BoxError> {
    let (service, mut handle) = mock(&layer);
    let service = ErrorOnRefusalLayer::new().layer(service);
    let call = tokio::spawn(service.oneshot(request));
    serve(&mut handle, statuses).await;
    call.await.unwrap().map(|response| response.status())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_not_helped_is_an_error_with_its_reason() {
    let auth = Auth::new();
    auth.next(Play::Reject);
    let error = send(layer(&auth), get("/"), &[401]).await.unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.failure().map(RefreshFailure::kind), Some(FailureKind::Rejected));
    let source = error.source().and_then(|source| source.downcast_ref::<RefreshFailure>());
    assert_eq!(source.map(RefreshFailure::kind), Some(FailureKind::Rejected));

    let unreplayable = layer(&Auth::new()).replay_if(|_| false);
    let error = send(unreplayable, post("pay"), &[401]).await.unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert!(refused.failure().is_none());
    assert_eq!(refused.not_replayed(), Some(NotReplayable::Forbidden));
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source, Some(&NotReplayable::Forbidden));
}

#[tokio::test(start_paused = true)]
async fn all_other_responses_are_the_callers() {
    for (statuses, expected) in [(&[200][..], 200), (&[401, 200], 200), (&[401, 401], 401)] {
        let status = send(layer(&Auth::new()), get("/"), statuses).await.unwrap();
        assert_eq!(status, expected, "{statuses:?}");
    }
    let in_part = |head: &ResponseHead<'_>| match head.status().as_u16() {
        207 => Verdict::RefreshOnly,
        _ => Verdict::Accept,
    };
    assert_eq!(send(layer(&Auth::new()).classify(in_part), get("/"), &[207]).await.unwrap(), 207);

    // There was no fresh token for it, and the server answers all the same.
    let auth = Auth::new();
    auth.next(Play::Reject);
    let layer = RefreshLayer::new(expired(&auth));
    assert_eq!(send(layer, get("/"), &[200]).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_what_it_was() {
    let (service, mut handle) = mock(&RefreshLayer::new(builder(&Auth::new()).build()));
    let service = ServiceBuilder::new().layer(ErrorOnRefusalLayer::new()).service(service);
    let call = tokio::spawn(service.oneshot(get("/")));
    let (_, respond) = next(&mut handle).await;
    respond.send_error(io::Error::other("cut"));
    let error = call.await.unwrap().map(|_| answer(200)).unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().map(ToString::to_string), Some("cut".to_owned()));
}
