//! What a sealed cookie says ([`Contents`]), as bytes.
//!
//! ```text
//! id (16) | generation | begun | minted | written | end | access token | refresh token | fields
//! ```
//!
//! Numbers are LEB128, moments are seconds since the Unix epoch, and the access token's end is in
//! milliseconds and one more, with 0 for none. Nothing is compressed: what a user has chosen, a name say,
//! stands beside secrets, and a length that depends on both would tell of the secrets (CRIME). A token
//! that is base64url, as a JWT is, stands there as the bytes that it encodes: that depends on nothing
//! else, and keeps the cookie from being base64 of base64.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;

use crate::tokens::{
    Generation, RESERVED_DEADLINE, RESERVED_IDENTITY, RESERVED_MINTED_FOR, Tokens,
};

/// The random part of a session's cookie, which never changes. It is no secret: the seal is.
pub(super) type Id = [u8; 16];

pub(super) struct Contents {
    pub(super) id: Id,
    pub(super) generation: Generation,
    /// When the user signed in.
    pub(super) begun: u64,
    /// When these tokens were minted, at the latest.
    pub(super) minted: u64,
    /// When this cookie was written.
    pub(super) written: u64,
    /// Who it is and when the session ends are among their fields.
    pub(super) tokens: Tokens,
}

/// Fields that have a number instead of their name, which is where they stand here. It is part of the
/// format: add at the end.
const FIELDS: [&str; 4] = [RESERVED_IDENTITY, RESERVED_DEADLINE, RESERVED_MINTED_FOR, "scope"];

impl Contents {
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let tokens = &self.tokens;
        let refresh_token = tokens.refresh_token();
        let texts = tokens.extras().map(|(name, value)| name.len() + value.len() + 8);
        let refresh_len = refresh_token.map_or(0, str::len);
        // Enough for all of it: a vector that grows leaves copies of secrets behind.
        let most = 160 + tokens.access_token().len() + refresh_len + texts.sum::<usize>();
        let mut bytes = Writer(Zeroizing::new(Vec::with_capacity(most)));
        bytes.0.extend_from_slice(&self.id);
        for number in [self.generation.get(), self.begun, self.minted, self.written] {
            bytes.number(number);
        }
        let end = tokens.expires_at().map_or(0, |at| millis(at).saturating_add(1));
        bytes.number(end);
        bytes.token(tokens.access_token());
        bytes.number(refresh_token.is_some().into());
        refresh_token.into_iter().for_each(|token| bytes.token(token));
        for (name, value) in tokens.extras() {
            match FIELDS.iter().position(|field| *field == name) {
                Some(at) => bytes.number(at as u64 + 1),
                None => {
                    bytes.number(0);
                    bytes.text(name);
                }
            }
            bytes.text(value);
        }
        bytes.0
    }

    /// `None`: another version of this program has written it, or another program.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let mut rest = Reader(rest);
        let generation = Generation::new(rest.number()?);
        let (begun, minted, written) = (rest.number()?, rest.number()?, rest.number()?);
        let end = rest.number()?;
        let mut tokens = Tokens::new(rest.token()?);
        if rest.number()? == 1 {
            tokens = tokens.with_refresh_token(rest.token()?);
        }
        if let Some(millis) = end.checked_sub(1) {
            let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
            tokens = tokens.with_expires_at(end);
        }
        while !rest.0.is_empty() {
            let name = match rest.number()?.checked_sub(1) {
                Some(at) => *FIELDS.get(usize::try_from(at).ok()?)?,
                None => rest.text()?,
            };
            tokens = tokens.with_extra(name, rest.text()?);
        }
        Some(Self { id: *id, generation, begun, minted, written, tokens })
    }
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Twice the length, and the text; or twice the number of its parts between dots and one more, and
    /// of each what it encodes.
    fn token(&mut self, token: &str) {
        let part = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok().map(Zeroizing::new);
        match token.split('.').map(part).collect::<Option<Vec<_>>>() {
            Some(parts) => {
                self.number((parts.len() as u64) << 1 | 1);
                for part in parts {
                    self.number(part.len() as u64);
                    self.0.extend_from_slice(&part);
                }
            }
            None => {
                self.number((token.len() as u64) << 1);
                self.0.extend_from_slice(token.as_bytes());
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, len: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.number()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    fn token(&mut self) -> Option<String> {
        let number = self.number()?;
        if number & 1 == 0 {
            return Some(std::str::from_utf8(self.bytes(number >> 1)?).ok()?.to_owned());
        }
        let mut token = String::with_capacity(self.0.len().div_ceil(3) * 4);
        for part in 0..number >> 1 {
            if part > 0 {
                token.push('.');
            }
            let len = self.number()?;
            BASE64_URL_SAFE_NO_PAD.encode_string(self.bytes(len)?, &mut token);
        }
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str =
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTkwMDAwMDAwMH0.c2lnbmF0dXJl";

    fn contents(tokens: Tokens) -> Contents {
        Contents {
            id: [7; 16],
            generation: Generation::new(1_790_000_000_123),
            begun: 1_790_000_000,
            minted: 0,
            written: u64::MAX,
            tokens,
        }
    }

    fn round_trip(tokens: Tokens) -> usize {
        let before = contents(tokens);
        let bytes = before.to_bytes();
        let after = Contents::parse(&bytes).unwrap();
        let numbers = |it: &Contents| (it.id, it.generation, it.begun, it.minted, it.written);
        assert_eq!(numbers(&after), numbers(&before));
        assert_eq!(after.tokens, before.tokens);
        bytes.len()
    }

    #[test]
    fn what_is_written_is_read() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        round_trip(Tokens::new(""));
        round_trip(Tokens::new("opaque!").with_refresh_token("r"));
        round_trip(Tokens::new(JWT).with_refresh_token("a.b-c").with_expires_at(end));
        let odd = ["", ".", "..", "a", "aa", "aaa", "AAAA", "AB", "=", "a b", "ä", "a.=.b", "-_-_"];
        for token in odd {
            round_trip(Tokens::new(format!("x{token}")).with_refresh_token(token));
        }
        let identity = r#"{"iss":"https://id","sub":"1"}"#;
        round_trip(
            Tokens::new("a")
                .with_extra(RESERVED_IDENTITY, identity)
                .with_extra(RESERVED_DEADLINE, "1790000000")
                .with_extra("scope", "a b")
                .with_extra("of_its_own", "ä"),
        );
    }

    #[test]
    fn a_jwt_takes_the_room_of_what_it_encodes() {
        let room = |token: &str| round_trip(Tokens::new(token)) - round_trip(Tokens::new(""));
        assert!(room(JWT) < JWT.len() * 4 / 5, "{}", room(JWT));
        assert_eq!(room("opaque!!"), room("opaque!") + 1);
    }

    /// A process that has a key may be of another version.
    #[test]
    fn nothing_else_is_read_and_nothing_panics() {
        let bytes =
            contents(Tokens::new(JWT).with_refresh_token("r").with_extra("a", "b")).to_bytes();
        // Without its last field it is whole.
        let field = 1 + 2 + 2;
        for len in (0..bytes.len()).filter(|len| *len != bytes.len() - field) {
            assert!(Contents::parse(&bytes[..len]).is_none(), "{len}");
        }
        for at in 16..bytes.len() {
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = byte;
                let _ = Contents::parse(&changed);
            }
        }
    }
}
