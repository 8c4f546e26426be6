//! Which requests are of the same route, as far as refusals are concerned.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

use http::{Method, Uri};

use crate::state::Route;

/// Requests with the same method, authority and path are of the same route.
pub(super) fn route(method: &Method, uri: &Uri) -> Option<Route> {
    let mut hasher = DefaultHasher::new();
    method.hash(&mut hasher);
    uri.authority().hash(&mut hasher);
    uri.path().hash(&mut hasher);
    NonZeroU64::new(hasher.finish())
}
