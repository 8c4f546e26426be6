//! Back-channel logout (OpenID Connect Back-Channel Logout 1.0): [`BackChannelLogout`].

// | file | what is in it |
// |---|---|
// | `claims.rs` | what a logout token has to say |
// | `form.rs` | the form that it comes in |

mod claims;
mod form;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CACHE_CONTROL};
use http_body::Body;
use tower_service::Service;

use self::{
    claims::check,
    form::{field, read},
};
use super::{sessions::Sessions, shared::finish};
use crate::{error::BoxError, refresher::BoxFuture, store::StoreError};

/// Checks the signature of a token by the provider's keys, and returns the claims, as JSON.
type Verify = dyn Fn(String) -> BoxFuture<'static, Result<Vec<u8>, BoxError>> + Send + Sync;

/// A tower service for the route that a provider calls to end sessions: `POST` with a `logout_token`
/// (OpenID Connect Back-Channel Logout 1.0, section 2.5). Made by [`Sessions::back_channel_logout`].
///
/// It answers 200 once the sessions have ended on every replica, and 400 if the token is not good or
/// the store failed. The route needs no [`SessionLayer`](super::SessionLayer).
///
/// [`Sessions::back_channel_logout`] has an example.
#[derive(Clone)]
pub struct BackChannelLogout {
    sessions: Sessions,
    issuer: Arc<str>,
    audience: Arc<str>,
    verify: Arc<Verify>,
}

/// Why a logout was refused. It does not say which user was meant.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogoutError {
    /// The token is not good, for this reason.
    Token(&'static str),
    /// The token was used before.
    Replayed,
    /// The store failed. Some of the sessions may still live.
    Store(StoreError),
}

impl fmt::Display for LogoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(reason) => write!(f, "the logout token is not good: {reason}"),
            Self::Replayed => f.write_str("the logout token was used before"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogoutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Token(_) | Self::Replayed => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for LogoutError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Sessions {
    /// The service for the provider's back-channel logout. `issuer` and `client_id` are those of this
    /// application's registration. The closure checks the token's signature by the provider's keys,
    /// refuses `alg: none`, and returns the claims, as JSON; everything else is checked here: issuer,
    /// audience, time, the event, that there is no nonce, and that each token counts once.
    ///
    /// A logout by `sid` ends that session, by `sub` all of the user's; and one that comes before its
    /// session is stored ends it, too.
    ///
    /// ```
    /// use tower_refresh::{BoxError, session::Sessions};
    ///
    /// # async fn verify(_: String) -> Result<Vec<u8>, BoxError> { Ok(Vec::new()) }
    /// # fn routes(sessions: &Sessions) {
    /// let logout = sessions.back_channel_logout("https://id.example.com", "my-client", async |token: String| {
    ///     // With the crate `jsonwebtoken`, say: `examples/bff/logout.rs`.
    ///     verify(token).await
    /// });
    /// // axum: `.route_service("/logout/back-channel", logout)`
    /// # let _ = logout;
    /// # }
    /// ```
    pub fn back_channel_logout<F, Fut, E>(
        &self,
        issuer: &str,
        client_id: &str,
        verify: F,
    ) -> BackChannelLogout
    where
        F: FnOnce(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let verify = move |token| {
            let verifying = verify.clone()(token);
            Box::pin(async move { verifying.await.map_err(Into::into) }) as BoxFuture<'static, _>
        };
        BackChannelLogout {
            sessions: self.clone(),
            issuer: issuer.into(),
            audience: client_id.into(),
            verify: Arc::new(verify),
        }
    }
}

impl BackChannelLogout {
    /// Ends the sessions that this logout token means. For servers that read the form themselves.
    ///
    /// # Errors
    ///
    /// The token is not good, or the store failed; then the provider may send the same token again.
    pub async fn log_out(&self, token: String) -> Result<usize, LogoutError> {
        let claims = (self.verify)(token).await;
        let claims =
            claims.map_err(|_| LogoutError::Token("its signature is not the provider's"))?;
        let now = super::identity::seconds(crate::time::Time::now().wall);
        let logout = check(&claims, &self.issuer, &self.audience, now)?;
        let (shared, issuer) = (Arc::clone(&self.sessions.0), Arc::clone(&self.issuer));
        finish(async move {
            if shared.index.is_used(&issuer, &logout.jti).await? {
                return Err(LogoutError::Replayed);
            }
            // Ended first: a token that failed on the way may come again, and to end twice is no harm.
            let count = shared.end_by(&logout.key, None).await?;
            shared.index.use_once(&issuer, &logout.jti, logout.until).await?;
            Ok(count)
        })
        .await
    }
}

impl<B> Service<Request<B>> for BackChannelLogout
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.method() != Method::POST {
                return Ok(answer(StatusCode::METHOD_NOT_ALLOWED, ""));
            }
            let token = match read(request.into_body()).await {
                Some(form) => field(&form, b"logout_token"),
                None => None,
            };
            let Some(token) = token else {
                return Ok(refused("the request has no logout_token"));
            };
            Ok(match this.log_out(token).await {
                Ok(count) => {
                    tracing::info!(count, "sessions ended by a back-channel logout");
                    answer(StatusCode::OK, "")
                }
                Err(error) => {
                    tracing::warn!(%error, "a back-channel logout was refused");
                    refused(&error.to_string())
                }
            })
        })
    }
}

fn answer(status: StatusCode, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// As section 2.8 has it.
fn refused(reason: &str) -> Response<String> {
    let json = serde_json::json!({ "error": "invalid_request", "error_description": reason });
    let mut response = answer(StatusCode::BAD_REQUEST, &json.to_string());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

impl fmt::Debug for BackChannelLogout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackChannelLogout")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
