//! What the fuzz targets call (`fuzz/`): for each parser the properties that hold for any input.
//! They stand beside the parsers, which are private (`fuzz.rs`), and only a build with
//! `cfg(fuzzing)` has them.

/// A line of `WWW-Authenticate`.
pub fn www_authenticate(line: &[u8]) {
    crate::layer::fuzz_www_authenticate(line);
}

/// The body of a token endpoint's answer.
#[cfg(feature = "oauth2")]
pub fn token_answer(body: &[u8]) {
    crate::oauth2::fuzz_token_answer(body);
}

/// The document of a store's record.
#[cfg(all(feature = "file", feature = "postgres"))]
pub fn records(document: &[u8]) {
    crate::store::fuzz_records(document);
}

/// `Cookie` fields, one a line; or what a sealed cookie says.
#[cfg(feature = "session")]
pub fn cookies(input: &[u8]) {
    crate::session::fuzz_cookies(input);
}

/// The beginning of a response.
#[cfg(feature = "in-body")]
pub fn body_prefix(response: &[u8]) {
    crate::in_body::fuzz_body_prefix(response);
}
