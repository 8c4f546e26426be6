//! What is shown, told or logged tells no secret. In tests of that, each secret has SECRET in it.

use std::{error::Error, fmt::Debug};

/// A text without a secret.
#[track_caller]
pub fn clean(text: &str) {
    assert!(!text.contains("SECRET"), "{text}");
}

/// A value that shows no secret.
#[track_caller]
pub fn clean_debug(value: &impl Debug) {
    clean(&format!("{value:?} {value:#?}"));
}

/// An error that tells no secret, with everything that it was caused by.
#[track_caller]
pub fn clean_error(error: &dyn Error) {
    let mut next = Some(error);
    while let Some(error) = next {
        clean(&format!("{error} {error:?} {error:#?}"));
        next = error.source();
    }
}
