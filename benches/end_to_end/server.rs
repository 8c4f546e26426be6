//! The server of `end_to_end`: in a process of its own, so that its work does not
//! count, and on loopback.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A server process; ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    /// Runs this binary as a server.
    pub(crate) fn start(protocol: &str) -> Self {
        let this = std::env::current_exe().expect("the path of this binary");
        let mut child = Command::new(this)
            .args(["server", protocol])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut address = String::new();
        let output = child.stdout.take().expect("its output is ours");
        BufReader::new(output).read_line(&mut address).expect("the server says its address");
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; either way it is not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What that process does, for ever.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve(protocol: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("{}", listener.local_addr().expect("it has an address"));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP stream");
        let (io, service) = (TokioIo::new(stream), service_fn(answer));
        if protocol == "HTTP/1" {
            tokio::spawn(http1::Builder::new().serve_connection(io, service));
        } else {
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
        }
    }
}

pub(crate) async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    Ok::<_, hyper::Error>(Response::new(Full::from("ok")))
}
