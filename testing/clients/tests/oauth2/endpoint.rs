//! A token endpoint on raw TCP, so that it can misbehave in every way.

use std::{
    collections::VecDeque,
    error::Error as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use oauth2::url::form_urlencoded;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_refresh::{
    RefreshFailure, RefreshState, Tokens,
    oauth2::{Client, ClientBuilder, Error},
};

/// What the endpoint does when it is asked next.
pub(crate) enum Reply {
    /// A status, further header lines, and a body.
    Answer(u16, &'static str, String),
    /// These bytes, which need not be HTTP.
    Raw(Vec<u8>),
    /// The connection is reset before anything is read.
    ResetBefore,
    /// The whole request is read, and then the connection is reset.
    ResetAfter,
    /// The head, the first half of the body, and nothing more.
    HalfABody,
    /// The request is read, and nothing comes.
    Silence,
    /// 400, with the value of this field in the description.
    Echo(&'static str),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `POST /token HTTP/1.1` and the header lines, in lower case names.
    pub(crate) head: Vec<String>,
    pub(crate) form: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.iter().skip(1).find_map(|line| line.strip_prefix(name));
        line?.strip_prefix(": ")
    }

    /// All values of a form field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let of = self.form.iter().filter(|(field, _)| field == name);
        of.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

#[derive(Clone)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

impl Endpoint {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            replies: Mutex::new(replies.into_iter().collect()),
            seen: Mutex::default(),
        });
        let this = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        this
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client of this endpoint, with the ready-made HTTP client.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder(&self.uri("/token"), "my client").unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    loop {
        let reset_before =
            matches!(shared.replies.lock().unwrap().front(), Some(Reply::ResetBefore));
        if reset_before {
            shared.replies.lock().unwrap().pop_front();
            return reset(stream);
        }
        let Some(seen) = read(&mut stream).await else { return };
        let sent = seen.clone();
        shared.seen.lock().unwrap().push(seen);
        let reply = shared.replies.lock().unwrap().pop_front();
        let (status, headers, body) = match reply.expect("asked more often than the test expects") {
            Reply::Answer(status, headers, body) => (status, headers, body),
            Reply::Echo(name) => {
                let sent = sent.field(name).unwrap_or_default();
                let words = format!(
                    r#"{{"error":"invalid_client","error_description":"bad assertion: {sent}"}}"#
                );
                (401, "", words)
            }
            Reply::Raw(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                return;
            }
            Reply::ResetAfter | Reply::ResetBefore => return reset(stream),
            Reply::HalfABody => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"access_token\":";
                stream.write_all(head.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Reply::Silence => return std::future::pending().await,
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n{headers}\r\n");
        // A client hangs up on a response that is too long.
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

#[allow(deprecated, reason = "a linger of zero does not block, and is what a reset is made by")]
fn reset(stream: TcpStream) {
    stream.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let head: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
            bytes.drain(..end + 4);
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            break (head, length);
        }
    };
    while bytes.len() < length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let form = form_urlencoded::parse(&bytes).into_owned().collect();
    Some(Seen { head, form })
}

pub(crate) fn json(status: u16, body: &str) -> Reply {
    Reply::Answer(status, "content-type: application/json\r\n", body.to_owned())
}

/// A successful response that rotates the refresh token.
pub(crate) fn rotated(number: u64) -> Reply {
    json(
        200,
        &format!(
            r#"{{"access_token":"access-{number}","refresh_token":"refresh-{number}","token_type":"Bearer","expires_in":3600}}"#
        ),
    )
}

pub(crate) fn tokens(number: u64) -> Tokens {
    Tokens::new(format!("access-{number}")).with_refresh_token(format!("refresh-{number}"))
}

/// A credential that is signed in with `tokens(1)`.
pub(crate) fn state_of(client: &Client) -> Arc<RefreshState> {
    RefreshState::builder(client.refresh_token_grant()).tokens(tokens(1)).build()
}

/// What a failed refresh says of the endpoint.
pub(crate) fn cause(failure: &RefreshFailure) -> &Error {
    failure.source().unwrap().downcast_ref().unwrap()
}
