//! Why a request to an endpoint failed, without secrets.

use std::{cmp::Reverse, error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    endpoint::Endpoint,
    unspent::{is_unreachable, is_untouched},
};
use crate::{
    error::{BoxError, sources},
    refresher::RefreshError,
};

/// Why a request to a token or revocation endpoint failed.
///
/// Its `Display` names the endpoint (without query), the status, and the server's error code
/// and description (RFC 6749, section 5.2). Where these quote a secret that was sent, they have
/// `[redacted]` instead. After a failed refresh it is the [`source`](error::Error::source) of
/// the [`RefreshFailure`](crate::RefreshFailure).
///
/// ```
/// use std::error::Error;
/// use tower_refresh::{RefreshFailure, oauth2};
///
/// fn explain(failure: &RefreshFailure) {
///     let error = failure.source().and_then(|source| source.downcast_ref::<oauth2::Error>());
///     if let Some(error) = error {
///         eprintln!("{}: {:?} {:?}", error.endpoint(), error.status(), error.description());
///     }
/// }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    endpoint: String,
    status: Option<StatusCode>,
    code: Option<String>,
    description: Option<String>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server refused the grant for good: the refresh token is dead.
    Rejected,
    /// The server refused the client, the kind of grant, or the scope it asks for.
    ClientRefused,
    /// Any other response that is no success: something is wrong with the server now, or with
    /// this request.
    Refused,
    /// The response is a success, and no access token could be read in its body.
    Malformed,
    /// The response's body is too long
    /// ([`ClientBuilder::max_response`](super::ClientBuilder::max_response)).
    TooLarge,
    /// There was no whole response in time ([`ClientBuilder::timeout`](super::ClientBuilder::timeout)).
    TimedOut,
    /// The request could not be sent, or the response broke off.
    Connection,
}

/// How much of a code or a description is kept, in characters.
const MAX_DESCRIPTION: usize = 500;

