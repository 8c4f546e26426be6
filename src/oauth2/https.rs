//! The ready-made HTTP client: hyper-util's over rustls, HTTP/1 and HTTP/2. It follows no
//! redirects.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client as HyperClient,
        connect::{
            Connect, HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::crypto::CryptoProvider;
use tower_service::Service;

use super::{
    builder::ClientBuilder, certificates::ClientCertificate, client::Client, endpoint::is_localhost,
};
use crate::{error::ConfigError, refresher::BoxFuture, tls};

/// How long connecting may take. The whole message has its own limit,
/// [`ClientBuilder::timeout`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After how long idle connections are closed: before the server does (gunicorn after 2 s,
/// Node.js, Apache and uvicorn after 5 s), because a request that meets the server's close is
/// lost with its response, and may have spent the refresh token.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The ready-made HTTP client (feature `oauth2-client`).
impl ClientBuilder {
    /// Trusts these certificates, PEM, rather than those of the system. Called again, they
    /// replace the ones before.
    ///
    /// For [`build`](Self::build): [`over`](Self::over) ignores them, because its service
    /// brings its own TLS.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// Authenticates by mutual TLS (RFC 8705, section 2), with the client's certificate and
    /// its private key. Called again, they replace the ones before. Some servers have a
    /// separate token endpoint for this (section 5).
    ///
    /// The chain is PEM: the client's own certificate, then each that has signed the one before
    /// it, up to the root, which may be left out. The key is PEM and not encrypted: PKCS #8,
    /// PKCS #1 or SEC 1. Both texts are wiped from memory when [`build`](Self::build) has
    /// read them; rustls' own copies of the key are not.
    ///
    /// For [`build`](Self::build): [`over`](Self::over) ignores them, because its service
    /// brings its own TLS.
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        let (chain, key) = (chain_pem.into().into(), key_pem.into().into());
        self.certificates.client = Some(ClientCertificate { chain, key });
        self
    }

    /// Sends over a client of its own: HTTP/1 and HTTP/2, by rustls with the system's
    /// root certificates, or those that [`root_certificates`](Self::root_certificates) has
    /// set. It follows no redirects, gives up connecting after 10 s, and keeps idle
    /// connections for 1 s, because servers close theirs after 2 s and more. It goes through no proxy; [`over`](Self::over) shows a client that
    /// does. A name below `localhost` is this machine (RFC 6761, section 6.3), and no resolver is
    /// asked for it.
    ///
    /// The cryptography is that of the process's default provider
    /// (`rustls::crypto::CryptoProvider::install_default`); if there is none and the feature
    /// `ring` is on, it is ring's. An `http` endpoint needs neither that nor roots, unless certificates are set here. If the token endpoint is `http` and none are
    /// set, [`Client::revoker`] cannot reach an `https` endpoint.
    ///
    /// # Errors
    ///
    /// There is no crypto provider; the system has no root certificates, and none are set;
    /// those that are set have no certificate in them, or are not PEM, or not X.509; likewise
    /// the client certificate's chain and key; the key does not fit the chain. No key is in
    /// the error.
    pub fn build(self) -> Result<Client, ConfigError> {
        self.build_with_provider(tls::provider)
    }

    fn build_with_provider(
        mut self,
        provider: impl FnOnce() -> Result<Arc<CryptoProvider>, ConfigError>,
    ) -> Result<Client, ConfigError> {
        let certificates = mem::take(&mut self.certificates);
        if certificates.is_empty() && !self.endpoint().is_https() {
            return Ok(self.over(http_client(tcp())));
        }
        let config = certificates.tls_config(provider()?)?;
        let mut tcp = tcp();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            // Each endpoint was checked when it was parsed: `http` is loopback, or the user has
            // allowed it.
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Ok(self.over(http_client(connector)))
    }
}

/// Refuses every URI but `http`, so that nothing meant for TLS can go out in the clear.
fn tcp() -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp
}

/// The system's resolver, but for names below `localhost`: those may be `http`, and not every
/// system keeps them to itself.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if name.as_str().contains('.') && is_localhost(&name.as_str().to_ascii_lowercase()) {
            // The connector puts the port in.
            let here = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            let here = here.map(|address| SocketAddr::new(address, 0)).to_vec();
            return Box::pin(async { Ok(here.into_iter()) });
        }
        let found = self.0.call(name);
        Box::pin(async { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
    }
}

fn http_client<C: Connect + Clone>(connector: C) -> HyperClient<C, Full<Bytes>> {
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_PROVIDER: ConfigError = ConfigError::new("no provider");

    #[test]
    fn only_tls_needs_a_crypto_provider() {
        let builder = |endpoint| Client::builder(endpoint, "id").unwrap();
        for endpoint in ["http://127.0.0.1:1/token", "http://localhost/token"] {
            let client =
                builder(endpoint).build_with_provider(|| panic!("a provider is asked for"));
            assert!(client.is_ok(), "{endpoint}");
        }
        for builder in [
            builder("https://auth.example.com/token"),
            builder("https://localhost/token"),
            builder("http://localhost/token").root_certificates(""),
            builder("http://localhost/token").client_certificate("", ""),
        ] {
            let error = builder.build_with_provider(|| Err(NO_PROVIDER)).unwrap_err();
            assert_eq!(error.to_string(), NO_PROVIDER.to_string());
        }
    }
}
