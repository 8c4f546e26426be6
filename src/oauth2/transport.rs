//! Sends a request to an endpoint over the user's tower service, bounded in time and in the
//! bytes of the response, and logs what the oauth2 crate does not pass on.

use std::{
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

/// A longer response body is an error.
const MAX_BODY: usize = 64 << 10;

/// A tower HTTP service without its types.
pub(super) trait Transport: Send + Sync + 'static {
    /// Sends a request and reads the response to its end.
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>>;
}

/// Why there is no whole response. What came of it is its head.
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

/// One request and its response. The oauth2 crate sends with it; what that crate's result does
/// not have is in the log.
pub(super) struct Roundtrip<'a> {
    transport: &'a dyn Transport,
    endpoint: &'a Endpoint,
    limit: Duration,
    log: Mutex<RoundtripLog>,
}

#[derive(Default)]
struct RoundtripLog {
    /// The request's header, which has the client's secret in another form.
    authorization: Option<HeaderValue>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
}

impl<'a> Roundtrip<'a> {
    pub(super) fn new(
        transport: &'a dyn Transport,
        endpoint: &'a Endpoint,
        limit: Duration,
    ) -> Self {
        Self { transport, endpoint, limit, log: Mutex::default() }
    }

    /// An error about the response that came.
    pub(super) fn error(self, kind: ErrorKind) -> Error {
        let error = Error::new(kind, self.endpoint);
        self.with_head(error)
    }

    /// Adds to the error what the response's head has said, if there was one.
    pub(super) fn with_head(self, error: Error) -> Error {
        let log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        match log.status {
            Some(status) => error.with_status(status).with_retry_after(log.retry_after),
            None => error,
        }
    }

    /// The status of the response, if there was one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.log().status
    }

    /// What the request authenticated with in its header (RFC 7617, section 2), without the
    /// scheme.
    pub(super) fn basic_credentials(&self) -> Option<SecretString> {
        let log = self.log();
        let (_, value) = log.authorization.as_ref()?.to_str().ok()?.split_once(' ')?;
        Some(value.into())
    }

    fn log(&self) -> MutexGuard<'_, RoundtripLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head counts even if the body is too long or breaks off.
    fn log_head(&self, status: StatusCode, headers: &HeaderMap) {
        let mut log = self.log();
        log.status = Some(status);
        log.retry_after = retry_after(headers, SystemTime::now());
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.endpoint.uri.clone();
        // A compressed body could not be read here, and a rotated refresh token would be lost.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
            self.log().authorization = Some(value.clone());
        }
        // It has the refresh token: wiped when the service drops the last reference to it.
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

impl<'c> AsyncHttpClient<'c> for Roundtrip<'_> {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse, Error>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3). A date is measured from the response's own `Date`
/// where there is one, because the server's clock may be off.
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
