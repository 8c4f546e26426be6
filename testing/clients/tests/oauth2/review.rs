//! What a review has found, and does not hold yet.

use std::{
    io,
    io::Write,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::Uri;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioExecutor,
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::service_fn;
use tower_refresh::{RefreshError, Refresher, Tokens, oauth2::Client};

use super::endpoint::{Endpoint, Reply, tokens};

async fn minted(body: impl Into<Vec<u8>>) -> Result<Tokens, RefreshError> {
    let body: Vec<u8> = body.into();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let endpoint = Endpoint::start([Reply::Raw([head.as_bytes(), &body].concat())]).await;
    let client = endpoint.client().build().unwrap();
    client.refresh_token_grant().refresh(tokens(1).into()).await
}

/// "Where an `access_token` can be read without guessing, it is read"; `near_json`: "slips that do
/// not touch the fields' bounds". Never lost: the refresh token of a server that does not rotate.
///
/// Order: a server that does not rotate answers with its access token, with what an upstream has
/// given (as brokers do), and with a field whose quotes it has not escaped. The upstream's refresh
/// token, which lies inside a field that was read whole, is taken for the answer's own. It is saved
/// in the place of the one that is still good, and the next redeem sends it to a server that does not
/// know it: `invalid_grant`, the session is dead. Without the slip the answer is read rightly.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_refresh_token_inside_another_field_is_never_the_answers_own() {
    let upstream = r#""upstream":{"access_token":"other-a","refresh_token":"other-r"}"#;
    let good = format!(r#"{{"access_token":"access-2",{upstream},"note":"say \"hi\""}}"#);
    assert_eq!(minted(good).await.unwrap().refresh_token(), None);
    for slip in [
        format!(r#"{{"access_token":"access-2",{upstream},"note":"say "hi" to all"}}"#),
        format!(r#"{{"access_token":"access-2","note":"say "hi" to all",{upstream}}}"#),
    ] {
        // That it is given up would be well: the old one is kept then.
        let refresh_token =
            minted(slip.clone()).await.ok().and_then(|it| it.refresh_token().map(str::to_owned));
        assert_eq!(refresh_token, None, "{slip}");
    }
}

/// The same for the access token: what stands inside a field of another's is the only one that is
/// found, where the answer's own cannot be read.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn an_access_token_inside_another_field_is_never_the_answers_own() {
    let upstream = r#""upstream":{"access_token":"other-a","refresh_token":"other-r"}"#;
    let slip = format!(r#"{{"token":"access-2","note":"say "hi" to all",{upstream}}}"#);
    let minted = minted(slip).await.map(|it| it.access_token().to_owned());
    assert!(minted.is_err(), "{minted:?}");
}

/// "A good answer is never thrown away with the rotated token in it"; `response/tests.rs`: "whatever
/// becomes of an answer's other fields, the pair is read".
///
/// Order: a server that has `"error": null` (or `""`) in every answer, which is read where it is JSON,
/// leaves a quote unescaped in another field. Because the name `"error"` is in it, nothing is searched
/// for: the rotated refresh token is thrown away.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn an_error_that_is_null_does_not_keep_the_pair_from_being_read() {
    let pair = r#""access_token":"access-2","note":"say "hi" to all","refresh_token":"refresh-2""#;
    let without = minted(format!("{{{pair}}}")).await.unwrap();
    assert_eq!(without.refresh_token(), Some("refresh-2"));
    for error in ["null", r#""""#] {
        let minted = minted(format!(r#"{{"error":{error},{pair}}}"#)).await.unwrap();
        assert_eq!(minted.access_token(), "access-2");
        assert_eq!(minted.refresh_token(), Some("refresh-2"));
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// "gzip and deflate though not asked for". RFC 1952, section 2.2: "a gzip file consists of a series
/// of members", one after the other. `GzDecoder` reads the first, and tells of no others.
///
/// Order: an answer in two members. As JSON, it is thrown away with the rotated pair in it. As a form,
/// the end of the first member is taken for that of the form: a token that is cut is taken for a
/// whole one, and published.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_form_in_several_gzip_members_is_not_cut() {
    let cut_form = [gzip("refresh_token=refresh-2&access_token=acc"), gzip("ess-2")].concat();
    let form = minted(cut_form).await.map(|it| it.access_token().to_owned());
    assert_ne!(form.as_deref().unwrap_or_default(), "acc", "a part is never the whole");
}

/// The same with JSON: the rotated pair is thrown away.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn json_in_several_gzip_members_is_read() {
    let json =
        [gzip(r#"{"access_token":"access-2","refr"#), gzip(r#"esh_token":"refresh-2"}"#)].concat();
    assert_eq!(minted(json).await.unwrap().refresh_token(), Some("refresh-2"));
}

/// A connection that is up, takes the request, and ends in this error.
struct Stream {
    written: Arc<AtomicUsize>,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.written.load(SeqCst) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // As the kernel says it: `tcp_write_err` gives the soft error that the last ICMP message has
        // left (`sk_err_soft`), which is ECONNREFUSED for "port unreachable".
        Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.fetch_add(bytes.len(), SeqCst);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone)]
struct Up(Arc<AtomicUsize>);

impl tower::Service<Uri> for Up {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Io>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(Ok(TokioIo::new(Io(Stream { written: Arc::clone(&self.0) }))))
    }
}

struct Io(Stream);

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// `RefreshError::unspent`: the refresh token was certainly not spent. `unspent.rs` knows that "a
/// connection that is up ends in these errors too" of EHOSTUNREACH and ENETUNREACH. It is the same with
/// ECONNREFUSED: Linux keeps an ICMP "port unreachable" (the default of iptables' REJECT) as a
/// connection's soft error, and ends it with that when retransmission, keep-alive or
/// TCP_USER_TIMEOUT gives up (`tcp_write_err`).
///
/// Order: the connection is up; the request is written; the server serves it; a firewall goes up in
/// between; the connection ends in ECONNREFUSED. The token is told as unspent, the lease is
/// released without a trace, and the next holder is not told of an open redeem.
#[ignore = "does not hold yet"]
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

/// The same with the response's head there already: the server has begun to answer with a 200, so
/// it has surely spent the token, and the connection ends in that error.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_response_that_has_begun_is_never_told_as_unspent() {
    let http = service_fn(|_: http::Request<Full<Bytes>>| {
        let frames = futures_util::stream::iter([
            Ok(http_body::Frame::data(Bytes::from_static(b"{\"access_token\":\"acc"))),
            Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        ]);
        let body = http_body_util::StreamBody::new(frames);
        std::future::ready(Ok::<_, io::Error>(http::Response::new(body)))
    });
    let client = Client::builder("http://127.0.0.1:1/token", "id").unwrap().over(http);
    let error = client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap_err();
    assert!(!error.is_unspent(), "{error:?}");
}

/// `max_response`: "How many bytes a response's body may have, compressed or not." `usize::MAX` is
/// how one says that any may be (as `replay_cap` has it by its docs).
///
/// Order: a good answer comes compressed; `max as u64 + 1` overflows. In a debug build that is a panic
/// in the refresher after the token was spent; in a release build nothing is decompressed, and the
/// rotated pair is thrown away.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn no_limit_at_all_loses_no_compressed_answer() {
    let body = gzip(r#"{"access_token":"access-2","refresh_token":"refresh-2"}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let endpoint = Endpoint::start([Reply::Raw([head.as_bytes(), &body].concat())]).await;
    let client = endpoint.client().max_response(usize::MAX).build().unwrap();
    let minted = client.refresh_token_grant().refresh(tokens(1).into()).await;
    assert_eq!(minted.unwrap().refresh_token(), Some("refresh-2"));
}

/// `response/tests.rs`: "whatever becomes of an answer's other fields, the pair is read".
///
/// Order: the same upstream's tokens in a field that was read whole, then the damage, then the
/// answer's own refresh token. Two are found, so none is taken: the rotated pair is thrown away,
/// although one of them is known not to be the answer's own.
#[ignore = "does not hold yet"]
#[tokio::test]
async fn a_refresh_token_inside_another_field_does_not_hide_the_answers_own() {
    let slip = r#"{"access_token":"access-2","upstream":{"refresh_token":"other-r"},"note":"say "hi" to all","refresh_token":"refresh-2"}"#;
    assert_eq!(minted(slip).await.unwrap().refresh_token(), Some("refresh-2"));
}
