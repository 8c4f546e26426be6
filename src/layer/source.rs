//! Which credential a request uses ([`CredentialSource`]).

use std::sync::Arc;

use http::request::Parts;

use crate::state::RefreshState;

/// Finds a request's credential. A closure from the request's head is one.
///
/// Two credentials share nothing: neither tokens nor refresh nor failure.
///
/// ```
/// use tower_refresh::{FromExtensions, RefreshLayer};
///
/// // The middleware that knows the user puts the user's `Arc<RefreshState>` into the
/// // request's extensions.
/// let layer = RefreshLayer::per_request(FromExtensions);
/// # let _ = layer;
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// The request's credential. `None`: the request passes as it is, without a token.
    ///
    /// The layer calls it once a request, in the service's `call`, so it must not block. A panic goes
    /// to the request's caller.
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

/// The same credential for every request, or none, so that a layer can be left out: in tower's
/// `option_layer` it cannot, because its service takes another body than the one below.
///
/// ```
/// use std::sync::Arc;
///
/// use tower_refresh::{RefreshLayer, RefreshState};
///
/// # fn layers(credential: Option<Arc<RefreshState>>) {
/// let layer = RefreshLayer::per_request(credential);
/// # }
/// ```
impl CredentialSource for Option<Arc<RefreshState>> {
    fn credential(&self, _: &Parts) -> Option<Arc<RefreshState>> {
        self.clone()
    }
}

/// Finds the `Arc<RefreshState>` in the request's extensions.
///
/// [`CredentialSource`] has an example, and the page [`many`](crate::guide::many) a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromExtensions;

impl CredentialSource for FromExtensions {
    fn credential(&self, request: &Parts) -> Option<Arc<RefreshState>> {
        request.extensions.get::<Arc<RefreshState>>().cloned()
    }
}

/// Where a layer's credentials come from.
#[derive(Clone)]
pub(super) enum Source {
    /// Every request uses this one.
    One(Arc<RefreshState>),
    PerRequest(Arc<dyn CredentialSource>),
}
