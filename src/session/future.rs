//! [`SessionFuture`]: the order of things.
//!
//! ```text
//! call        forged? -> cookies -> strip -> known for sure? --------.
//! Finding                                     look at the store      |
//! admit       came with an old cookie? -> a session required? <------'
//! Readying    the service below, if it was let go for the look
//! Calling     the service below -> its response
//! Writing     cookies that hold the tokens, if the browser's are older -> the response, finished
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    answer,
    body::SessionBody,
    place::Found,
    request::{Finding, OneVisit, Writing},
};

pin_project! {
    /// The future of a [`SessionService`].
    pub struct SessionFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        #[pin]
        pub(super) state: State<S, B, R, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    #[project_replace = StateTaken]
    pub(super) enum State<S, B, R, F> {
        Finding {
            finding: Finding,
            request: Option<(Parts, B)>,
            inner: Option<S>,
            visit: Option<OneVisit>,
        },
        Readying { inner: S, request: Option<Request<B>>, visit: Option<OneVisit> },
        Calling { #[pin] future: F, visit: OneVisit },
        Writing { writing: Writing, response: Option<Response<R>>, visit: Option<OneVisit> },
        Answered { response: Option<Response<SessionBody<R>>> },
        Done,
    }
}

impl<S, B, R> SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    pub(super) fn answered(answer: Response<SessionBody<R>>) -> Self {
        Self { state: State::Answered { response: Some(answer) } }
    }
}

impl<S, B, R> Future for SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<SessionBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Finding { finding, request, inner, visit } => {
                    let found = ready!(finding.as_mut().poll(cx));
                    // Taken once: the state is another one after this.
                    let taken = (request.take(), inner.take(), visit.take());
                    let (Some((mut parts, body)), Some(inner), Some(mut visit)) = taken else {
                        panic!("{POLLED_AGAIN}");
                    };
                    let answer = match found {
                        Ok((visited, claim)) => {
                            visit.admit(&mut parts, Found::Visit(visited), claim)
                        }
                        Err(_) => Some(answer::unavailable(visit.is_event_stream)),
                    };
                    match answer {
                        None => {
                            let request = Some(Request::from_parts(parts, body));
                            State::Readying { inner, request, visit: Some(visit) }
                        }
                        response => State::Answered { response },
                    }
                }
                StateProject::Readying { inner, request, visit } => {
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let (Some(request), Some(visit)) = (request.take(), visit.take()) else {
                        panic!("{POLLED_AGAIN}");
                    };
                    State::Calling { future: inner.call(request), visit }
                }
                StateProject::Calling { future, .. } => {
                    let response = ready!(future.poll(cx));
                    let taken = state.as_mut().project_replace(State::Done);
                    let StateTaken::Calling { visit, .. } = taken else { unreachable!() };
                    match (response, visit.writing()) {
                        (Ok(response), Some(writing)) => {
                            let (response, visit) = (Some(response), Some(visit));
                            State::Writing { writing, response, visit }
                        }
                        (response, _) => {
                            return Poll::Ready(response.map(|response| visit.finish(response)));
                        }
                    }
                }
                StateProject::Writing { writing, response, visit } => {
                    let cookies = ready!(writing.as_mut().poll(cx));
                    // Taken once: the state is another one after this.
                    let (Some(response), Some(visit)) = (response.take(), visit.take()) else {
                        panic!("{POLLED_AGAIN}");
                    };
                    if let (Some(cookies), Some(slot)) = (cookies, &visit.slot) {
                        slot.0.set(cookies);
                    }
                    State::Answered { response: Some(visit.finish(response)) }
                }
                StateProject::Answered { response } => {
                    let response = response.take();
                    return Poll::Ready(Ok(response.expect(POLLED_AGAIN)));
                }
                StateProject::Done => panic!("{POLLED_AGAIN}"),
            };
            state.set(next);
        }
    }
}

/// As futures may say that are polled after their end.
const POLLED_AGAIN: &str = "the future has ended, and is polled again";
impl<S, B, R> fmt::Debug for SessionFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}
