//! [`ProxyFuture`]: from the client that is made ready to the response that the browser gets.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, LOCATION, SET_COOKIE, UPGRADE},
};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    headers::{protocol, strip_hops},
    route::Route,
    tunnel::Tunnel,
    websocket,
};
use crate::{
    error::BoxError,
    session::{body::SessionBody, shared::spawn},
};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

pin_project! {
    /// The future of a [`Proxy`].
    pub struct ProxyFuture<C, Q>
    where
        C: Service<Q>,
    {
        #[pin]
        state: State<C, Q, C::Future>,
        route: Arc<Route>,
    }
}

pin_project! {
    #[project = StateProject]
    pub(super) enum State<C, Q, F> {
        Readying { client: C, request: Option<Q>, tunnel: Option<Tunnel> },
        Calling { #[pin] future: F, tunnel: Option<Tunnel> },
        Answered { status: StatusCode },
    }
}

impl<C: Service<Q>, Q> ProxyFuture<C, Q> {
    pub(super) fn of(route: Arc<Route>, state: State<C, Q, C::Future>) -> Self {
        Self { state, route }
    }
}

impl<C, Q, R> Future for ProxyFuture<C, Q>
where
    C: Service<Q, Response = Response<R>>,
    C::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<SessionBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProject::Readying { client, request, tunnel } => {
                    match (ready!(client.poll_ready(cx)), request.take()) {
                        (Ok(()), Some(request)) => {
                            State::Calling { future: client.call(request), tunnel: tunnel.take() }
                        }
                        (Err(error), _) => failed(error.into()),
                        // It was taken once, and the state is another one since.
                        (Ok(()), None) => State::Answered { status: StatusCode::BAD_GATEWAY },
                    }
                }
                StateProject::Calling { future, tunnel } => match ready!(future.poll(cx)) {
                    Ok(response) => {
                        let tunnel = tunnel.take();
                        return Poll::Ready(Ok(answered(this.route, tunnel, response)));
                    }
                    Err(error) => failed(error.into()),
                },
                StateProject::Answered { status } => {
                    return Poll::Ready(Ok(empty(*status)));
                }
            };
            this.state.set(next);
        }
    }
}

/// What the error says may be a secret, of a URL say.
fn failed<C, Q, F>(error: BoxError) -> State<C, Q, F> {
    drop(error);
    tracing::warn!("the server behind the proxy did not answer");
    State::Answered { status: StatusCode::BAD_GATEWAY }
}

fn empty<R>(status: StatusCode) -> Response<SessionBody<R>> {
    let mut response = Response::new(SessionBody::text(""));
    *response.status_mut() = status;
    response
}

fn answered<R>(
    route: &Route,
    tunnel: Option<Tunnel>,
    mut response: Response<R>,
) -> Response<SessionBody<R>> {
    let protocol = protocol(response.headers());
    let upgrade = response.extensions_mut().remove::<OnUpgrade>();
    let headers = response.headers_mut();
    strip_hops(headers);
    if !route.passes_cookies {
        headers.remove(SET_COOKIE);
    }
    // It would take the session's cookie, too.
    headers.remove(CLEAR_SITE_DATA);
    if let Some(here) = headers.get(LOCATION).and_then(|location| route.here(location)) {
        headers.insert(LOCATION, here);
    }
    let key = tunnel.as_ref().and_then(|tunnel| tunnel.key.as_ref());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let is_right =
            |protocol: &HeaderValue| key.is_none_or(|key| key.opens(protocol, response.headers()));
        let protocol = protocol.filter(is_right);
        let is_over_http2 = key.is_some();
        let (Some(protocol), Some(tunnel), Some(server)) = (protocol, tunnel, upgrade) else {
            // The browser has not asked for it.
            return empty(StatusCode::BAD_GATEWAY);
        };
        if is_over_http2 {
            websocket::answer(&mut response);
        } else {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, protocol);
        }
        spawn(async move {
            if tunnel.run(server).await.is_err() {
                tracing::debug!("a tunnel through the proxy has broken");
            }
        });
    } else if key.is_some() && response.status().is_success() {
        // The browser would take it for an open socket.
        return empty(StatusCode::BAD_GATEWAY);
    }
    *response.version_mut() = Version::HTTP_11;
    response.map(SessionBody::whole)
}

impl<C: Service<Q>, Q> fmt::Debug for ProxyFuture<C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyFuture").finish_non_exhaustive()
    }
}
