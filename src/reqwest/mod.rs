//! [`RefreshMiddleware`]: the layer, as a middleware of [`reqwest_middleware`].
//!
//! Nothing is decided here. Each request gets a [`Refresh`] of its own, over a private
//! service whose calls run the rest of the client's middlewares. What the layer does not
//! know of reqwest's types goes around it:
//!
//! - of a request, what has no place in an `http::Request`, or none that comes back: the URL
//!   with its fragment, and what reqwest keeps to itself, such as the timeout;
//! - of a response, all of it: the layer is lent the head, and reads the body only to throw it
//!   away.

mod body;

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, Uri, request::Parts};
use http_body::{Body as _, Frame};
use reqwest::{Body, Request, Response, Url};
use reqwest_middleware::{Error, Middleware, Next};
use tokio::sync::Mutex;
use tower_service::Service;

use self::body::KnownBytes;
use crate::{
    body::ReplayBody,
    layer::{
        Attach, Attempt, Classify, Config, Refresh, RefreshLayer, ResponseHead, Verdict, classify,
    },
    refresher::BoxFuture,
};

/// A [`RefreshLayer`] for [`reqwest_middleware::ClientWithMiddleware`], with all that is set on it.
///
/// Middlewares that were added before it see a request once, and those added after it see each
/// attempt: a cache goes before it, logging of what is really sent after it. A retrying one may
/// stand on either side.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use reqwest_middleware::ClientBuilder;
/// use tower_refresh::{RefreshLayer, RefreshMiddleware, RefreshState, Tokens};
///
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("new")))
///     .tokens(Tokens::new("old"))
///     .build();
///
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(RefreshMiddleware::new(RefreshLayer::new(state))) // the one extra line
/// #   .with(server)
///     .build();
///
/// let response = client.post("http://api.example.com/").body("hello").send().await?;
/// assert_eq!(response.status(), 200);
/// # Ok::<_, reqwest_middleware::Error>(()) }).unwrap();
/// #
/// # /// Accepts the new token.
/// # fn server<'a>(
/// #     request: reqwest::Request,
/// #     _: &'a mut http::Extensions,
/// #     _: reqwest_middleware::Next<'a>,
/// # ) -> tower_refresh::BoxFuture<'a, reqwest_middleware::Result<reqwest::Response>> {
/// #     let whole = request.body().and_then(|body| body.as_bytes()) == Some(b"hello");
/// #     let good = whole && request.headers()["authorization"] == "Bearer new";
/// #     let response = http::Response::builder().status(if good { 200 } else { 401 });
/// #     Box::pin(async move { Ok(response.body("").unwrap().into()) })
/// # }
/// ```
///
/// # What is as in the layer, and what is not
///
/// - The caller gets reqwest's own response, or reqwest's or a middleware's own error. Why a
///   refused request was not helped is in the response's extensions: a
///   [`RefreshFailure`](crate::RefreshFailure) or a [`NotReplayable`](crate::body::NotReplayable).
/// - The request's extensions, for [`FromExtensions`](crate::FromExtensions) and the layer's
///   closures, are those of the middlewares (`RequestBuilder::with_extension`). Middlewares that
///   see each attempt write into the caller's own, and find its [`Attempt`] there, and what
///   [`attach_with`](RefreshLayer::attach_with) has put into the request's.
/// - A body of bytes (`json`, `form`, a string) is kept without copying and stays what it is, so
///   it can be redirected and cloned. A stream is kept while it is sent, and one that is sent
///   again cannot be cloned either. [`clone_bodies`](RefreshLayer::clone_bodies) changes nothing.
/// - A timeout, the request's or the client's, is for one attempt. Waiting for a refresh has a
///   limit of its own ([`deadline`](crate::state::RefreshStateBuilder::deadline)).
/// - The client's default headers are added later: a token wins over an `Authorization` there.
/// - reqwest follows redirects below this. It takes `Authorization` away when the host changes,
///   but no [other header](RefreshLayer::attach_header), and without asking
///   [`allow_origin`](RefreshLayer::allow_origin). A 401 that another origin has said in the
///   end is none of the token, and starts no refresh.
/// - A request whose URL has no origin, or none that can be sent to, is left to reqwest as it is.
///
/// Cancel safe: dropping the request stops neither a refresh nor anybody else's request.
#[derive(Clone)]
pub struct RefreshMiddleware {
    config: Arc<Config>,
}

impl RefreshMiddleware {
    /// The middleware that does what this layer does. Its clones, the layer and the layer's
    /// services share one budget for kept bodies.
    #[must_use]
    pub fn new<K>(layer: RefreshLayer<K>) -> Self {
        let mut config = layer.into_config();
        config.classify = Some(Arc::new(SameOriginOnly(config.classify.take())));
        Self { config: Arc::new(config) }
    }
}

impl<K> From<RefreshLayer<K>> for RefreshMiddleware {
    fn from(layer: RefreshLayer<K>) -> Self {
        Self::new(layer)
    }
}

impl fmt::Debug for RefreshMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshMiddleware").finish_non_exhaustive()
    }
}

