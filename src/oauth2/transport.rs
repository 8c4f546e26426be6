//! Sending a message to an endpoint over a user's tower service, within bounds, and
//! noting what the oauth2 crate does not tell.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use ::oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, DATE, RETRY_AFTER},
    response::Parts,
};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::{SecretString, zeroize::Zeroizing};
use tokio::time::timeout;
use tower_service::Service;

use super::{
    endpoint::Endpoint,
    error::{Error, ErrorKind},
    response::normalize,
};
use crate::{error::BoxError, refresher::BoxFuture};

/// A longer answer is none.
const MAX_BODY: usize = 64 << 10;

/// A tower HTTP service whose types are nobody else's business.
pub(super) trait Transport: Send + Sync + 'static {
    /// Sends a request and reads the answer to its end.
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>>;
}

/// Why there is no whole answer.
pub(super) enum TransportError {
    Send(BoxError),
    Read(Box<Parts>, BoxError),
    TooLarge(Box<Parts>),
}

pub(super) struct TowerTransport<S, B> {
    service: Mutex<S>,
    body: PhantomData<fn() -> B>,
}

impl<S, B> TowerTransport<S, B> {
    pub(super) fn new(service: S) -> Self {
        Self { service: Mutex::new(service), body: PhantomData }
    }
}

impl<S, B, ResBody> Transport for TowerTransport<S, B>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: From<Bytes> + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Buf + Send,
    ResBody::Error: Into<BoxError>,
{
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let failed = |error: S::Error| TransportError::Send(error.into());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            let response = service.call(request.map(B::from)).await.map_err(failed)?;
            let (parts, body) = response.into_parts();
            match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(TransportError::TooLarge(parts.into()))
                }
                Err(error) => Err(TransportError::Read(parts.into(), error)),
            }
        })
    }
}

/// One message and its answer: what the oauth2 crate sends with, and what is known of
/// it beyond the crate's own result.
pub(super) struct Roundtrip<'a> {
    transport: &'a dyn Transport,
    endpoint: &'a Endpoint,
    limit: Duration,
    log: Mutex<RoundtripLog>,
}

#[derive(Default)]
struct RoundtripLog {
    /// What the request had, if anything: the client's secret in another form.
    authorization: Option<HeaderValue>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    error: Option<Error>,
}

impl<'a> Roundtrip<'a> {
    pub(super) fn new(
        transport: &'a dyn Transport,
        endpoint: &'a Endpoint,
        limit: Duration,
    ) -> Self {
        Self { transport, endpoint, limit, log: Mutex::default() }
    }

    /// Why there was no answer; or an error of this kind about the answer that came.
    pub(super) fn error(self, kind: ErrorKind) -> Error {
        let log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        let error = log.error.unwrap_or_else(|| Error::new(kind, self.endpoint));
        match log.status {
            Some(status) => error.with_status(status).with_retry_after(log.retry_after),
            None => error,
        }
    }

    /// The status of the answer, if there was one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.log().status
    }

    /// How the request authenticated by its header, without the scheme.
    pub(super) fn basic_credentials(&self) -> Option<SecretString> {
        let log = self.log();
        let (_, value) = log.authorization.as_ref()?.to_str().ok()?.split_once(' ')?;
        Some(value.into())
    }

    fn log(&self) -> MutexGuard<'_, RoundtripLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the head says counts, whatever becomes of the body.
    fn log_head(&self, status: StatusCode, headers: &HeaderMap) {
        let mut log = self.log();
        log.status = Some(status);
        log.retry_after = retry_after(headers, SystemTime::now());
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.endpoint.uri.clone();
        // Nothing here could read what is compressed, and the answer would be lost.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
            self.log().authorization = Some(value.clone());
        }
        // Wiped when the last of its holders is done with it.
        let body = Bytes::from_owner(Zeroizing::new(body));
        let sending = self.transport.send(Request::from_parts(parts, body));
        let error = |kind| Error::new(kind, self.endpoint);
        let response = match timeout(self.limit, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(TransportError::Send(source))) => {
                return Err(error(ErrorKind::Connection).with_source(source));
            }
            Ok(Err(TransportError::Read(head, source))) => {
                self.log_head(head.status, &head.headers);
                return Err(error(ErrorKind::Connection).with_source(source));
            }
            Ok(Err(TransportError::TooLarge(head))) => {
                self.log_head(head.status, &head.headers);
                return Err(error(ErrorKind::TooLarge));
            }
            Err(_) => return Err(error(ErrorKind::TimedOut)),
        };
        self.log_head(response.status(), response.headers());
        Ok(normalize(response))
    }
}

/// The error itself is noted; the oauth2 crate has no place for it.
impl<'c> AsyncHttpClient<'c> for Roundtrip<'_> {
    type Error = NoResponse;
    type Future = BoxFuture<'c, Result<HttpResponse, NoResponse>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            self.send(request).await.map_err(|error| {
                self.log().error = Some(error);
                NoResponse
            })
        })
    }
}

/// See [`RoundtripLog::error`].
#[derive(Debug)]
pub(super) struct NoResponse;

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer")
    }
}

impl std::error::Error for NoResponse {}

/// `Retry-After` (RFC 9110, section 10.2.3). A date is measured by the server's own
/// clock, if it tells it: ours may be another.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = text(DATE).and_then(date).unwrap_or(now);
    Some(date(value)?.duration_since(now).unwrap_or_default())
}
