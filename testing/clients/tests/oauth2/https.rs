//! The ready-made client over TLS, HTTP/1 and HTTP/2.

use std::{
    convert::Infallible,
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
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_rustls::TlsAcceptor;
use tower_refresh::{
    FailureKind,
    oauth2::{Client, ErrorKind},
};

use super::endpoint::{cause, state_of};

type Versions = Arc<Mutex<Vec<Version>>>;

/// A token endpoint at `https://localhost` that speaks this protocol, and a client's TLS
/// configuration that trusts it.
async fn serve(protocol: &[u8]) -> (String, ClientConfig, Versions) {
    let identity = identity();
    let (uri, versions) = serve_as(&identity, protocol).await;
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert.der().clone()).unwrap();
    (uri, trusting(roots), versions)
}

fn identity() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn serve_as(identity: &CertifiedKey<KeyPair>, protocol: &[u8]) -> (String, Versions) {
    let certificate = identity.cert.der().clone();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.alpn_protocols = vec![protocol.to_vec()];

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let versions = Versions::default();
    let seen = Arc::clone(&versions);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust it hangs up.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let seen = Arc::clone(&seen);
            let service = service_fn(move |request: Request<Incoming>| {
                seen.lock().unwrap().push(request.version());
                async {
                    let body = r#"{"access_token":"access-2","token_type":"Bearer"}"#;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
                }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (uri, versions)
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn http1_and_http2() {
    for (protocol, version) in [(&b"http/1.1"[..], Version::HTTP_11), (b"h2", Version::HTTP_2)] {
        let (uri, config, versions) = serve(protocol).await;
        let client = Client::builder(&uri, "id").unwrap().build_with_tls(config);
        let state = state_of(&client);
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
        assert_eq!(*versions.lock().unwrap(), [version]);
    }
}

#[tokio::test]
async fn who_is_not_trusted_gets_no_token() {
    let (uri, _, versions) = serve(b"h2").await;
    let nobody = trusting(RootCertStore::empty());
    let client = Client::builder(&uri, "id").unwrap().build_with_tls(nobody);
    let state = state_of(&client);
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Transient);
    let cause = cause(&failure);
    assert_eq!(cause.kind(), ErrorKind::Connection);
    assert_eq!(versions.lock().unwrap().len(), 0);
}

/// The URI for [`refreshes_by_the_systems_roots`], which is run by the test after it.
const URI: &str = "TOWER_REFRESH_TEST_URI";

#[tokio::test]
#[ignore = "run by another test, in a process with roots of its own"]
async fn refreshes_by_the_systems_roots() {
    let uri = std::env::var(URI).unwrap();
    let client = Client::builder(&uri, "id").unwrap().build().unwrap();
    let state = state_of(&client);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
}

/// A process whose system trusts the server, and one whose system trusts another.
#[tokio::test]
async fn the_systems_roots_decide() {
    let (server, other) = (identity(), identity());
    let (uri, versions) = serve_as(&server, b"h2").await;
    for (trusted, works) in [(&server, true), (&other, false)] {
        let file =
            std::env::temp_dir().join(format!("tower-refresh-{}-{works}.pem", std::process::id()));
        std::fs::write(&file, trusted.cert.pem()).unwrap();
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "https::refreshes_by_the_systems_roots", "--ignored"])
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR")
            .env(URI, &uri);
        let output = spawn_blocking(move || test.output()).await.unwrap().unwrap();
        std::fs::remove_file(&file).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{text}");
        assert_eq!(output.status.success(), works, "{text}");
    }
    assert_eq!(*versions.lock().unwrap(), [Version::HTTP_2]);
}
