//! Certificates and a key, PEM (RFC 7468), and the TLS configuration that they make.
//!
//! No error quotes the PEM, and the PEM reader's error is never a source: it has the line that
//! it could not read, which is the whole key if the line breaks were lost.

use std::sync::Arc;

use rustls::{
    ClientConfig, Error as TlsError, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject, SectionKind},
    },
};
use secrecy::zeroize::Zeroizing;

use crate::error::ConfigError;

/// What the user has set for TLS. It is read by [`tls_config`](Self::tls_config).
#[derive(Default)]
pub(super) struct Certificates {
    /// `None`: the system's.
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client: Option<ClientCertificate>,
}

/// The client's own certificate, for mutual TLS (RFC 8705, section 2).
pub(super) struct ClientCertificate {
    /// Wiped like the key, because some programs keep both in one file.
    pub(super) chain: Zeroizing<Vec<u8>>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// What is wrong with a PEM text.
enum Flaw {
    /// It is empty, or none of its sections is of the kind that is needed.
    Missing,
    /// It is a text without sections, or one of them breaks off or is not base64.
    NotPem,
}

impl Certificates {
    /// Whether the user has set none.
    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_none() && self.client.is_none()
    }

    pub(super) fn tls_config(
        self,
        provider: Arc<CryptoProvider>,
    ) -> Result<ClientConfig, ConfigError> {
        let roots = match &self.roots {
            Some(pem) => given_roots(pem)?,
            None => system_roots()?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                ConfigError::new("the crypto provider has neither TLS 1.2 nor TLS 1.3")
                    .with_source(error)
            })?
            .with_root_certificates(roots);
        match self.client {
            Some(client) => {
                let (chain, key) = client.read()?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ConfigError::new(
            "the system has no root certificates: install them, or set `root_certificates`",
        ));
    }
    Ok(roots)
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, ConfigError> {
    let certificates = certificates(pem).map_err(|flaw| {
        ConfigError::new(match flaw {
            Flaw::Missing => "there is no certificate in the root certificates",
            Flaw::NotPem => "the root certificates are not PEM",
        })
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            ConfigError::new("a root certificate is not an X.509 certificate").with_source(error)
        })?;
    }
    Ok(roots)
}

impl ClientCertificate {
    fn read(self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        let chain = certificates(&self.chain).map_err(|flaw| {
            ConfigError::new(match flaw {
                Flaw::Missing => "there is no certificate in the client certificate's chain",
                Flaw::NotPem => "the client certificate's chain is not PEM",
            })
        })?;
        let key = private_key(&self.key).map_err(|flaw| {
            ConfigError::new(match flaw {
                Flaw::Missing => {
                    "there is no private key in the client certificate's key: it has to be PKCS #8, PKCS #1 or SEC 1, and not encrypted"
                }
                Flaw::NotPem => "the client certificate's key is not PEM",
            })
        })?;
        Ok((chain, key))
    }
}

/// Why rustls does not take a client certificate and a key that are PEM.
fn unusable(error: &TlsError) -> ConfigError {
    ConfigError::new(match error {
        TlsError::InconsistentKeys(_) => "the client certificate's key does not fit its chain",
        TlsError::InvalidCertificate(_) => "the client certificate is not an X.509 certificate",
        _ => {
            "the client certificate's key cannot be used: it is damaged, or of a kind that the crypto provider does not have"
        }
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|_| Flaw::NotPem)? {
            (SectionKind::Certificate, der) => certificates.push(der.into()),
            // It may be a private key.
            (_, der) => drop(Zeroizing::new(der)),
        }
    }
    if certificates.is_empty() { Err(empty(pem)) } else { Ok(certificates) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => empty(pem),
        _ => Flaw::NotPem,
    })
}

/// What is wrong with a text that has no section of the kind that is needed, and none that is
/// broken.
fn empty(pem: &[u8]) -> Flaw {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let has_sections = pem.windows(BEGIN.len()).any(|window| window == BEGIN);
    if has_sections || pem.trim_ascii().is_empty() { Flaw::Missing } else { Flaw::NotPem }
}
