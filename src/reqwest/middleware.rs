//! [`RefreshMiddleware`]: the layer, as a middleware of [`reqwest_middleware`]. Each request gets a
//! [`Refresh`] of its own, over a private service whose calls run the rest of the client's
//! middlewares.

use std::{fmt, sync::Mutex};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};

use super::{
    attempts::{Attempts, RestOfClient},
    body::KnownBytes,
    response::BorrowedResponse,
    service::ReqwestLayer,
    template,
};
#[cfg(feature = "in-body")]
use crate::in_body::InBodyLayer;
use crate::{
    grpc::GrpcStatusLayer,
    layer::{Attach, Refresh, RefreshLayer, Refused},
    refresher::BoxFuture,
};

/// A [`RefreshLayer`] for [`reqwest_middleware::ClientWithMiddleware`], with all that is set on it.
///
/// A middleware that was added before it sees a request once, and one that was added after it sees
/// each attempt: a cache goes before it, logging of what is really sent after it. A retrying
/// middleware may stand on either side.
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
/// # Differences to the layer
///
/// - The caller gets reqwest's own response, or the error of reqwest or of a middleware as it is. If
///   a refused request could not be helped, the reason is in the response's extensions: a
///   [`RefreshFailure`](crate::RefreshFailure) or a [`NotReplayable`](crate::body::NotReplayable).
/// - The request's extensions, for [`FromExtensions`](crate::FromExtensions) and the layer's
///   closures, are those of the middlewares (`RequestBuilder::with_extension`). A middleware that
///   sees each attempt writes into the caller's own extensions, and finds a replay's
///   [`Attempt`](crate::layer::Attempt) there, as well as the extensions that
///   [`attach_with`](RefreshLayer::attach_with) has added.
/// - A body of bytes (`json`, `form`, a string) is kept without copying and stays a body of bytes, so
///   reqwest can redirect and clone it. A stream is kept while it is sent; neither it nor its replay
///   can be cloned. [`clone_bodies`](RefreshLayer::clone_bodies) changes nothing.
/// - A timeout, the request's or the client's, is for one attempt. Waiting for a refresh has a
///   limit of its own ([`deadline`](crate::state::RefreshStateBuilder::deadline)).
/// - The client adds its default headers later, so the token wins over an `Authorization` among them.
/// - reqwest follows redirects below this middleware. It takes `Authorization` away when the host
///   changes, but no [other header](RefreshLayer::attach_header), and does not ask
///   [`allow_origin`](RefreshLayer::allow_origin). If the redirects end at another origin, its 401
///   says nothing of the token, and starts no refresh.
/// - A request whose URL has no origin, or none that can be sent to, is left to reqwest as it is.
///
/// Cancel safe: dropping the request stops neither a refresh nor the request of another caller.
///
/// # Versions
///
/// The feature `reqwest-middleware` stands for version 0.5 of [`reqwest_middleware`], which uses
/// reqwest 0.13, for as long as the feature exists. A release of theirs that breaks either API gets
/// a feature of its own here, with its version in its name: an update of this crate within one
/// compatible series does not change the version that a program needs.
#[derive(Clone)]
pub struct RefreshMiddleware {
    layer: ReqwestLayer,
    error_on_refusal: bool,
}

impl RefreshMiddleware {
    /// A middleware that does what this layer does. Its clones, the layer's clones and their
    /// services share one [budget](RefreshLayer::replay_budget) for kept bodies.
    #[must_use]
    pub fn new<K>(layer: RefreshLayer<K>) -> Self {
        Self { layer: ReqwestLayer::new(layer), error_on_refusal: false }
    }

    /// Makes a request whose token was refused, and that could not be helped, end in an error of
    /// the middleware instead of the server's response: [`Refused`], with the reason in it. With
    /// `error_for_status`, which takes the response and its extensions, the reason would be
    /// lost. Other responses pass as they are.
    #[must_use]
    pub fn error_on_refusal(self) -> Self {
        Self { error_on_refusal: true, ..self }
    }

    /// Looks at the first frame of gRPC's responses for a status, as this layer does below a
    /// [`RefreshLayer`]. A status that comes after a message is the caller's: the server had begun
    /// to answer.
    ///
    /// Nothing of a response is lost that its caller sees: it is put together again around its body.
    #[must_use]
    pub fn grpc_status(self, layer: GrpcStatusLayer) -> Self {
        Self { layer: self.layer.grpc_status(layer), ..self }
    }

    /// Looks at the beginning of responses' bodies for a refusal, as this layer does below a
    /// [`RefreshLayer`]. reqwest has decompressed them if it was built for that.
    ///
    /// Nothing of a response is lost that its caller sees: it is put together again around its body.
    #[cfg(feature = "in-body")]
    #[must_use]
    pub fn in_body(self, layer: InBodyLayer) -> Self {
        Self { layer: self.layer.in_body(layer), ..self }
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

// The signature that `async_trait` makes of the trait's.
impl Middleware for RefreshMiddleware {
    fn handle<'m, 'e, 'n, 'f>(
        &'m self,
        mut request: Request,
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
            let Some(seen) = template::take_apart(&mut request, extensions.clone()) else {
                return next.run(request, extensions).await;
            };
            let ReqwestLayer { config, looks } = &self.layer;
            let rest = RestOfClient {
                next: &next,
                template: &request,
                has_closure: matches!(config.attach, Attach::With(_)),
                extensions: Mutex::new(Some(extensions)),
                looks: looks.as_ref(),
            };
            let attempts = Attempts(|attempt| rest.send(attempt));
            let response = Refresh::once(attempts, config, &KnownBytes, seen).await?;
            if self.error_on_refusal {
                if let Some(refused) = Refused::of(&response) {
                    return Err(Error::middleware(refused));
                }
            }
            Ok(BorrowedResponse::give_back(response))
        })
    }
}
