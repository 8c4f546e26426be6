//! [`ProxyLayer`]: hands a browser's requests on to a server behind (feature `session-proxy`).

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        CONNECTION, COOKIE, HOST, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE,
        TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::copy_bidirectional;
use tower_layer::Layer;
use tower_service::Service;

use super::{body::SessionBody, session::Session, shared::spawn, slot::SessionSlot};
use crate::error::{BoxError, ConfigError};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// A tower layer that makes a reverse proxy of an HTTP client: each request goes on to one origin, with
/// its own method, path, headers and body, and streams both ways. WebSockets (HTTP/1.1) go through, and
/// are closed when the [session](Session) ends.
///
/// It stands behind a [`SessionLayer`](super::SessionLayer), which has taken the browser's cookie and
/// `Authorization` off the request, and before a [`RefreshLayer`](crate::RefreshLayer), which puts the
/// session's token on it and sends it again if that is refused. The client's body type is made of the
/// server's by [`ReplayBody`](crate::body::ReplayBody).
///
/// The fields of one connection (`Connection` and those that it names, `Transfer-Encoding`, ..., RFC
/// 9110, section 7.6.1) stay behind, either way. A `Location` of the origin becomes one of this server.
/// Cookies stay behind, too, and no `Forwarded` field is added. A client that fails is a 502.
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

#[derive(Clone, Debug)]
struct Route {
    passes_cookies: bool,
    scheme: Scheme,
    authority: Authority,
    prefix: Box<str>,
}

impl ProxyLayer {
    /// To this origin, and to no other.
    ///
    /// # Errors
    ///
    /// The text is not a scheme and an authority, such as `https://api.example.com`.
    pub fn to(origin: &str) -> Result<Self, ConfigError> {
        let wrong =
            ConfigError::new("a proxy goes to a scheme and an authority: `https://host:port`");
        let Ok(uri) = origin.parse::<Uri>() else { return Err(wrong) };
        let is_bare = matches!(uri.path_and_query().map(PathAndQuery::as_str), None | Some("/"));
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) if is_bare && !authority.as_str().contains('@') => {
                let (scheme, authority) = (scheme.clone(), authority.clone());
                let prefix = "".into();
                Ok(Self(Arc::new(Route { passes_cookies: false, scheme, authority, prefix })))
            }
            _ => Err(wrong),
        }
    }

    /// Takes this off the beginning of paths. A path that does not begin so is not found (404).
    ///
    /// # Errors
    ///
    /// It does not begin with `/`, or ends with it.
    pub fn strip_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        if !prefix.starts_with('/') || prefix.ends_with('/') {
            return Err(ConfigError::new("a prefix of paths begins with `/`, and does not end so"));
        }
        Arc::make_mut(&mut self.0).prefix = prefix.into();
        Ok(self)
    }
}

impl ProxyLayer {
    /// Passes the browser's other cookies on, and those back that the server behind sets. As it comes
    /// they stay behind: they are the application's, and the server behind goes by the token.
    pub fn pass_cookies(mut self) -> Self {
        Arc::make_mut(&mut self.0).passes_cookies = true;
        self
    }
}

impl Route {
    /// Where a request for this goes. `None`: nowhere.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(&*self.prefix)?;
        let rest = match rest.as_bytes().first() {
            None => "/",
            Some(b'/') => rest,
            Some(_) => return None,
        };
        let path = match uri.query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let target = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        target.path_and_query(path).build().ok()
    }

    /// A place at the origin, as the browser is to see it.
    fn here(&self, location: &HeaderValue) -> Option<HeaderValue> {
        let uri: Uri = location.to_str().ok()?.parse().ok()?;
        let is_absolute = uri.scheme() == Some(&self.scheme);
        let path = match uri.authority() {
            Some(authority) if is_absolute && *authority == self.authority => {
                uri.path_and_query()?.as_str()
            }
            // Of the same server, which knows nothing of the prefix.
            None if uri.scheme().is_none() && uri.path().starts_with('/') => {
                location.to_str().ok()?
            }
            _ => return None,
        };
        HeaderValue::from_str(&format!("{}{path}", self.prefix)).ok()
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
        if request.method() == Method::CONNECT {
            return ProxyFuture::of(route, State::Answered { status: StatusCode::NOT_IMPLEMENTED });
        }
        let Some(target) = route.target(request.uri()) else {
            return ProxyFuture::of(route, State::Answered { status: StatusCode::NOT_FOUND });
        };
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        let protocol = protocol(request.headers());
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
            tunnel = Some(Tunnel { browser, session });
        }
        let client = self.client.clone();
        ProxyFuture::of(route, State::Readying { client, request: Some(request), tunnel })
    }
}

