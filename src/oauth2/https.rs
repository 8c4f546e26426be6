//! The ready-made HTTP client: hyper-util's over rustls, HTTP/1 and HTTP/2. It follows no
//! redirects.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client as HyperClient,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};

use super::client::{Client, ClientBuilder};
use crate::{error::ConfigError, tls};

/// How long a connection may take to come about; the exchange has its own limit.
const CONNECT: Duration = Duration::from_secs(10);

/// Servers close idle connections, and a request that meets that is lost with its
/// answer: ours are closed before.
const IDLE: Duration = Duration::from_secs(10);

impl ClientBuilder {
    /// Sends over a client of its own: HTTP/1 and HTTP/2, by rustls with the system's
    /// root certificates. It follows no redirects, gives up connecting after 10 s, and
    /// keeps idle connections for 10 s.
    ///
    /// The cryptography is the process's default provider's
    /// (`rustls::crypto::CryptoProvider::install_default`). If there is none and the feature
    /// `ring` is on, it is ring's. An `http` endpoint, on loopback, needs none.
    ///
    /// # Errors
    ///
    /// If the endpoint is `https` and there is no crypto provider, or the system has no root
    /// certificates.
    pub fn build(self) -> Result<Client, ConfigError> {
        if self.endpoint().uri.scheme_str() != Some("https") {
            let client = http_client(tcp());
            return Ok(self.over(client));
        }
        let provider = tls::provider()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(ConfigError::new("the system has no root certificates"));
        }
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ConfigError::new("the TLS provider has no usable version"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.build_with_tls(config))
    }

    /// As [`build`](Self::build), with a TLS configuration of the user's: other root
    /// certificates, or a client certificate (RFC 8705).
    ///
    /// # Panics
    ///
    /// If its ALPN protocols are set: they are set here.
    #[must_use]
    pub fn build_with_tls(self, config: ClientConfig) -> Client {
        let mut tcp = tcp();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            // Which of them, the endpoint's check has decided.
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        self.over(http_client(connector))
    }
}

/// Refuses any URI but `http`, so that nothing meant for TLS can go out in the clear.
fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp
}

fn http_client<C: Connect + Clone>(connector: C) -> HyperClient<C, Full<Bytes>> {
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector)
}
