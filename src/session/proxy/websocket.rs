//! WebSockets that come over HTTP/2 (RFC 8441) and go on over HTTP/1.1 (RFC 6455): [`Key`].

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY},
};
use hyper::ext::Protocol;
use sha1::{Digest, Sha1};

/// Stands behind each key before it is hashed (RFC 6455, section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(super) const PROTOCOL: HeaderValue = HeaderValue::from_static("websocket");

/// What the server behind has to answer. HTTP/2 has no such thing.
pub(super) struct Key(String);

/// Whether a browser opens a WebSocket by an extended CONNECT.
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|it| it.as_str() == "websocket")
}

/// Makes such a request one of HTTP/1.1, but for the fields of the connection.
pub(super) fn ask<B>(request: &mut Request<B>) -> Key {
    *request.method_mut() = Method::GET;
    request.extensions_mut().remove::<Protocol>();
    // To guess it is of no use to anybody: it shows that the server has not mistaken the request.
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes());
    let accept = accept(&key);
    // Base64 is what a field may have.
    if let Ok(key) = HeaderValue::try_from(key) {
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
    }
    Key(accept)
}

fn accept(key: &str) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(MAGIC).finalize())
}

impl Key {
    /// Whether the server has changed to this protocol as it was asked to.
    pub(super) fn opens(&self, protocol: &HeaderValue, headers: &HeaderMap) -> bool {
        protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes())
            && headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == self.0.as_str())
    }
}

/// Makes the answer to it one of HTTP/2.
pub(super) fn answer<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(CONTENT_LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_key_is_answered_as_the_rfc_has_it() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_socket_has_a_key_of_its_own() {
        let [one, other] = [(); 2].map(|()| {
            let mut request = Request::connect("https://app.test/socket").body(()).unwrap();
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            assert!(is_asked_for(&request));
            let Key(accepted) = ask(&mut request);
            assert!(!is_asked_for(&request));
            let key = request.headers()[SEC_WEBSOCKET_KEY].to_str().unwrap();
            assert_eq!(BASE64_STANDARD.decode(key).unwrap().len(), 16);
            assert_eq!(accept(key), accepted);
            accepted
        });
        assert_ne!(one, other);
    }

    #[test]
    fn nothing_else_is_a_socket() {
        let asked = |method: Method, protocol: Option<&'static str>| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            if let Some(protocol) = protocol {
                request.extensions_mut().insert(Protocol::from_static(protocol));
            }
            is_asked_for(&request)
        };
        assert!(asked(Method::CONNECT, Some("websocket")));
        assert!(!asked(Method::CONNECT, None));
        assert!(!asked(Method::CONNECT, Some("connect-udp")));
        assert!(!asked(Method::GET, Some("websocket")));
    }
}