impl Error {
    pub(super) fn new(kind: ErrorKind, endpoint: &Endpoint) -> Self {
        Self(Box::new(Inner {
            kind,
            endpoint: endpoint.to_string(),
            status: None,
            code: None,
            description: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// What the server said, without any of these secrets.
    pub(super) fn with_error_fields(
        mut self,
        code: Option<&str>,
        description: Option<&str>,
        secrets: &[String],
    ) -> Self {
        self.0.code = code.map(|text| redact(text, secrets));
        self.0.description = description.map(|text| redact(text, secrets));
        self
    }

    pub(super) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    pub(super) fn with_source(mut self, source: BoxError) -> Self {
        self.0.source = Some(source);
        self
    }

    /// Whether the refresh token was certainly not spent: the server refused, was not
    /// reached, or has not begun the request. A 5xx or a 408 says nothing of it: it may be a proxy's, which does not know
    /// what the server behind it has done.
    fn is_unspent(&self) -> bool {
        let says_so =
            |error: &(dyn error::Error + 'static)| is_unreachable(error) || is_untouched(error);
        match self.0.status {
            Some(status) => is_refusal(status),
            None => self.0.source.as_deref().is_some_and(|source| sources(source).any(says_so)),
        }
    }

    /// Whether the server, or a proxy, answered with a failure.
    fn is_answered(&self) -> bool {
        let is_failure = |status: StatusCode| !status.is_success();
        self.0.kind == ErrorKind::Refused || self.0.status.is_some_and(is_failure)
    }

    /// One word for the cause: the server's code, else the status that refused, else the kind.
    fn code(&self) -> Arc<str> {
        let refusal = self.0.status.filter(|_| self.0.kind == ErrorKind::Refused);
        match (self.error().filter(|code| !code.is_empty()), refusal) {
            (Some(code), _) => code.into(),
            (None, Some(status)) => status.as_str().into(),
            (None, None) => self.0.kind.as_str().into(),
        }
    }

    /// As why tokens were not revoked: what the server has refused, it will refuse again.
    pub(super) fn of_revocation(self) -> RefreshError {
        let refuses = |status| is_refusal(status) && status != StatusCode::TOO_MANY_REQUESTS;
        let is_final = self.0.kind == ErrorKind::Refused && self.0.status.is_some_and(refuses);
        match is_final {
            true => {
                let code = self.code();
                RefreshError::rejected(self).with_code(code)
            }
            false => self.into(),
        }
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The endpoint's URL without its query.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The status of the response, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The server's `error` (RFC 6749, section 5.2), such as `invalid_grant`, or its code where
    /// other servers have it ([`ClientBuilder::also_rejected`](super::ClientBuilder::also_rejected)).
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The server's `error_description` (RFC 6749, section 5.2), or its words where other servers
    /// have them: on one line, and its first 500 characters.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// How long the server asks to wait, from when the response came (`Retry-After`; RFC 9110,
    /// section 10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT
}

/// A server's text, fit to be shown: on one line, not too long, without these secrets.
fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    let mut secrets: Vec<&String> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    // The longest first: a secret that is part of another would leave the rest of that.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    for secret in secrets {
        if text.contains(&**secret) {
            text = text.replace(secret, "[redacted]");
        }
    }
    let cleaned = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    cleaned.take(MAX_DESCRIPTION).collect()
}

impl From<Error> for RefreshError {
    fn from(error: Error) -> Self {
        let wait = error.retry_after();
        let (unspent, answered, code) = (error.is_unspent(), error.is_answered(), error.code());
        let failure = match error.kind() {
            ErrorKind::Rejected => Self::rejected(error),
            ErrorKind::ClientRefused => Self::client_refused(error),
            _ if unspent => Self::transient(error).unspent(),
            _ if answered => Self::transient(error).answered(),
            _ => Self::transient(error),
        }
        .with_code(code);
        match wait {
            Some(wait) => failure.with_retry_after(wait),
            None => failure,
        }
    }
}

impl ErrorKind {
    /// A stable word for it, for metrics and logs: the variant's name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::ClientRefused => "client_refused",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Connection => "connection",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "rejected",
            Self::ClientRefused => "the client was refused",
            Self::Refused => "refused",
            Self::Malformed => "no access token can be read in the response",
            Self::TooLarge => "the response is too long",
            Self::TimedOut => "there was no whole response in time",
            Self::Connection => "the request could not be sent, or its response broke off",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, endpoint, status, code, description, .. } = &*self.0;
        write!(f, "{endpoint}: {kind}")?;
        if let Some(status) = status {
            write!(f, " ({status})")?;
        }
        if let Some(code) = code {
            write!(f, ": {code}")?;
        }
        if let Some(description) = description {
            write!(f, ": {description}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("endpoint", &self.0.endpoint)
            .field("status", &self.0.status)
            .field("error", &self.0.code)
            .field("description", &self.0.description)
            .field("retry_after", &self.0.retry_after)
            .finish_non_exhaustive()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, redact};

    #[test]
    fn a_kind_has_its_name_in_snake_case() {
        use ErrorKind::*;
        for kind in [Rejected, ClientRefused, Refused, Malformed, TooLarge, TimedOut, Connection] {
            let name = format!("{kind:?}");
            let word = kind.as_str();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
            assert_eq!(word.replace('_', ""), name.to_lowercase());
        }
    }

    #[test]
    fn a_description_is_shown_without_secrets() {
        let secrets = ["", "hush-1", "other"].map(str::to_owned);
        let shown = redact("token hush-1 was\r\nused, hush-1!", &secrets);
        assert_eq!(shown, "token [redacted] was  used, [redacted]!");
        let secrets = ["hush", "hush-hush"].map(str::to_owned);
        assert_eq!(redact("hush-hush, hush", &secrets), "[redacted], [redacted]");
        assert_eq!(redact(&"é".repeat(1000), &[]).chars().count(), super::MAX_DESCRIPTION);
    }
}
