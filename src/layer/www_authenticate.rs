//! A parser for `WWW-Authenticate` (RFC 9110, sections 11.3 and 11.6.1).
//!
//! ```text
//! #challenge, challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
//!            auth-param = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! Commas separate challenges, and the parameters of a challenge as well. A parameter is told
//! from the next challenge by its `=`.
//!
//! The parser takes bytes and returns slices of them: nothing is copied, and a description may
//! be in any language. It looks at no byte more than a few times, however hostile the line is.

use std::{iter, mem};

/// The challenges of one header line, in order. The iterator ends where the line does, or
/// where the line cannot be parsed: challenges before that place count, and a challenge with
/// a broken parameter does not.
#[derive(Clone, Debug)]
pub(super) struct Challenges<'a>(&'a [u8]);

/// A scheme with parameters, with one opaque token, or alone.
#[derive(Clone, Debug)]
pub(super) struct Challenge<'a> {
    scheme: &'a [u8],
    #[cfg_attr(not(test), allow(dead_code, reason = "no rule looks at it yet"))]
    token68: Option<&'a [u8]>,
    params: &'a [u8],
}

/// A parameter's value as it was sent, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(&'a [u8]);

impl<'a> Challenges<'a> {
    pub(super) fn of(line: &'a [u8]) -> Self {
        Self(line)
    }
}

impl<'a> Iterator for Challenges<'a> {
    type Item = Challenge<'a>;

    fn next(&mut self) -> Option<Challenge<'a>> {
        // Taken out first, so that nothing is left of a line that cannot be parsed.
        let line = skip(mem::take(&mut self.0), is_separator);
        let (scheme, rest) = token(line)?;
        let body = skip(rest, |byte| byte == b' ');
        let mut challenge = Challenge { scheme, token68: None, params: &[] };
        if body.len() == rest.len() {
            // Without a space it is a scheme alone.
            self.0 = end(rest)?;
        } else if let Some((token, rest)) = token68(body) {
            challenge.token68 = Some(token);
            self.0 = rest;
        } else {
            let rest = past_params(body)?;
            challenge.params = &body[..body.len() - rest.len()];
            self.0 = rest;
        }
        Some(challenge)
    }
}

impl<'a> Challenge<'a> {
    /// Whether its scheme is this one, in any case.
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme.as_bytes())
    }

    /// Names, in any case, and values.
    pub(super) fn params(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        let mut rest = self.params;
        iter::from_fn(move || {
            let (name, given) = name(skip(rest, is_separator))?;
            let (value, left) = value(given)?;
            rest = left;
            Some((name, value))
        })
    }
}

impl<'a> Value<'a> {
    /// The value without the backslashes that escape its bytes.
    pub(super) fn unescaped(self) -> impl Iterator<Item = u8> + use<'a> {
        let mut bytes = self.0.iter().copied();
        iter::from_fn(move || match bytes.next()? {
            // In a quoted string only: a token has no backslash.
            b'\\' => bytes.next(),
            byte => Some(byte),
        })
    }

    pub(super) fn is(self, text: &str) -> bool {
        self.unescaped().eq(text.bytes())
    }
}

// Each of these functions takes what it is named after from the front of the text, and
// returns the rest.

/// A challenge's parameters, up to the end of the line or the comma after the last.
fn past_params(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    let mut next = body;
    if name(body).is_none() {
        // An element of the list may be empty, even the first.
        rest = end(body)?;
        next = skip(rest, is_separator);
    }
    while let Some((_, given)) = name(next) {
        let (_, left) = value(given)?;
        rest = end(left)?;
        next = skip(rest, is_separator);
    }
    Some(rest)
}

/// A parameter's name and its `=`.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = token(text)?;
    let rest = skip(rest, is_space).strip_prefix(b"=")?;
    Some((name, skip(rest, is_space)))
}

fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (value, rest) = match text.strip_prefix(b"\"") {
        Some(quoted) => quoted_string(quoted)?,
        None => token(text)?,
    };
    Some((Value(value), rest))
}

/// The rest of a quoted string, after its first quote.
fn quoted_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            0..=8 | 10..=31 | 127 => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// A `token68` that reaches to the next comma. `a=b` does not: it is a parameter.
fn token68(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let padding = skip(text, is_part);
    let rest = skip(padding, |byte| byte == b'=');
    let token = &text[..text.len() - rest.len()];
    (padding.len() < text.len()).then_some((token, end(rest)?))
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest =
        skip(text, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    (rest.len() < text.len()).then(|| text.split_at(text.len() - rest.len()))
}

/// The end of a list's element: that of the line, or a comma, which is not taken.
fn end(text: &[u8]) -> Option<&[u8]> {
    let rest = skip(text, is_space);
    matches!(rest.first(), None | Some(b',')).then_some(rest)
}

fn skip(text: &[u8], skipped: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !skipped(*byte)).unwrap_or(text.len());
    &text[end..]
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Elements of a list may be empty, so several commas are one.
fn is_separator(byte: u8) -> bool {
    is_space(byte) || byte == b','
}

#[cfg(fuzzing)]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
