//! Where tokens may be sent ([`Origins`]).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use crate::origin::{Origin, is_same_place};

/// Where a layer's tokens may be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// None: everywhere.
    pub(super) allowed: Vec<Origin>,
    /// A request whose URI names no origin may have a token all the same.
    pub(super) relative: bool,
    /// The user was told of a request that has got none because its URI names no origin.
    told_of_relative: Arc<AtomicBool>,
    /// The user was told of one that has got none because it had left its first origin.
    told_of_leaving: Arc<AtomicBool>,
}

/// Where the first request of a call went. A layer above that follows redirects sends the
/// next ones through clones of the service that was called: a token does not go with them to
/// another origin.
#[derive(Clone, Debug, Default)]
pub(super) enum FirstOrigin {
    /// The service was not called yet.
    #[default]
    None,
    /// The service has one request, and no clones.
    #[cfg(feature = "reqwest")]
    Unnoted,
    /// This is where the service's own last request went.
    Called(Place),
    /// The service is a clone of one whose request went there, and was redirected.
    Inherited(Place),
}

/// Where a request goes. `None`: its URI does not say.
type Place = Option<(Scheme, Authority)>;

impl FirstOrigin {
    /// For a clone of the service. `redirected`: a response to it was a redirect.
    pub(super) fn of_clone(&self, redirected: bool) -> Self {
        match self {
            Self::Called(place) if redirected => Self::Inherited(place.clone()),
            Self::Inherited(place) => Self::Inherited(place.clone()),
            _ => Self::None,
        }
    }

    /// Notes that a request goes there, and says whether that is where the call began.
    #[inline]
    fn stays(&mut self, uri: &Uri) -> bool {
        match (&*self, uri.scheme(), uri.authority()) {
            // Below, it goes wherever the first one went.
            (Self::Inherited(_), None, None) => true,
            (Self::Inherited(Some((first, at))), Some(scheme), Some(authority)) => {
                first == scheme && is_same_place(scheme, at, authority)
            }
            (Self::Inherited(_), ..) => false,
            // Letter by letter, because that is fast, and nearly always so.
            (Self::Called(Some((last, at))), Some(scheme), Some(authority))
                if at.as_str() == authority.as_str() && last == scheme =>
            {
                true
            }
            #[cfg(feature = "reqwest")]
            (Self::Unnoted, ..) => true,
            (_, scheme, authority) => {
                *self = Self::Called(scheme.cloned().zip(authority.cloned()));
                true
            }
        }
    }
}

impl Origins {
    /// Whether a request to this URI may have a token: it goes to an origin that is allowed, or,
    /// if none is named, to the first one of its call.
    #[inline]
    pub(super) fn allow(&self, uri: &Uri, first: &mut FirstOrigin) -> bool {
        if !self.allowed.is_empty() {
            return self.is_among(uri);
        }
        let stays = first.stays(uri);
        if !stays {
            self.tell_of_leaving();
        }
        stays
    }

    /// Whether the user has said where tokens may go.
    #[inline]
    pub(super) fn are_named(&self) -> bool {
        let are_named = !self.allowed.is_empty();
        if !are_named {
            self.tell_of_none();
        }
        are_named
    }

    #[cold]
    fn tell_of_none(&self) {
        if !self.told_of_leaving.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the token of a browser's session went nowhere: call `allow_origin` for each origin \
                 that may have it"
            );
        }
    }

    #[cold]
    fn tell_of_leaving(&self) {
        if !self.told_of_leaving.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request got no token, since it is of a call that began at another origin (a \
                 redirect): call `allow_origin` for each origin that may have the token"
            );
        }
    }

    fn is_among(&self, uri: &Uri) -> bool {
        // A client that adds its origin below the layer, or a request in origin form (RFC 9112,
        // section 3.2.1).
        if uri.scheme().is_none() && uri.authority().is_none() {
            if !self.relative && !self.told_of_relative.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a request got no token, since its URI names no origin: if the client below \
                     adds the origin, call `allow_relative` beside `allow_origin`"
                );
            }
            return self.relative;
        }
        self.allowed.iter().any(|origin| origin.covers(uri))
    }
}
