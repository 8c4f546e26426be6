//! Where the server has certainly done nothing, the refresh token is not told as spent, and
//! where it says so itself, the same request goes out again at once.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    io::{self, Read, Write},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Uri;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::yield_now,
};
use tower::{Service, service_fn};
use tower_refresh::{BoxError, RefreshError, Refresher, Tokens, oauth2::Client};

use super::endpoint::tokens;

/// What an HTTP/2 server does with a request that it has read to its end (RFC 9113).
#[derive(Clone, Copy)]
enum Does {
    /// 200, and a pair.
    Answers,
    /// RST_STREAM with this code.
    Resets(u8),
    /// GOAWAY with this code, the last stream that it may have begun being this, and the end
    /// of the connection.
    GoesAway { last: u8, code: u8 },
}

const NO_ERROR: u8 = 0;
const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;

const BODY: &str = r#"{"access_token":"access-2","refresh_token":"refresh-2"}"#;

/// A frame of a stream with a low number.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

/// A server that does these, one after the other, and how many requests it has read.
async fn server(script: &[Does]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/token", listener.local_addr().unwrap());
    let script = Arc::new(Mutex::new(script.iter().copied().collect::<VecDeque<_>>()));
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&script), Arc::clone(&count)));
        }
    });
    (uri, seen)
}

async fn converse(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Does>>>,
    seen: Arc<AtomicUsize>,
) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    stream.write_all(&frame(4, 0, 0, &[])).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let [_, high, low, kind, flags, .., id] = head;
        let mut payload = vec![0; usize::from(high) * 256 + usize::from(low)];
        stream.read_exact(&mut payload).await.ok()?;
        match kind {
            // SETTINGS is acknowledged.
            4 if flags == 0 => stream.write_all(&frame(4, 1, 0, &[])).await.ok()?,
            // DATA or HEADERS with END_STREAM.
            0 | 1 if flags & 1 == 1 => {}
            _ => continue,
        }
        if kind == 4 {
            continue;
        }
        seen.fetch_add(1, SeqCst);
        let does = script.lock().unwrap().pop_front().expect("asked too often");
        match does {
            Does::Answers => {
                // `:status: 200` is the eighth of HPACK's static table.
                let head = frame(1, 4, id, &[0x88]);
                let body = frame(0, 1, id, BODY.as_bytes());
                stream.write_all(&[head, body].concat()).await.ok()?;
            }
            Does::Resets(code) => {
                stream.write_all(&frame(3, 0, id, &[0, 0, 0, code])).await.ok()?;
            }
            Does::GoesAway { last, code } => {
                let payload = [0, 0, 0, last, 0, 0, 0, code];
                stream.write_all(&frame(7, 0, 0, &payload)).await.ok()?;
                stream.shutdown().await.ok()?;
            }
        }
    }
}

async fn redeem(script: &[Does]) -> (Result<Tokens, RefreshError>, usize) {
    let (uri, seen) = server(script).await;
    let mut http = legacy::Client::builder(TokioExecutor::new());
    let http = http.http2_only(true).build_http::<Full<Bytes>>();
    let client = Client::builder(&uri, "id").unwrap().over(http);
    let minted = client.refresh_token_grant().refresh(tokens(1).into()).await;
    (minted, seen.load(SeqCst))
}

#[tokio::test]
async fn what_an_http2_server_has_not_begun_is_sent_again_at_once() {
    for refusal in [Does::Resets(REFUSED_STREAM), Does::GoesAway { last: 0, code: NO_ERROR }] {
        let (minted, seen) = redeem(&[refusal, Does::Answers]).await;
        assert_eq!(minted.unwrap().refresh_token(), Some("refresh-2"));
        assert_eq!(seen, 2);
        // Once: after that it is left to the pace of the cool-down.
        let (minted, seen) = redeem(&[refusal, refusal]).await;
        let error = minted.unwrap_err();
        assert!(error.is_unspent() && !error.is_rejected());
        assert_eq!(seen, 2);
    }
}

#[tokio::test]
async fn what_an_http2_server_may_have_begun_is_not() {
    for failure in [
        Does::Resets(INTERNAL_ERROR),
        Does::Resets(NO_ERROR),
        Does::GoesAway { last: 1, code: NO_ERROR },
        Does::GoesAway { last: 1, code: INTERNAL_ERROR },
        // By the letter it was not begun. A server in trouble is not taken at its word.
        Does::GoesAway { last: 0, code: INTERNAL_ERROR },
    ] {
        let (minted, seen) = redeem(&[failure]).await;
        let error = minted.unwrap_err();
        assert!(!error.is_unspent() && !error.is_rejected());
        assert_eq!(seen, 1);
    }
}

