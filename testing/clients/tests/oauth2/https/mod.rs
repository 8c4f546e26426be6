//! The ready-made client over TLS, HTTP/1 and HTTP/2.

mod pem;
mod process;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    CipherSuite, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_refresh::{
    FailureKind, Refresher,
    oauth2::{Client, ClientBuilder, ErrorKind},
};

use crate::endpoint::{Endpoint, cause, state_of, tokens};

type Identity = CertifiedKey<KeyPair>;

/// A token endpoint at `https://localhost`.
struct Server {
    uri: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request, and what is known of its connection.
#[derive(Clone, Debug)]
struct Seen {
    version: Version,
    suite: CipherSuite,
    /// What the client has authenticated with, DER.
    client: Option<Vec<u8>>,
}

impl Server {
    /// One that speaks this protocol, and any client may ask.
    async fn start(identity: &Identity, protocol: &[u8]) -> Self {
        Self::start_for(identity, protocol, None).await
    }

    /// One that takes no client but this, if there is one.
    async fn start_for(identity: &Identity, protocol: &[u8], client: Option<&Identity>) -> Self {
        let certificate = identity.cert.der().clone();
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match client {
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.cert.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let seen = Arc::default();
        let this = Self { uri, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust it hangs up.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                tokio::spawn(answer(stream, Arc::clone(&seen)));
            }
        });
        this
    }

    fn client(&self) -> ClientBuilder {
        Client::builder(&self.uri, "id").unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(stream: TlsStream<TcpStream>, seen: Arc<Mutex<Vec<Seen>>>) {
    let tls = stream.get_ref().1;
    let suite = tls.negotiated_cipher_suite().unwrap().suite();
    let client = tls.peer_certificates().map(|chain| chain[0].to_vec());
    let service = service_fn(move |request: Request<Incoming>| {
        let (version, client) = (request.version(), client.clone());
        seen.lock().unwrap().push(Seen { version, suite, client });
        async {
            let body = r#"{"access_token":"access-2","token_type":"Bearer"}"#;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn identity() -> Identity {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn refreshes(client: ClientBuilder) {
    let state = state_of(&client.build().unwrap());
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}

/// No connection comes about, and so no token goes out.
async fn does_not_connect(client: ClientBuilder) {
    let state = state_of(&client.build().unwrap());
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Transient);
    assert_eq!(cause(&failure).kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn http1_and_http2() {
    for (protocol, version) in [(&b"http/1.1"[..], Version::HTTP_11), (b"h2", Version::HTTP_2)] {
        let identity = identity();
        let server = Server::start(&identity, protocol).await;
        refreshes(server.client().root_certificates(identity.cert.pem())).await;
        let versions: Vec<_> = server.seen().iter().map(|seen| seen.version).collect();
        assert_eq!(versions, [version]);
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_token() {
    let server = Server::start(&identity(), b"h2").await;
    let client = || server.client().root_certificates(identity().cert.pem());
    does_not_connect(client()).await;
    let grant = client().build().unwrap().refresh_token_grant();
    let error = grant.refresh(tokens(1).into()).await.unwrap_err();
    assert!(error.is_unspent(), "it was not sent");
    assert_eq!(server.seen().len(), 0);
}

/// As in files that certificate authorities hand out.
#[tokio::test]
async fn one_of_several_roots_and_text_between_them() {
    let (one, two) = (identity(), identity());
    let pem = format!("One:\n{}\nTwo:\r\n{}", one.cert.pem(), two.cert.pem());
    for identity in [&one, &two] {
        let server = Server::start(identity, b"h2").await;
        refreshes(server.client().root_certificates(pem.as_bytes())).await;
    }
}

/// RFC 8705, section 2.
#[tokio::test]
async fn a_client_certificate_authenticates() {
    let (identity, client) = (identity(), identity());
    let server = Server::start_for(&identity, b"h2", Some(&client)).await;
    let builder = || server.client().root_certificates(identity.cert.pem());

    does_not_connect(builder()).await;
    let other = self::identity();
    let (chain, key) = (other.cert.pem(), other.signing_key.serialize_pem());
    does_not_connect(builder().client_certificate(chain, key)).await;
    assert_eq!(server.seen().len(), 0);

    let (chain, key) = (client.cert.pem(), client.signing_key.serialize_pem());
    // Some programs keep both in one file.
    let both = format!("{key}{chain}");
    refreshes(builder().client_certificate(chain, key)).await;
    refreshes(builder().client_certificate(both.clone(), both)).await;
    let seen: Vec<_> = server.seen().into_iter().map(|seen| seen.client).collect();
    assert_eq!(seen, [Some(client.cert.der().to_vec()), Some(client.cert.der().to_vec())]);
}

/// A client whose token endpoint is plain has no TLS, and sends nothing for `https` without.
#[tokio::test]
async fn nothing_meant_for_tls_is_sent_in_the_clear() {
    let endpoint = Endpoint::start([]).await;
    let client = endpoint.client().build().unwrap();
    let revoker = client.revoker(&endpoint.uri("/revoke").replace("http", "https")).unwrap();
    let error = revoker.revoke(&tokens(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!(endpoint.seen().len(), 0);
}

/// A client with certificates has TLS, whatever its token endpoint.
#[tokio::test]
async fn a_revocation_by_tls_beside_a_plain_token_endpoint() {
    let identity = identity();
    let server = Server::start(&identity, b"h2").await;
    let client = Client::builder("http://127.0.0.1:1/token", "id").unwrap();
    let client = client.root_certificates(identity.cert.pem()).build().unwrap();
    client.revoker(&server.uri).unwrap().revoke(&tokens(1)).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}
