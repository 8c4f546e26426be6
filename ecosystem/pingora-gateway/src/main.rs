//! A gateway by pingora that puts its own token on what it passes on: twenty orders are posted at the same time, when that
//! token has just expired. One refresh, and each arrives once, whole.
//!
//! pingora keeps up to 64 KiB of a body to send it again, and does so when a filter's error asks for it; but not for a POST,
//! unless it is told that this is safe. A refused request was not carried out, so it is.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType,
    http::{RequestHeader, ResponseHeader},
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::Server,
    upstreams::peer::HttpPeer,
};
use scenery::{AnyError, CALLS, Loopback, Outcome};
use tokio::net::TcpStream;
use tower_refresh::{Generation, RefreshState};

// ---- What a user writes: a gateway whose filters ask the credential.
struct Gateway {
    upstream: SocketAddr,
    state: Arc<RefreshState>,
}

#[derive(Default)]
struct Attempt {
    sent_with: Option<Generation>,
    is_replay: bool,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Attempt;

    fn new_ctx(&self) -> Attempt {
        Attempt::default()
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        _: &mut Attempt,
    ) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        attempt: &mut Attempt,
    ) -> pingora::Result<()> {
        let credential = self.state.token().await.map_err(|failure| {
            Error::because(ErrorType::HTTPStatus(502), "there is no token", failure)
        })?;
        if let Some(bearer) = credential.bearer() {
            request.insert_header("authorization", bearer)?;
        }
        attempt.sent_with = Some(credential.generation());
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        attempt: &mut Attempt,
    ) -> pingora::Result<()> {
        let Some(generation) = attempt.sent_with else { return Ok(()) };
        if response.status != 401 {
            self.state.accepted(generation);
            return Ok(());
        }
        let can_replay = !attempt.is_replay && !session.as_ref().retry_buffer_truncated();
        if can_replay && self.state.challenged(generation).await.is_ok() {
            attempt.is_replay = true;
            return Err(Error::explain(
                ErrorType::HTTPStatus(401),
                "sent again with a newer token",
            ));
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _: &mut Attempt,
        reused: bool,
    ) -> Box<Error> {
        let whole = !session.as_ref().retry_buffer_truncated();
        match error.etype() {
            ErrorType::HTTPStatus(401) => error.set_retry(whole),
            _ if whole && session.req_header().method.is_idempotent() => {
                error.retry.decide_reuse(reused)
            }
            _ => error.set_retry(false),
        }
        error
    }
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let gateway = Gateway { upstream: servers.socket(), state: scenery::credential(&servers)? };
    let address = serve(gateway).await?;
    let client = reqwest::Client::new();

    let ok = scenery::at_once(&servers, |number| {
        let sent = client.post(format!("http://{address}/api/orders")).body(order(number)).send();
        async move {
            let Ok(answer) = sent.await else { return false };
            answer.text().await.is_ok_and(|text| text == order(number))
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    let last = client.post(format!("http://{address}/api/orders")).body(order(99)).send().await?;
    Ok(outcome.report(last.status()))
}

fn order(number: usize) -> String {
    format!("order {number}; ").repeat(1000)
}

/// Runs the gateway in threads of its own.
async fn serve(gateway: Gateway) -> Result<SocketAddr, AnyError> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, gateway);
    service.add_tcp(&address.to_string());
    server.add_service(service);
    thread::spawn(move || server.run_forever());
    while TcpStream::connect(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    Ok(address)
}
