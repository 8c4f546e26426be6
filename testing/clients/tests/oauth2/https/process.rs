//! What belongs to the whole process, in processes of their own: the system's root certificates,
//! and rustls' crypto provider.

use std::{path::Path, process::Command};

use http::Version;
use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, ring},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tower_refresh::oauth2::Client;

use super::{Identity, Server, identity};
use crate::endpoint::{cause, state_of};

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
            .args(["--exact", "https::process::in_another_process", "--ignored", "--nocapture"])
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
