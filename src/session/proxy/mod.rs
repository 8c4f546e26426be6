//! [`ProxyLayer`]: hands a browser's requests on to a server behind (feature `session-proxy`).

// | file | what is in it |
// |---|---|
// | `route.rs` | where requests go, and what of the origin a browser sees |
// | `headers.rs` | the header fields that are about one connection, and cookies |
// | `future.rs` | from the client that is made ready to the response that the browser gets |
// | `tunnel.rs` | connections that become ones of another protocol |
// | `websocket.rs` | WebSockets that come over HTTP/2 |

mod future;
mod headers;
mod route;
mod tunnel;
mod websocket;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, COOKIE, HOST, UPGRADE},
};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use tower_layer::Layer;
use tower_service::Service;

pub use self::future::ProxyFuture;
use self::{
    future::State,
    headers::{join_cookies, protocol, strip_hops},
    route::Route,
    tunnel::Tunnel,
};
use super::{body::SessionBody, slot::SessionSlot};
use crate::{
    error::{BoxError, ConfigError},
    origin::Origin,
};

/// A tower layer that makes a reverse proxy of an HTTP client: each request goes on to one origin, with
/// its own method, path, headers and body, and streams both ways. WebSockets go through, and are closed
/// when the [session](super::Session) ends. Browsers open them over HTTP/1.1, or over HTTP/2 if the
/// server announces that (RFC 8441; hyper's `enable_connect_protocol`, which `axum::serve` sets). The
/// origin gets them over HTTP/1.1 in any case.
///
/// It stands behind a [`SessionLayer`](super::SessionLayer), which has taken the browser's cookie and
/// `Authorization` off the request, and before a [`RefreshLayer`](crate::RefreshLayer), which puts the
/// session's token on it and sends it again if the token is refused. The client's body type is a
/// [`ReplayBody`](crate::body::ReplayBody) of the server's.
///
/// In both directions the proxy drops the fields of one connection (`Connection` and those that it
/// names, `Transfer-Encoding`, ..., RFC 9110, section 7.6.1), and all cookies. A `Location` of the
/// origin becomes one of this server. No `Forwarded` field is added. If the client fails, the response
/// is a 502.
///
/// ```
/// use hyper::body::Incoming;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::ServiceBuilder;
/// use tower_refresh::{FromExtensions, RefreshLayer, body::ReplayBody};
/// use tower_refresh::session::{ProxyLayer, Sessions};
///
/// # fn app(sessions: &Sessions) -> Result<(), tower_refresh::ConfigError> {
/// let api = "http://localhost:8081";
/// let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Incoming>>();
/// let proxy = ServiceBuilder::new()
///     .layer(sessions.layer().required())
///     .layer(ProxyLayer::to(api)?.strip_prefix("/api")?)
///     .layer(RefreshLayer::per_request(FromExtensions).allow_origin(api)?)
///     .service(client);
/// // axum: `.route_service("/api/{*path}", proxy)`, with its body type in the client.
/// # let _ = proxy;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ProxyLayer(Arc<Route>);

impl ProxyLayer {
    /// A proxy to this origin, and to no other.
    ///
    /// # Errors
    ///
    /// The text is not a scheme and an authority, such as `https://api.example.com`.
    pub fn to(origin: &str) -> Result<Self, ConfigError> {
        let origin = Origin::parse("the origin of a proxy", origin)?;
        Ok(Self(Arc::new(Route { passes_cookies: false, origin, prefix: "".into() })))
    }

    /// Takes this prefix off paths. A path without it is not found (404).
    ///
    /// # Errors
    ///
    /// The prefix does not begin with `/`, or ends with it.
    pub fn strip_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        if !prefix.starts_with('/') || prefix.ends_with('/') {
            return Err(ConfigError::new(
                "a path prefix has to begin with `/`, and must not end with it",
            ));
        }
        Arc::make_mut(&mut self.0).prefix = prefix.into();
        Ok(self)
    }
}

impl ProxyLayer {
    /// Passes cookies through: the browser's other cookies to the server behind, and the cookies that it
    /// sets back to the browser. Default: the proxy drops them, since cookies are the application's, and
    /// the server behind goes by the token.
    pub fn pass_cookies(mut self) -> Self {
        Arc::make_mut(&mut self.0).passes_cookies = true;
        self
    }
}

impl<C> Layer<C> for ProxyLayer {
    type Service = Proxy<C>;

    fn layer(&self, client: C) -> Proxy<C> {
        Proxy { client, route: Arc::clone(&self.0) }
    }
}

/// The service that a [`ProxyLayer`] makes.
#[derive(Clone, Debug)]
pub struct Proxy<C> {
    client: C,
    route: Arc<Route>,
}

impl<C, B, R> Service<Request<B>> for Proxy<C>
where
    C: Service<Request<B>, Response = Response<R>> + Clone,
    C::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Response = Response<SessionBody<R>>;
    type Error = Infallible;
    type Future = ProxyFuture<C, Request<B>>;

    /// The client is made ready for each request by itself: that it cannot be is a 502, too.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let route = Arc::clone(&self.route);
        let is_socket = websocket::is_asked_for(&request);
        if request.method() == Method::CONNECT && !is_socket {
            return ProxyFuture::of(route, State::Answered { status: StatusCode::NOT_IMPLEMENTED });
        }
        let Some(target) = route.target(request.uri()) else {
            return ProxyFuture::of(route, State::Answered { status: StatusCode::NOT_FOUND });
        };
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        let protocol = match is_socket {
            true => Some(websocket::PROTOCOL),
            false => protocol(request.headers()),
        };
        strip_hops(request.headers_mut());
        request.headers_mut().remove(HOST);
        match route.passes_cookies {
            true => join_cookies(request.headers_mut()),
            false => drop(request.headers_mut().remove(COOKIE)),
        }
        let mut tunnel = None;
        if let (Some(protocol), Some(browser)) =
            (protocol, request.extensions_mut().remove::<OnUpgrade>())
        {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(UPGRADE, protocol);
            let session = request.extensions().get::<SessionSlot>().and_then(SessionSlot::session);
            let key = is_socket.then(|| websocket::ask(&mut request));
            tunnel = Some(Tunnel { browser, session, key });
        } else if is_socket {
            // The server that has read the request is not hyper.
            return ProxyFuture::of(route, State::Answered { status: StatusCode::NOT_IMPLEMENTED });
        }
        let client = self.client.clone();
        ProxyFuture::of(route, State::Readying { client, request: Some(request), tunnel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_origin_and_a_path_are_taken() {
        for wrong in ["api.test", "http://api.test/a", "http://u@api.test", "", "/"] {
            assert!(ProxyLayer::to(wrong).is_err(), "{wrong}");
        }
        for wrong in ["api", "/api/", "", "/"] {
            assert!(ProxyLayer::to("http://api.test").unwrap().strip_prefix(wrong).is_err());
        }
    }
}
