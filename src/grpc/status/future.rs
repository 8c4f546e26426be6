//! [`GrpcStatusFuture`]: waits for a response's head, and for a short time for its first frame.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING},
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::body::{Peeked, Upload};
use crate::grpc::protocol::{STATUS, is_grpc};

pin_project! {
    /// The response of a [`GrpcStatus`](super::GrpcStatus). Dropping it cancels the call.
    ///
    /// # Panics
    ///
    /// If it is polled after its end.
    pub struct GrpcStatusFuture<F, ResBody: Body> {
        #[pin]
        state: State<F, ResBody>,
        upload: Upload,
        hold: Duration,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, ResBody: Body> {
        Called { #[pin] future: F },
        Held { held: Option<Box<Held<ResBody>>> },
    }
}

/// A head that waits for the first frame.
struct Held<B: Body> {
    response: Response<Peeked<B>>,
    timer: Pin<Box<Sleep>>,
}

impl<F, ResBody: Body> GrpcStatusFuture<F, ResBody> {
    pub(super) fn new(future: F, upload: Upload, hold: Duration) -> Self {
        Self { state: State::Called { future }, upload, hold }
    }
}

impl<F, E, ResBody> Future for GrpcStatusFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body + Unpin,
{
    type Output = Result<Response<Peeked<ResBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Called { future } => {
                    let mut response = ready!(future.poll(cx))?.map(Peeked::new);
                    let seen = !may_hide_a_status(&response) || look(&mut response, cx).is_ready();
                    if seen || !this.upload.is_over() || this.hold.is_zero() {
                        return Poll::Ready(Ok(response));
                    }
                    let held = Held { response, timer: Box::pin(sleep(*this.hold)) };
                    this.state.set(State::Held { held: Some(Box::new(held)) });
                }
                StateProjection::Held { held } => {
                    if let Some(held) = held {
                        if look(&mut held.response, cx).is_pending() {
                            ready!(held.timer.as_mut().poll(cx));
                        }
                    }
                    return match held.take() {
                        Some(held) => Poll::Ready(Ok(held.response)),
                        None => panic!("GrpcStatusFuture polled after its end"),
                    };
                }
            }
        }
    }
}

/// Whether the response may be a status that its head does not show.
fn may_hide_a_status<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK && is_grpc(headers) && !headers.contains_key(&STATUS)
}

/// Looks at the first frame. If that is trailers with a status, copies them into the head.
/// Pending: there is no frame yet.
fn look<B: Body + Unpin>(response: &mut Response<Peeked<B>>, cx: &mut Context<'_>) -> Poll<()> {
    let frame = ready!(response.body_mut().poll_first(cx));
    let trailers = frame.and_then(|frame| frame.trailers_ref());
    if let Some(trailers) = trailers.filter(|trailers| trailers.contains_key(&STATUS)).cloned() {
        merge(response.headers_mut(), trailers);
    }
    Poll::Ready(())
}

/// Adds trailers to a head, except for fields that frame a message: these must not come in
/// trailers (RFC 9110, section 6.5.1), and would change how the body is read.
fn merge(headers: &mut HeaderMap, trailers: HeaderMap) {
    for (name, value) in &trailers {
        let framing = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING];
        if !framing.contains(name) {
            headers.append(name, value.clone());
        }
    }
}

impl<F, ResBody: Body> fmt::Debug for GrpcStatusFuture<F, ResBody> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcStatusFuture").finish_non_exhaustive()
    }
}
