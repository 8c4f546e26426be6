//! What went wrong at an endpoint, without secrets.

use std::{cmp::Reverse, error, fmt, io, iter::successors, time::Duration};

use http::StatusCode;

use super::endpoint::Endpoint;
use crate::error::{BoxError, RefreshError};

/// Why a token or revocation endpoint did not do what it was asked.
///
/// Its `Display` names the endpoint (without query), the status, and the server's error
/// and description (RFC 6749, section 5.2); secrets that were sent are cut out of them.
/// After a failed refresh it is the [`source`](error::Error::source) of the
/// [`RefreshFailure`](crate::RefreshFailure).
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
    /// The server refused for good: the grant, the client or what it asks for.
    Rejected,
    /// The server said that something is wrong, now or with this request.
    Refused,
    /// What came is no answer: not JSON, or not what an answer holds.
    Malformed,
    /// The body is longer than 64 KiB.
    TooLarge,
    /// There was no whole answer in time.
    TimedOut,
    /// The request could not be sent, or the answer broke off.
    Connection,
}

/// A description is shown up to here, in characters.
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

    /// The server's words, without any of these secrets.
    pub(super) fn with_error_fields(
        mut self,
        code: &str,
        description: Option<&str>,
        secrets: &[String],
    ) -> Self {
        self.0.code = Some(redact(code, secrets));
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

    /// The server refused, or was never reached. A 5xx may be a proxy's, which does not
    /// know what the server has done; and so may a 408.
    fn is_unspent(&self) -> bool {
        let source = self.0.source.as_deref().map(|source| source as &(dyn error::Error + 'static));
        self.0.status.is_some_and(is_refusal)
            || successors(source, |error| error.source()).any(is_unreachable)
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The endpoint's URL, without its query.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The server's `error`, such as `invalid_grant`.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The server's `error_description`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// How long the server asks to wait (`Retry-After`; RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT
}

/// Whether nobody was reached, so that nothing can have been done there. An unreachable
/// host or network does not tell: a connection that is up ends so, too.
fn is_unreachable(error: &(dyn error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A server's text, fit to be shown: on one line, not too long, and without secrets.
fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    let mut secrets: Vec<&String> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    // One that is part of another must not leave the rest of that.
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
        let unspent = error.is_unspent();
        let failure = match error.kind() {
            ErrorKind::Rejected => Self::rejected(error),
            _ if unspent => Self::transient(error).unspent(),
            _ => Self::transient(error),
        };
        match wait {
            Some(wait) => failure.with_retry_after(wait),
            None => failure,
        }
    }
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Malformed => "the answer is not what it should be",
            Self::TooLarge => "the answer is too long",
            Self::TimedOut => "there was no whole answer in time",
            Self::Connection => "the request or its answer did not get through",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
    use super::redact;

    #[test]
    fn words_are_shown_without_secrets() {
        let secrets = ["", "hush-1", "other"].map(str::to_owned);
        let shown = redact("token hush-1 was\r\nused, hush-1!", &secrets);
        assert_eq!(shown, "token [redacted] was  used, [redacted]!");
        let secrets = ["hush", "hush-hush"].map(str::to_owned);
        assert_eq!(redact("hush-hush, hush", &secrets), "[redacted], [redacted]");
        assert_eq!(redact(&"é".repeat(1000), &[]).chars().count(), super::MAX_DESCRIPTION);
    }
}