#[tokio::test]
async fn where_a_name_is_not_known_nothing_is_spent() {
    let client = Client::builder_allowing_http("http://nothing.invalid/token", "id").unwrap();
    let grant = client.build().unwrap().refresh_token_grant();
    let error = grant.refresh(tokens(1).into()).await.unwrap_err();
    assert!(error.is_unspent() && !error.is_rejected());
}

/// A server that answers one request on each connection, and closes it when it is told to,
/// without having said so to the client. `closed` hears of it.
fn closing_server(close: mpsc::Receiver<()>, closed: mpsc::Sender<()>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/token", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::<u8>::new();
            while !request.windows(9).any(|it| it == b"refresh-1") {
                let mut some = [0; 1024];
                match stream.read(&mut some).unwrap() {
                    0 => break,
                    count => request.extend(&some[..count]),
                }
            }
            let length = BODY.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(BODY.as_bytes()).unwrap();
            if close.recv().is_err() {
                return;
            }
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    uri
}

/// The runtime has been busy, and has not looked at its sockets since the server has closed an
/// idle connection: the next request goes out on another one.
#[tokio::test]
async fn a_close_that_has_come_is_seen_before_a_request_is_written() {
    let ((close, told), (closed, is_closed)) = (mpsc::channel(), mpsc::channel());
    let uri = closing_server(told, closed);
    let grant = Client::builder(&uri, "id").unwrap().build().unwrap().refresh_token_grant();
    for _ in 0..50 {
        let minted = grant.refresh(tokens(1).into()).await;
        assert_eq!(minted.unwrap().refresh_token(), Some("refresh-2"));
        // The connection goes back to those that are idle.
        for _ in 0..10 {
            yield_now().await;
        }
        close.send(()).unwrap();
        // Blocks the runtime's only thread.
        is_closed.recv().unwrap();
    }
}

/// A connection that is up, takes the request, and ends in ECONNREFUSED: Linux keeps an ICMP "port
/// unreachable" as a connection's soft error, and ends it with that when it gives up.
struct Refused(Arc<AtomicUsize>);

impl AsyncRead for Refused {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.load(SeqCst) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
    }
}

impl AsyncWrite for Refused {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.fetch_add(bytes.len(), SeqCst);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connection for Refused {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Connects to it. It counts the bytes that were written.
#[derive(Clone)]
struct Up(Arc<AtomicUsize>);

impl Service<Uri> for Up {
    type Response = TokioIo<Refused>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Refused>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(Ok(TokioIo::new(Refused(Arc::clone(&self.0)))))
    }
}

#[tokio::test]
async fn a_connection_that_was_up_and_is_refused_then_may_have_spent_the_token() {
    let written = Arc::new(AtomicUsize::new(0));
    let http = legacy::Client::builder(TokioExecutor::new());
    let http = http.build::<_, Full<Bytes>>(Up(Arc::clone(&written)));
    let client = Client::builder("http://127.0.0.1:1/token", "id").unwrap().over(http);
    let error = client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap_err();
    assert!(written.load(SeqCst) > 100, "the request was written");
    assert!(!error.is_unspent(), "{error:?}");
}

/// A connection that did not come about, whatever client's error says so.
#[tokio::test]
async fn a_refused_connect_spends_nothing_over_reqwest_too() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let http = reqwest::Client::new();
    let http = service_fn(move |request: http::Request<Bytes>| {
        let http = http.clone();
        async move {
            let sent = http.execute(request.map(reqwest::Body::from).try_into()?).await;
            sent.map(http::Response::<reqwest::Body>::from)
        }
    });
    let uri = format!("http://127.0.0.1:{port}/token");
    let client = Client::builder(&uri, "id").unwrap().over(http);
    let error = client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap_err();
    assert!(error.is_unspent() && !error.is_rejected(), "{error:?}");
}

/// The server has begun to answer with a 200, whatever the error after it says: of its own
/// connection, or, from a gateway in the same process, of another that did not come about.
#[tokio::test]
async fn a_response_that_has_begun_is_never_told_as_unspent() {
    let gateway = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let uri: Uri = format!("http://127.0.0.1:{port}/").parse().unwrap();
    for refused in [true, false] {
        let (gateway, uri) = (gateway.clone(), uri.clone());
        let http = service_fn(move |_: http::Request<Full<Bytes>>| {
            let asked = gateway.get(uri.clone());
            async move {
                let error: BoxError = match refused {
                    true => asked.await.unwrap_err().into(),
                    false => io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                };
                let frames = futures_util::stream::iter([
                    Ok(Frame::data(Bytes::from_static(b"{\"access_token\":\"acc"))),
                    Err(error),
                ]);
                Ok::<_, io::Error>(http::Response::new(StreamBody::new(frames)))
            }
        });
        let client = Client::builder("http://127.0.0.1:1/token", "id").unwrap().over(http);
        let error = client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap_err();
        assert!(!error.is_unspent(), "{error:?}");
    }
}
