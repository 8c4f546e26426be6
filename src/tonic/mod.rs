//! [`tonic_channel`]: a tonic `Channel` that ends in this process.

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, poll_fn, ready},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pin_project_lite::pin_project;
use tokio::io::DuplexStream;
use tonic::{Status, body::Body as TonicBody, transport::Channel};
use tower_service::Service;

use crate::{
    error::{BoxError, sources},
    layer::Refused,
};

/// What the connection takes before its other end has read it, in bytes.
const BUFFER: usize = 64 * 1024;

/// What each call may have on its way, each way, before its other end has read it, in bytes.
const CALL_WINDOW: u32 = 256 * 1024;

/// As many bytes as HTTP/2 allows: calls that are not read fill their own windows, and must not make the
/// others wait for a window that all share.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// How much metadata a call may have is for the real connection to say.
const METADATA: u32 = u32::MAX;

/// A tonic `Channel` whose calls go through `service`, for libraries that take no client but a
/// `Channel`: OpenTelemetry's OTLP exporters are the best known.
///
/// A `Channel` cannot have layers below it. This one is real, and its only connection is HTTP/2 in
/// memory, whose other end calls `service`: a [`RefreshLayer`](crate::RefreshLayer), say, over the
/// channel that leads to the server.
///
#[cfg_attr(not(doctest), doc = include_str!("channel.md"))]
///
/// # What `service` gets
///
/// Requests that name no origin, as from a generated client. So a layer with
/// [`allow_origin`](crate::RefreshLayer::allow_origin) takes
/// [`allow_relative`](crate::RefreshLayer::allow_relative) besides. Their `grpc-timeout` counts from when the
/// call began. A call that its caller drops drops its request, and the refresh that it may have waited
/// for goes on.
///
/// Extensions do not go through a connection, neither a request's nor a response's. So a layer that finds
/// the credential there ([`FromExtensions`](crate::FromExtensions)) finds none: make a channel for each
/// credential, or find it by the request's metadata.
///
/// # Errors
///
/// An error of `service`, or of a response's body, is the status that a generated client would make of
/// it. Its sources are lost: they do not go through a connection. A [`Refused`](crate::layer::Refused), as
/// [`ErrorOnRefusalLayer`](crate::layer::ErrorOnRefusalLayer) makes it, is `UNAUTHENTICATED` with a
/// message that says why there is no newer token. A call in which `service` panics is `CANCELLED`, as by a
/// server.
///
/// # Panics
///
/// The caller is not in a tokio runtime: the channel spawns its tasks there, as every lazy channel of tonic.
///
/// # Cost
///
/// A call is a task of its own, and its messages are copied twice more. Of each call that is not read, up to
/// a megabyte is kept. The connection ends with the last clone of the channel.
///
/// As on every channel of tonic, more than a thousand answers that their callers have dropped in the middle,
/// over fifty in a second, end the connection, and with it the calls that are under way. The next call
/// makes another.
#[must_use]
pub fn tonic_channel<S, B>(service: S) -> Channel
where
    S: Service<Request<TonicBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Channel::from_static("http://in-process")
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(METADATA)
        .connect_with_connector_lazy(Connect { service })
}

/// Makes the connection in memory, whose other end calls `service`.
struct Connect<S> {
    service: S,
}

impl<S, B> Service<Uri> for Connect<S>
where
    S: Service<Request<TonicBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = TokioIo<DuplexStream>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (near, far) = tokio::io::duplex(BUFFER);
        let service = self.service.clone();
        let answer = service_fn(move |request| answer(service.clone(), request));
        let connection = http2::Builder::new(TokioExecutor::new())
            // How many calls are under way at once is for the real connection to say.
            .max_concurrent_streams(None)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(METADATA)
            // They guard against a hostile client. This one's callers drop many calls at once, and the
            // connection's end would be that of all others.
            .max_pending_accept_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None)
            // Responses pass as they are.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(far), answer);
        tokio::spawn(connection);
        ready(Ok(TokioIo::new(near)))
    }
}

async fn answer<S, B>(
    mut service: S,
    request: Request<Incoming>,
) -> Result<Response<ErrorAsStatus<B>>, Infallible>
where
    S: Service<Request<TonicBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
{
    let mut request = request.map(TonicBody::new);
    // The origin is only this connection's.
    *request.uri_mut() =
        request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    let ready = poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into);
    let response = match ready {
        Ok(()) => service.call(request).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    Ok(match response {
        Ok(response) => response.map(|body| ErrorAsStatus { body: Some(body) }),
        Err(error) => status(error).into_http(),
    })
}

/// As a generated client makes it, but that it knows this crate's error.
fn status(error: BoxError) -> Status {
    let refused =
        sources(&*error).find_map(|error| error.downcast_ref::<Refused>()).map(|refused| {
            let why = refused.source().map(|why| format!(": {why}")).unwrap_or_default();
            Status::unauthenticated(format!("{refused}{why}"))
        });
    refused.unwrap_or_else(|| Status::from_error(error))
}

pin_project! {
    /// A body whose error is a status in the trailers. The connection would make a reset of it, of
    /// which the caller learns nothing.
    struct ErrorAsStatus<B> {
        // None: it has ended with an error, or is empty.
        #[pin]
        body: Option<B>,
    }
}

impl<B> Default for ErrorAsStatus<B> {
    fn default() -> Self {
        Self { body: None }
    }
}

impl<B> Body for ErrorAsStatus<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Infallible>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = match ready!(body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                this.body.set(None);
                Frame::trailers(trailers(&status(error.into())))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // With an error it is shorter than it said.
        SizeHint::default()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A message that cannot be sent is not: the code says enough.
    if status.add_header(&mut trailers).is_err() {
        let _ = Status::new(status.code(), "").add_header(&mut trailers);
    }
    trailers
}