// As `async_trait` writes it.
impl Middleware for RefreshMiddleware {
    fn handle<'m, 'e, 'n, 'f>(
        &'m self,
        request: Request,
        extensions: &'e mut Extensions,
        next: Next<'n>,
    ) -> BoxFuture<'f, Result<Response, Error>>
    where
        Self: 'f,
        'm: 'f,
        'e: 'f,
        'n: 'f,
    {
        Box::pin(async move {
            let Ok(uri) = Uri::try_from(request.url().as_str()) else {
                return next.run(request, extensions).await;
            };
            let closure = matches!(self.config.attach, Attach::With(_));
            let (original, request) = Original::new(request, uri, extensions, closure);
            let attempts = Attempts { next, original: &original };
            let mut service = Refresh::<_, KnownBytes>::new(attempts, Arc::clone(&self.config));
            poll_fn(|cx| Service::<http::Request<Body>>::poll_ready(&mut service, cx)).await?;
            let response = service.call(request).await?;
            Ok(Lent::back(response))
        })
    }
}

/// In a response's extensions: reqwest has followed redirects to another origin than the one
/// that the token was sent to, and the response comes from there.
#[derive(Clone, Copy)]
struct FromOtherOrigin;

/// The layer's own classifier, except that a refusal by another origin says nothing of the
/// token.
struct SameOriginOnly(Option<Arc<dyn Classify>>);

impl Classify for SameOriginOnly {
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict {
        let verdict = match &self.0 {
            Some(classify) => classify.classify(head),
            None => classify(head),
        };
        match verdict {
            Verdict::Challenge if head.extensions().get::<FromOtherOrigin>().is_some() => {
                Verdict::Ignore
            }
            verdict => verdict,
        }
    }
}

/// What all attempts of a request have in common and the layer does not keep.
struct Original<'e> {
    /// The request without its head, and with an empty body if it has one.
    template: Request,
    /// The template's URL as the layer knows it.
    uri: Uri,
    /// The caller's. Locked while an attempt runs; there is never more than one.
    extensions: Mutex<&'e mut Extensions>,
    /// What the layer leaves in a request's extensions may be anything.
    closure: bool,
}

impl<'e> Original<'e> {
    fn new(
        mut template: Request,
        uri: Uri,
        extensions: &'e mut Extensions,
        closure: bool,
    ) -> (Self, http::Request<Body>) {
        let body = template.body_mut().as_mut().map(mem::take).unwrap_or_default();
        let mut request = http::Request::new(body);
        *request.method_mut() = mem::take(template.method_mut());
        *request.uri_mut() = uri.clone();
        *request.version_mut() = template.version();
        *request.headers_mut() = mem::take(template.headers_mut());
        *request.extensions_mut() = extensions.clone();
        (Self { template, uri, extensions: Mutex::new(extensions), closure }, request)
    }

    /// The request of one attempt.
    fn request(&self, parts: Parts, body: ReplayBody<Body>) -> Result<Request, Error> {
        // The template's body is none or empty bytes, and such a request can be cloned.
        let mut request = self.template.try_clone().expect("no stream");
        if parts.uri != self.uri {
            // The layer's closure has changed it.
            *request.url_mut() = Url::parse(&parts.uri.to_string()).map_err(Error::middleware)?;
        }
        *request.method_mut() = parts.method;
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers;
        match body.into_source() {
            Ok(body) if body.as_bytes().is_some_and(<[u8]>::is_empty) => {}
            Ok(body) => *request.body_mut() = Some(body),
            Err(body) if body.is_end_stream() => {}
            Err(body) => *request.body_mut() = Some(Body::wrap(body)),
        }
        Ok(request)
    }
}

/// The rest of the client, as a service that can be called several times for one request.
#[derive(Clone)]
struct Attempts<'r, 'e> {
    next: Next<'r>,
    original: &'r Original<'e>,
}

impl<'r> Service<http::Request<ReplayBody<Body>>> for Attempts<'r, '_> {
    type Response = http::Response<Lent>;
    type Error = Error;
    type Future = BoxFuture<'r, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<ReplayBody<Body>>) -> Self::Future {
        let Self { next, original } = self.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let mut extensions = original.extensions.lock().await;
            let mut marks = mem::take(&mut parts.extensions);
            if original.closure {
                extensions.extend(marks);
            } else if let Some(attempt) = marks.remove::<Attempt>() {
                extensions.insert(attempt);
            }
            let request = original.request(parts, body)?;
            let sent_to = request.url().origin();
            let mut response = next.run(request, &mut extensions).await?;
            if response.url().origin() != sent_to && !is_made_up(&response) {
                response.extensions_mut().insert(FromOtherOrigin);
            }
            Ok(Lent::out(response))
        })
    }
}

/// Whether a middleware has made it, and given it no URL: it has one that reqwest gives to
/// all of these.
fn is_made_up(response: &Response) -> bool {
    *response.url() == *Response::from(http::Response::new(Body::default())).url()
}

/// A response's body, with the response around it for as long as nobody reads it.
struct Lent {
    whole: Option<Response>,
    body: Body,
}

impl Lent {
    fn out(mut response: Response) -> http::Response<Self> {
        let mut lent = http::Response::new(());
        *lent.status_mut() = response.status();
        *lent.version_mut() = response.version();
        *lent.headers_mut() = mem::take(response.headers_mut());
        *lent.extensions_mut() = mem::take(response.extensions_mut());
        lent.map(|()| Self { whole: Some(response), body: Body::default() })
    }

    fn back(lent: http::Response<Self>) -> Response {
        let (mut parts, Self { whole, body }) = lent.into_parts();
        parts.extensions.remove::<FromOtherOrigin>();
        let Some(mut response) = whole else {
            // The layer reads only what it throws away: nobody comes here.
            return http::Response::from_parts(parts, body).into();
        };
        *response.headers_mut() = parts.headers;
        *response.extensions_mut() = parts.extensions;
        response
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        if let Some(response) = self.whole.take() {
            self.body = response.into();
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}
