//! Connections that become ones of another protocol ([`Tunnel`]).

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::copy_bidirectional;

use super::websocket::Key;
use crate::session::session::Session;

/// A connection that becomes one of another protocol.
pub(super) struct Tunnel {
    pub(super) browser: OnUpgrade,
    pub(super) session: Option<Session>,
    /// Of a WebSocket that has come over HTTP/2.
    pub(super) key: Option<Key>,
}

impl Tunnel {
    /// Until either side ends it, or the session does.
    pub(super) async fn run(self, server: OnUpgrade) -> io::Result<()> {
        let (browser, server) = (self.browser.await, server.await);
        let (Ok(browser), Ok(server)) = (browser, server) else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        let (mut browser, mut server) = (TokioIo::new(browser), TokioIo::new(server));
        let copying = copy_bidirectional(&mut browser, &mut server);
        match self.session {
            Some(session) => {
                Either { first: copying, second: async move { session.ended().await } }.await
            }
            None => copying.await.map(drop),
        }
    }
}

pin_project! {
    /// The first to end.
    struct Either<F, G> {
        #[pin]
        first: F,
        #[pin]
        second: G,
    }
}

impl<T, F: Future<Output = io::Result<T>>, G: Future> Future for Either<F, G> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        if let Poll::Ready(result) = this.first.poll(cx) {
            return Poll::Ready(result.map(drop));
        }
        this.second.poll(cx).map(|_| Ok(()))
    }
}
