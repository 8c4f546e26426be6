//! Where rustls gets its cryptography from. The choice is the program's: this crate only
//! brings ring if its feature `ring` is on.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::ConfigError;

/// The process's default provider; ring where there is none and the feature is on.
#[cfg(any(feature = "oauth2-client", feature = "oauth2-jwt"))]
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, ConfigError> {
    choose(CryptoProvider::get_default().cloned(), ring)
}

/// Makes ring the process's default provider where there is none and the feature is on: for
/// a library that panics without a default.
#[cfg(feature = "redis-tls")]
pub(crate) fn ensure_default_provider() -> Result<(), ConfigError> {
    if CryptoProvider::get_default().is_none() {
        let provider = choose(None, ring)?;
        // It fails only if another thread has just installed one, which is as good.
        let _ = Arc::unwrap_or_clone(provider).install_default();
    }
    Ok(())
}

fn choose<P>(installed: Option<P>, ring: impl FnOnce() -> Option<P>) -> Result<P, ConfigError> {
    installed.or_else(ring).ok_or(ConfigError::new(
        "rustls has no crypto provider: install one for the process (`rustls::crypto::CryptoProvider::install_default`) or turn on this crate's feature `ring`",
    ))
}

#[cfg(feature = "ring")]
fn ring() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(feature = "ring"))]
fn ring() -> Option<Arc<CryptoProvider>> {
    None
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_programs_own_provider_comes_first() {
        assert_eq!(choose(Some("installed"), || panic!("not asked for")).unwrap(), "installed");
        assert_eq!(choose(None, || Some("ring")).unwrap(), "ring");
    }

    #[test]
    fn without_any_the_error_says_what_to_do() {
        let error = choose(None::<()>, || None).unwrap_err().to_string();
        assert!(error.contains("install_default") && error.contains("`ring`"), "{error}");
    }
}
