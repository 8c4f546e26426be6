//! Errors of no module in particular. The others stand beside the traits that make them; the
//! crate's front page has the table of who makes and who reads which.

use std::{error::Error, fmt, iter::successors, sync::Arc};

/// Any error, boxed.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A user's error, held by all who tell it.
pub(crate) type SharedError = Arc<BoxError>;

/// An error and its sources.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// A setting that cannot be used. The message names it and says what it has to be; the
/// [source](Error::source), where there is one, says more. No secret is in either: a library's
/// error that may quote a password is left out.
///
/// ```
/// use tower_refresh::RefreshLayer;
/// # let state = tower_refresh::RefreshState::builder(async |spent| Ok(spent)).build();
///
/// let error = RefreshLayer::new(state).allow_origin("https://api.example.com/orders").unwrap_err();
/// assert!(error.to_string().starts_with("an allowed origin has a path"));
/// ```
#[derive(Debug)]
pub struct ConfigError {
    /// What the message is about, if it does not say so itself.
    subject: &'static str,
    message: &'static str,
    source: Option<BoxError>,
}

impl ConfigError {
    pub(crate) const fn new(message: &'static str) -> Self {
        Self { subject: "", message, source: None }
    }

    /// Its message is of this: of "an allowed origin", that it "has a path", say.
    pub(crate) const fn about(mut self, subject: &'static str) -> Self {
        self.subject = subject;
        self
    }

    /// The caller sees to it that no secret is in the source, nor in its own sources.
    #[cfg(any(feature = "oauth2-client", feature = "redis"))]
    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            "" => f.write_str(self.message),
            subject => write!(f, "{subject} {}", self.message),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
