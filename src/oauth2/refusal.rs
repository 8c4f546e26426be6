//! [`Refusal`]: a response that grants nothing, for a rule of the user's.

use std::fmt;

use http::StatusCode;

/// A response of the token endpoint that grants nothing, as a rule of the user's sees it
/// ([`ClientBuilder::classify_refusal`](super::ClientBuilder::classify_refusal)).
pub struct Refusal<'a> {
    pub(super) status: StatusCode,
    pub(super) code: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// What a [`Refusal`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The refresh token is dead: [`RefreshError::rejected`](crate::RefreshError::rejected).
    Rejected,
    /// The client was refused, which says nothing of the refresh token:
    /// [`RefreshError::client_refused`](crate::RefreshError::client_refused).
    ClientRefused,
    /// It may pass: [`RefreshError::transient`](crate::RefreshError::transient).
    Transient,
}

impl<'a> Refusal<'a> {
    /// The response's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The server's error code: `error` (RFC 6749, section 5.2), or where else servers put one.
    #[must_use]
    pub fn code(&self) -> Option<&'a str> {
        self.code
    }

    /// The response's body, decompressed.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// Without the body, which may quote a secret.
impl fmt::Debug for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}
