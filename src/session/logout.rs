//! Back-channel logout (OpenID Connect Back-Channel Logout 1.0): [`BackChannelLogout`].

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CACHE_CONTROL};
use http_body::Body;
use serde::Deserialize;
use serde_json::{Map, Value};
use tower_service::Service;

use super::{index::IndexKey, sessions::Sessions, shared::finish};
use crate::{error::BoxError, refresher::BoxFuture, store::StoreError};

/// A logout token is some hundred bytes.
const MAX_BODY: usize = 64 * 1024;

/// How far two servers' clocks are apart at most.
const SKEW: u64 = 120;

/// For how long a logout token may be under way that does not say until when it counts.
const MAX_AGE: u64 = 600;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Checks the signature of a token by the provider's keys, and returns the claims, as JSON.
type Verify = dyn Fn(String) -> BoxFuture<'static, Result<Vec<u8>, BoxError>> + Send + Sync;

/// A tower service for the route that a provider calls to end sessions: `POST` with a `logout_token`
/// (OpenID Connect Back-Channel Logout 1.0, section 2.5). Made by [`Sessions::back_channel_logout`].
///
/// It answers 200 once the sessions have ended on every replica, and 400 if the token is not good or
/// the store failed. The route needs no [`SessionLayer`](super::SessionLayer).
#[derive(Clone)]
pub struct BackChannelLogout {
    sessions: Sessions,
    issuer: Arc<str>,
    audience: Arc<str>,
    verify: Arc<Verify>,
}

/// Why a logout was refused. It says nothing of who was meant.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogoutError {
    /// The token is not good, for this reason.
    Token(&'static str),
    /// It was used before.
    Replayed,
    /// The store failed: some sessions may live.
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

/// What a logout token has to say (section 2.4).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: f64,
    exp: Option<f64>,
    jti: String,
    events: Map<String, Value>,
    sub: Option<String>,
    sid: Option<String>,
    #[serde(default)]
    nonce: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// One that is good.
struct Logout {
    jti: String,
    key: IndexKey,
    /// Until when the same token could come again.
    until: SystemTime,
}

/// The rules of section 2.6, but for the signature.
fn check(claims: &[u8], issuer: &str, audience: &str, now: u64) -> Result<Logout, LogoutError> {
    let no = LogoutError::Token;
    let claims: Claims =
        serde_json::from_slice(claims).map_err(|_| no("a claim is missing or of another kind"))?;
    let is_for_us = match &claims.aud {
        Audience::One(one) => one == audience,
        Audience::Many(many) => many.iter().any(|one| one == audience),
    };
    if claims.iss != issuer {
        return Err(no("it is another issuer's"));
    }
    if !is_for_us {
        return Err(no("it is for another audience"));
    }
    if !claims.events.get(EVENT).is_some_and(Value::is_object) {
        return Err(no("it is no logout event"));
    }
    if claims.nonce.is_some() {
        return Err(no("it has a nonce, as an ID token has"));
    }
    // A number that is no moment becomes the first or the last one.
    let (issued, end) = (claims.iat as u64, claims.exp.map(|end| end as u64));
    let end = end.unwrap_or(issued.saturating_add(MAX_AGE));
    if issued > now + SKEW {
        return Err(no("it is of the future"));
    }
    if end.saturating_add(SKEW) < now {
        return Err(no("it has run out"));
    }
    let key = match (claims.sid, claims.sub) {
        (Some(sid), _) => IndexKey::Sid { issuer: claims.iss, sid },
        (None, Some(subject)) => IndexKey::Sub { issuer: claims.iss, subject },
        (None, None) => return Err(no("it says neither whose session nor which")),
    };
    // One that says that it counts for ever is remembered for ten years.
    let left = end.saturating_add(SKEW).saturating_sub(now).clamp(1, 10 * 365 * 24 * 3600);
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(now + left);
    Ok(Logout { jti: claims.jti, key, until })
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
    ///     // With the crate `jsonwebtoken`, say.
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

/// All of it, if it is not too long.
async fn read(body: impl Body) -> Option<Bytes> {
    let (mut body, mut all) = (pin!(body), Vec::new());
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(mut data) = frame.ok()?.into_data() {
            if all.len() + data.remaining() > MAX_BODY {
                return None;
            }
            all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    Some(all.into())
}

/// A field of a form (`application/x-www-form-urlencoded`).
fn field(form: &[u8], name: &[u8]) -> Option<String> {
    let mut fields = form.split(|byte| *byte == b'&');
    let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix(b"="))?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [*bytes.next()?, *bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(decoded).ok()
}

impl fmt::Debug for BackChannelLogout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackChannelLogout")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn good() -> Value {
        json!({
            "iss": "https://id", "aud": "app", "iat": NOW, "exp": NOW + 120, "jti": "j1",
            "events": { EVENT: {} }, "sub": "alice", "sid": "s1",
        })
    }

    fn checked(claims: &Value) -> Result<IndexKey, String> {
        let logout = check(claims.to_string().as_bytes(), "https://id", "app", NOW);
        logout.map(|logout| logout.key).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_one_says_which_session_or_whose() {
        let (issuer, sid) = ("https://id".to_owned(), "s1".to_owned());
        assert_eq!(checked(&good()), Ok(IndexKey::Sid { issuer: issuer.clone(), sid }));
        let mut by_user = good();
        by_user.as_object_mut().unwrap().remove("sid");
        let subject = "alice".to_owned();
        assert_eq!(checked(&by_user), Ok(IndexKey::Sub { issuer, subject }));
        for (name, value) in [
            ("aud", json!(["other", "app"])),
            ("iat", json!(NOW + SKEW)),
            ("exp", json!(NOW - SKEW)),
            ("exp", json!(1e300)),
            ("iat", json!(NOW as f64 - 0.5)),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert!(checked(&claims).is_ok(), "{claims}");
        }
    }

    #[test]
    fn any_other_is_refused() {
        for (name, value) in [
            ("iss", json!("https://other")),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("iat", json!(NOW + SKEW + 1)),
            ("iat", json!("now")),
            ("exp", json!(NOW - SKEW - 1)),
            ("events", json!({})),
            ("events", json!({ EVENT: true })),
            ("events", json!([EVENT])),
            ("nonce", json!("n")),
            ("nonce", json!("")),
            ("jti", json!(1)),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert!(checked(&claims).is_err(), "{claims}");
        }
        for name in ["iss", "aud", "iat", "jti", "events"] {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(name);
            assert!(checked(&claims).is_err(), "without {name}");
        }
        let mut of_nobody = good();
        of_nobody.as_object_mut().unwrap().retain(|name, _| name != "sub" && name != "sid");
        assert!(checked(&of_nobody).is_err());
        let mut old = good();
        old.as_object_mut().unwrap().remove("exp");
        old["iat"] = json!(NOW - MAX_AGE - SKEW - 1);
        assert!(checked(&old).is_err());
    }

    #[test]
    fn a_form_is_read_as_it_is_written() {
        assert_eq!(field(b"logout_token=a.b-c_d", b"logout_token").as_deref(), Some("a.b-c_d"));
        assert_eq!(field(b"a=b&logout_token=a%2Eb+c&d", b"logout_token").as_deref(), Some("a.b c"));
        for wrong in
            [&b""[..], b"logout_token", b"xlogout_token=a", b"logout_token=%4", b"logout_token=%zz"]
        {
            assert_eq!(field(wrong, b"logout_token"), None);
        }
    }
}
