//! The refused response's body: read to its end, or the caller's.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use testing::{Auth, Play, Request, idle, next, post, secs, token_of};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_refresh::RefreshLayer;

use crate::layer;

/// Counts what is read of it, in KiB.
#[derive(Debug)]
struct Watched {
    left: usize,
    read: Arc<AtomicUsize>,
    /// Never ends.
    stalls: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return if self.stalls { Poll::Pending } else { Poll::Ready(None) };
        }
        self.left -= 1;
        self.read.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Sends one request whose 401 has this body; the response, and how much of the
/// body the layer has read.
async fn refused(
    layer: &RefreshLayer,
    left: usize,
    stalls: bool,
) -> (http::Response<Watched>, usize) {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let inner = service_fn(move |request: Request| {
        let read = Arc::clone(&count);
        async move {
            let first = token_of(&request) == Some("access-1");
            request.into_body().collect().await.unwrap();
            let left = if first { left } else { 0 };
            let mut response = http::Response::new(Watched { left, read, stalls });
            if first {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let begun = tokio::time::Instant::now();
    let response = layer.layer(inner).oneshot(post("hello")).await.unwrap();
    assert!(begun.elapsed() < secs(1), "a body that stalls holds nobody");
    let read = read.load(Ordering::SeqCst);
    (response, read)
}

#[tokio::test(start_paused = true)]
async fn a_refused_responses_body_is_read_to_its_end_before_the_replay() {
    let (response, read) = refused(&layer(&Auth::new()), 3, false).await;
    assert_eq!((response.status().as_u16(), read), (200, 3));
}

#[tokio::test(start_paused = true)]
async fn reading_it_is_bounded_in_bytes_and_time() {
    let (response, read) = refused(&layer(&Auth::new()), 10_000, false).await;
    assert_eq!(response.status(), 200);
    assert!(read <= 65, "64 KiB at most: {read} KiB");
    let (response, read) = refused(&layer(&Auth::new()), 3, true).await;
    assert_eq!((response.status().as_u16(), read), (200, 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_replay_it_is_the_callers_untouched() {
    let auth = Auth::new();
    auth.next(Play::Fail);
    let (response, read) = refused(&layer(&auth), 3, false).await;
    assert_eq!((response.status().as_u16(), read), (401, 0));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 3 * 1024);

    let forbidden = layer(&Auth::new()).replay_if(|_| false);
    let (response, read) = refused(&forbidden, 3, false).await;
    assert_eq!((response.status().as_u16(), read), (401, 0));
}

/// Its flight has not ended: whether there will be a replay is not known yet.
#[tokio::test(start_paused = true)]
async fn it_is_not_read_before_a_replay_is_certain() {
    let auth = Auth::new();
    auth.gate.close();
    let read = Arc::new(AtomicUsize::new(0));
    let (inner, mut handle) = tower_test::mock::pair::<Request, http::Response<Watched>>();
    let mut service = layer(&auth).layer(inner);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(post("")));
    assert_pending!(call.poll());
    let (_, respond) = next(&mut handle).await;
    let mut response =
        http::Response::new(Watched { left: 2, read: Arc::clone(&read), stalls: false });
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    respond.send_response(response);
    assert_pending!(call.poll());
    idle().await;
    assert_eq!(read.load(Ordering::SeqCst), 0);
    auth.gate.open();
    idle().await;
    assert_pending!(call.poll());
    assert_eq!(read.load(Ordering::SeqCst), 2);
    let (_, respond) = next(&mut handle).await;
    respond.send_response(http::Response::new(Watched { left: 0, read, stalls: false }));
    assert_ready!(call.poll()).unwrap();
}
