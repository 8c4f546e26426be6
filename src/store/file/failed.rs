//! What could not be done with which path, why, and what to do.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use crate::{error::BoxError, store::StoreError};

/// What could not be done with which path. The source says why.
#[derive(Debug)]
pub(super) struct Failed {
    doing: &'static str,
    path: PathBuf,
    advice: Option<&'static str>,
    why: BoxError,
}

/// As in `failed("read", path, error)`: "could not read /the/path".
pub(super) fn failed(doing: &'static str, path: &Path, why: impl Into<BoxError>) -> Failed {
    Failed { doing, path: path.to_path_buf(), advice: None, why: why.into() }
}

impl Failed {
    /// Says besides what the user can do.
    pub(super) fn advise(self, advice: impl Into<Option<&'static str>>) -> Self {
        Self { advice: advice.into(), ..self }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {}", self.doing, self.path.display())?;
        match self.advice {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.why)
    }
}

impl From<Failed> for StoreError {
    fn from(error: Failed) -> Self {
        Self::new(error)
    }
}
