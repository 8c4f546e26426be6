//! The ready-made HTTP client: hyper-util's over rustls, HTTP/1 and HTTP/2. It follows no
//! redirects.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};

use super::client::{Client, ClientBuilder};
use crate::error::ConfigError;

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
    /// # Errors
    ///
    /// If the endpoint is `https` and the system has no root certificates.
    pub fn build(self) -> Result<Client, ConfigError> {
        let is_https = self.endpoint().uri.scheme_str() == Some("https");
        let mut roots = RootCertStore::empty();
        if is_https {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(ConfigError::new("the system has no root certificates"));
            }
        }
        let config = ClientConfig::builder_with_provider(default_provider().into())
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
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            // Which of them, the endpoint's check has decided.
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build::<_, Full<Bytes>>(connector);
        self.over(client)
    }
}
