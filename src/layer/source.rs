//! Which credential a request uses.

use std::sync::Arc;

use http::request::Parts;

use crate::state::RefreshState;

/// Finds a request's credential. A closure from the request's head is one.
///
/// Credentials found for different requests share nothing: neither tokens nor
/// flight nor failure.
///
/// ```
/// use tower_refresh::{FromExtensions, RefreshLayer};
///
/// // Whoever knows the user puts the user's `Arc<RefreshState>` into the extensions.
/// let layer = RefreshLayer::per_request(FromExtensions);
/// # let _ = layer;
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// The request's credential. `None`: the request is none of this layer's business
    /// and passes as it is.
    fn credential(&self, request: &Parts) -> Option<Arc<RefreshState>>;
}

impl<F> CredentialSource for F
where
    F: Fn(&Parts) -> Option<Arc<RefreshState>> + Send + Sync + 'static,
{
    fn credential(&self, request: &Parts) -> Option<Arc<RefreshState>> {
        self(request)
    }
}

/// Reads the `Arc<RefreshState>` from the request's extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromExtensions;

impl CredentialSource for FromExtensions {
    fn credential(&self, request: &Parts) -> Option<Arc<RefreshState>> {
        request.extensions.get::<Arc<RefreshState>>().cloned()
    }
}

/// One credential for all, or one each.
#[derive(Clone)]
pub(crate) enum Source {
    One(Arc<RefreshState>),
    PerRequest(Arc<dyn CredentialSource>),
}
