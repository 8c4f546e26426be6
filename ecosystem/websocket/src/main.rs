//! WebSockets, whose token goes with the handshake: twenty are opened at the same time with a token that
//! has just expired. One refresh, and each handshake is made again with the new one.
//!
//! What the server does when a token runs out under an open socket is the server's affair. If it
//! closes the socket with a code for that, `state.challenged(generation)` before the next `connect` tells
//! the state, and the next handshake is not refused first.

use std::{process::ExitCode, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header::AUTHORIZATION};
use scenery::{AnyError, CALLS, Loopback, Outcome};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::block_in_place,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async,
    tungstenite::{
        Error,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
    },
};
use tower_refresh::{Credential, RefreshState};

// ---- What a user writes: a socket that is opened with the token to use now.
type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str, state: &Arc<RefreshState>) -> Result<Socket, AnyError> {
    let handshake = async |credential: Credential| {
        let mut request = url.into_client_request()?;
        request.headers_mut().extend(credential.bearer().map(|bearer| (AUTHORIZATION, bearer)));
        connect_async(request).await
    };
    let is_refused = |outcome: &Result<_, Error>| match outcome {
        Err(Error::Http(response)) => response.status() == StatusCode::UNAUTHORIZED,
        _ => false,
    };
    let (socket, _response) = state.attempt(handshake, is_refused).await??;
    Ok(socket)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let url = serve(servers.clone()).await?;
    let state = scenery::credential(&servers)?;

    let ok = scenery::at_once(&servers, |number| {
        let (url, state) = (url.clone(), Arc::clone(&state));
        async move {
            let Ok(socket) = connect(&url, &state).await else { return false };
            echo(socket, number).await.is_ok()
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(connect(&url, &state).await))
}

async fn echo(mut socket: Socket, number: usize) -> Result<(), AnyError> {
    socket.send(format!("order {number}").into()).await?;
    let answer = socket.next().await.ok_or("the socket was closed")??;
    match answer.to_text()? == format!("order {number}") {
        true => Ok(()),
        false => Err("the answer is another socket's".into()),
    }
}

/// A server that opens no socket without the good token, and echoes what it hears.
async fn serve(servers: Loopback) -> Result<String, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, servers.clone()));
        }
    });
    Ok(url)
}

async fn converse(stream: TcpStream, servers: Loopback) -> Result<(), AnyError> {
    #[allow(clippy::result_large_err, reason = "it is the library's")]
    let judge = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let judged = servers.judge(request.headers());
        if block_in_place(|| Handle::current().block_on(judged)) {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        Err(refusal)
    };
    let mut socket = accept_hdr_async(stream, judge).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
