//! The ready-made client over TLS, HTTP/1 and HTTP/2.

use std::{
    convert::Infallible,
    error::Error,
    path::Path,
    process::Command,
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
    CipherSuite, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_refresh::{
    ConfigError, FailureKind,
    oauth2::{Client, ClientBuilder, ErrorKind},
};

use super::endpoint::{Endpoint, cause, state_of, tokens};

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

async fn answer(stream: TlsStream<tokio::net::TcpStream>, seen: Arc<Mutex<Vec<Seen>>>) {
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
    does_not_connect(server.client().root_certificates(identity().cert.pem())).await;
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

fn refused(builder: ClientBuilder) -> ConfigError {
    builder.build().expect_err("it cannot be used")
}

fn builder() -> ClientBuilder {
    Client::builder("https://auth.example.com/token", "id").unwrap()
}

/// Everything that can be printed of an error and its causes.
fn printed(error: &ConfigError) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?} {error:#?}\n");
        next = error.source();
    }
    text
}

/// A section of this kind that holds four bytes of nothing.
fn section(kind: &str) -> String {
    format!("-----BEGIN {kind}-----\nAAAAAA==\n-----END {kind}-----\n")
}

#[test]
fn root_certificates_that_cannot_be_used_are_named() {
    let identity = identity();
    let (pem, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    let none = "there is no certificate in the root certificates";
    let not_pem = "the root certificates are not PEM";
    let cases = [
        ("nothing", Vec::new(), none),
        ("white space", b" \n".to_vec(), none),
        ("a key", key.clone().into_bytes(), none),
        ("DER", identity.cert.der().to_vec(), not_pem),
        ("a path", b"/etc/ssl/roots.pem".to_vec(), not_pem),
        ("cut off", pem.as_bytes()[..pem.len() / 2].to_vec(), not_pem),
        ("one line", pem.replace('\n', "").into_bytes(), not_pem),
        ("a key in one line", key.replace('\n', "").into_bytes(), not_pem),
        ("not base64", pem.replace("MII", "M?I").into_bytes(), not_pem),
        (
            "not X.509",
            section("CERTIFICATE").into_bytes(),
            "a root certificate is not an X.509 certificate",
        ),
        (
            "a good one and one that is not",
            (pem + &section("CERTIFICATE")).into_bytes(),
            "a root certificate is not an X.509 certificate",
        ),
    ];
    for (name, pem, message) in cases {
        let error = refused(builder().root_certificates(pem));
        assert_eq!(error.to_string(), message, "{name}");
        assert_shows_nothing_of(&key, &error);
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_named() {
    let (identity, other) = (identity(), identity());
    let (chain, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    let one_line = |pem: &str| pem.replace('\n', "");
    let no_chain = "there is no certificate in the client certificate's chain";
    let no_key = "there is no private key in the client certificate's key: it has to be PKCS #8, PKCS #1 or SEC 1, and not encrypted";
    let chain_not_pem = "the client certificate's chain is not PEM";
    let key_not_pem = "the client certificate's key is not PEM";
    let unfit = "the client certificate's key does not fit its chain";
    let not_x509 = "the client certificate is not an X.509 certificate";
    let unusable = "the client certificate's key cannot be used: it is damaged, or of a kind that the crypto provider does not have";
    let cases = [
        ("no chain", String::new(), key.clone(), no_chain),
        ("the key twice", key.clone(), key.clone(), no_chain),
        ("a path as chain", "/etc/ssl/client.pem".to_owned(), key.clone(), chain_not_pem),
        ("a chain in one line", one_line(&chain), key.clone(), chain_not_pem),
        ("no key", chain.clone(), String::new(), no_key),
        ("the chain twice", chain.clone(), chain.clone(), no_key),
        ("an encrypted key", chain.clone(), section("ENCRYPTED PRIVATE KEY"), no_key),
        ("a path as key", chain.clone(), "/etc/ssl/key.pem".to_owned(), key_not_pem),
        ("a key in one line", chain.clone(), one_line(&key), key_not_pem),
        ("half a key", chain.clone(), key[..key.len() / 2].to_owned(), key_not_pem),
        ("not base64", chain.clone(), key.replace("\nM", "\n?"), key_not_pem),
        ("another's key", other.cert.pem(), key.clone(), unfit),
        ("no X.509", section("CERTIFICATE"), key.clone(), not_x509),
        ("no PKCS #8", chain.clone(), section("PRIVATE KEY"), unusable),
    ];
    for (name, chain, broken_key, message) in cases {
        let roots = identity.cert.pem();
        let builder = builder().root_certificates(roots).client_certificate(chain, broken_key);
        assert!(!format!("{builder:?}").contains("PRIVATE"), "{name}");
        let error = refused(builder);
        assert_eq!(error.to_string(), message, "{name}");
        assert_shows_nothing_of(&key, &error);
    }
}

#[track_caller]
fn assert_shows_nothing_of(key: &str, error: &ConfigError) {
    let printed = printed(error);
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        let secret = &line[..16];
        // Bytes are printed as a list of numbers.
        let bytes = format!("{:?}", secret.as_bytes());
        for shown in [secret, bytes.trim_matches(['[', ']'])] {
            assert!(!printed.contains(shown), "{printed}");
        }
    }
}

/// What was set is checked, also where it is not needed.
#[test]
fn certificates_for_a_plain_endpoint_are_read() {
    let loopback = || Client::builder("http://127.0.0.1:1/token", "id").unwrap();
    assert!(loopback().root_certificates(identity().cert.pem()).build().is_ok());
    refused(loopback().root_certificates("none"));
    refused(loopback().client_certificate("none", "none"));
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

/// What [`in_another_process`] is told by its parent: the token endpoint.
const URI: &str = "TOWER_REFRESH_TEST_URI";
/// A file with the root certificates to set, if any.
const ROOTS: &str = "TOWER_REFRESH_TEST_ROOTS";
/// Whether to install a crypto provider.
const PROVIDER: &str = "TOWER_REFRESH_TEST_PROVIDER";

#[tokio::test]
#[ignore = "run by other tests, in a process with roots and a crypto provider of its own"]
async fn in_another_process() {
    if std::env::var_os(PROVIDER).is_some() {
        let cipher_suites = vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
        let provider = CryptoProvider { cipher_suites, ..ring::default_provider() };
        provider.install_default().unwrap();
    }
    let mut client = Client::builder(&std::env::var(URI).unwrap(), "id").unwrap();
    if let Some(file) = std::env::var_os(ROOTS) {
        client = client.root_certificates(std::fs::read(file).unwrap());
    }
    // It takes no roots at all.
    assert!(Client::builder("http://127.0.0.1:1/token", "id").unwrap().build().is_ok());
    let outcome = match client.build() {
        Ok(client) => match state_of(&client).refresh().await {
            Ok(credential) => credential.access_token().unwrap().to_owned(),
            Err(failure) => format!("{:?}", cause(&failure).kind()),
        },
        Err(error) => error.to_string(),
    };
    println!("outcome: {outcome}.");
}

struct Process {
    folder: TempDir,
    command: Command,
}

impl Process {
    /// One whose system has this root certificate, or none.
    fn new(server: &Server, system: Option<&Identity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "https::in_another_process", "--ignored", "--nocapture"])
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .env(URI, &server.uri);
        let mut this = Self { folder, command };
        match system {
            Some(root) => this.file("SSL_CERT_FILE", root),
            None => _ = this.command.env("SSL_CERT_DIR", this.folder.path()),
        }
        this
    }

    /// Sets this variable to a file with this certificate.
    fn file(&mut self, variable: &str, identity: &Identity) {
        let file = self.folder.path().join(variable);
        std::fs::write(&file, identity.cert.pem()).unwrap();
        self.command.env(variable, Path::new(&file));
    }

    async fn outcome(mut self) -> String {
        let output = spawn_blocking(move || self.command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("running 1 test"), "{text}");
        let outcome = text.split_once("outcome: ").unwrap().1.split_once('.').unwrap().0;
        outcome.to_owned()
    }
}

/// A process whose system trusts the server, and one whose system trusts another.
#[tokio::test]
async fn the_systems_roots_decide() {
    let (identity, other) = (identity(), identity());
    let server = Server::start(&identity, b"h2").await;
    assert_eq!(Process::new(&server, Some(&identity)).outcome().await, "access-2");
    assert_eq!(Process::new(&server, Some(&other)).outcome().await, "Connection");
    let none = Process::new(&server, None).outcome().await;
    assert!(none.starts_with("the system has no root certificates"), "{none}");
    let versions: Vec<_> = server.seen().iter().map(|seen| seen.version).collect();
    assert_eq!(versions, [Version::HTTP_2]);
}

#[tokio::test]
async fn root_certificates_replace_the_systems() {
    let (identity, other) = (identity(), identity());
    let server = Server::start(&identity, b"h2").await;
    for (system, given, outcome) in [
        (Some(&identity), &other, "Connection"),
        (Some(&other), &identity, "access-2"),
        (None, &identity, "access-2"),
    ] {
        let mut process = Process::new(&server, system);
        process.file(ROOTS, given);
        assert_eq!(process.outcome().await, outcome);
    }
    assert_eq!(server.seen().len(), 2);
}

/// The server takes the cipher suite that the client likes best.
#[tokio::test]
async fn the_process_crypto_provider_comes_before_ring() {
    let identity = identity();
    let server = Server::start(&identity, b"h2").await;
    for installed in [false, true] {
        let mut process = Process::new(&server, Some(&identity));
        if installed {
            process.command.env(PROVIDER, "");
        }
        assert_eq!(process.outcome().await, "access-2");
    }
    let suites: Vec<_> = server.seen().iter().map(|seen| seen.suite).collect();
    assert_ne!(suites[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    assert_eq!(suites[1], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
}