/// The protocol that the other side is asked to change to, or changes to.
fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let fields = headers.get_all(CONNECTION).iter().filter_map(|field| field.to_str().ok());
    let upgrades =
        fields.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| upgrades).cloned()
}

/// Takes off what is about one connection.
fn strip_hops(headers: &mut HeaderMap) {
    let fields = headers.get_all(CONNECTION).iter().filter_map(|field| field.to_str().ok());
    let named = fields.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse().ok());
    let named: Vec<HeaderName> = named.collect();
    let known = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.into_iter().chain(known) {
        headers.remove(name);
    }
}

/// HTTP/2 may have each cookie in a field of its own, HTTP/1.1 must not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() > 1 {
        if let Ok(one) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
            headers.insert(COOKIE, one);
        }
    }
}

/// A connection that becomes one of another protocol.
struct Tunnel {
    browser: OnUpgrade,
    session: Option<Session>,
}

impl Tunnel {
    /// Until either side ends it, or the session does.
    async fn run(self, server: OnUpgrade) -> io::Result<()> {
        let (browser, server) = (self.browser.await, server.await);
        let (Ok(browser), Ok(server)) = (browser, server) else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        let (mut browser, mut server) = (TokioIo::new(browser), TokioIo::new(server));
        let copying = copy_bidirectional(&mut browser, &mut server);
        match self.session {
            Some(session) => {
                Either { first: copying, second: async move { session.ended().await } }.await
            }
            None => copying.await.map(drop),
        }
    }
}

pin_project! {
    /// The first to end.
    struct Either<F, G> {
        #[pin]
        first: F,
        #[pin]
        second: G,
    }
}

impl<T, F: Future<Output = io::Result<T>>, G: Future> Future for Either<F, G> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        if let Poll::Ready(result) = this.first.poll(cx) {
            return Poll::Ready(result.map(drop));
        }
        this.second.poll(cx).map(|_| Ok(()))
    }
}

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
    enum State<C, Q, F> {
        Readying { client: C, request: Option<Q>, tunnel: Option<Tunnel> },
        Calling { #[pin] future: F, tunnel: Option<Tunnel> },
        Answered { status: StatusCode },
    }
}

impl<C: Service<Q>, Q> ProxyFuture<C, Q> {
    fn of(route: Arc<Route>, state: State<C, Q, C::Future>) -> Self {
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
                    let mut response = Response::new(SessionBody::text(""));
                    *response.status_mut() = *status;
                    return Poll::Ready(Ok(response));
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
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(protocol), Some(tunnel), Some(server)) = (protocol, tunnel, upgrade) else {
            // Nobody has asked for it.
            let mut response = Response::new(SessionBody::text(""));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return response;
        };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, protocol);
        spawn(async move {
            if tunnel.run(server).await.is_err() {
                tracing::debug!("a tunnel through the proxy has broken");
            }
        });
    }
    *response.version_mut() = Version::HTTP_11;
    response.map(SessionBody::whole)
}

impl<C: Service<Q>, Q> fmt::Debug for ProxyFuture<C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        let layer = ProxyLayer::to("http://api.test:81").unwrap().strip_prefix("/api").unwrap();
        Route::clone(&layer.0)
    }

    #[test]
    fn a_request_goes_to_the_origin_and_nowhere_else() {
        for (uri, target) in [
            ("/api", Some("http://api.test:81/")),
            ("/api/a/b?c=d", Some("http://api.test:81/a/b?c=d")),
            ("/api//evil.test/a", Some("http://api.test:81//evil.test/a")),
            ("http://app.test/api/a", Some("http://api.test:81/a")),
            ("/apifoo", None),
            ("/", None),
        ] {
            let target = target.map(|target| target.parse().unwrap());
            assert_eq!(route().target(&uri.parse().unwrap()), target, "{uri}");
        }
    }

    #[test]
    fn a_redirect_at_the_origin_stays_behind_the_proxy() {
        for (location, here) in [
            ("http://api.test:81/a?b", Some("/api/a?b")),
            ("/a?b", Some("/api/a?b")),
            ("a", None),
            ("https://api.test:81/a", None),
            ("http://other.test/a", None),
        ] {
            let here = here.map(HeaderValue::from_static);
            assert_eq!(route().here(&HeaderValue::from_static(location)), here, "{location}");
        }
    }

    #[test]
    fn what_is_about_one_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("x-stays", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hops(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-stays"]);
    }

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
