//! Sends a request to an endpoint over the user's tower service, bounded in time and in the
//! bytes of the response, and logs what the oauth2 crate does not pass on.

use std::{
    future::poll_fn,
    marker::PhantomData,
    mem,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use ::oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION},
    response::Parts,
};
use http_body::Body;
use http_body_util::BodyExt;
use secrecy::{SecretString, zeroize::Zeroizing};
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};
use tower_service::Service;

use super::{
    authentication::Authentication,
    endpoint::Endpoint,
    error::{Error, ErrorKind},
    response::{Refused, read},
    retry_after::retry_after,
    unspent::is_untouched,
};
use crate::{
    error::{BoxError, sources},
    refresher::BoxFuture,
    time::after,
};

/// A tower HTTP service without its types.
pub(super) trait Transport: Send + Sync + 'static {
    /// Sends a request and reads the response to its end: until then, and so many bytes of its
    /// body.
    fn send(
        &self,
        request: Request<Bytes>,
        end: Instant,
        max: usize,
    ) -> BoxFuture<'_, Result<Received, Failed>>;
}

/// How long an exchange may take, and how many bytes a response's body may have.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) time: Duration,
    pub(super) bytes: usize,
}

/// A response, as far as it came.
pub(super) struct Received {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    /// Why there is no more of the body, if its end did not come.
    pub(super) broken: Option<Failed>,
}

/// Why there is no response, or no more of it.
pub(super) struct Failed(pub(super) ErrorKind, pub(super) Option<BoxError>);

impl Failed {
    fn connection(error: impl Into<BoxError>) -> Self {
        Self(ErrorKind::Connection, Some(error.into()))
    }

    /// Whether the server has said, or the HTTP client knows, that it has done nothing.
    fn is_untouched(&self) -> bool {
        self.1.as_deref().is_some_and(|source| sources(source).any(is_untouched))
    }
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
        end: Instant,
        max: usize,
    ) -> BoxFuture<'_, Result<Received, Failed>> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let answer = async {
                // The runtime looks at its sockets once more. Otherwise a request may be written
                // on an idle connection although the server's close of it has come long ago, and
                // counts as one whose response is lost.
                yield_now().await;
                poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request.map(B::from)).await
            };
            let response = match timeout_at(end, answer).await {
                Ok(response) => response.map_err(Failed::connection)?,
                Err(_) => return Err(Failed(ErrorKind::TimedOut, None)),
            };
            let (head, body) = response.into_parts();
            let mut bytes = BytesMut::new();
            let reading = timeout_at(end, collect(body, &mut bytes, max)).await;
            let broken = reading.unwrap_or(Err(Failed(ErrorKind::TimedOut, None))).err();
            Ok(Received { head, body: bytes.freeze(), broken })
        })
    }
}

/// Reads a body to its end, and keeps the first `max` bytes. What has come before an error is
/// there.
async fn collect<B>(body: B, bytes: &mut BytesMut, max: usize) -> Result<(), Failed>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Failed::connection)?.into_data() else { continue };
        let is_too_large = data.remaining() > max - bytes.len();
        bytes.put(data.take(max - bytes.len()));
        if is_too_large {
            return Err(Failed(ErrorKind::TooLarge, None));
        }
    }
    Ok(())
}

/// One request and its response. The oauth2 crate sends with it; what that crate's result does
/// not have is in the log.
pub(super) struct Roundtrip<'a> {
    transport: &'a dyn Transport,
    endpoint: &'a Endpoint,
    authentication: &'a Authentication,
    bounds: Bounds,
    log: Mutex<RoundtripLog>,
}

#[derive(Default)]
struct RoundtripLog {
    /// The request's header, which has the client's secret in another form.
    authorization: Option<HeaderValue>,
    /// The assertion in its body.
    assertion: Option<SecretString>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    refused: Refused,
}

impl<'a> Roundtrip<'a> {
    pub(super) fn new(
        transport: &'a dyn Transport,
        endpoint: &'a Endpoint,
        authentication: &'a Authentication,
        bounds: Bounds,
    ) -> Self {
        Self { transport, endpoint, authentication, bounds, log: Mutex::default() }
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

    /// What the response said, in case that it granted nothing.
    pub(super) fn refused(&self) -> Refused {
        mem::take(&mut self.log().refused)
    }

    /// What the request authenticated with in its header (RFC 7617, section 2), without the
    /// scheme.
    pub(super) fn basic_credentials(&self) -> Option<SecretString> {
        let log = self.log();
        let (_, value) = log.authorization.as_ref()?.to_str().ok()?.split_once(' ')?;
        Some(value.into())
    }

    /// The assertion that the request authenticated with.
    pub(super) fn assertion(&self) -> Option<SecretString> {
        self.log().assertion.clone()
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

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, Error> {
        let signed = self.authentication.add_to(&mut request).map_err(|source| {
            Error::new(ErrorKind::Connection, self.endpoint).with_source(source)
        })?;
        self.log().assertion = signed.map(|signed| signed.as_str().into());
        let (mut parts, body) = request.into_parts();
        parts.uri = self.endpoint.uri.clone();
        // Of the codings that a server may choose, gzip and deflate only could be read.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
            self.log().authorization = Some(value.clone());
        }
        // It has the refresh token: wiped when the service drops the last reference to it.
        let body = Bytes::from_owner(Zeroizing::new(body));
        let error = |Failed(kind, source)| {
            let error = Error::new(kind, self.endpoint);
            match source {
                Some(source) => error.with_source(source),
                None => error,
            }
        };
        let request = Request::from_parts(parts, body);
        let end = after(Instant::now(), self.bounds.time);
        let send = |request| self.transport.send(request, end, self.bounds.bytes);
        let mut sent = send(request.clone()).await;
        if sent.as_ref().is_err_and(Failed::is_untouched) {
            tracing::debug!(endpoint = %self.endpoint, "the server has not begun the request: once more");
            sent = send(request).await;
        }
        let Received { head, body, broken } = sent.map_err(error)?;
        self.log_head(head.status, &head.headers);
        let reading = read(&head, body, broken.is_some(), self.bounds.bytes);
        self.log().refused = reading.refused;
        let mut oddities = reading.oddities;
        match broken {
            Some(broken) if !reading.is_usable => return Err(error(broken)),
            Some(_) => oddities.push("it broke off, and what matters had come"),
            None => {}
        }
        if !oddities.is_empty() {
            let (endpoint, odd) = (self.endpoint, oddities.join("; "));
            tracing::warn!(%endpoint, %odd, "an odd response was read");
        }
        Ok(reading.response)
    }
}

impl<'c> AsyncHttpClient<'c> for Roundtrip<'_> {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse, Error>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
