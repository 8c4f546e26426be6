//! A server on loopback TCP, whatever it answers.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower_refresh::BoxError;

/// What a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1 or HTTP/2, as the client likes.
    #[default]
    Any,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only, without asking.
    Http2,
}

/// The two, one after the other.
pub const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// In the extensions of a response: it is not sent, and its connection ends.
#[derive(Clone, Copy, Debug)]
pub struct HangUp;

/// How many connections there were.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) accepted: watch::Sender<usize>,
    pub(super) closed: watch::Sender<usize>,
}

/// Serves HTTP/1 and HTTP/2 on loopback until the runtime ends, as many requests at once as
/// come. Returns where.
pub async fn serve<H, F, B>(handler: H) -> io::Result<SocketAddr>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    accept(listener, Protocol::Any, Arc::default(), handler);
    Ok(address)
}

/// The same on this listener.
pub(super) fn accept<H, F, B>(
    listener: TcpListener,
    protocol: Protocol,
    connections: Arc<Connections>,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.accepted.send_modify(|accepted| *accepted += 1);
            let (connections, handler) = (Arc::clone(&connections), handler.clone());
            tokio::spawn(async move {
                converse(stream, protocol, handler).await;
                connections.closed.send_modify(|closed| *closed += 1);
            });
        }
    });
}

/// One connection, until it ends. How a client leaves is the client's affair.
async fn converse<H, F, B>(stream: TcpStream, protocol: Protocol, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Without it, small answers on a connection that is used again come late.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let response = handler(request);
        async move {
            let response = response.await;
            match response.extensions().get() {
                // An error of the service is the end of its connection.
                Some(HangUp) => Err(io::Error::other("hung up")),
                None => Ok(response),
            }
        }
    });
    let io = TokioIo::new(stream);
    match protocol {
        Protocol::Any => {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().max_concurrent_streams(None);
            let _ = server.serve_connection(io, service).await;
        }
        Protocol::Http1 => {
            let _ = http1::Builder::new().serve_connection(io, service).await;
        }
        Protocol::Http2 => {
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(io, service).await;
        }
    }
}
