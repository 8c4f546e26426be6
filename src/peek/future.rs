//! [`PeekFuture`]: waits for a response's head, and for a short time for its first frames.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{Look, Next, Peek, Peeked, Upload};

pin_project! {
    /// The response of a service whose responses are looked into. Dropping it cancels the call.
    ///
    /// # Panics
    ///
    /// If it is polled after its end.
    pub struct PeekFuture<F, ResBody: Body, P: Peek> {
        #[pin]
        state: State<F, ResBody, P::Look>,
        upload: Upload,
        peek: P,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, ResBody: Body, L> {
        Called { #[pin] future: F },
        Held { held: Option<Box<Held<ResBody, L>>> },
    }
}

/// A head that waits for frames.
struct Held<B: Body, L> {
    response: Response<Peeked<B>>,
    look: L,
    timer: Pin<Box<Sleep>>,
}

impl<F, ResBody: Body, P: Peek> PeekFuture<F, ResBody, P> {
    pub(crate) fn new(future: F, upload: Upload, peek: P) -> Self {
        Self { state: State::Called { future }, upload, peek }
    }
}

impl<F, E, ResBody, P> Future for PeekFuture<F, ResBody, P>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body + Unpin,
    P: Peek,
{
    type Output = Result<Response<Peeked<ResBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Called { future } => {
                    let mut response = ready!(future.poll(cx))?.map(Peeked::new);
                    let Some(mut look) = this.peek.begin(&response) else {
                        return Poll::Ready(Ok(response));
                    };
                    let next = see(&mut look, response.body_mut(), cx);
                    let hold = look.hold();
                    if next != Next::Wait || !this.upload.is_over() || hold.is_zero() {
                        return Poll::Ready(Ok(conclude(look, response)));
                    }
                    let held = Held { response, look, timer: Box::pin(sleep(hold)) };
                    this.state.set(State::Held { held: Some(Box::new(held)) });
                }
                StateProjection::Held { held } => {
                    if let Some(held) = held {
                        if see(&mut held.look, held.response.body_mut(), cx) == Next::Wait {
                            ready!(held.timer.as_mut().poll(cx));
                        }
                    }
                    return match held.take() {
                        Some(held) => Poll::Ready(Ok(conclude(held.look, held.response))),
                        None => panic!("polled after its end"),
                    };
                }
            }
        }
    }
}

/// Looks at all frames that are there and needed. What it says last is what the next would be
/// needed for, which is not there yet.
fn see<L: Look, B: Body + Unpin>(look: &mut L, body: &mut Peeked<B>, cx: &mut Context<'_>) -> Next {
    let mut next = Next::Wait;
    loop {
        match body.poll_more(cx) {
            Poll::Ready(Some(frame)) => next = look.frame(frame),
            Poll::Ready(None) => return Next::Enough,
            Poll::Pending => return next,
        }
        if next == Next::Enough || body.has_ended() {
            return Next::Enough;
        }
    }
}

fn conclude<L: Look, B: Body + Unpin>(
    look: L,
    mut response: Response<Peeked<B>>,
) -> Response<Peeked<B>> {
    look.conclude(&mut response);
    response
}

impl<F, ResBody: Body, P: Peek> fmt::Debug for PeekFuture<F, ResBody, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekFuture").finish_non_exhaustive()
    }
}
